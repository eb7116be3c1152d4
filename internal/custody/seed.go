package custody

import (
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// A destination that is added to a fleet finds lanes that others have had for a
// long time: their first frames are gone from the hub and from the edges, and
// that is no loss. Such a lane is seeded: its ledger knows how far another
// destination had it (the seed), and what to make of a first frame that is not
// number 1.
//
//   - Held: what the hub still holds is wanted. A first frame at or below the seed
//     is where the lane begins; above the seed the lane goes on as if this
//     destination had had all up to it.
//   - Now: the lane begins at the first frame that comes, wherever that is.
//
// Until it has begun, the edge hears that the destination has all up to the seed,
// which is what the edge had heard before.
type seed struct {
	position
	now bool
}

// NewLedgerOf returns an empty ledger of a destination that reads some signals
// only, and begins lanes that others have had before it as of now, or with what the
// hub still holds.
func NewLedgerOf(signals []frame.Signal, now bool) *Ledger {
	l := NewLedger()
	l.signals, l.fromNow = slices.Clone(signals), now
	return l
}

// Spools returns the spools that the ledger knows.
func (l *Ledger) Spools() []Spool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]Spool, 0, len(l.spools))
	for id := range l.spools {
		ids = append(ids, id)
	}
	return ids
}

// Knows says whether the ledger knows a spool.
func (l *Ledger) Knows(id Spool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.spools[id]
	return ok
}

// Meet notes a spool that another destination has heard of, so that the bucket says
// of both that they were there when its lanes began: what comes later is none that
// was added since.
func (l *Ledger) Meet(id Spool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.spools[id]; ok {
		return
	}
	s := l.spool(id)
	s.heard, s.version = now, 1
}

// Seed lets lanes of a spool begin where other ledgers are with them: all lanes of
// a spool that this one does not know, and those of signals that this destination
// did not read when it was last heard of.
func (l *Ledger) Seed(id Spool, others []*Ledger, now time.Time) {
	lanes, retired := standing(id, others)
	if len(lanes) == 0 && len(retired) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.spools[id]
	s := l.spool(id)
	if !known {
		s.heard = now
	}
	isNew := func(signal frame.Signal) bool {
		return l.reads(signal) && (!known || s.signals != nil && !slices.Contains(s.signals, signal))
	}
	for lane, at := range lanes {
		if _, ok := s.lanes[lane]; ok || !isNew(lane.Signal) {
			continue
		}
		s.lanes[lane] = &entry{begun: true, seed: &seed{at, l.fromNow}, promised: at.number}
		s.version++
	}
	for signal, below := range retired {
		if isNew(signal) && s.retired[signal] < below {
			s.retired[signal] = below
			s.version++
		}
	}
}

// standing returns how far the lanes of a spool are accepted by all of some ledgers
// that know them, and which are retired with all of them.
func standing(id Spool, ledgers []*Ledger) (lanes map[frame.Lane]position, retired map[frame.Signal]uint32) {
	lanes, retired = make(map[frame.Lane]position), make(map[frame.Signal]uint32)
	for _, l := range ledgers {
		l.mu.Lock()
		if s, ok := l.spools[id]; ok {
			for lane, e := range s.lanes {
				if at, ok := lanes[lane]; e.begun && e.seed == nil && (!ok || e.number < at.number) {
					lanes[lane] = e.position
				}
			}
			for signal, below := range s.retired {
				if at, ok := retired[signal]; !ok || below < at {
					retired[signal] = below
				}
			}
		}
		l.mu.Unlock()
	}
	return lanes, retired
}

// Joined says that nothing of a signal is left on the hub of what it held when this
// destination was added: lanes that have not begun go on from their seeds.
func (l *Ledger) Joined(signal frame.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spools {
		for lane, e := range s.lanes {
			if lane.Signal == signal && e.seed != nil && !e.seed.now && len(e.hands) == 0 {
				e.sprout(s)
			}
		}
	}
}

// Seeded says whether a signal has lanes that Joined would let go on.
func (l *Ledger) Seeded(signal frame.Signal) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spools {
		for lane, e := range s.lanes {
			if lane.Signal == signal && e.seed != nil && !e.seed.now {
				return true
			}
		}
	}
	return false
}

// Follow moves a lane that begins as of now, and of which no frame has come, to
// where the other ledgers are with it. It reports whether it did.
func (l *Ledger) Follow(key Key, others []*Ledger) bool {
	lanes, _ := standing(key.Spool(), others)
	at, ok := lanes[key.Lane]
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if !ok || e == nil || e.seed == nil || !e.seed.now || len(e.hands) > 0 || at.number < e.seed.number {
		return false
	}
	e.seed.position = at
	e.sprout(s)
	return true
}

// sprout lets a lane go on from its seed.
func (e *entry) sprout(s *spool) {
	if e.number < e.seed.number {
		e.position, e.taken = e.seed.position, max(e.taken, e.seed.number)
	}
	e.seed = nil
	s.version++
}

// join places a seeded lane for a frame that is accepted, before what was lost
// until then is reckoned.
func (e *entry) join(f *Frame) {
	switch {
	case !e.seed.now && f.Number > e.seed.number:
		if e.number < e.seed.number {
			e.position = e.seed.position
		}
		e.seed = nil
	case f.Number != e.number+1: // what lies between was others'
		e.position = position{number: f.Number - 1, before: f.Before, named: f.Written}
		fallthrough
	default:
		if e.seed.now || f.Number == e.seed.number {
			e.seed = nil
		}
	}
}

// reached is how far the lane is taken, or need not be.
func (e *entry) reached() uint64 {
	if e.seed != nil {
		return max(e.taken, e.seed.number)
	}
	return e.taken
}

// early says whether frames before a frame are still to be had.
func (e *entry) early(f *Frame) bool {
	if e.seed != nil && (e.seed.now || f.Number <= e.seed.number) {
		return false
	}
	return f.Number > e.reached()+1 && f.Floor < f.Number
}

// Promised says whether the edge was told that a number is confirmed before this
// destination began: it has let go of that frame, and the hub alone has it.
func (l *Ledger) Promised(key Key, number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, e := l.find(key)
	return e != nil && number <= e.promised
}

// told is how far the edge may take the lane as confirmed.
func (e *entry) told() uint64 { return max(e.confirmed, e.promised) }

// reads says whether the destination reads a signal.
func (l *Ledger) reads(signal frame.Signal) bool {
	return l.signals == nil || slices.Contains(l.signals, signal)
}
