package natsreceiver

import (
	"context"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// suspectInterval is how often the hub is asked, once for all suspect lanes of a signal.
	suspectInterval = 2 * time.Second
	// underWay is how long a frame that an edge published before it said hello may
	// take until it stands in the hub's stream.
	underWay = 5 * time.Second
	// suspectRenewed is when an edge's newer word replaces an older one that could not
	// be decided on: the hub may have a new store, which counts anew.
	suspectRenewed = 2 * time.Minute
)

// suspects decides on lanes of which something seems to be missing: what an edge
// has shipped and the relay has not seen, and the ends of lanes that the edge says
// it lost. A hello says nothing about frames that are on their way, so it waits
// until every message that was on the hub some time after the hello has left it:
// then what was not taken is not there.
type suspects struct {
	*share
	mu      sync.Mutex
	waiting map[custody.Spool]map[frame.Lane]*suspicion
	// dropped are lanes that frames came too early for since the edge was last asked
	// for those before them: the highest number of such a frame.
	dropped map[custody.Key]uint64
	// stood is how far lanes were taken that were suspect at the hello before.
	stood map[custody.Spool]map[frame.Lane]uint64
	// held is, by signal, the last message on the hub when this relay took the
	// partition: until what was held then is dealt with, lanes may begin with it.
	held map[frame.Signal]uint64
}

type suspicion struct {
	custody.Suspect
	since   time.Time
	placed  bool   // through is set
	through uint64 // the last message on the hub, some time after the edge spoke
}

func newSuspects(of *share) *suspects {
	return &suspects{
		share: of, waiting: make(map[custody.Spool]map[frame.Lane]*suspicion), dropped: make(map[custody.Key]uint64),
		stood: make(map[custody.Spool]map[frame.Lane]uint64), held: make(map[frame.Signal]uint64),
	}
}

// heard takes in what is suspect of a spool by a hello.
func (s *suspects) heard(id custody.Spool, found []custody.Suspect, now time.Time) {
	s.mu.Lock()
	before := s.stood[id]
	if len(found) == 0 {
		delete(s.stood, id)
	} else {
		stood := make(map[frame.Lane]uint64, len(found))
		for _, one := range found {
			stood[one.Key.Lane] = one.Taken
		}
		s.stood[id] = stood
	}
	s.mu.Unlock()
	var real []custody.Suspect
	for _, one := range found {
		was, again := before[one.Key.Lane]
		// A lane with something to send has shipped a little more than was taken at any
		// time; only if it stands still from one hello to the next something is wrong.
		if one.Lane.Floor >= one.Lane.Next || again && was == one.Taken {
			real = append(real, one)
		}
	}
	s.renew(id, real, now)
}

// renew takes in what is suspect of a spool by its latest hello; what no longer
// is, is forgotten.
func (s *suspects) renew(id custody.Spool, real []custody.Suspect, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(real) == 0 {
		delete(s.waiting, id)
		return
	}
	before, lanes := s.waiting[id], make(map[frame.Lane]*suspicion, len(real))
	for _, one := range real {
		old, ok := before[one.Key.Lane]
		if !ok || now.Sub(old.since) > suspectRenewed {
			old = &suspicion{Suspect: one, since: now}
		}
		lanes[one.Key.Lane] = old
	}
	s.waiting[id] = lanes
}

func (s *suspects) run(ctx context.Context) {
	ticker := time.NewTicker(suspectInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !s.claim.Held() {
			continue
		}
		s.askAgain(time.Now())
		for _, signal := range s.dest.signals() {
			err := s.decide(ctx, signal, s.due(signal, time.Now()))
			if err == nil {
				err = s.join(ctx, signal)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Debug("cannot ask the hub what it holds", zap.Error(err))
			}
		}
	}
}

// gone forgets a spool that the ledger has forgotten.
func (s *suspects) gone(id custody.Spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
	delete(s.stood, id)
	for key := range s.dropped {
		if key.Spool() == id {
			delete(s.dropped, key)
		}
	}
}

// wants asks the edge for the frames before one that came too early and is
// dropped: now, or when resendInterval has passed since it was last asked. A lane
// with several holes shows the next only when the one before is dealt with.
func (s *suspects) wants(key custody.Key, have uint64) {
	if !s.ask(key, have, time.Now()) {
		s.noteDropped(key, have)
	}
}

// noteDropped has the edge asked later for what is missing below a frame.
func (s *suspects) noteDropped(key custody.Key, have uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped[key] = max(s.dropped[key], have)
}

// ask reports whether the lane needs no further request: it was asked for now, or
// nothing below have is missing any more.
func (s *suspects) ask(key custody.Key, have uint64, now time.Time) bool {
	if s.ledger.Taken(key) >= have {
		return true
	}
	if s.parked(key) || s.ledger.AskedWithin(key, resendInterval, now) {
		return false
	}
	from := s.ledger.Wanted(key)
	s.log.Warn("frames are missing on the hub; the edge is asked for them",
		zap.Stringer("origin", key.Origin), zap.Stringer("lane", key.Lane), zap.Uint64("from", from), zap.Uint64("have", have))
	s.settler.ask(key, from)
	return true
}

// parked says whether what comes of a lane would not be taken now.
func (s *suspects) parked(key custody.Key) bool {
	out := s.dest.outlets[key.Lane.Signal]
	return out != nil && out.workerOf(newSource(hub.FrameSubject(key.Lane.Signal, key.Origin))).parking.has(key.Origin)
}

// askAgain asks for what was too soon to be asked for when its frames were dropped.
func (s *suspects) askAgain(now time.Time) {
	s.mu.Lock()
	dropped := maps.Clone(s.dropped)
	s.mu.Unlock()
	for key, have := range dropped {
		if !s.ask(key, have, now) {
			continue
		}
		s.mu.Lock()
		if s.dropped[key] == have {
			delete(s.dropped, key)
		}
		s.mu.Unlock()
	}
}

// due returns the suspicions of a signal that are old enough to be looked at.
func (s *suspects) due(signal frame.Signal, now time.Time) (due []*suspicion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lanes := range s.waiting {
		for lane, one := range lanes {
			if lane.Signal == signal && now.Sub(one.since) >= underWay {
				due = append(due, one)
			}
		}
	}
	return due
}

func (s *suspects) decide(ctx context.Context, signal frame.Signal, due []*suspicion) error {
	if len(due) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	through, err := s.claim.Through(bounded, signal)
	if err != nil {
		return err
	}
	past := make(map[uint64]bool) // by sequence
	for _, one := range due {
		if !one.placed {
			one.placed, one.through = true, through
		}
		gone, asked := past[one.through]
		if !asked {
			if gone, err = s.claim.Past(bounded, signal, s.dest.name, one.through); err != nil {
				return err
			}
			past[one.through] = gone
		}
		if !gone {
			continue // a message leaves the hub only when what became of it is stored
		}
		s.conclude(one)
		s.forget(one)
	}
	return nil
}

// join lets lanes that others had before this destination go on from there, once
// nothing is left of what the hub held when this relay took the partition.
func (s *suspects) join(ctx context.Context, signal frame.Signal) error {
	if !s.ledger.Seeded(signal) {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	through, placed := s.held[signal]
	if !placed {
		var err error
		if through, err = s.claim.Through(bounded, signal); err != nil {
			return err
		}
		s.held[signal] = through
	}
	past, err := s.claim.Past(bounded, signal, s.dest.name, through)
	if past && err == nil {
		s.ledger.Joined(signal)
	}
	return err
}

func (s *suspects) forget(one *suspicion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := s.waiting[one.Key.Spool()]
	if lanes[one.Key.Lane] == one {
		delete(lanes, one.Key.Lane)
	}
}

// conclude is called when nothing of what was on the hub is left there.
func (s *suspects) conclude(one *suspicion) {
	now := time.Now()
	if one.Lane.Floor >= one.Lane.Next {
		s.ledger.Empty(one.Key, one.Lane.Next, one.Lane.Before, one.Lost, now)
		return
	}
	if s.ledger.Follow(one.Key, s.others()) {
		return // it wants none of what came before it
	}
	if !s.ask(one.Key, one.Lane.Shipped, now) {
		s.noteDropped(one.Key, one.Lane.Shipped)
	}
}
