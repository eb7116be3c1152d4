package custody

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// spoolsOf counts the spools that a ledger knows of an origin.
func spoolsOf(l *Ledger, origin hub.Origin) (n int) {
	for _, id := range l.Spools() {
		if id.Origin == origin {
			n++
		}
	}
	return n
}

func TestOfAnOriginsManySpoolsThoseLongUnheardOfAreForgotten(t *testing.T) {
	l, other := NewLedger(), key()
	other.Origin.Node = "b"
	deliver(t, l, other, ten(1, 1))
	of := func(epoch int) Key { k := key(); k.Epoch = frame.Epoch(epoch); return k }
	at := now
	accept := func(epoch int) {
		t.Helper()
		at = at.Add(time.Second)
		if verdict := l.Take(of(epoch), ten(1, 1), at); verdict != Deliver {
			t.Fatalf("epoch %d: verdict %d", epoch, verdict)
		}
		l.Accept(of(epoch), 1, at)
	}
	const first, last = 100, 100 + 3*MaxSpools
	l.Take(of(1), ten(1, 1), at) // its frame stays in hands
	accept(2)                    // heard of again later
	for epoch := first; epoch < last; epoch++ {
		accept(epoch)
		store(l)
	}
	l.Hear(of(2).Spool(), nil, at.Add(time.Second))
	accept(last) // not stored
	gone := l.Crowded(1)
	if len(gone.Spools) != 1 || gone.Spools[0] != of(first).Spool() {
		t.Fatalf("one may be forgotten: %v", gone.Spools)
	}
	gone = l.Crowded(1000)
	if n := spoolsOf(l, key().Origin); n != MaxSpools {
		t.Errorf("%d spools are left; want %d", n, MaxSpools)
	}
	for _, epoch := range []int{1, 2, last, last - 1} {
		if !l.Knows(of(epoch).Spool()) {
			t.Errorf("epoch %d is forgotten", epoch)
		}
	}
	if !slices.Contains(gone.Spools, of(first+1).Spool()) {
		t.Error("the one unheard of for longest is still there")
	}
	if !l.Knows(other.Spool()) {
		t.Error("another origin's spool is forgotten")
	}
	if again := l.Crowded(1000); len(again.Spools) != 0 {
		t.Errorf("forgotten twice: %v", again.Spools)
	}
	l.Accept(of(1), 1, at) // what was in hands ends as always
	if number, known := l.Confirmed(of(1)); !known || number != 0 {
		t.Errorf("confirmed %d before it is stored", number)
	}
}

func TestSpoolsThatAreNoMoreThanAWordGoFirst(t *testing.T) {
	l := NewLedger()
	deliver(t, l, key(), ten(1, 1))
	for epoch := range 10 * MaxSpools {
		l.Hear(Spool{key().Origin, frame.Epoch(1000 + epoch)}, []HelloLane{{Lane: "logs/1", Floor: 1, Next: 1}}, now.Add(time.Hour))
	}
	l.Crowded(0)
	if n := spoolsOf(l, key().Origin); n != MaxSpools || !l.Knows(key().Spool()) {
		t.Errorf("%d spools are left; the one with data: %v", n, l.Knows(key().Spool()))
	}
}

func TestASpoolsLanesAreBoundedAndNoneInHandsIsForgotten(t *testing.T) {
	l := NewLedger()
	of := func(seq uint32) Key { k := key(); k.Lane.Seq = seq; return k }
	inHands := of(1)
	l.Take(inHands, ten(1, 1), now)
	const last = 3 * MaxLanes
	waits := 0
	for seq := uint32(2); seq <= last; seq++ {
		verdict := l.Take(of(seq), ten(1, 1), now)
		if verdict == Undecided { // nothing of what is there is stored: it stays on the hub
			waits++
			store(l)
			verdict = l.Take(of(seq), ten(1, 1), now)
		}
		if verdict != Deliver {
			t.Fatalf("lane %d: verdict %d", seq, verdict)
		}
		l.Accept(of(seq), 1, now)
	}
	_, _, values := store(l)
	var stored storedSpool
	if err := json.Unmarshal(values[key().Spool()], &stored); err != nil {
		t.Fatal(err)
	}
	if len(stored.Lanes) > MaxLanes || waits == 0 {
		t.Errorf("%d lanes are stored, %d frames had to wait", len(stored.Lanes), waits)
	}
	if dropped := l.Crowded(0).Lanes; len(dropped) != last-MaxLanes || slices.Contains(dropped, inHands) {
		t.Errorf("%d lanes are named as forgotten; want %d", len(dropped), last-MaxLanes)
	}
	if l.Take(inHands, ten(1, 1), now) != Duplicate || l.Take(of(last), ten(1, 1), now) != Duplicate {
		t.Error("a lane in hands, or the last one, is not known any more")
	}
}

func TestAStoredValueFitsIntoAMessage(t *testing.T) {
	l := NewLedger()
	of := func(seq uint32) Key { k := key(); k.Lane.Seq = seq; return k }
	for seq := uint32(1); seq <= 40; seq++ { // many gaps, each with as many holes as are kept
		const wide = 10_000_000_000
		for n := uint64(1); n <= 12; n++ {
			deliver(t, l, of(seq), ten(n*wide, n*wide, Counts{frame.EvictedSpace: n * wide * 10}))
			for hole := range uint64(maxReturned) {
				if number := n*wide - 2 - 2*hole; l.Take(of(seq), ten(number, 1), now) == Late {
					l.Return(of(seq), number, 10, now)
				}
			}
		}
	}
	l.StoreAgain()
	_, _, values := store(l)
	value := values[key().Spool()]
	if len(value) == 0 || len(value) > maxValueBytes {
		t.Fatalf("%d bytes", len(value))
	}
	gaps, err := Gaps(value)
	if err != nil || len(gaps) == 0 {
		t.Fatalf("%d gaps: %v", len(gaps), err)
	}
}

func TestAHelloOfTooManyLanesIsCutToTheOldest(t *testing.T) {
	var text bytes.Buffer
	fmt.Fprintf(&text, `{"v":1,"epoch":"%s","lanes":[`, frame.Epoch(7))
	for seq := 20_000; seq > 0; seq-- {
		fmt.Fprintf(&text, `{"lane":"logs/%d","floor":1,"next":9},`, seq)
	}
	text.WriteString(`{"lane":"metrics/1","floor":1,"next":2}]}`)
	hello, _, err := ParseHello(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(hello.Lanes) != MaxLanes || hello.Cut != 20_001-MaxLanes {
		t.Fatalf("%d lanes, %d cut", len(hello.Lanes), hello.Cut)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(hello.Lanes, func(l HelloLane) bool { return l.Lane == name })
	}
	if !has("logs/1") || !has("metrics/1") || has("logs/20000") {
		t.Error("not the oldest are left")
	}
}

func TestInstancesAndEpochsOfALongTimeAgoAreForgotten(t *testing.T) {
	in, epochs := NewInstances(), NewEpochs()
	for n := range 10_000 {
		at := now.Add(time.Duration(n) * time.Second)
		id := Spool{key().Origin, frame.Epoch(1 + n)}
		in.Hear(id, "a", at)
		epochs.Use(id, at, at)
		in.Hear(key().Spool(), fmt.Sprint(n), now)
	}
	if most := 2 * int(ConflictSilence/time.Second); len(in.spools) > most+1 || len(epochs.users) > most {
		t.Errorf("%d spools and %d epochs are remembered", len(in.spools), len(epochs.users))
	}
	if conflict, _ := in.Hear(key().Spool(), "b", now); len(conflict) > maxInstances {
		t.Errorf("%d instances are remembered", len(conflict))
	}
}
