package custody

import (
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// refuse takes and refuses frames of ten items.
func refuse(t *testing.T, l *Ledger, k Key, numbers ...uint64) {
	t.Helper()
	for _, number := range numbers {
		if got := l.Take(k, ten(number, 1), now); got != Deliver {
			t.Fatalf("frame %d: verdict %d", number, got)
		}
		l.Refuse(k, number, frame.Rejected, now)
	}
	store(l)
}

func wantVerdict(t *testing.T, what string, got, want Verdict) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: verdict %d, want %d", what, got, want)
	}
}

// wantBack replays a frame and checks what that made known.
func wantBack(t *testing.T, l *Ledger, k Key, number uint64, want Counts) {
	t.Helper()
	wantVerdict(t, "a replay", l.Replay(k, number), Late)
	version := l.Replayed(k, number, 10, now)
	if (version != 0) != (want != Counts{}) {
		t.Fatalf("frame %d: version %d with %v recovered", number, version, want)
	}
	_, reports, _ := store(l)
	if lost, recovered := total(reports); lost != (Counts{}) || recovered != want {
		t.Fatalf("frame %d: lost %v, recovered %v; want %v recovered", number, lost, recovered, want)
	}
}

func TestAReplayedFrameIsRecoveredOnce(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	refuse(t, l, k, 2, 3, 4)
	deliver(t, l, k, ten(5, 1))
	for _, restarted := range []bool{false, true} {
		number := uint64(3)
		if restarted {
			l, number = restart(t, l), 2
		}
		wantVerdict(t, "a repeat that nobody asked for", l.Take(k, ten(number, 1), now), Duplicate)
		wantBack(t, l, k, number, Counts{frame.Rejected: 10})
		wantVerdict(t, "a second replay", l.Replay(k, number), Duplicate)
	}
	l = restart(t, l)
	wantVerdict(t, "a second replay after a restart", l.Replay(k, 3), Duplicate)
	if number, _ := l.Confirmed(k); number != 5 {
		t.Fatalf("confirmed %d, want 5", number)
	}
	wantVerdict(t, "the next frame", l.Take(k, ten(6, 1), now), Deliver)
}

func TestAFrameIsReplayedOnceAtATime(t *testing.T) {
	l, k := NewLedger(), key()
	refuse(t, l, k, 1)
	wantVerdict(t, "a replay", l.Replay(k, 1), Late)
	wantVerdict(t, "a replay meanwhile", l.Replay(k, 1), Undecided)
}

func TestAFrameThatIsRefusedAgainStaysLostAndMayComeAgain(t *testing.T) {
	l, k := NewLedger(), key()
	refuse(t, l, k, 1, 2)
	for range 2 {
		wantVerdict(t, "a replay", l.Replay(k, 2), Late)
		if version := l.Replayed(k, 2, 0, now); version != 0 {
			t.Fatalf("version %d, want 0: nothing has changed", version)
		}
		if _, reports, _ := store(l); len(reports) != 0 {
			t.Fatalf("reports %v", reports)
		}
	}
	wantBack(t, l, k, 2, Counts{frame.Rejected: 10})
}

func TestAReplayOfARetiredLaneIsRecovered(t *testing.T) {
	l, k := NewLedger(), key()
	refuse(t, l, k, 1)
	next := k
	next.Lane.Seq++
	l.Hear(k.Spool(), []HelloLane{{Lane: next.Lane.String(), Floor: 1, Next: 1}}, now)
	store(l)
	if _, known := l.Confirmed(k); known {
		t.Fatal("the lane is not retired")
	}
	wantBack(t, l, k, 1, Counts{frame.Rejected: 10})
	wantVerdict(t, "a second replay", restart(t, l).Replay(k, 1), Duplicate)
}

func TestAReplayOfAForgottenRefusalPassesAndIsNotCounted(t *testing.T) {
	l, k := NewLedger(), key()
	wantBack(t, l, k, 9, Counts{})
	deliver(t, l, k, ten(1, 1))
	wantBack(t, l, k, 1, Counts{})
	other := Key{hub.Origin{Cluster: "store-0002", Node: "a"}, 8, k.Lane}
	wantBack(t, l, other, 1, Counts{})
	wantVerdict(t, "the first frame of a lane of which only replays came", l.Take(other, ten(1, 1), now), Deliver)
}
