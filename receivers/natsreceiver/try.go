package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// pass is one attempt at a batch, in several pieces if it has to be.
type pass struct {
	*worker
	answered bool // the backend took something, or refused something for good
}

// try hands arrivals, which are in order, to the exporters once, and returns those
// that are to be tried again, in order, and why. What is accepted or refused for
// good is dealt with; what is of a partition that is not this relay's any more is
// let go of.
func (w *pass) try(ctx context.Context, arrivals []*arrival) (left []*arrival, err error) {
	arrivals, leave := w.enter(ctx, arrivals)
	if len(arrivals) == 0 {
		return nil, nil
	}
	result := w.attempt(ctx, arrivals)
	defer leave()
	switch {
	case result.undecodable != nil:
		return w.around(ctx, arrivals, result)
	case result.err == nil:
		w.answer()
		w.accept(arrivals)
		return nil, nil
	case result.permanent && len(arrivals) == 1:
		w.answer()
		w.refuse(arrivals[0], result.err, frame.Rejected)
		return nil, nil
	case result.permanent: // of several, it is found which
		half := len(arrivals) / 2
		return w.inTurn(ctx, arrivals[:half], arrivals[half:])
	case result.failed != nil:
		accepted, left := split(arrivals, result.failed)
		if len(accepted) > 0 {
			w.answer()
			w.accept(accepted)
		}
		return left, result.err
	}
	return arrivals, result.err
}

// answer notes that the backend is there.
func (w *pass) answer() {
	w.answered = true
	w.answers.Add(1)
}

// inTurn tries one part and then the other, without what is of origins of which
// something of the first is left.
func (w *pass) inTurn(ctx context.Context, first, second []*arrival) (left []*arrival, err error) {
	left, err = w.try(ctx, first)
	ready, behind := split(second, origins(left))
	left = append(slices.Clip(left), behind...)
	if len(ready) == 0 || ctx.Err() != nil {
		return append(left, ready...), err
	}
	more, moreErr := w.try(ctx, ready)
	return append(left, more...), errors.Join(err, moreErr)
}

// around delivers what comes before a frame that does not decode, refuses that, and
// goes on behind it: accepting its number accepts those before.
func (w *pass) around(ctx context.Context, arrivals []*arrival, result attempt) (left []*arrival, err error) {
	at := result.at
	if at > 0 {
		if left, err = w.try(ctx, arrivals[:at]); ctx.Err() != nil {
			return append(slices.Clip(left), arrivals[at:]...), err
		}
	}
	left = slices.Clip(left)
	failed := origins(left)
	if _, waits := failed[arrivals[at].key.Origin]; waits {
		left = append(left, arrivals[at])
	} else {
		w.refuse(arrivals[at], result.undecodable, result.cause)
	}
	ready, behind := split(arrivals[at+1:], failed)
	left = append(left, behind...)
	if len(ready) == 0 {
		return left, err
	}
	more, moreErr := w.try(ctx, ready)
	return append(left, more...), errors.Join(err, moreErr)
}

// enter waits until all arrivals' partitions are certainly this relay's, and lets go
// of those that are not any more. leave is to be called when what became of the
// others is noted.
func (w *worker) enter(ctx context.Context, arrivals []*arrival) (ours []*arrival, leave func()) {
	entered := make(map[*partition]bool, 4)
	for _, p := range partitionsOf(arrivals) {
		entered[p] = !p.ended.Load() && p.claim.WaitHeld(p.ctx) == nil && p.enter()
	}
	all := true
	for p, ok := range entered {
		for ok && !p.claim.Held() { // while others were waited for
			ok = p.claim.WaitHeld(p.ctx) == nil
			if !ok {
				p.leave()
			}
		}
		entered[p] = ok
		all = all && ok
	}
	leave = func() {
		for p, ok := range entered {
			if ok {
				p.leave()
			}
		}
	}
	if all {
		return arrivals, leave
	}
	ours = make([]*arrival, 0, len(arrivals))
	for _, a := range arrivals {
		if entered[a.share.partition] {
			ours = append(ours, a)
		} else {
			a.discard()
		}
	}
	if len(ours) == 0 {
		leave()
	}
	return ours, leave
}

// attempt is what came of handing arrivals to the exporters once.
type attempt struct {
	err       error
	permanent bool                    // trying again is in vain
	failed    map[hub.Origin]struct{} // if not nil, all that is of others is accepted

	at          int   // the first arrival that does not decode, or is not to be
	undecodable error // why; nothing was handed over then
	cause       frame.Cause
}

// errOversize is a frame for which the relay has no memory.
var errOversize = errors.New("the frame would take too much memory")

// oversize says why a frame is not to be decoded: by what it claims it would take more
// than any frame of an edge may, and more than this outlet has. Nothing else bounds
// what one frame takes.
func (o *outlet) oversize(a *arrival) error {
	if n, most := o.decodedBytes(a), max(leastDecoded, o.decoded.limit); n > most {
		return fmt.Errorf("%w: decoded it has %d bytes and %d items, for which about %d are needed, and %d are there for one frame; "+
			"if it is a good one, raise memory_limit and send it again", errOversize, a.header.Uncompressed, a.header.Items, n, most)
	}
	return nil
}

// attempt decodes arrivals and hands them over, within the budget of what is decoded.
func (w *worker) attempt(ctx context.Context, arrivals []*arrival) (result attempt) {
	memory := int64(0)
	for i, a := range arrivals {
		if err := w.oversize(a); err != nil {
			return attempt{at: i, undecodable: err, cause: frame.Rejected}
		}
		memory += w.decodedBytes(a)
	}
	taken, err := w.decoded.take(ctx, memory)
	if err != nil {
		return attempt{err: err}
	}
	defer w.decoded.giveBack(taken)

	delivering, cancel := context.WithCancel(w.delivering)
	defer cancel()
	for _, p := range partitionsOf(arrivals) {
		stop := context.AfterFunc(p.lost, cancel)
		defer stop()
	}
	at, err := w.sink.deliver(delivering, arrivals)
	if at >= 0 {
		cause := frame.Corrupt
		if errors.Is(err, errOversize) {
			cause = frame.Rejected
		}
		return attempt{at: at, undecodable: err, cause: cause}
	}
	w.telemetry.attempted(w.outlet, arrivals)
	if err == nil {
		return attempt{}
	}
	return judgeError(err, arrivals)
}

func partitionsOf(arrivals []*arrival) (partitions []*partition) {
	seen := make(map[*partition]struct{}, 4)
	var last *partition
	for _, a := range arrivals {
		p := a.share.partition
		if p == last {
			continue
		}
		last = p
		if _, ok := seen[p]; !ok {
			seen[p] = struct{}{}
			partitions = append(partitions, p)
		}
	}
	return partitions
}

func origins(arrivals []*arrival) map[hub.Origin]struct{} {
	set := make(map[hub.Origin]struct{})
	for _, a := range arrivals {
		set[a.key.Origin] = struct{}{}
	}
	return set
}

// split divides arrivals into those of some origins and the others, in order.
func split(arrivals []*arrival, failed map[hub.Origin]struct{}) (others, of []*arrival) {
	if len(failed) == 0 {
		return arrivals, nil
	}
	for _, a := range arrivals {
		if _, ok := failed[a.key.Origin]; ok {
			of = append(of, a)
		} else {
			others = append(others, a)
		}
	}
	return others, of
}
