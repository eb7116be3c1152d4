package lease

import (
	"sync"
	"time"
)

// clock tells how long the process has been there, also while it was stopped or the
// machine slept. It never goes back, and rather runs ahead: a lease that seems to
// have ended too early is asked for again, one that seems to last too long is
// another's.
type clock struct {
	mu      sync.Mutex
	elapsed time.Duration
	boot    time.Duration
	wall    time.Time
}

func newClock() *clock { return &clock{boot: sinceBoot(), wall: time.Now().Round(0)} }

func (c *clock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	boot, wall := sinceBoot(), time.Now().Round(0) // the wall clock also knows of a virtual machine that was suspended
	c.elapsed += max(boot-c.boot, wall.Sub(c.wall), 0)
	c.boot, c.wall = boot, wall
	return c.elapsed
}
