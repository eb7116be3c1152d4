package natsreceiver

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// leastDecoded is what there is for a decoded frame even where memory_limit gives an
// outlet less: enough for every frame that an edge makes (frame.MaxRequest).
const leastDecoded = 64 << 20

// budget bounds a kind of memory in bytes. More than it has is taken as all of it:
// what is larger than the budget passes alone.
type budget struct {
	free  *semaphore.Weighted
	limit int64
	used  atomic.Int64
}

func newBudget(limit int64) *budget {
	return &budget{free: semaphore.NewWeighted(limit), limit: limit}
}

// take waits for room and returns how much was taken.
func (b *budget) take(ctx context.Context, bytes int64) (taken int64, err error) {
	taken = min(bytes, b.limit)
	if err := b.free.Acquire(ctx, taken); err != nil {
		return 0, err
	}
	b.used.Add(taken)
	return taken, nil
}

func (b *budget) giveBack(taken int64) {
	b.used.Add(-taken)
	b.free.Release(taken)
}
