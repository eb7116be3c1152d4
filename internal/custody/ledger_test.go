package custody

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

type counts = [frame.NumCauses]uint64

func key() Key {
	return Key{hub.Origin{Cluster: "store-0001", Node: "a"}, 7, frame.Lane{Signal: frame.Logs, Seq: 1}}
}

func TestTakeJudgesByNumber(t *testing.T) {
	l, k := NewLedger(), key()
	step := func(number, floor uint64, want Verdict) {
		t.Helper()
		if got, loss := l.Take(k, number, floor, counts{}); got != want || loss.Any() {
			t.Fatalf("frame %d, floor %d: verdict %d, loss %+v; want verdict %d and no loss", number, floor, got, loss, want)
		}
	}
	step(1, 1, Deliver)
	step(1, 1, Duplicate)
	step(3, 1, Early)
	step(2, 1, Deliver)
	step(3, 1, Deliver)
	step(2, 1, Duplicate)
}

func TestUnknownOriginBeginsAtItsFloor(t *testing.T) {
	l, k := NewLedger(), key()
	if got, _ := l.Take(k, 500, 400, counts{}); got != Early {
		t.Fatalf("verdict %d; frames 400 to 499 are still at the edge", got)
	}
	if want := l.Wanted(k); want != 400 {
		t.Fatalf("wants %d, not 400", want)
	}
	if got, loss := l.Take(k, 400, 400, counts{}); got != Deliver || loss.Any() {
		t.Fatalf("verdict %d, loss %+v", got, loss)
	}
}

func TestEvictedFramesBecomeANamedGap(t *testing.T) {
	l, k := NewLedger(), key()
	l.Take(k, 1, 1, counts{})
	got, loss := l.Take(k, 5, 5, counts{frame.EvictedSpace: 30})
	want := Loss{From: 2, To: 4, Items: counts{frame.EvictedSpace: 30}}
	if got != Deliver || loss != want {
		t.Fatalf("verdict %d, loss %+v; want %+v", got, loss, want)
	}
	if got, loss := l.Take(k, 6, 5, counts{frame.EvictedSpace: 30}); got != Deliver || loss.Any() {
		t.Fatalf("the same loss is counted twice: %+v (verdict %d)", loss, got)
	}
}

func TestUnexplainedGapIsUnknownUntilALaterFrameExplainsIt(t *testing.T) {
	l, k := NewLedger(), key()
	l.Take(k, 1, 1, counts{})
	if _, loss := l.Take(k, 4, 4, counts{}); loss.Items != (counts{frame.Unknown: 2}) {
		t.Fatalf("loss %+v; want 2 unknown", loss)
	}
	if _, loss := l.Take(k, 5, 4, counts{frame.Corrupt: 10}); loss.Items != (counts{frame.Corrupt: 8}) {
		t.Fatalf("loss %+v; want the 8 corrupt items not yet counted as unknown", loss)
	}
}

// A hub that lost its store, or the latest of it in a power cut, has forgotten
// what it confirmed; the edge let go of that and goes on above it.
func TestWhatTheHubForgotIsNotNamedAsLost(t *testing.T) {
	stale := NewLedger()
	if err := stale.Load(key(), []byte(`{"confirmed":60}`)); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Ledger{"empty": NewLedger(), "stale": stale} {
		if got, loss := l.Take(key(), 130, 110, counts{}); got != Early || loss.Any() {
			t.Fatalf("%s: verdict %d, loss %+v", name, got, loss)
		}
		if got, loss := l.Take(key(), 114, 114, counts{}); got != Deliver || loss.Any() {
			t.Fatalf("%s: verdict %d, loss %+v", name, got, loss)
		}
		if got, loss := l.Take(key(), 118, 118, counts{}); got != Deliver || loss.Items != (counts{frame.Unknown: 3}) {
			t.Fatalf("%s: verdict %d, loss %+v; want 3 unknown", name, got, loss)
		}
	}
}

func TestOnlyStoredNumbersAreConfirmed(t *testing.T) {
	l, k := NewLedger(), key()
	l.Take(k, 1, 1, counts{})
	l.Take(k, 2, 1, counts{})
	l.Accept(k, 2)
	if n, _ := l.Confirmed(k); n != 0 {
		t.Fatalf("confirmed %d before it was stored", n)
	}
	marks := l.Dirty()
	l.Take(k, 3, 1, counts{})
	l.Accept(k, 3)
	l.Stored(marks[0])
	if n, _ := l.Confirmed(k); n != 2 {
		t.Fatalf("confirmed %d; 2 is stored", n)
	}
	if len(l.Dirty()) != 1 {
		t.Fatal("frame 3 was forgotten")
	}
	// A new relay goes on from what was stored.
	next := NewLedger()
	if err := next.Load(k, marks[0].Value); err != nil {
		t.Fatal(err)
	}
	if got, _ := next.Take(k, 2, 1, counts{}); got != Duplicate {
		t.Fatalf("verdict %d on a stored number", got)
	}
	if got, _ := next.Take(k, 3, 1, counts{}); got != Deliver {
		t.Fatalf("verdict %d on the next number", got)
	}
}

func TestBrokenWatermarkIsAnError(t *testing.T) {
	if err := NewLedger().Load(key(), []byte("{")); err == nil {
		t.Fatal("no error")
	}
}

func TestResendIsNotAskedInATightLoop(t *testing.T) {
	l, k, now := NewLedger(), key(), time.Now()
	l.Take(k, 1, 1, counts{})
	if l.AskedWithin(k, time.Second, now) {
		t.Fatal("asked before it was asked")
	}
	if !l.AskedWithin(k, time.Second, now.Add(time.Second/2)) {
		t.Fatal("asked again within the period")
	}
}

// TestEveryFrameIsDeliveredOnceInOrderOrLost lets an edge evict, repeat and go
// back at random, and the relay crash at random; the frames delivered and those
// in gaps are all there are, each once but for what a crash repeats.
func TestEveryFrameIsDeliveredOnceInOrderOrLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const frames, itemsEach = 60, 3
		l, k := NewLedger(), key()
		var saved []byte
		floor, cursor := uint64(1), uint64(1)
		var lost counts
		delivered := make(map[uint64]int)
		inGap := make(map[uint64]bool)
		crashed := false
		lastDelivered, begin := uint64(0), uint64(0) // begin: what was lost before the first contact stands in the counters only
		for step := 0; step < 400 && lastDelivered < frames; step++ {
			switch rapid.IntRange(0, 15).Draw(t, "event") {
			case 0: // go back
				cursor = max(floor, uint64(rapid.IntRange(1, int(cursor)).Draw(t, "back")))
			case 1: // skip: lost in the hub
				cursor = min(cursor+1, frames)
			case 2: // evict
				if floor+2 < frames && rapid.Bool().Draw(t, "evict") {
					if c, _ := l.Confirmed(k); floor > c {
						lost[frame.EvictedSpace] += itemsEach
					}
					floor++
					cursor = max(cursor, floor)
				}
			case 3: // store
				for _, mark := range l.Dirty() {
					saved = mark.Value
					l.Stored(mark)
				}
			case 4: // relay crashes
				if saved != nil && rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
					l = NewLedger()
					if err := l.Load(k, saved); err != nil {
						t.Fatal(err)
					}
					crashed = true
					c, _ := l.Confirmed(k)
					lastDelivered = c
				}
			default:
				if cursor > frames {
					cursor = max(floor, l.Wanted(k))
					continue
				}
				if begin == 0 {
					begin = floor
				}
				verdict, loss := l.Take(k, cursor, floor, lost)
				for n := loss.From; n != 0 && n <= loss.To; n++ {
					inGap[n] = true
				}
				switch verdict {
				case Deliver:
					if cursor <= lastDelivered {
						t.Fatalf("frame %d delivered after %d", cursor, lastDelivered)
					}
					lastDelivered = cursor
					delivered[cursor]++
					l.Accept(k, cursor)
					cursor++
				case Early:
					cursor = l.Wanted(k)
				case Duplicate:
					cursor++
				}
			}
		}
		for n := max(begin, 1); n <= lastDelivered; n++ {
			if delivered[n] == 0 && !inGap[n] {
				t.Fatalf("frame %d is neither delivered nor in a gap", n)
			}
			if delivered[n] > 1 && !crashed {
				t.Fatalf("frame %d delivered %d times without a crash", n, delivered[n])
			}
		}
	})
}
