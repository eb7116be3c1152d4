package custody

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// Key names one lane of one origin.
type Key struct {
	Origin hub.Origin
	Epoch  frame.Epoch
	Lane   frame.Lane
}

// Verdict is what to do with a frame that has arrived.
type Verdict uint8

const (
	// Deliver: it is the next one; hand it to the backends, then call Accept.
	Deliver Verdict = iota
	// Duplicate: it was taken before. Acknowledge it once it is confirmed.
	Duplicate
	// Early: frames before it are still at the edge. Drop it; the edge sends it again.
	Early
)

// Loss is what a frame's arrival made known to be lost.
type Loss struct {
	// From and To are the numbers that will never arrive; both 0 when none is missing.
	From, To uint64
	// Items lost by cause since the last frame of the lane.
	Items [frame.NumCauses]uint64
}

// Any says whether anything was lost.
func (l Loss) Any() bool { return l != Loss{} }

// Ledger holds, per origin and lane, how far frames were taken, accepted by the
// backends, and durably confirmed: confirmed ≤ accepted ≤ taken. It does no I/O
// itself; the receiver loads it from the custody bucket and stores what Dirty
// names. All methods are safe for concurrent use, but one lane's frames must be
// taken by one goroutine, in the order in which they arrived.
type Ledger struct {
	mu    sync.Mutex
	lanes map[Key]*entry
	dirty map[Key]struct{}
}

type entry struct {
	taken, accepted, confirmed uint64
	lost                       [frame.NumCauses]uint64 // cumulative, as last told by the edge
	unexplained                uint64                  // items counted as unknown that a later frame may explain
	placed                     bool                    // a frame has been taken since the entry was made or loaded
	asked                      time.Time               // when a resend was last asked for
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{lanes: make(map[Key]*entry), dirty: make(map[Key]struct{})}
}

// stored is the custody bucket's value of one lane.
type stored struct {
	Confirmed   uint64   `json:"confirmed"`
	Lost        []uint64 `json:"lost,omitempty"`
	Unexplained uint64   `json:"unexplained,omitempty"`
}

// Load puts one lane's stored value into the ledger. A value that cannot be read
// is an error and leaves the lane as it was. Load never moves a lane back.
func (l *Ledger) Load(key Key, value []byte) error {
	var s stored
	if err := json.Unmarshal(value, &s); err != nil {
		return fmt.Errorf("watermark of %s %s: %w", key.Origin, key.Lane, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.lanes[key]; ok && e.confirmed >= s.Confirmed {
		return nil
	}
	e := &entry{taken: s.Confirmed, accepted: s.Confirmed, confirmed: s.Confirmed, unexplained: s.Unexplained}
	copy(e.lost[:], s.Lost)
	l.lanes[key] = e
	return nil
}

// Take judges a frame. floor and lost are the edge's newest word on them: those
// of the frame's own header or, when later, of the message that carried it. With
// Deliver the frame counts as taken and the caller owes an Accept.
func (l *Ledger) Take(key Key, number, floor uint64, lost [frame.NumCauses]uint64) (Verdict, Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, known := l.lanes[key]
	if !known {
		// An origin never heard of, or a hub that lost its store: what lies below
		// the floor was confirmed to somebody, or stands in the lost counters.
		e = &entry{}
		e.taken = min(floor, number) - 1
		e.accepted, e.confirmed = e.taken, e.taken
		l.lanes[key] = e
	}
	if number <= e.taken {
		return Duplicate, Loss{}
	}
	var loss Loss
	if number > e.taken+1 && floor > e.taken+1 {
		loss.From, loss.To = e.taken+1, min(floor, number)-1
		e.taken = loss.To
	}
	loss.Items = e.explain(lost, loss)
	if !e.placed && loss.Items == ([frame.NumCauses]uint64{}) {
		loss = Loss{}
	}
	if number > e.taken+1 {
		return Early, loss
	}
	e.taken, e.placed = number, true
	return Deliver, loss
}

// explain returns the items newly known to be lost. Missing frames whose items
// no counter names yet count as one unknown item each, and are taken off again
// from what a later frame tells. Not so before the first frame was taken: then
// the edge was told that they are confirmed, by a hub that has lost its store or,
// in a power cut, the latest of it.
func (e *entry) explain(lost [frame.NumCauses]uint64, loss Loss) (items [frame.NumCauses]uint64) {
	var total uint64
	for cause, count := range lost {
		if count <= e.lost[cause] {
			continue
		}
		delta := count - e.lost[cause]
		e.lost[cause] = count
		known := min(delta, e.unexplained)
		e.unexplained -= known
		items[cause] = delta - known
		total += delta
	}
	if missing := loss.To - loss.From + 1; loss.To != 0 && total == 0 && e.placed {
		items[frame.Unknown] += missing
		e.unexplained += missing
	}
	return items
}

// Accept says that all backends accepted a lane's frames up to number, or that
// what they refused for good has been counted.
func (l *Ledger) Accept(key Key, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.lanes[key]
	if !ok || number <= e.accepted {
		return
	}
	e.accepted = number
	l.dirty[key] = struct{}{}
}

// Watermark is a lane's state to be stored.
type Watermark struct {
	Key      Key
	Accepted uint64
	Value    []byte
}

// Dirty returns the lanes whose accepted number is not yet durable.
func (l *Ledger) Dirty() []Watermark {
	l.mu.Lock()
	defer l.mu.Unlock()
	marks := make([]Watermark, 0, len(l.dirty))
	for key := range l.dirty {
		e := l.lanes[key]
		value, err := json.Marshal(stored{Confirmed: e.accepted, Lost: e.lost[:], Unexplained: e.unexplained})
		if err != nil { // a struct of numbers always marshals
			continue
		}
		marks = append(marks, Watermark{Key: key, Accepted: e.accepted, Value: value})
	}
	return marks
}

// Stored says that a watermark from Dirty is durable.
func (l *Ledger) Stored(mark Watermark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.lanes[mark.Key]
	e.confirmed = max(e.confirmed, mark.Accepted)
	if e.accepted == e.confirmed {
		delete(l.dirty, mark.Key)
	}
}

// StoreAgain makes every lane dirty, for a bucket that lost them.
func (l *Ledger) StoreAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, e := range l.lanes {
		if e.accepted > 0 {
			l.dirty[key] = struct{}{}
		}
	}
}

// Confirmed returns a lane's durable watermark; known is false when the ledger
// has never seen the lane.
func (l *Ledger) Confirmed(key Key) (number uint64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.lanes[key]
	if !ok {
		return 0, false
	}
	return e.confirmed, true
}

// Wanted returns the next number the lane needs, for a resend.
func (l *Ledger) Wanted(key Key) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.lanes[key]; ok {
		return e.taken + 1
	}
	return 1
}

// AskedWithin says whether a resend of the lane was asked for within the last
// period, and if not, notes that it is asked for now.
func (l *Ledger) AskedWithin(key Key, period time.Duration, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.lanes[key]
	if !ok {
		return false
	}
	if now.Sub(e.asked) < period {
		return true
	}
	e.asked = now
	return false
}
