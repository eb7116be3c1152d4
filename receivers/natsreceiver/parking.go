package natsreceiver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/hub"
)

// parkedFrames bounds the frames of one parked origin that wait here; so does the
// outlet's budget for all parked ones together.
const parkedFrames = 64

// parking holds the origins of one worker that a backend refuses for now, while it
// takes what is others': one tenant over its limit. They are tried again by
// themselves, all together, with backoff. What comes of them meanwhile waits here, up to
// a bound; above it frames are dropped from the hub, and asked of the edge again when
// the origin is out of here. Those that the edge has let go of before this destination
// was added are kept above the bound, up to the outlet's budget.
type parking struct {
	*worker
	mu      sync.Mutex
	origins map[hub.Origin]*parked
	bytes   int64 // of what waits
	count   atomic.Int64
	wake    chan struct{}
}

// parked is one origin. Its frames are tried in the order left, waiting.
type parked struct {
	left    []*arrival // taken by the ledger
	waiting []*arrival // not yet judged
}

func newParking(w *worker) *parking {
	return &parking{worker: w, origins: make(map[hub.Origin]*parked), wake: make(chan struct{}, 1)}
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

// park takes over arrivals that the ledger has taken and a backend refuses.
func (p *parking) park(arrivals []*arrival) {
	p.mu.Lock()
	for _, a := range arrivals {
		one, ok := p.origins[a.key.Origin]
		if !ok {
			one = &parked{}
			p.origins[a.key.Origin] = one
		}
		one.left = append(one.left, a)
	}
	p.count.Store(int64(len(p.origins)))
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// keeps takes over an arrival of a parked origin; false: the origin is not parked.
func (p *parking) keeps(a *arrival) bool {
	if p.count.Load() == 0 {
		return false
	}
	onlyHere := a.share.ledger.Promised(a.key, a.header.Number)
	p.mu.Lock()
	one, ok := p.origins[a.key.Origin]
	if !ok {
		p.mu.Unlock()
		return false
	}
	// What no edge has any more waits in any case, in its order.
	room := onlyHere || len(one.waiting) < parkedFrames && p.bytes+a.bytes <= p.frames.limit/2/int64(len(p.workers))
	if room {
		one.waiting = append(one.waiting, a)
		p.bytes += a.bytes
	}
	p.mu.Unlock()
	if !room && a.replay != "" { // no edge has it any more
		a.giveBack(earlyWait)
	} else if !room {
		a.share.suspects.noteDropped(a.key, a.header.Number)
		p.telemetry.overflowed(p.outlet)
		a.drop()
	}
	return true
}

func (p *parking) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.retry(ctx)
	}
}

// retry tries the parked origins until none is left.
func (p *parking) retry(ctx context.Context) {
	pace, failures := newRetry(), 0
	wait := pace.NextBackOff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		b := p.next()
		if len(b.arrivals) == 0 {
			if p.unpark() {
				break
			}
			wait = 0
			continue
		}
		now, behind := b.arrivals, []*arrival(nil)
		if failures > 0 {
			now, behind = halve(now)
		}
		once := pass{worker: p.worker}
		left, err := once.try(ctx, now)
		p.putBack(append(slices.Clip(left), behind...))
		if once.answered {
			pace.Reset()
		}
		if len(left) == 0 {
			wait = 0
			continue
		}
		wait = pace.NextBackOff()
		level := p.log.Debug
		if failures++; failures == 1 {
			level = p.log.Warn
		}
		level("a backend takes only a part of what it is sent; the origins of the rest are parked and retried by themselves, all others go on",
			zap.Stringer("signal", p.signal), zap.Int64("origins", p.count.Load()), zap.Stringer("for_example", left[0].key.Origin),
			zap.Duration("retry_in", wait), zap.Error(err))
	}
	if failures > 0 {
		p.log.Info("a backend takes everything again; no origin is parked", zap.Stringer("signal", p.signal))
	}
}

// next takes what is to be tried of all parked origins, up to the limits of a
// delivery. Those origins stay parked meanwhile, so what comes of them waits.
func (p *parking) next() *batch {
	b, size := &batch{}, &batch{}
	var waited []*arrival
	p.mu.Lock()
	for _, one := range p.origins {
		for len(one.left) > 0 && !p.full(size, 1) {
			size.add(one.left[0])
			b.add(one.left[0])
			one.left = one.left[1:]
		}
		for len(one.left) == 0 && len(one.waiting) > 0 && !p.full(size, 1) {
			a := one.waiting[0]
			one.waiting = one.waiting[1:]
			p.bytes -= a.bytes
			size.add(a)
			waited = append(waited, a)
		}
	}
	p.mu.Unlock()
	for _, a := range waited {
		if a.share.ended.Load() {
			a.discard()
		} else {
			p.take(a, b)
		}
	}
	return b
}

// putBack returns what was not accepted, before what waits.
func (p *parking) putBack(left []*arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := make(map[hub.Origin][]*arrival)
	for _, a := range left {
		mine[a.key.Origin] = append(mine[a.key.Origin], a)
	}
	for origin, arrivals := range mine {
		one := p.origins[origin]
		one.left = append(arrivals, one.left...)
	}
	p.release()
}

// release lets go of the origins of which nothing is left.
func (p *parking) release() {
	for origin, one := range p.origins {
		if len(one.left) == 0 && len(one.waiting) == 0 {
			delete(p.origins, origin)
		}
	}
	p.count.Store(int64(len(p.origins)))
}

// unpark lets go of the origins of which nothing is left and reports whether none
// is parked any more.
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
	part := func(arrivals []*arrival) (kept []*arrival) {
		for _, a := range arrivals {
			if a.share.partition == of {
				out = append(out, a)
			} else {
				kept = append(kept, a)
			}
		}
		return kept
	}
	for _, one := range p.origins {
		one.left = part(one.left)
		n := len(out)
		one.waiting = part(one.waiting)
		for _, a := range out[n:] {
			p.bytes -= a.bytes
		}
	}
	return out
}
