package deliver

import (
	"sync"
	"time"
)

// Progress bridges the attempts of a caller that repeats a whole call because
// the backend became unavailable half way: what the backend answered for then
// is not sent, nor counted, again. A part of a call is known by a hash of its
// content. The zero value is ready; it is empty, and costs nothing, as long as
// no call fails half way.
type Progress struct {
	mu      sync.Mutex
	parts   map[uint64]answered
	expires time.Time // of all parts: some time after the last call that failed
}

type answered struct{ sent, rejected int }

const (
	// progressLife is how long a caller may take to come again.
	progressLife = 15 * time.Minute
	// progressParts bounds the memory. Parts beyond it are sent again, which
	// backends bear.
	progressParts = 100_000
)

// Part is a part of a call that the backend answered for.
type Part struct {
	Hash           uint64
	Sent, Rejected int
}

// Empty says whether no call has failed half way lately.
func (p *Progress) Empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.parts) > 0 && time.Now().After(p.expires) {
		p.parts = nil
	}
	return len(p.parts) == 0
}

// Answered returns what became of a part in an earlier attempt.
func (p *Progress) Answered(hash uint64) (part Part, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, found := p.parts[hash]
	return Part{hash, a.sent, a.rejected}, found
}

// Keep remembers the parts of a call that failed half way.
func (p *Progress) Keep(parts []Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts == nil {
		p.parts = make(map[uint64]answered, len(parts))
	}
	for _, part := range parts {
		if len(p.parts) >= progressParts {
			break
		}
		p.parts[part.Hash] = answered{part.Sent, part.Rejected}
	}
	p.expires = time.Now().Add(progressLife)
}

// Forget drops the parts of a call that came to its end.
func (p *Progress) Forget(parts []Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range parts {
		delete(p.parts, part.Hash)
	}
}
