package custody

import (
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// MaxLanes bounds the lanes of a spool that are known. An edge has 64 sealed lanes of
	// a signal at most, unless it lost its power again and again, and three that are not.
	MaxLanes = 512
	// MaxSpools bounds the spools of an origin that are known. A new one begins when a
	// spool's directory is gone: a node that is set up anew, or one that does not keep it.
	MaxSpools = 32
	// maxValueBytes bounds what is stored of a spool, well below what the hub takes as
	// one message: the latest gaps that fit are stored.
	maxValueBytes = 512 << 10
)

// Crowd is what a ledger has forgotten because an origin had too much of it. If frames
// of it come after all they are delivered, perhaps twice, as after a loss of the bucket.
type Crowd struct {
	Spools []Spool // their values are to be removed from the bucket
	Lanes  []Key
}

// Crowded forgets, of origins with more than MaxSpools, the spools that nothing was
// heard of for longest: limit at most that the bucket has, and none of which frames
// are in hands or something is still to be stored. It returns them, and the lanes
// that were forgotten since it was last called.
func (l *Ledger) Crowded(limit int) (gone Crowd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone.Lanes, l.droppedLanes = l.droppedLanes, nil
	if len(l.crowded) == 0 {
		return gone
	}
	of := make(map[hub.Origin][]Spool, len(l.crowded))
	for id := range l.spools {
		if _, ok := l.crowded[id.Origin]; ok {
			of[id.Origin] = append(of[id.Origin], id)
		}
	}
	busy := make(map[Spool]bool, len(l.replays))
	for one := range l.replays {
		busy[one.Spool()] = true
	}
	for origin, ids := range of {
		// What never had anything to store goes first: it is no more than a word.
		slices.SortFunc(ids, func(a, b Spool) int {
			one, other := l.spools[a], l.spools[b]
			if (one.version == 0) != (other.version == 0) {
				if one.version == 0 {
					return -1
				}
				return 1
			}
			return one.heard.Compare(other.heard)
		})
		left := len(ids)
		for _, id := range ids {
			s := l.spools[id]
			if left <= MaxSpools || s.version > 0 && limit == 0 {
				break
			}
			if busy[id] || s.owes() {
				continue
			}
			if s.version > 0 {
				limit--
			}
			l.remove(id)
			gone.Spools = append(gone.Spools, id)
			left--
		}
		if left <= MaxSpools {
			delete(l.crowded, origin)
		}
	}
	return gone
}

// owes says whether frames of the spool are in hands, on the hub for this destination
// alone, or something of it is still to be stored.
func (s *spool) owes() bool {
	if s.version != s.stored || len(s.reports) > 0 || s.busy() {
		return true
	}
	for _, e := range s.lanes {
		if e.seed != nil {
			return true
		}
	}
	return false
}

// remove forgets a spool.
func (l *Ledger) remove(id Spool) {
	delete(l.spools, id)
	if l.origins[id.Origin]--; l.origins[id.Origin] <= 0 {
		delete(l.origins, id.Origin)
	}
}

// makeRoom forgets a lane of a spool that has MaxLanes, and says whether there is room
// for another: one of which no frame was taken yet, else the oldest. None is forgotten
// whose frames are in hands or whose number is still to be stored.
func (l *Ledger) makeRoom(id Spool, s *spool) bool {
	if len(s.lanes) < MaxLanes {
		return true
	}
	var least frame.Lane
	for lane, e := range s.lanes {
		if len(e.hands) > 0 || len(e.returning) > 0 || e.seed != nil || e.confirmed != e.number {
			continue
		}
		if other, ok := s.lanes[least]; !ok || e.begun == other.begun && (lane.Seq < least.Seq) == e.begun || !e.begun && other.begun {
			least = lane
		}
	}
	e, ok := s.lanes[least]
	if !ok {
		return false
	}
	s.old = keep(append(s.old, e.gaps...))
	delete(s.lanes, least)
	l.droppedLanes = append(l.droppedLanes, Key{id.Origin, id.Epoch, least})
	return true
}

// bound keeps the oldest lanes of a hello that has more than MaxLanes: lanes that are
// younger are heard of when those are gone. It returns how many it left out.
func (h *Hello) bound() (cut int) {
	if cut = len(h.Lanes) - MaxLanes; cut <= 0 {
		return 0
	}
	seq := func(said HelloLane) uint32 {
		lane, err := frame.ParseLane(said.Lane)
		if err != nil {
			return 1<<32 - 1 // of a later version, or nothing at all
		}
		return lane.Seq
	}
	slices.SortStableFunc(h.Lanes, func(a, b HelloLane) int { return int(int64(seq(a)) - int64(seq(b))) })
	h.Lanes = slices.Clone(h.Lanes[:MaxLanes])
	return cut
}

// sweep forgets the spools that nobody uses any more.
func (in *Instances) sweep(now time.Time) {
	if now.Sub(in.swept) <= ConflictSilence {
		return
	}
	in.swept = now
	for id, s := range in.spools {
		if s.prune(now); len(s.seen) == 0 {
			delete(in.spools, id)
		}
	}
}
