package natsreceiver

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// leastDecoded is what there is for a decoded frame even where memory_limit gives an
// outlet less: enough for every frame that an edge makes (frame.MaxRequest).
const leastDecoded = 64 << 20

// budget bounds a kind of memory in bytes.
type budget struct {
	free  *semaphore.Weighted
	limit int64
	most  int64 // that one may take: more counts as so much
	used  atomic.Int64
}

// newBudget makes a budget of which a part is reserved: it is used without being taken.
// What is larger than the budget passes alone.
func newBudget(limit, reserved int64) *budget {
	return &budget{free: semaphore.NewWeighted(limit - reserved), limit: limit, most: limit - reserved}
}

// take waits for room and returns how much was taken.
func (b *budget) take(ctx context.Context, bytes int64) (taken int64, err error) {
	taken = min(bytes, b.most)
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
