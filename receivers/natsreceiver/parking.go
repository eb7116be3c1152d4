package natsreceiver

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// parkedFrames bounds the frames of one refused origin that wait here.
	parkedFrames = 64
	// restTime is how long a refused origin is left alone of which nothing could be
	// kept. It is shorter when there is room again.
	restTime = 5 * time.Minute
	// returnAfter is when the hub is to bring again what it alone has and for which
	// there was no room.
	returnAfter = 30 * time.Second
)

// parking holds the origins of one worker that a backend does not take for now, so
// that the worker can go on with the others. They are tried again by themselves
// (retry.go), and what comes of them meanwhile waits here, in its order.
//
// What waits may take a part of the outlet's memory: outlet.parked for each worker. Half
// of that may be whole frames. Of what comes on top only arrivals are kept, and in the
// end of all; their frames are read from the hub once more to be tried: it holds them
// until they are acknowledged. Where that is too much, too, it depends:
//
//   - An origin that is refused while the backend takes others is let go of, but for
//     what waits already, and so is what comes of it beyond parkedFrames: the hub drops
//     the frames, and the edge, which has them, is asked for them when the origin is out
//     of here. An origin of which nothing could be kept rests here until then.
//   - Of one that was set aside because nothing was taken of anybody, nothing is let
//     go of: the whole backend may be away. Its frames wait in the queue.
//
// What the edge has let go of before this destination was added is kept in any case.
type parking struct {
	*worker
	mu      sync.Mutex
	origins map[hub.Origin]*parked
	bytes   int64          // that all arrivals here take at rest
	held    map[*share]int // arrivals here; the hub hands out only so many at a time
	count   atomic.Int64   // of origins
	refused atomic.Int64   // of origins that are known to be
	wake    chan struct{}
}

// parked is one origin.
type parked struct {
	arrivals []*arrival // in order: those that the ledger has taken, then those not yet judged
	refused  bool       // while the backend takes others
	since    uint64     // the backend's answers to the outlet when this origin failed last
	alone    bool       // and known to fail by itself, whoever travels with it
	failures int        // in a row, here
	rests    time.Time  // until when, if nothing could be kept of it
	of       *share     // for which there was no room
}

func newParking(w *worker) *parking {
	return &parking{worker: w, origins: make(map[hub.Origin]*parked), held: make(map[*share]int), wake: make(chan struct{}, 1)}
}

// has says whether an origin is parked.
func (p *parking) has(origin hub.Origin) bool {
	if p.count.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.origins[origin]
	return ok
}

// park takes over arrivals that the ledger has taken and the backend does not take:
// while it takes others, or nothing at all. In that case it does so only if there is
// room for all, and says whether there was.
func (p *parking) park(arrivals []*arrival, refused bool) bool {
	p.mu.Lock()
	if !p.roomForAll(arrivals) {
		p.spill()
		if !refused && !p.roomForAll(arrivals) {
			p.mu.Unlock()
			return false
		}
	}
	var gone []*arrival
	cut := make(map[custody.Key]bool)
	for _, a := range arrivals {
		one, ok := p.origins[a.key.Origin]
		if !ok {
			one = &parked{since: p.answers.Load()}
			p.origins[a.key.Origin] = one
		}
		one.refused = one.refused || refused
		ordered := !a.late && a.replay == ""
		rest, room := p.room(a, p.bytes, p.held[a.share])
		if room = room || p.onlyHere(a); room && !(ordered && cut[a.key]) {
			p.add(one, a, rest)
			continue
		}
		cut[a.key] = cut[a.key] || ordered
		gone = append(gone, a)
		if len(one.arrivals) == 0 {
			one.rests, one.of = time.Now().Add(restTime), a.share
		}
	}
	p.recount()
	p.mu.Unlock()
	for _, a := range gone {
		p.untake(a)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// keeps takes over an arrival of a parked origin; false: the origin is not parked.
func (p *parking) keeps(a *arrival) bool {
	if p.count.Load() == 0 {
		return false
	}
	again := a.replay == "" && a.share.ledger.Holds(a.key, a.header.Number)
	onlyHere := p.onlyHere(a)
	p.mu.Lock()
	one, ok := p.origins[a.key.Origin]
	if !ok {
		p.mu.Unlock()
		return false
	}
	if again || one.has(a) {
		// It comes again as it does when the link to the hub was down. Acknowledged, it
		// would be gone from the hub, which may be all that still has its frame; what is
		// here is acknowledged in its time, and the hub takes that for either.
		p.mu.Unlock()
		p.telemetry.duplicate(p.outlet)
		a.discard()
		return true
	}
	rest, room := p.room(a, p.bytes, p.held[a.share])
	if !room {
		p.spill()
		rest, room = p.room(a, p.bytes, p.held[a.share])
	}
	// Where none is known to be refused, pop has seen that there is room.
	room = room && len(one.arrivals) < parkedFrames || !one.refused || onlyHere
	if room {
		p.add(one, a, rest)
	}
	p.mu.Unlock()
	if !room {
		p.drop(a)
	}
	return true
}

// has says whether the same message waits.
func (one *parked) has(a *arrival) bool {
	n := len(one.arrivals)
	if n == 0 || a.sequence() > one.arrivals[n-1].sequence() {
		return false // as it is in most cases
	}
	return slices.ContainsFunc(one.arrivals, func(b *arrival) bool {
		return b.sequence() == a.sequence() && b.share == a.share && b.key == a.key && b.header.Number == a.header.Number
	})
}

// onlyHere says whether no edge has a frame any more, and nothing else says what to
// do with those behind it when it is given back.
func (p *parking) onlyHere(a *arrival) bool {
	return a.replay == "" && !a.late && a.share.ledger.Promised(a.key, a.header.Number)
}

// room says what an arrival takes while it waits here beside others, and whether
// there is room for it.
func (p *parking) room(a *arrival, bytes int64, frames int) (rest int64, room bool) {
	room = frames < a.share.parkedMost
	if bytes+a.bytes <= p.parked/2 || a.sequence() == 0 {
		return a.bytes, room && bytes+a.bytes <= p.parked/2
	}
	rest = min(a.bytes, arrivalBytes)
	// The hub may hold a late frame no more once it has come again.
	return rest, room && !a.late && bytes+rest <= p.parked
}

func (p *parking) roomForAll(arrivals []*arrival) bool {
	bytes, frames := p.bytes, make(map[*share]int)
	for _, a := range arrivals {
		rest, room := p.room(a, bytes, p.held[a.share]+frames[a.share])
		if !room {
			return false
		}
		bytes += rest
		frames[a.share]++
	}
	return true
}

// spill lets go of the frames that wait here whole, as far as the hub has them: to make
// room for more arrivals.
func (p *parking) spill() {
	for _, one := range p.origins {
		for _, a := range one.arrivals {
			if rest := min(a.bytes, arrivalBytes); rest < a.bytes && !a.late && a.sequence() != 0 {
				p.bytes -= a.bytes - rest
				a.waits(rest)
			}
		}
	}
}

// add appends an arrival to what waits of its origin.
func (p *parking) add(one *parked, a *arrival, rest int64) {
	a.waits(rest)
	one.arrivals = append(one.arrivals, a)
	p.bytes += rest
	p.held[a.share]++
}

// subtract takes an arrival off what is counted here.
func (p *parking) subtract(a *arrival) {
	p.bytes -= a.bytes
	if p.held[a.share]--; p.held[a.share] == 0 {
		delete(p.held, a.share)
	}
}

// untake lets go of what the ledger has taken and the backend has refused.
func (p *parking) untake(a *arrival) {
	if a.replay != "" {
		a.share.ledger.Replayed(a.key, a.header.Number, 0, time.Now())
	} else {
		a.share.ledger.Untake(a.key, a.header.Number)
	}
	a.taken = false
	p.drop(a)
}

// drop takes a frame off the hub that the edge is asked for later, and gives back one
// that no edge would send again.
func (p *parking) drop(a *arrival) {
	if a.late || a.replay != "" {
		a.giveBack(returnAfter)
		return
	}
	a.share.suspects.noteDropped(a.key, a.header.Number)
	p.telemetry.overflowed(p.outlet)
	a.drop()
}

// pop returns the first arrival of those that wait for the worker, without what is of
// some origins, and what has to wait because there is no room for it here.
func (p *parking) pop(without map[hub.Origin]struct{}) *arrival {
	if p.count.Load() == 0 && len(without) == 0 {
		return p.in.pop()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	spilled := false
	return p.in.popUnless(func(a *arrival) bool {
		if _, ok := without[a.key.Origin]; ok {
			return true
		}
		one, ok := p.origins[a.key.Origin]
		if !ok || one.refused {
			return false
		}
		_, room := p.room(a, p.bytes, p.held[a.share])
		if !room && !spilled { // once, so that the origin's later ones do not overtake
			p.spill()
			spilled = true
			_, room = p.room(a, p.bytes, p.held[a.share])
		}
		return !room
	})
}

// recount is called after every change of what is parked.
func (p *parking) recount() {
	refused := 0
	for _, one := range p.origins {
		if one.refused {
			refused++
		}
	}
	p.count.Store(int64(len(p.origins)))
	p.refused.Store(int64(refused))
	p.in.wake() // what could not be judged may be by now
}

// release lets go of the origins of which nothing waits.
func (p *parking) release() {
	now := time.Now()
	for origin, one := range p.origins {
		rests := now.Before(one.rests) && !one.of.ended.Load() && (p.bytes > p.parked/2 || p.held[one.of] > one.of.parkedMost/2)
		if len(one.arrivals) == 0 && !rests {
			delete(p.origins, origin)
		}
	}
	p.recount()
}

// unpark lets go of the origins of which nothing waits and reports whether none is
// parked any more.
func (p *parking) unpark() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
	return len(p.origins) == 0
}

// purge takes out what is of a partition.
func (p *parking) purge(of *partition) (out []*arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.origins {
		var kept []*arrival
		for _, a := range one.arrivals {
			if a.share.partition == of {
				p.subtract(a)
				out = append(out, a)
			} else {
				kept = append(kept, a)
			}
		}
		one.arrivals = kept
	}
	return out
}
