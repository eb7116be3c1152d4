package shipper

import (
	"sync"
	"time"
)

const (
	// promptly is by how much an acknowledgement may come later than the fastest
	// since the connect before the link counts as filled: data that is current then
	// waits no longer behind what was left behind.
	promptly = 250 * time.Millisecond
	// maxBase bounds what passes for the link's own delay: a link that was full from
	// the first moment must not set the measure.
	maxBase = time.Second
	// paceStart is the window to begin with.
	paceStart = 64 << 10
)

// pace is the window of all sealed lanes together, in bytes on the way without
// the hub's acknowledgement. It grows by what is acknowledged promptly, up to
// limit, and shrinks when acknowledgements come late: those of live lanes too.
type pace struct {
	mu       sync.Mutex
	limit    int
	window   int
	inFlight int
	base     time.Duration // the fastest acknowledgement since the connect
	shrunk   time.Time
}

// reset is for a new connection, which may be another link.
func (p *pace) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.window, p.base = min(paceStart, p.limit), 0
}

// take says whether so many bytes may go now, and if so counts them. One frame
// may always go.
func (p *pace) take(bytes int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight > 0 && p.inFlight+bytes > p.window {
		return false
	}
	p.inFlight += bytes
	return true
}

// give says that so many bytes are no longer on the way.
func (p *pace) give(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight -= bytes
}

// learn takes an acknowledgement's delay into account. bytes are those of a
// sealed lane's frame, 0 for one of a live lane, which never widens the window.
func (p *pace) learn(bytes int, took time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.base == 0 || took < p.base {
		p.base = min(took, maxBase)
	}
	if took-p.base < promptly {
		p.window = min(p.limit, p.window+bytes)
		return
	}
	if now.Sub(p.shrunk) < took { // those on the way were sent with the former window
		return
	}
	p.shrunk = now
	p.window = max(1, p.window*7/10)
}
