package custody

import (
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func key() Key {
	return Key{hub.Origin{Cluster: "store-0001", Node: "a"}, 7, frame.Lane{Signal: frame.Logs, Seq: 1}}
}

// ten is a frame of ten items in a lane of such frames.
func ten(number, floor uint64, lost ...Counts) Frame {
	f := Frame{Number: number, Floor: floor, Items: 10, Before: 10 * (number - 1)}
	if len(lost) > 0 {
		f.Lost = lost[0]
	}
	return f
}

// deliver takes and accepts, and returns what that made known, stored.
func deliver(t *testing.T, l *Ledger, k Key, f Frame) []Report {
	t.Helper()
	if got := l.Take(k, f, now); got != Deliver {
		t.Fatalf("frame %d: verdict %d", f.Number, got)
	}
	version := l.Accept(k, f.Number, now)
	if l.Due(k, f.Number, version) {
		t.Fatalf("frame %d is due before it was stored", f.Number)
	}
	_, reports, _ := store(l)
	if !l.Due(k, f.Number, version) {
		t.Fatalf("frame %d is stored and not due", f.Number)
	}
	return reports
}

// store makes everything durable, as the receiver does.
func store(l *Ledger) (confirmed []Key, reports []Report, values map[Spool][]byte) {
	values = make(map[Spool][]byte)
	for _, record := range l.Dirty(now, 0, 0) {
		values[record.Spool] = record.Value
		c, r := l.Stored(record)
		confirmed, reports = append(confirmed, c...), append(reports, r...)
	}
	return confirmed, reports, values
}

func restart(t *testing.T, l *Ledger) *Ledger {
	t.Helper()
	next := NewLedger()
	l.StoreAgain()
	_, _, values := store(l)
	for id, value := range values {
		if err := next.Load(id, value, now); err != nil {
			t.Fatal(err)
		}
	}
	return next
}

func total(reports []Report) (lost, recovered Counts) {
	for _, r := range reports {
		for cause := range r.Lost {
			lost[cause] += r.Lost[cause]
			recovered[cause] += r.Recovered[cause]
		}
	}
	return lost, recovered
}

func wantLost(t *testing.T, what string, reports []Report, want Counts) {
	t.Helper()
	if lost, recovered := total(reports); lost != want || recovered != (Counts{}) {
		t.Fatalf("%s: lost %v, recovered %v; want %v lost", what, lost, recovered, want)
	}
}

func TestTakeJudgesByNumber(t *testing.T) {
	l, k := NewLedger(), key()
	step := func(number, floor uint64, want Verdict) {
		t.Helper()
		if got := l.Take(k, ten(number, floor), now); got != want {
			t.Fatalf("frame %d, floor %d: verdict %d; want %d", number, floor, got, want)
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
	if got := l.Take(k, ten(500, 400), now); got != Early {
		t.Fatalf("verdict %d; frames 400 to 499 are still at the edge", got)
	}
	if want := l.Wanted(k); want != 400 {
		t.Fatalf("wants %d, not 400", want)
	}
	wantLost(t, "what was confirmed before", deliver(t, l, k, ten(400, 400)), Counts{})
}

func TestEvictedFramesBecomeANamedGapOfExactlyTheirItems(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	reports := deliver(t, l, k, ten(5, 5, Counts{frame.EvictedSpace: 30}))
	wantLost(t, "gap", reports, Counts{frame.EvictedSpace: 30})
	if g := reports[0].Gap; g.From != 2 || g.To != 4 {
		t.Fatalf("gap %d to %d; want 2 to 4", g.From, g.To)
	}
	wantLost(t, "the next frame", deliver(t, l, k, ten(6, 5, Counts{frame.EvictedSpace: 30})), Counts{})
}

// A full spool lets go of frames that wait on the hub. They arrive all the same.
func TestWhatCameThroughIsNotNamedAlthoughTheEdgeCountsIt(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	evicted := Counts{frame.EvictedSpace: 20}
	for n := uint64(2); n <= 4; n++ {
		wantLost(t, "nothing is missing", deliver(t, l, k, ten(n, min(n, 4), evicted)), Counts{})
	}
	wantLost(t, "nothing is missing", deliver(t, l, k, ten(5, 4, evicted)), Counts{})
	evicted[frame.Corrupt] = 30
	wantLost(t, "the corrupt ones alone", deliver(t, l, k, ten(9, 9, evicted)), Counts{frame.Corrupt: 30})
}

func TestAnUnexplainedGapIsUnknownUntilTheEdgeExplainsIt(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	wantLost(t, "gap", deliver(t, l, k, ten(4, 4)), Counts{frame.Unknown: 20})
	reports := deliver(t, l, k, ten(5, 4, Counts{frame.Corrupt: 15}))
	if lost, recovered := total(reports); lost != (Counts{frame.Corrupt: 15}) || recovered != (Counts{frame.Unknown: 15}) {
		t.Fatalf("lost %v, recovered %v; 15 of the unknown were corrupt", lost, recovered)
	}
	if g := reports[0].Gap; g.Items != (Counts{frame.Corrupt: 15, frame.Unknown: 5}) {
		t.Fatalf("the gap says %v", g.Items)
	}
}

func TestItemsThatFitNoFrameAreCountedOnce(t *testing.T) {
	l, k := NewLedger(), key()
	wantLost(t, "first", deliver(t, l, k, ten(1, 1, Counts{frame.TooLarge: 2})), Counts{frame.TooLarge: 2})
	l = restart(t, l)
	wantLost(t, "second", deliver(t, l, k, ten(2, 1, Counts{frame.TooLarge: 3})), Counts{frame.TooLarge: 1})
}

// What an edge lost before anybody heard of it is named; what was lost before the
// hub's own loss was named then, but for what came after the frame was written.
func TestAtFirstSightOnlyNewLossesAreNamed(t *testing.T) {
	lost := Counts{frame.EvictedSpace: 40, frame.Corrupt: 20, frame.TooLarge: 3}
	wantLost(t, "a new origin", deliver(t, NewLedger(), key(), ten(7, 7, lost)), lost)
	f := ten(8, 8, lost) // 70 items before, 60 lost: 10 were confirmed
	f.Written = lost
	wantLost(t, "a hub that lost its store", deliver(t, NewLedger(), key(), f), Counts{})
	f.Written = Counts{frame.EvictedSpace: 15, frame.Corrupt: 20, frame.TooLarge: 3}
	wantLost(t, "losses since", deliver(t, NewLedger(), key(), f), Counts{frame.EvictedSpace: 25})
}

// A hub that lost the latest of its store in a power cut has forgotten what it
// confirmed; the edge let go of that and goes on above it.
func TestWhatTheHubForgotIsNotNamedAsLost(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	l = restart(t, l)
	if got := l.Take(k, ten(130, 110), now); got != Early {
		t.Fatalf("verdict %d", got)
	}
	wantLost(t, "forgotten", deliver(t, l, k, ten(114, 114)), Counts{})
	wantLost(t, "gap", deliver(t, l, k, ten(118, 118)), Counts{frame.Unknown: 30})
}

func TestALossIsToldOnlyOnceItIsStored(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	l.Take(k, ten(4, 4, Counts{frame.EvictedAge: 20}), now)
	l.Accept(k, 4, now)
	records := l.Dirty(now, 0, 0)
	// The relay is killed here: its successor finds the same loss, and tells it once.
	next := NewLedger()
	if err := next.Load(records[0].Spool, records[0].Value, now); err != nil {
		t.Fatal(err)
	}
	if got := next.Take(k, ten(4, 4, Counts{frame.EvictedAge: 20}), now); got != Duplicate {
		t.Fatalf("stored, and verdict %d", got)
	}
	if untold := next.Untold(10); len(untold) != 1 || untold[0].Gap.Items != (Counts{frame.EvictedAge: 20}) {
		t.Fatalf("untold %+v", untold)
	}
	_, reports := l.Stored(records[0])
	wantLost(t, "stored", reports, Counts{frame.EvictedAge: 20})
}

func TestAFrameThatArrivesAfterItsGapIsDeliveredOnceAndCorrectsIt(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	lost := Counts{frame.EvictedSpace: 30}
	if got := l.Take(k, ten(5, 5, lost), now); got != Deliver {
		t.Fatalf("verdict %d", got)
	}
	if got := l.Take(k, ten(3, 1), now); got != Undecided {
		t.Fatalf("verdict %d on a frame whose gap is not declared", got)
	}
	l.Accept(k, 5, now)
	store(l)
	if got := l.Take(k, ten(3, 1), now); got != Late {
		t.Fatalf("verdict %d", got)
	}
	if got := l.Take(k, ten(3, 1), now); got != Duplicate {
		t.Fatalf("verdict %d on its copy", got)
	}
	version := l.Return(k, 3, 10, now)
	if l.Due(k, 3, version) {
		t.Fatal("due before the correction is stored")
	}
	_, reports, _ := store(l)
	if lost, recovered := total(reports); lost != (Counts{}) || recovered != (Counts{frame.EvictedSpace: 10}) {
		t.Fatalf("lost %v, recovered %v", lost, recovered)
	}
	l = restart(t, l)
	if got := l.Take(k, ten(3, 1), now); got != Duplicate {
		t.Fatalf("verdict %d after a restart", got)
	}
	if got := l.Take(k, ten(2, 1), now); got != Late {
		t.Fatalf("verdict %d on another of the gap", got)
	}
}

func TestFramesRefusedOneAfterAnotherAreOneGapUntilItIsTold(t *testing.T) {
	l, k := NewLedger(), key()
	refuse := func(n uint64) {
		l.Take(k, ten(n, 1), now)
		l.Refuse(k, n, frame.Rejected, now)
	}
	refuse(1)
	refuse(2)
	_, reports, _ := store(l)
	wantLost(t, "refused", reports, Counts{frame.Rejected: 20})
	untold := l.Untold(10)
	if len(untold) != 1 || untold[0].Gap.From != 1 || untold[0].Gap.To != 2 || !untold[0].Gap.Kept {
		t.Fatalf("untold %+v", untold)
	}
	refuse(3)
	l.Told(untold)
	store(l)
	if untold := l.Untold(10); len(untold) != 1 || untold[0].Gap.From != 3 {
		t.Fatalf("untold %+v", untold)
	}
	if got := l.Take(k, ten(2, 1), now); got != Duplicate {
		t.Fatalf("verdict %d on a frame that was refused", got)
	}
}

func TestTheEndOfALaneThatTheEdgeLostIsNamedOnItsWord(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	said := HelloLane{Lane: "logs/1", Floor: 6, Next: 6, Before: 50, Shipped: 3, Lost: []uint64{40}}
	_, suspects := l.Hear(k.Spool(), []HelloLane{said}, now)
	if len(suspects) != 1 || suspects[0].Taken != 1 {
		t.Fatalf("suspects %+v", suspects)
	}
	l.Take(k, ten(2, 1), now)
	l.Empty(k, 6, 50, suspects[0].Lost, now)
	if _, reports, _ := store(l); len(reports) > 0 {
		t.Fatalf("named while a frame is being delivered: %+v", reports)
	}
	l.Accept(k, 2, now)
	l.Empty(k, 6, 50, suspects[0].Lost, now)
	confirmed, reports, _ := store(l)
	wantLost(t, "the end", reports, Counts{frame.EvictedSpace: 30})
	if n, _ := l.Confirmed(k); n != 5 || len(confirmed) != 1 {
		t.Fatalf("confirmed %d (%v); the edge cannot let go of the lane", n, confirmed)
	}
	if _, suspects := l.Hear(k.Spool(), []HelloLane{said}, now); len(suspects) != 0 {
		t.Fatalf("suspect still: %+v", suspects)
	}
	wantLost(t, "the lane goes on", deliver(t, l, k, ten(6, 6, Counts{frame.EvictedSpace: 40})), Counts{})
}

func TestRetiredLanesAreForgottenAndTheirFramesDuplicates(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	deliver(t, l, k, ten(3, 3))
	for seq := uint32(2); seq <= 100; seq++ {
		k.Lane.Seq = seq
		deliver(t, l, k, ten(1, 1))
		l.Hear(k.Spool(), []HelloLane{{Lane: k.Lane.String(), Floor: 2, Next: 2, Before: 10}}, now)
	}
	_, _, values := store(l)
	value := values[k.Spool()]
	if len(value) > 500 {
		t.Fatalf("%d bytes are kept for 99 retired lanes", len(value))
	}
	if gaps, err := Gaps(value); err != nil || len(gaps) != 1 || gaps[0].Lane.Seq != 1 {
		t.Fatalf("gaps of retired lanes: %+v (%v)", gaps, err)
	}
	l = restart(t, l)
	k.Lane.Seq = 50
	if got := l.Take(k, ten(1, 1), now); got != Duplicate || !l.Due(k, 1, 0) {
		t.Fatalf("verdict %d on a retired lane", got)
	}
}

// An edge that lets go of a lane before the relay has had, or named, all of it.
func TestALaneIsNotRetiredBeforeItsEndIsKnown(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	next := HelloLane{Lane: "logs/2", Floor: 1, Next: 1}
	l.Hear(k.Spool(), []HelloLane{{Lane: "logs/1", Floor: 2, Next: 4, Before: 30, Shipped: 1, Lost: []uint64{0, 0, 20}}, next}, now)
	_, suspects := l.Hear(k.Spool(), []HelloLane{next}, now)
	if len(suspects) != 1 || suspects[0].Lane.Floor != 4 {
		t.Fatalf("suspects %+v", suspects)
	}
	l.Empty(k, 4, 30, suspects[0].Lost, now)
	_, reports, _ := store(l)
	wantLost(t, "the end", reports, Counts{frame.Corrupt: 20})
	if _, suspects := l.Hear(k.Spool(), []HelloLane{next}, now); len(suspects) != 0 {
		t.Fatalf("suspects %+v", suspects)
	}
	if got := l.Take(k, ten(2, 1), now); got != Duplicate {
		t.Fatalf("verdict %d; the lane should be retired", got)
	}
}

func TestASpoolNobodyHeardOfForAMonthIsForgotten(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	if gone := l.Forget(now.Add(forgottenAfter)); len(gone) != 0 {
		t.Fatalf("gone too early: %v", gone)
	}
	if gone := l.Forget(now.Add(forgottenAfter + time.Second)); len(gone) != 1 || gone[0] != k.Spool() {
		t.Fatalf("gone: %v", gone)
	}
}

func TestAnIdleSpoolThatSaysHelloIsNotForgottenByTheNextRelay(t *testing.T) {
	l, k := NewLedger(), key()
	deliver(t, l, k, ten(1, 1))
	later := now.Add(forgottenAfter - time.Hour)
	l.Hear(k.Spool(), nil, later)
	_, _, values := store(l)
	l = NewLedger()
	if err := l.Load(k.Spool(), values[k.Spool()], later); err != nil {
		t.Fatal(err)
	}
	if gone := l.Forget(later.Add(forgottenAfter - time.Hour)); len(gone) != 0 {
		t.Fatalf("gone: %v", gone)
	}
}

func TestOneValueIsNotWrittenAgainWithinItsPace(t *testing.T) {
	l, k := NewLedger(), key()
	for _, lane := range []frame.Signal{frame.Logs, frame.Metrics, frame.Traces} {
		k.Lane.Signal = lane
		l.Take(k, ten(1, 1), now)
		l.Accept(k, 1, now)
	}
	if records := l.Dirty(now, time.Second, 0); len(records) != 1 {
		t.Fatalf("%d values for one spool's lanes", len(records))
	}
	if records := l.Dirty(now.Add(time.Second/2), time.Second, 0); len(records) != 0 {
		t.Fatal("again within the pace")
	}
	if records := l.Dirty(now.Add(time.Second/2), time.Second, 1); len(records) != 1 {
		t.Fatal("held back although there is nothing else to write")
	}
	if records := l.Dirty(now.Add(2*time.Second), time.Second, 0); len(records) != 1 {
		t.Fatal("forgotten, although it was never said to be stored")
	}
}

func TestOnlyStoredNumbersAreConfirmed(t *testing.T) {
	l, k := NewLedger(), key()
	l.Take(k, ten(1, 1), now)
	l.Take(k, ten(2, 1), now)
	l.Accept(k, 2, now)
	if n, _ := l.Confirmed(k); n != 0 {
		t.Fatalf("confirmed %d before it was stored", n)
	}
	records := l.Dirty(now, 0, 0)
	l.Take(k, ten(3, 1), now)
	l.Accept(k, 3, now)
	l.Stored(records[0])
	if n, _ := l.Confirmed(k); n != 2 {
		t.Fatalf("confirmed %d; 2 is stored", n)
	}
	if len(l.Dirty(now, 0, 0)) != 1 {
		t.Fatal("frame 3 was forgotten")
	}
	next := NewLedger()
	if err := next.Load(k.Spool(), records[0].Value, now); err != nil {
		t.Fatal(err)
	}
	if got := next.Take(k, ten(2, 1), now); got != Duplicate {
		t.Fatalf("verdict %d on a stored number", got)
	}
	if got := next.Take(k, ten(3, 1), now); got != Deliver {
		t.Fatalf("verdict %d on the next number", got)
	}
}

func TestBrokenWatermarkIsAnError(t *testing.T) {
	if err := NewLedger().Load(key().Spool(), []byte("{"), now); err == nil {
		t.Fatal("no error")
	}
}

func TestResendIsNotAskedInATightLoop(t *testing.T) {
	l, k := NewLedger(), key()
	l.Take(k, ten(1, 1), now)
	if l.AskedWithin(k, time.Second, now) {
		t.Fatal("asked before it was asked")
	}
	if !l.AskedWithin(k, time.Second, now.Add(time.Second/2)) {
		t.Fatal("asked again within the period")
	}
}

// An item too large for a frame leaves no hole: where no frame follows it, the
// hello alone tells of it.
func TestItemsTooLargeAtTheEndOfALane(t *testing.T) {
	lost := Counts{frame.TooLarge: 3}
	said := func(next uint64) []HelloLane {
		return []HelloLane{{Lane: "logs/1", Floor: 1, Next: next, Before: 10 * (next - 1), Lost: lost[:]}}
	}
	for name, frames := range map[string]uint64{"no frame at all": 0, "behind the last frame": 2} {
		for _, before := range []bool{false, true} {
			l, k := NewLedger(), key()
			var reports []Report
			if before { // the edge speaks, sends what it has, and lets the lane go
				l.Hear(k.Spool(), said(frames+1), now)
			}
			for n := range frames {
				reports = append(reports, deliver(t, l, k, ten(n+1, 1))...)
			}
			if !before {
				l.Hear(k.Spool(), said(frames+1), now)
			}
			_, more, _ := store(l)
			wantLost(t, name, append(reports, more...), lost)

			l = restart(t, l)
			l.Hear(k.Spool(), said(frames+1), now)
			_, reports, _ = store(l)
			wantLost(t, name+", again", reports, Counts{})
			f := ten(frames+1, 1, lost)
			f.Written = lost
			wantLost(t, name+", and a frame", deliver(t, l, k, f), Counts{})
		}
	}
}
