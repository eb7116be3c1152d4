package spool

import (
	"log/slog"
	"sync"
	"time"
)

// burstEvery is how often a trouble that goes on is logged.
const burstEvery = 10 * time.Second

// burst logs a trouble when it begins and then now and again, not every time.
type burst struct {
	mu     sync.Mutex
	last   time.Time
	missed int
}

func (b *burst) report(log *slog.Logger, message string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() && time.Since(b.last) < burstEvery {
		b.missed++
		return
	}
	if b.missed > 0 {
		args = append(args, "also", b.missed)
	}
	b.last, b.missed = time.Now(), 0
	log.Warn(message, args...)
}

func (b *burst) over() {
	b.mu.Lock()
	b.last, b.missed = time.Time{}, 0
	b.mu.Unlock()
}
