package edge

import "time"

// pace is internal/shipper's window of all sealed lanes together; see there.
type pace struct {
	window, inFlight int
	base             time.Duration
	shrunk           time.Time
}

const (
	promptly  = 250 * time.Millisecond
	maxBase   = time.Second
	paceStart = 64 << 10
)

func (p *pace) reset() { p.window, p.base = paceStart, 0 }

func (p *pace) room(bytes int) bool { return p.inFlight == 0 || p.inFlight+bytes <= p.window }

func (p *pace) give(bytes int) { p.inFlight -= bytes }

func (p *pace) learn(bytes int, took time.Duration, now time.Time) {
	if p.base == 0 || took < p.base {
		p.base = min(took, maxBase)
	}
	if took-p.base < promptly {
		p.window = min(windowBytes, p.window+bytes)
		return
	}
	if now.Sub(p.shrunk) < took {
		return
	}
	p.shrunk = now
	p.window = max(1, p.window*7/10)
}
