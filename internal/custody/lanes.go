package custody

import (
	"maps"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Suspect is a lane of which an edge, by its own words, misses more than it can
// still bring: either it waits for frames that the hub may have lost (Shipped and
// not taken), or it has lost the lane's end and holds nothing more of it. Which it
// is shows only when all that was on the hub at that time is dealt with.
type Suspect struct {
	Key Key
	// Taken is how far the relay had taken the lane when the edge spoke.
	Taken uint64
	// Lane is what the edge said.
	Lane HelloLane
	Lost Counts
}

// Hear takes in what an edge says of itself: lanes it no longer has are retired.
// It returns how far each lane it named is confirmed, and those that are suspect.
func (l *Ledger) Hear(id Spool, lanes []HelloLane, now time.Time) (accepted map[frame.Lane]uint64, suspects []Suspect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spool(id)
	s.heard = now
	if s.version > 0 && now.Sub(s.heardStored) > heardEvery {
		s.version++
		s.heardStored = now // not asked for again before it is stored
	}
	accepted = make(map[frame.Lane]uint64, len(lanes))
	oldest := make(map[frame.Signal]uint32)
	for _, said := range lanes {
		lane, err := frame.ParseLane(said.Lane)
		if err != nil {
			continue // of a later version
		}
		if seq, ok := oldest[lane.Signal]; !ok || lane.Seq < seq {
			oldest[lane.Signal] = lane.Seq
		}
		if lane.Seq < s.retired[lane.Signal] {
			s.retired[lane.Signal] = lane.Seq // it is there: whatever the edge said before, take it
			s.version++
		}
		accepted[lane] = 0
		suspect := Suspect{Key: Key{id.Origin, id.Epoch, lane}, Lane: said}
		_, e := l.at(suspect.Key, now)
		if e == nil {
			continue // there is no room for it at this moment
		}
		suspect.Taken, accepted[lane] = e.reached(), e.told()
		e.floor, e.said = max(e.floor, said.Floor), said
		e.nameLarge(s, suspect.Key, now)
		copy(suspect.Lost[:], said.Lost)
		if said.Next > suspect.Taken+1 && (said.Floor >= said.Next || said.Shipped > suspect.Taken) {
			suspects = append(suspects, suspect)
		}
	}
	return accepted, append(suspects, s.retire(id, oldest)...)
}

// retire forgets the lanes that are older than the oldest the edge has. Their
// gaps are kept, the last of them, for those who ask. A lane that the edge has let
// go of although, by its own words, the relay has not had all of it is suspect
// first.
func (s *spool) retire(id Spool, oldest map[frame.Signal]uint32) (suspects []Suspect) {
	below := maps.Clone(oldest)
	for lane, e := range s.lanes {
		waits := e.seed != nil && !e.seed.now // the hub may hold frames of it
		if lane.Seq >= oldest[lane.Signal] || e.said.Next <= e.reached()+1 && len(e.hands) == 0 && !waits {
			continue
		}
		below[lane.Signal] = min(below[lane.Signal], lane.Seq)
		if e.said.Next > e.reached()+1 {
			suspect := Suspect{Key: Key{id.Origin, id.Epoch, lane}, Taken: e.reached(), Lane: e.said}
			suspect.Lane.Floor = e.said.Next // it holds nothing any more
			copy(suspect.Lost[:], e.said.Lost)
			suspects = append(suspects, suspect)
		}
	}
	for signal, seq := range below {
		if seq <= max(1, s.retired[signal]) {
			continue
		}
		s.retired[signal] = seq
		s.version++
		for lane, e := range s.lanes {
			if lane.Signal == signal && lane.Seq < seq {
				s.old = append(s.old, e.gaps...)
				delete(s.lanes, lane)
			}
		}
	}
	s.old = keep(s.old)
	return suspects
}

// Taken returns how far a lane is taken: delivered, or being delivered.
func (l *Ledger) Taken(key Key) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, e := l.find(key); e != nil {
		return e.reached()
	}
	return 0
}

// Untold is a gap whose log record is still to be accepted by the backends: of
// the loss, or of its latest recovery.
type Untold struct {
	Spool Spool
	Gap   Gap
	// Back says that the record is of the recovery.
	Back bool

	gap *Gap
}

// Untold returns up to limit durable gaps that are not told yet.
func (l *Ledger) Untold(limit int) (untold []Untold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, s := range l.spools {
		visit := func(gaps []*Gap) {
			for _, g := range gaps {
				if len(untold) >= limit || g.isTold() || g.version > s.stored {
					continue
				}
				g.closed = true
				untold = append(untold, Untold{Spool: id, Gap: g.clone(), Back: g.told, gap: g})
			}
		}
		visit(s.old)
		for _, e := range s.lanes {
			visit(e.gaps)
		}
		if len(untold) >= limit {
			break
		}
	}
	return untold
}

// Told says that the backends accepted the log records of what Untold returned.
func (l *Ledger) Told(told []Untold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range told {
		s, ok := l.spools[u.Spool]
		if !ok {
			continue
		}
		s.version++
		if !u.Back {
			u.gap.told = true
		} else if u.gap.RecoveredAt.Equal(u.Gap.RecoveredAt) {
			u.gap.toldBack = true
		}
	}
}
