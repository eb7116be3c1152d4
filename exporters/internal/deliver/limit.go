package deliver

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// initialLimit is how many requests of a tenant are tried at once before
	// anything is known.
	initialLimit = 4
	// latencyTolerance is how much slower than usual answers may become before
	// no more requests are added: they wait in the backend's queue by then.
	latencyTolerance = 2
	// latencyFloor is an answer so quick that its backend is not overloaded,
	// whatever is usual.
	latencyFloor = 50 * time.Millisecond
	// latencyMemory is about how long it takes until a latency is usual that is
	// longer than the usual one was. A shorter one is usual at once.
	latencyMemory = time.Minute
)

// errBusy says that a slot was not free in time.
var errBusy = errors.New("the requests before this one have not come to an end")

// limit is how many requests may be under way at once: additive increase,
// multiplicative decrease. A round is as many answers as the limit is. After a
// round in which the limit was reached, and answers took no longer than usual,
// it grows by one; when the backend is overloaded or gone it is halved, at most
// once for the requests that were under way together. Those who wait are served
// in the order of their coming.
//
// The libraries that do the like do another thing: failsafe-go's adaptive
// limiter follows latency only, and most AIMD limiters shrink at each failed
// request, so that one hiccup of a backend with 16 requests under way takes them
// to 1.
type limit struct {
	least, most int
	// majority says that not the first failed request of a round halves the
	// limit, but when they come to more than half of it: requests of many
	// tenants, one of which may fail by itself.
	majority bool

	mu       sync.Mutex
	now      int       // the limit
	inFlight int       // requests under way, more than the limit after it was halved
	waiting  list.List // of chan slot, on which the slot is given

	generation uint64 // counts halvings
	answers    int    // of this round, failed ones included
	failed     int    // of this round
	full       bool   // whether the limit was reached in this round
	took       time.Duration
	round      time.Time     // when this round began
	usual      time.Duration // latency of a round, 0 if not known
}

// slot is the right to have one request under way.
type slot struct{ generation uint64 }

// verdict is what a request's end says about the backend.
type verdict int

const (
	silent    verdict = iota // nothing
	borne                    // it bears the load
	congested                // it does not
)

func newLimit(least, initial, most int) *limit {
	return &limit{least: least, most: most, now: max(least, min(initial, most)), round: time.Now()}
}

// acquire waits for a slot until ctx is done (its cause is returned) or patience
// is over (errBusy).
func (l *limit) acquire(ctx context.Context, patience time.Duration) (slot, error) {
	l.mu.Lock()
	if l.inFlight < l.now && l.waiting.Len() == 0 {
		s := l.takeLocked()
		l.mu.Unlock()
		return s, nil
	}
	if patience <= 0 {
		l.mu.Unlock()
		return slot{}, errBusy
	}
	given := make(chan slot, 1)
	place := l.waiting.PushBack(given)
	l.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	var err error
	select {
	case s := <-given:
		return s, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = errBusy
	}
	l.mu.Lock()
	select {
	case s := <-given: // meanwhile
		l.mu.Unlock()
		l.release(s, 0, silent)
	default:
		l.waiting.Remove(place)
		l.mu.Unlock()
	}
	return slot{}, err
}

func (l *limit) takeLocked() slot {
	l.inFlight++
	l.full = l.full || l.inFlight >= l.now
	return slot{l.generation}
}

// release gives the slot back and says how long its request took and what its
// end meant. It returns whether the limit was halved.
func (l *limit) release(s slot, took time.Duration, v verdict) (halved bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if s.generation == l.generation {
		switch v {
		case borne:
			l.took += took
			l.answers++
		case congested:
			l.answers++
			l.failed++
			halved = !l.majority || 2*l.failed > l.now
		}
		if halved {
			l.now = max(l.least, l.now/2)
			l.generation++
			l.newRoundLocked()
		} else if l.answers >= l.now {
			l.endRoundLocked()
		}
	}
	for l.inFlight < l.now && l.waiting.Len() > 0 {
		l.waiting.Remove(l.waiting.Front()).(chan slot) <- l.takeLocked()
	}
	return halved
}

// endRoundLocked makes the limit larger if the round was good.
func (l *limit) endRoundLocked() {
	if l.failed == 0 {
		latency := l.took / time.Duration(l.answers)
		if l.usual == 0 {
			l.usual = latency
		}
		if l.full && latency <= max(latencyFloor, latencyTolerance*l.usual) {
			l.now = min(l.now+1, l.most)
		}
		if latency < l.usual {
			l.usual = latency
		} else {
			weight := min(1, float64(time.Since(l.round))/float64(latencyMemory))
			l.usual += time.Duration(weight * float64(latency-l.usual))
		}
	}
	l.newRoundLocked()
}

func (l *limit) newRoundLocked() {
	l.answers, l.failed, l.took, l.round = 0, 0, 0, time.Now()
	l.full = l.inFlight >= l.now
}

// state returns the limit, the requests under way and those that wait.
func (l *limit) state() (now, inFlight, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.inFlight, l.waiting.Len()
}
