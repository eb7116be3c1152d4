package deliver

import (
	"sync"
	"time"
)

// burstLength is how long one log message stands for all of its kind.
const burstLength = time.Minute

// Burst keeps a repeating message from flooding the log: one is let through per
// minute, and says how many it stands for. The zero value is ready.
type Burst struct {
	mu     sync.Mutex
	last   time.Time
	silent int
}

// Allow counts n occurrences and returns how many have not been told yet if it
// is time to tell them, otherwise 0.
func (b *Burst) Allow(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silent += n
	now := time.Now()
	if !b.last.IsZero() && now.Sub(b.last) < burstLength {
		return 0
	}
	told := b.silent
	b.last, b.silent = now, 0
	return told
}
