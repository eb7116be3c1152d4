package shipper

import (
	"context"
	"sync"
	"sync/atomic"
)

// link is the connection's state with a channel to wait on.
type link struct {
	mu       sync.Mutex
	up       atomic.Bool
	connects atomic.Uint64 // how often it came up
	changed  chan struct{}
	conflict string // why nothing may be shipped although the link is up
}

func (k *link) isUp() bool { return k.up.Load() }

func (k *link) set(up bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if up {
		k.connects.Add(1)
	}
	if k.up.Swap(up) != up {
		close(k.changed)
		k.changed = make(chan struct{})
	}
}

// dispute says why nothing may be shipped; empty: nothing stands against it. It
// reports whether that is news.
func (k *link) dispute(why string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	news := (k.conflict == "") != (why == "")
	if k.conflict = why; news {
		close(k.changed)
		k.changed = make(chan struct{})
	}
	return news
}

func (k *link) disputed() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conflict
}

// wait returns once the link is up and may be used, or the context's error.
func (k *link) wait(ctx context.Context) error {
	for {
		k.mu.Lock()
		changed, conflict := k.changed, k.conflict
		k.mu.Unlock()
		if k.isUp() && conflict == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
