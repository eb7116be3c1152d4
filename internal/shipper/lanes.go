package shipper

import (
	"context"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// lanes are the lanes being shipped. They come and go with those of the spool.
type lanes struct {
	mu      sync.Mutex
	all     map[frame.Lane]*lane
	outages map[frame.Signal]bool // the live lane was sealed and the hub has taken nothing since
	stopped bool
	// life is that of Run. A new lane must not live in the context of the lane whose
	// goroutine began it: that one ends before it.
	life    context.Context
	changed chan struct{} // closed and replaced when a lane may have got its turn
}

func (s *lanes) get(name frame.Lane) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}

func (s *lanes) list() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*lane, 0, len(s.all))
	for _, l := range s.all {
		list = append(list, l)
	}
	return list
}

func (s *lanes) outage(signal frame.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outages[signal]
}

func (s *lanes) setOutage(signal frame.Signal, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outages == nil {
		s.outages = make(map[frame.Signal]bool)
	}
	s.outages[signal] = is
}

// stop lets no more lanes begin.
func (s *lanes) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// news is closed when something has changed that a lane may wait for.
func (s *lanes) news() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *lanes) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (sh *Shipper) newLane(name frame.Lane) *lane {
	return &lane{Shipper: sh, name: name, orders: make(chan order, 16)}
}

// followSpool begins to ship the lanes that are new in the spool, and notices
// which are sealed.
func (sh *Shipper) followSpool() {
	sh.lanes.mu.Lock()
	defer sh.lanes.mu.Unlock()
	names := sh.spool.Lanes() // under the lock: a lane that retire is about to take out must not come back
	if sh.lanes.stopped {
		return
	}
	for _, name := range names {
		l := sh.lanes.all[name]
		if l == nil {
			l = sh.newLane(name)
			l.fresh = true
			sh.lanes.all[name] = l
		}
		l.sealed.Store(name != sh.spool.Live(name.Signal))
		if l.cancel == nil {
			var own context.Context
			own, l.cancel = context.WithCancel(sh.lanes.life)
			sh.running.Go(func() { l.run(own) })
		}
	}
	close(sh.lanes.changed)
	sh.lanes.changed = make(chan struct{})
	sh.askHello()
}

// retire ends a sealed lane that is confirmed to its last number. The relay must
// have heard of all it lost: a lane that is no more cannot tell.
func (sh *Shipper) retire(l *lane) {
	if !l.sealed.Load() {
		return
	}
	_, lost := sh.spool.Floor(l.name)
	sh.lanes.mu.Lock()
	told := l.told != nil && *l.told == lost
	sh.lanes.mu.Unlock()
	if !told {
		if l.confirmed.Load()+1 >= sh.spool.Next(l.name) {
			sh.askHello()
		}
		return
	}
	if !sh.spool.Retire(l.name) {
		return
	}
	sh.lanes.mu.Lock()
	delete(sh.lanes.all, l.name)
	sh.lanes.mu.Unlock()
	l.cancel()
	sh.lanes.announce()
}

// mayShip says whether a lane has its turn. A live one always has, unless order
// is asked for. A sealed one has when no older one of its signal has something to
// send, and the live one has nothing it could send now.
func (sh *Shipper) mayShip(l *lane) bool {
	inOrder := sh.config.Recovery == InOrder
	if !l.sealed.Load() && !inOrder {
		return true
	}
	for _, other := range sh.lanes.list() {
		if other.name.Signal != l.name.Signal || other == l {
			continue
		}
		if !other.sealed.Load() && other.pending.Load() && !inOrder {
			return false
		}
		if other.sealed.Load() && other.name.Seq < l.name.Seq && other.unsent() {
			return false
		}
	}
	return true
}

// unsent says whether the spool holds something of the lane that the hub has not
// acknowledged.
func (l *lane) unsent() bool { return l.spool.Holds(l.name, l.shipped.Load()+1) }

// stalled says whether the lane has had something to send for SealAfter and the
// hub took none of it.
func (l *lane) stalled(now time.Time) bool {
	if !l.unsent() {
		l.since.Store(nil)
		return false
	}
	since := l.since.Load()
	if since == nil {
		l.since.CompareAndSwap(nil, &now)
		return false
	}
	return now.Sub(*since) >= l.config.SealAfter
}

// took notes that the hub has taken a frame of the lane. If that ends an outage
// and the live lane has gathered more meanwhile, that is left behind too.
func (l *lane) took(now time.Time) {
	if l.sealed.Load() {
		return
	}
	wasStalled := l.stalled(now)
	l.since.Store(nil)
	l.lanes.setOutage(l.name.Signal, false)
	if wasStalled {
		l.sealAndFollow(l, "it was gathered while the hub took nothing")
	}
}
