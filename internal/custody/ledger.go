package custody

import (
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// Spool names one life of an origin's spool: what the relay keeps, it keeps per spool.
type Spool struct {
	Origin hub.Origin
	Epoch  frame.Epoch
}

// Key names one lane of one origin.
type Key struct {
	Origin hub.Origin
	Epoch  frame.Epoch
	Lane   frame.Lane
}

// Spool returns the spool that the lane is part of.
func (k Key) Spool() Spool { return Spool{k.Origin, k.Epoch} }

// Counts are items by frame.Cause.
type Counts = [frame.NumCauses]uint64

// Verdict is what to do with a frame that has arrived.
type Verdict uint8

const (
	// Deliver: it is the next one; hand it to the backends, then call Accept or Refuse.
	Deliver Verdict = iota
	// Duplicate: it was taken before. Acknowledge it once Due.
	Duplicate
	// Early: frames before it are still at the edge. Drop it; the edge sends it again.
	Early
	// Late: it was named as lost and is there all the same. Hand it to the
	// backends, then call Return.
	Late
	// Undecided: it lies in a gap that is not declared yet, because the frame behind
	// the gap is still being delivered; or its spool has too many lanes at this moment.
	// Look at it again a little later.
	Undecided
)

// Frame is what a frame and the message that carried it say, as far as the
// ledger needs it.
type Frame struct {
	Number uint64
	// Items of this frame, and of all frames of the lane with lower numbers.
	Items, Before uint64
	// First and Last are the times of its oldest and newest item, Unix nanoseconds, 0 if unknown.
	First, Last int64
	// Floor and Lost are the edge's newest word: those of the frame's own header
	// or, when later, of the message that carried it. They were true at one moment.
	Floor uint64
	Lost  Counts
	// Written is what the edge had lost when it wrote the frame.
	Written Counts
}

// Ledger holds, per origin and lane, how far frames were taken, accepted by the
// backends, and durably confirmed: confirmed ≤ accepted ≤ taken. It does no I/O
// itself; the receiver loads it from the custody bucket and stores what Dirty
// names. All methods are safe for concurrent use, but one lane's frames must be
// taken, and accepted, by one goroutine, in the order in which they arrived.
//
// What is lost is reckoned when the frame behind a gap is accepted, stored
// together with its number, and only then told (Stored): a relay that is killed
// names every loss once, wherever it goes on.
type Ledger struct {
	signals []frame.Signal // that the destination reads; nil for all
	fromNow bool           // of lanes that others had before it, it wants what comes from now on

	mu      sync.Mutex
	spools  map[Spool]*spool
	replays map[replay]struct{} // refused frames that are being delivered again

	origins      map[hub.Origin]int      // how many spools each has
	crowded      map[hub.Origin]struct{} // those with more than MaxSpools
	droppedLanes []Key                   // by makeRoom, until Crowded names them
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{spools: make(map[Spool]*spool), origins: make(map[hub.Origin]int), crowded: make(map[hub.Origin]struct{})}
}

// spool is what is known of one spool.
type spool struct {
	lanes   map[frame.Lane]*entry
	retired map[frame.Signal]uint32 // lanes of the signal below this are retired
	old     []*Gap                  // of retired lanes
	signals []frame.Signal          // that the destination read when this was stored; nil when not known
	heard   time.Time               // when anything of it was heard last

	version     uint64    // one more at every change that is to be stored
	stored      uint64    // version that is durable
	heardStored time.Time // what the bucket says of heard
	written     time.Time // when it was last named by Dirty
	reports     []pending // of changes, until they are durable
}

type pending struct {
	version uint64
	report  Report
}

// position is how far a lane's frames are dealt with: delivered, refused or named as lost.
type position struct {
	number uint64
	before uint64 // items of all frames up to number
	named  Counts // part of the edge's lost counters that is accounted for
	last   int64  // time of the newest item of the last frame delivered; 0 if unknown
}

type entry struct {
	position          // accepted
	seed      *seed   // where others had the lane, until it has begun here; else nil
	promised  uint64  // the edge was told that all up to here is confirmed before this destination began
	begun     bool    // position is known; not so for a lane never heard of
	placed    bool    // a frame was accepted since the lane was made or loaded
	taken     uint64  // ≥ number
	hands     []Frame // taken and not yet accepted, in order
	confirmed uint64
	gaps      []*Gap              // the latest, oldest first
	returning map[uint64]struct{} // late frames that are being delivered
	floor     uint64              // highest that the edge has told
	said      HelloLane           // by the edge's last hello that named the lane
	asked     time.Time           // when a resend was last asked for
}

// at returns a lane, made if it is not there; nil if the lane is retired, or if there
// is no room for it at this moment.
func (l *Ledger) at(key Key, now time.Time) (*spool, *entry) {
	s := l.spool(key.Spool())
	s.heard = now
	if key.Lane.Seq < s.retired[key.Lane.Signal] {
		return s, nil
	}
	e, ok := s.lanes[key.Lane]
	if !ok {
		if !l.makeRoom(key.Spool(), s) {
			return s, nil
		}
		e = &entry{}
		s.lanes[key.Lane] = e
	}
	return s, e
}

func (l *Ledger) spool(id Spool) *spool {
	s, ok := l.spools[id]
	if !ok {
		s = &spool{lanes: make(map[frame.Lane]*entry), retired: make(map[frame.Signal]uint32)}
		l.spools[id] = s
		if l.origins[id.Origin]++; l.origins[id.Origin] > MaxSpools {
			l.crowded[id.Origin] = struct{}{}
		}
	}
	return s
}

// find returns a lane that is there; nil when it is not.
func (l *Ledger) find(key Key) (*spool, *entry) {
	s, ok := l.spools[key.Spool()]
	if !ok {
		return nil, nil
	}
	return s, s.lanes[key.Lane]
}

// Take judges a frame. With Deliver it counts as taken and the caller owes an
// Accept or a Refuse, with Late a Return.
func (l *Ledger) Take(key Key, f Frame, now time.Time) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.at(key, now)
	if e == nil && key.Lane.Seq >= s.retired[key.Lane.Signal] {
		return Undecided // when what its other lanes have is stored, there is room
	}
	if e == nil {
		return Duplicate
	}
	e.floor = max(e.floor, f.Floor)
	switch {
	case f.Number <= e.taken:
		return e.again(f.Number)
	case e.early(&f):
		return Early
	}
	// It is the next one, or the edge has nothing between it and the last one any more.
	e.taken = f.Number
	e.hands = append(e.hands, f)
	return Deliver
}

// again judges a number that is not above those taken.
func (e *entry) again(number uint64) Verdict {
	if number > e.number {
		for _, f := range e.hands {
			if f.Number == number {
				return Duplicate
			}
		}
		return Undecided
	}
	if _, ok := e.returning[number]; ok || e.gapOf(number) == nil {
		return Duplicate
	}
	if e.returning == nil {
		e.returning = make(map[uint64]struct{})
	}
	e.returning[number] = struct{}{}
	return Late
}

// Accept says that all backends accepted a lane's frames up to number. The
// version it returns is for Due.
func (l *Ledger) Accept(key Key, number uint64, now time.Time) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if e == nil || !e.accept(s, key, number, now) {
		return 0
	}
	return s.version
}

// accept moves the lane on; false when there is nothing to move over.
func (e *entry) accept(s *spool, key Key, number uint64, now time.Time) bool {
	n := 0
	for n < len(e.hands) && e.hands[n].Number <= number {
		n++
	}
	if n == 0 {
		return false
	}
	s.version++
	for i := range e.hands[:n] {
		f := &e.hands[i]
		if e.seed != nil {
			e.join(f)
		}
		e.reckon(s, key, f, now)
		e.number, e.before, e.last = f.Number, f.Before+f.Items, f.Last
	}
	e.hands = append(e.hands[:0:0], e.hands[n:]...)
	e.nameLarge(s, key, now)
	return true
}

// Refuse says that the frame taken next was refused for good, for a cause, and is
// kept elsewhere. Its items are lost. The version it returns is for Due.
func (l *Ledger) Refuse(key Key, number uint64, cause frame.Cause, now time.Time) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if e == nil {
		return 0
	}
	e.accept(s, key, number-1, now)
	if len(e.hands) == 0 || e.hands[0].Number != number {
		return 0
	}
	f := e.hands[0]
	e.accept(s, key, number, now)
	g := Gap{Lane: key.Lane, From: number, To: number, Kept: true, After: f.First, Before: f.Last, At: now}
	g.Items[cause] = f.Items
	e.lose(s, key, g)
	return s.version
}

// Return says that the backends accepted a late frame: what it holds is no longer
// lost. A late frame that a backend refuses has items 0: it stays named as it
// was. The version it returns is for Due.
func (l *Ledger) Return(key Key, number, items uint64, now time.Time) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if e == nil {
		return 0
	}
	delete(e.returning, number)
	g := e.gapOf(number)
	if g == nil {
		return 0
	}
	s.version++
	g.restore(number, items, now)
	if report := (Report{Key: key, Recovered: g.takeBack(items)}); report.Recovered != (Counts{}) {
		g.version = s.version
		report.Gap = g.clone()
		s.reports = append(s.reports, pending{s.version, report})
	}
	return s.version
}

// Empty says that an edge holds nothing of a lane any more, that next is the
// number it will write next, and that nothing below is on the hub: what of it
// was not taken is lost. before are the items of all frames below next. It does
// nothing while frames of the lane are being delivered, and for a lane that is
// taken to its end.
func (l *Ledger) Empty(key Key, next, before uint64, lost Counts, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.at(key, now)
	if e == nil || len(e.hands) > 0 || next <= e.reached()+1 {
		return
	}
	s.version++
	if e.seed != nil {
		now := e.seed.now
		e.sprout(s)
		if now { // what is lost was lost before this destination began
			e.position = position{number: next - 1, before: before, named: lost}
			e.taken = next - 1
			return
		}
	}
	// A floor below next: nothing that was evicted is still to be dealt with.
	e.reckon(s, key, &Frame{Number: next, Floor: next - 1, Before: before, Lost: lost, Written: lost}, now)
	e.taken, e.number, e.before = next-1, next-1, before
}

// Confirmed returns up to which number an edge may take a lane as confirmed: its
// durable watermark, or what others had confirmed before this destination was
// added. known is false when the ledger has never seen the lane.
func (l *Ledger) Confirmed(key Key) (number uint64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, e := l.find(key)
	if e == nil {
		return 0, false
	}
	return e.told(), true
}

// Due says whether a frame may be acknowledged to the hub: its number, and the
// version that Accept, Refuse or Return gave, are durable. Number 0 is for Replayed.
func (l *Ledger) Due(key Key, number, version uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if s == nil {
		return true // forgotten since: a spool nobody has heard of for a month
	}
	if e == nil {
		return (number == 0 || key.Lane.Seq < s.retired[key.Lane.Signal]) && s.stored >= version
	}
	return number <= e.confirmed && s.stored >= version
}

// Wanted returns the next number the lane needs and the edge may have, for a resend.
func (l *Ledger) Wanted(key Key) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, e := l.find(key); e != nil {
		return max(e.reached()+1, e.floor)
	}
	return 1
}

// AskedWithin says whether a resend of the lane was asked for within the last
// period, and if not, notes that it is asked for now.
func (l *Ledger) AskedWithin(key Key, period time.Duration, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, e := l.at(key, now)
	if e == nil || now.Sub(e.asked) < period {
		return true
	}
	e.asked = now
	return false
}
