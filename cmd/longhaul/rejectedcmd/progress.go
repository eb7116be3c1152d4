package rejectedcmd

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person, at most once a second, how far a long work is. It says
// nothing of a short one.
type progress struct {
	to io.Writer

	mu   sync.Mutex
	last time.Time
}

func newProgress(to io.Writer) *progress { return &progress{to: to, last: time.Now()} }

func (p *progress) tell(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < time.Second {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.to, "longhaul: "+format+"\n", args...)
}
