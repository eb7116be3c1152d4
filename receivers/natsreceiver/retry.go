package natsreceiver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// idleWait is when it is looked again for something to try, where there was nothing.
	idleWait  = time.Second
	pauseStep = time.Second
	// smallMax is the longest time between two attempts while it is not known of each
	// origin whether it is taken by itself.
	smallMax = 2 * time.Second
	// fetchAtOnce bounds the frames that are asked of the hub at a time, and
	// fetchTimeout how long what is picked for one attempt may take.
	fetchAtOnce  = 8
	fetchTimeout = 10 * time.Second
)

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
	find, warned := search{pace: newRetry()}, false
	wait, answers := find.pace.NextBackOff(), p.answers.Load()
	// What is not known to be refused is tried soon when the backend takes something:
	// then it is whole again, or shows who is refused.
	news := func() bool { return p.answers.Load() != answers && p.refused.Load() < p.count.Load() }
	for pause(ctx, wait, news) {
		now, back := p.next(ctx, find.most())
		if len(now) == 0 {
			p.tried(nil, nil, back, false)
			if p.unpark() {
				break
			}
			wait = idleWait
			continue
		}
		once := pass{worker: p.worker}
		left, err := once.try(ctx, now)
		all := p.tried(now, left, back, once.answered)
		answers = p.answers.Load()
		if len(left) == 0 {
			find.pace.Reset()
			find.succeeded()
			wait = 0
			continue
		}
		wait = find.failed(len(origins(now)), once.answered, all)
		level := p.log.Debug
		if !warned && p.refused.Load() > 0 {
			level, warned = p.log.Warn, true
		}
		level("a backend takes only a part of what it is sent; the origins of the rest are parked and retried by themselves, all others go on",
			zap.Stringer("signal", p.signal), zap.Int64("origins", p.count.Load()), zap.Stringer("for_example", left[0].key.Origin),
			zap.Duration("retry_in", wait), zap.Error(err))
	}
	if warned && ctx.Err() == nil {
		p.log.Info("a backend takes everything again; no origin is parked", zap.Stringer("signal", p.signal))
	}
}

// search says how many origins the next attempt is of: as many as a delivery takes,
// and, while nothing of that is accepted, in between of fewer and fewer. One that is
// refused without being named makes all fail that travel with it.
type search struct {
	pace     *backoff.ExponentialBackOff
	few      int // origins; 0: nothing has failed
	attempts int
	small    bool // the next is of few
}

func (s *search) most() int {
	if s.small {
		return s.few
	}
	return 0
}

// succeeded notes that all of an attempt was taken.
func (s *search) succeeded() {
	if !s.small {
		s.few = 0
	}
	s.few *= 2
	s.small = s.few > 0
}

// failed notes that something of an attempt was not taken, and says when the next is
// due. all says that each parked origin is known to fail by itself.
func (s *search) failed(origins int, answered, all bool) (wait time.Duration) {
	if answered {
		s.pace.Reset()
	} else if s.small || s.few == 0 {
		s.few = max(1, origins/2)
	}
	often := 4 // of so many attempts, one is of all
	if all {
		often = 2
	}
	s.attempts++
	s.small = s.few > 0 && s.attempts%often != 0
	wait = s.pace.NextBackOff()
	if s.small && !all {
		wait = min(wait, smallMax)
	}
	return wait
}

// pause waits for a while, but not much longer than pauseStep once cut is true. It
// returns false when ctx is done.
func pause(ctx context.Context, wait time.Duration, cut func() bool) bool {
	for {
		step := min(wait, pauseStep)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(step):
		}
		if wait -= step; wait <= 0 || cut() {
			return ctx.Err() == nil
		}
	}
}

// next takes what is to be tried, of a number of origins if most is not 0. They stay
// parked meanwhile, so what comes of them waits. back is what the hub cannot be
// asked for now, and what is behind it.
func (p *parking) next(ctx context.Context, most int) (now, back []*arrival) {
	picked := p.pick(most)
	problems := p.fetch(ctx, picked)
	b, stuck := &batch{}, make(map[hub.Origin]struct{})
	for i, a := range picked {
		if _, behind := stuck[a.key.Origin]; behind {
			back = append(back, a)
			continue
		}
		switch err := problems[i]; {
		case a.share.ended.Load():
			p.leave(a)
			a.discard()
			continue
		case errors.Is(err, jetstream.ErrMsgNotFound):
			p.vanished(a, picked[i+1:])
			continue
		case err != nil:
			stuck[a.key.Origin] = struct{}{}
			back = append(back, a)
			continue
		case a.taken:
			b.add(a)
			continue
		}
		n := len(b.arrivals)
		if p.take(a, b); len(b.arrivals) == n {
			p.leave(a)
		}
	}
	return b.arrivals, back
}

// pick takes out arrivals, within the limits of a delivery and of the memory for what
// is tried: of as many origins as there are, and first of those that have not been
// tried by themselves and that have failed least.
func (p *parking) pick(most int) (picked []*arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*parked
	for _, one := range p.origins {
		if len(one.arrivals) > 0 {
			all = append(all, one)
		}
	}
	slices.SortStableFunc(all, func(a, b *parked) int {
		if a.alone != b.alone {
			if b.alone {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.failures, b.failures)
	})
	if most > 0 {
		all = all[:min(most, len(all))]
	}
	size, bytes := &batch{}, int64(0)
	for len(all) > 0 {
		rest := all[:0]
		for _, one := range all {
			a := one.arrivals[0]
			if bytes += a.size(); len(picked) > 0 && (p.full(size, 1) || bytes > p.parked || size.memory >= p.batch/2) {
				return picked
			}
			size.add(a)
			picked = append(picked, a)
			if one.arrivals = one.arrivals[1:]; len(one.arrivals) > 0 {
				rest = append(rest, one)
			}
		}
		all = rest
	}
	return picked
}

// fetch reads from the hub the frames of arrivals that have been let go of.
func (p *parking) fetch(ctx context.Context, arrivals []*arrival) (problems []error) {
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	problems = make([]error, len(arrivals))
	var group errgroup.Group
	group.SetLimit(fetchAtOnce)
	for i, a := range arrivals {
		if a.msg.Data != nil || a.share.ended.Load() {
			continue
		}
		group.Go(func() error {
			data, err := hub.StoredFrame(bounded, p.js, p.signal, a.sequence())
			if err == nil {
				err = a.fetched(data)
			}
			if err != nil {
				p.log.Debug("a frame that waits on the hub cannot be read", zap.Stringer("origin", a.key.Origin), zap.Stringer("lane", a.key.Lane),
					zap.Uint64("number", a.header.Number), zap.Error(err))
			}
			problems[i] = err
			return nil
		})
	}
	_ = group.Wait() // each has its own
	return problems
}

// vanished deals with a frame that the hub has no more: it has lost its store. Those
// behind it are judged anew.
func (p *parking) vanished(a *arrival, behind []*arrival) {
	p.leave(a)
	p.log.Warn("a frame that waited on the hub for a backend is not there any more; its edge is asked for it",
		zap.Stringer("origin", a.key.Origin), zap.Stringer("lane", a.key.Lane), zap.Uint64("number", a.header.Number))
	switch {
	case !a.taken:
	case a.replay != "":
		a.share.ledger.Replayed(a.key, a.header.Number, 0, time.Now())
	case a.late:
		a.share.ledger.Untake(a.key, a.header.Number)
	default:
		a.share.ledger.Untake(a.key, a.header.Number)
		p.mu.Lock()
		for _, of := range [][]*arrival{behind, p.origins[a.key.Origin].arrivals} {
			for _, other := range of {
				if other.key == a.key && other.share == a.share && !other.late && other.replay == "" {
					other.taken = false
				}
			}
		}
		p.mu.Unlock()
	}
	if a.replay == "" {
		a.share.suspects.noteDropped(a.key, a.header.Number)
	}
	a.drop()
}

// leave takes an arrival that was picked off what is counted here.
func (p *parking) leave(a *arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subtract(a)
}

// tried notes what came of an attempt, and returns what is left of it, and what could
// not be tried, before what waits. all says that each origin is known to fail by itself.
func (p *parking) tried(now, left, back []*arrival, answered bool) (all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := make(map[*arrival]struct{}, len(left))
	for _, a := range left {
		kept[a] = struct{}{}
	}
	for _, a := range now {
		if _, ok := kept[a]; !ok {
			p.subtract(a)
		}
	}
	p.note(origins(now), origins(left), answered)
	mine := make(map[hub.Origin][]*arrival)
	for _, a := range slices.Concat(left, back) {
		a.waits(a.bytes)
		mine[a.key.Origin] = append(mine[a.key.Origin], a)
	}
	for origin, arrivals := range mine {
		one := p.origins[origin]
		one.arrivals = append(arrivals, one.arrivals...)
	}
	p.release()
	for _, one := range p.origins {
		if !one.alone && len(one.arrivals) > 0 {
			return false
		}
	}
	return true
}

// note learns from an attempt: of which origins, and of which something failed. Where
// one failed again after the backend had taken something of others, it is not the
// whole backend that is away; then those that wait since before that are refused, too.
func (p *parking) note(tried, failed map[hub.Origin]struct{}, answered bool) {
	answers, apart := p.answers.Load(), false
	for origin := range tried {
		one := p.origins[origin]
		if _, ok := failed[origin]; !ok {
			one.refused, one.alone, one.failures, one.since = false, false, 0, answers
			continue
		}
		one.alone = one.alone || answered || len(tried) == 1
		apart = apart || one.since != answers
		one.failures++
	}
	for _, one := range p.origins {
		one.refused = one.refused || apart && one.since != answers
	}
	for origin := range failed {
		p.origins[origin].since = answers
	}
}
