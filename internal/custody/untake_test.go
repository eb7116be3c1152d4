package custody

import (
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
)

// take has the ledger take frames, which none of them forbids.
func take(t *testing.T, l *Ledger, frames ...Frame) {
	t.Helper()
	for _, f := range frames {
		if got := l.Take(key(), f, now); got != Deliver {
			t.Fatalf("frame %d: verdict %d; want deliver", f.Number, got)
		}
	}
}

func TestWhatIsLetGoOfComesAgainInItsOrder(t *testing.T) {
	l := NewLedger()
	take(t, l, ten(1, 1), ten(2, 1), ten(3, 1), ten(4, 1))
	l.Untake(key(), 3)
	if !l.Holds(key(), 2) || l.Holds(key(), 3) || l.Holds(key(), 4) {
		t.Fatal("what is held is not 1 and 2")
	}
	if taken, wanted := l.Taken(key()), l.Wanted(key()); taken != 2 || wanted != 3 {
		t.Fatalf("taken to %d, wants %d; want 2 and 3", taken, wanted)
	}
	if got := l.Take(key(), ten(4, 1), now); got != Early {
		t.Fatalf("4 before 3: verdict %d; want early", got)
	}
	l.Accept(key(), 2, now)
	take(t, l, ten(3, 1))
	l.Untake(key(), 3)
	l.Untake(key(), 2) // accepted: nothing to forget
	take(t, l, ten(3, 1), ten(4, 1))
	l.Accept(key(), 4, now)
	confirmed, reports, _ := store(l)
	if len(reports) > 0 || len(confirmed) == 0 {
		t.Fatalf("confirmed %v, lost %+v", confirmed, reports)
	}
	if told, _ := l.Confirmed(key()); told != 4 {
		t.Fatalf("confirmed to %d; want 4", told)
	}
}

// What is lost in front of it is named when it is accepted, once.
func TestAGapInFrontOfWhatIsLetGoOfIsNamedOnce(t *testing.T) {
	l := NewLedger()
	deliver(t, l, key(), ten(1, 1))
	lost := Counts{frame.EvictedSpace: 20}
	take(t, l, ten(4, 4, lost))
	l.Untake(key(), 4)
	wantLost(t, "a gap", deliver(t, l, key(), ten(4, 4, lost)), lost)
}

func TestALateFrameThatIsLetGoOfIsStillLate(t *testing.T) {
	l := NewLedger()
	deliver(t, l, key(), ten(1, 1))
	deliver(t, l, key(), ten(3, 3, Counts{frame.EvictedSpace: 10}))
	for range 2 {
		if got := l.Take(key(), ten(2, 1), now); got != Late {
			t.Fatalf("verdict %d; want late", got)
		}
		if !l.Holds(key(), 2) {
			t.Fatal("it is not held")
		}
		l.Untake(key(), 2)
	}
}

// A lane that begins as of now begins with the first frame that comes, also when that
// has to come twice: it must not begin with the second.
func TestALaneThatBeginsAsOfNowWaitsForTheFrameItBeganWith(t *testing.T) {
	l := joined(t, elder(t, 5), true)
	take(t, l, ten(8, 1), ten(9, 1))
	l.Untake(key(), 8)
	if got := l.Take(key(), ten(9, 1), now); got != Early {
		t.Fatalf("9 before 8: verdict %d; want early", got)
	}
	if want := l.Wanted(key()); want != 8 {
		t.Fatalf("wants %d; want 8", want)
	}
	l = again(t, l)
	wantLost(t, "what was others'", deliver(t, l, key(), ten(8, 1)), Counts{})
	wantLost(t, "the next", deliver(t, l, key(), ten(9, 1)), Counts{})
	if told, _ := l.Confirmed(key()); told != 9 {
		t.Fatalf("confirmed to %d; want 9", told)
	}
}

func TestALaneThatBeginsWithWhatTheHubHoldsWaitsBehindTheSeed(t *testing.T) {
	l := joined(t, elder(t, 5), false)
	take(t, l, ten(6, 1))
	l.Untake(key(), 6)
	if got := l.Take(key(), ten(7, 1), now); got != Early {
		t.Fatalf("7 before 6: verdict %d; want early", got)
	}
	wantLost(t, "the first", deliver(t, l, key(), ten(6, 1)), Counts{})
	wantLost(t, "the next", deliver(t, l, key(), ten(7, 1)), Counts{})
}
