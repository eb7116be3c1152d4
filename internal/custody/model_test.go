package custody

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// world is an edge with two lanes, a hub and a relay. The edge tells the truth.
type world struct {
	t      *rapid.T
	ledger *Ledger
	saved  []byte
	lanes  []*modelLane

	named, recovered, unknown uint64
	crashed                   bool
}

// modelLane is one lane: at the edge, on the hub and in the relay's hands.
type modelLane struct {
	key    Key
	frames []modelFrame // by number − 1
	lost   Counts
	before uint64 // items of all frames

	confirmed, cursor uint64

	queue     []Frame // on the hub, not yet read
	hands     []Frame // delivered and not yet accepted
	settling  []held  // accepted and not yet acknowledged: on the hub as well
	delivered map[uint64]int
	refused   map[uint64]bool
}

type modelFrame struct {
	items, before uint64
	floor         uint64
	lost          Counts
	gone          bool
}

type held struct {
	f       Frame
	version uint64
}

var spoolID = Spool{hub.Origin{Cluster: "store-0001", Node: "a"}, 7}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, ledger: NewLedger()}
	for seq := uint32(1); seq <= 2; seq++ {
		w.lanes = append(w.lanes, &modelLane{
			key:    Key{spoolID.Origin, spoolID.Epoch, frame.Lane{Signal: frame.Logs, Seq: seq}},
			cursor: 1, delivered: make(map[uint64]int), refused: make(map[uint64]bool),
		})
	}
	return w
}

func (l *modelLane) next() uint64 { return uint64(len(l.frames)) + 1 }

// floor is the lowest number the edge still holds.
func (l *modelLane) floor() uint64 {
	n := l.confirmed + 1
	for n < l.next() && l.frames[n-1].gone {
		n++
	}
	return n
}

func (w *world) draw(max int, what string) int { return rapid.IntRange(0, max).Draw(w.t, what) }

func (w *world) appendFrame(l *modelLane) {
	f := modelFrame{items: uint64(1 + w.draw(4, "items")), before: l.before, floor: l.floor(), lost: l.lost}
	l.before += f.items
	l.frames = append(l.frames, f)
}

// lose takes a frame away from the edge before it was confirmed.
func (w *world) lose(l *modelLane, number uint64, cause frame.Cause) {
	if number < l.next() && number > l.confirmed && !l.frames[number-1].gone {
		l.frames[number-1].gone = true
		l.lost[cause] += l.frames[number-1].items
	}
}

// publish ships the next frame the edge holds, as the shipper does.
func (w *world) publish(l *modelLane) bool {
	n := max(l.cursor, l.confirmed+1)
	for n < l.next() && l.frames[n-1].gone {
		n++
	}
	if n >= l.next() {
		return false
	}
	m := l.frames[n-1]
	f := Frame{Number: n, Items: m.items, Before: m.before, Floor: m.floor, Lost: m.lost, Written: m.lost}
	if floor := l.floor(); floor > m.floor && (l.lost != m.lost || floor >= n) {
		f.Floor, f.Lost = min(floor, n), l.lost
	}
	l.queue = append(l.queue, f)
	l.cursor = n + 1
	return true
}

// read takes one message from the hub; not always the first one.
func (w *world) read(l *modelLane) {
	if len(l.queue) == 0 {
		return
	}
	i := w.draw(min(2, len(l.queue)-1), "which")
	f := l.queue[i]
	l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
	switch verdict := w.ledger.Take(l.key, f, now); verdict {
	case Deliver:
		l.hands = append(l.hands, f)
	case Duplicate:
		l.settling = append(l.settling, held{f, 0})
	case Late:
		l.deliver(f.Number)
		l.settling = append(l.settling, held{f, w.ledger.Return(l.key, f.Number, f.Items, now)})
	case Undecided:
		l.queue = append(l.queue, f)
	case Early:
		if rapid.Bool().Draw(w.t, "give back") {
			l.queue = append(l.queue, f)
			return
		}
		l.cursor = min(l.cursor, w.ledger.Wanted(l.key))
	}
}

func (l *modelLane) deliver(number uint64) {
	l.delivered[number]++
	delete(l.refused, number)
}

// accept ends the delivery of some frames: accepted, or the last one refused.
func (w *world) accept(l *modelLane, n int) {
	n = min(n, len(l.hands))
	if n == 0 {
		return
	}
	last := l.hands[n-1]
	refuse := w.draw(9, "refuse") == 0
	var version uint64
	if refuse {
		version = w.ledger.Refuse(l.key, last.Number, frame.Rejected, now)
		l.refused[last.Number] = true
	} else {
		version = w.ledger.Accept(l.key, last.Number, now)
	}
	for _, f := range l.hands[:n] {
		if !refuse || f.Number != last.Number {
			l.deliver(f.Number)
		}
		l.settling = append(l.settling, held{f, version})
	}
	l.hands = append(l.hands[:0:0], l.hands[n:]...)
}

func (w *world) store() {
	for _, record := range w.ledger.Dirty(now, 0, 0) {
		w.saved = record.Value
		_, reports := w.ledger.Stored(record)
		for _, r := range reports {
			w.unknown += r.Lost[frame.Unknown]
			for cause := range r.Lost {
				w.named += r.Lost[cause]
				w.recovered += r.Recovered[cause]
			}
		}
	}
	for _, l := range w.lanes {
		confirmed, _ := w.ledger.Confirmed(l.key)
		l.confirmed = max(l.confirmed, min(confirmed, l.next()-1))
		rest := l.settling[:0:0]
		for _, h := range l.settling {
			if !w.ledger.Due(l.key, h.f.Number, h.version) {
				rest = append(rest, h)
			}
		}
		l.settling = rest
	}
}

// crash kills the relay: what it had in its hands comes again, from its successor's
// fresh consumer. What it delivered and did not store does not count as delivered:
// it comes again too, or, where the hub loses its store before that and the edge
// has evicted it, is named as lost although a backend has it.
func (w *world) crash() {
	w.crashed = true
	w.ledger = NewLedger()
	if w.saved != nil {
		if err := w.ledger.Load(spoolID, w.saved, now); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, l := range w.lanes {
		again := l.hands
		for _, h := range l.settling {
			again = append(again, h.f)
			if h.version > 0 { // not a duplicate of what was stored
				delete(l.delivered, h.f.Number)
			}
		}
		l.hands, l.settling, l.queue = nil, nil, append(again, l.queue...)
	}
}

// wipe takes the hub's store away; the relay stays, stores again what it knows, and
// the edge ships again what is not confirmed.
func (w *world) wipe() {
	for _, l := range w.lanes {
		l.queue, l.settling = nil, nil
		l.cursor = l.confirmed + 1
	}
	w.saved = nil
	w.ledger.StoreAgain()
	w.store()
}

// hello is answered as the receiver does: a lane that is empty at the edge and of
// which nothing is on the hub or in hand is empty for good.
func (w *world) hello() {
	var lanes []HelloLane
	for _, l := range w.lanes {
		lanes = append(lanes, HelloLane{
			Lane: l.key.Lane.String(), Floor: l.floor(), Next: l.next(), Before: l.before, Shipped: l.cursor - 1, Lost: slices.Clone(l.lost[:]),
		})
	}
	_, suspects := w.ledger.Hear(spoolID, lanes, now)
	for _, s := range suspects {
		l := w.lanes[s.Key.Lane.Seq-1]
		switch {
		case len(l.queue) > 0 || len(l.hands) > 0 || len(l.settling) > 0:
		case s.Lane.Floor >= s.Lane.Next:
			w.ledger.Empty(s.Key, s.Lane.Next, s.Lane.Before, s.Lost, now)
		default:
			l.cursor = min(l.cursor, w.ledger.Wanted(s.Key))
		}
	}
}

func (w *world) step() {
	l := w.lanes[w.draw(1, "lane")]
	switch event := w.draw(27, "event"); event {
	case 0:
		w.lose(l, l.floor(), frame.EvictedSpace)
	case 1:
		for range w.draw(5, "evict") {
			w.lose(l, l.floor(), frame.EvictedAge)
		}
	case 2:
		w.lose(l, uint64(1+w.draw(len(l.frames), "corrupt")), frame.Corrupt)
	case 3:
		l.lost[frame.TooLarge] += uint64(1 + w.draw(2, "too large"))
	case 4:
		l.cursor = uint64(1 + w.draw(int(l.cursor), "go back"))
	case 5:
		w.hello()
	case 6:
		w.crash()
	case 7:
		w.wipe()
	case 8, 9, 10:
		w.store()
	case 11, 12, 13, 14, 15:
		w.accept(l, 1+w.draw(3, "accept"))
	case 16, 17, 18, 19:
		if len(l.frames) < 60 {
			w.appendFrame(l)
		}
	case 20, 21, 22:
		w.publish(l)
	default:
		w.read(l)
	}
}

// drain lets everything arrive that still can.
func (w *world) drain() {
	for round := 0; ; round++ {
		if round > 1000 {
			w.t.Fatalf("the lanes do not come to an end: %s", w)
		}
		done := true
		for _, l := range w.lanes {
			for w.publish(l) {
			}
			for range len(l.queue) {
				w.read(l)
			}
			w.accept(l, len(l.hands))
			done = done && l.confirmed == l.next()-1 && len(l.queue) == 0
		}
		w.store()
		w.hello()
		w.store()
		if done {
			return
		}
	}
}

func (w *world) String() string {
	text := ""
	for _, l := range w.lanes {
		text += fmt.Sprintf("%s: next %d, floor %d, confirmed %d, cursor %d, wanted %d, queue %d, hands %d; ",
			l.key.Lane, l.next(), l.floor(), l.confirmed, l.cursor, w.ledger.Wanted(l.key), len(l.queue), len(l.hands))
	}
	return text
}

// TestEveryItemIsDeliveredOrNamedExactly is the ledger's promise: whatever the
// edge loses, in whatever order messages come, whenever the relay is killed and
// the hub's store goes, delivered + named as lost − recovered = all items that
// there were.
func TestEveryItemIsDeliveredOrNamedExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(100, 600).Draw(t, "steps") {
			w.step()
		}
		for _, l := range w.lanes {
			w.appendFrame(l) // carries the last word on what did not fit a frame
		}
		w.drain()
		var in, delivered uint64
		for _, l := range w.lanes {
			in += l.before + l.lost[frame.TooLarge]
			for number, times := range l.delivered {
				delivered += l.frames[number-1].items
				if times > 1 && !w.crashed {
					t.Fatalf("%s: frame %d delivered %d times without a crash", l.key.Lane, number, times)
				}
			}
			if len(l.hands) > 0 || len(l.settling) > 0 {
				t.Fatalf("never acknowledged: %v %v", l.hands, l.settling)
			}
		}
		if w.unknown > 0 {
			t.Fatalf("%d items are lost for an unknown cause; the edge knows them all: %s", w.unknown, w)
		}
		if delivered+w.named-w.recovered != in {
			t.Fatalf("in %d; delivered %d + named %d − recovered %d = %d: %s", in, delivered, w.named, w.recovered, delivered+w.named-w.recovered, w)
		}
	})
}
