package lab

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// LinkState is the condition of a Link.
type LinkState int

// The states of a link.
const (
	LinkUp        LinkState = iota + 1
	LinkCut                 // connections are refused, existing ones were reset
	LinkBlackHole           // connections stay open and new ones are accepted, but nothing passes
)

// String returns "up", "cut" or "black hole".
func (s LinkState) String() string {
	return map[LinkState]string{LinkUp: "up", LinkCut: "cut", LinkBlackHole: "black hole"}[s]
}

// Link is a TCP proxy on loopback that stands for the link between a collector
// and the hub. Bytes that were under way when it became a black hole are passed
// on when it is restored, as TCP would retransmit them; bytes that were under
// way when it was cut are gone with their connections.
type Link struct {
	addr, target string

	mu       sync.Mutex
	state    LinkState
	changed  chan struct{} // closed and replaced on every change of state
	listener net.Listener  // nil while cut
	conns    map[net.Conn]bool
	closed   bool
	fuse     int64         // bytes that may still go up before the link is cut, if blown is not nil
	blown    chan struct{} // closed when that has happened
	wg       sync.WaitGroup

	up, down atomic.Int64
}

// NewLink listens on a free loopback port and passes connections to target, a
// host:port that need not be there yet.
func NewLink(target string) (*Link, error) {
	port, err := FreePort()
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", target, err)
	}
	l := &Link{addr: loopback(port), target: target, state: LinkCut, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	if err := l.Restore(); err != nil {
		return nil, err
	}
	return l, nil
}

// Addr returns the host:port the collector has to connect to.
func (l *Link) Addr() string { return l.addr }

// State returns the link's present state.
func (l *Link) State() LinkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Bytes returns how many bytes have passed towards the hub and back.
func (l *Link) Bytes() (up, down int64) { return l.up.Load(), l.down.Load() }

// Cut resets every connection and refuses new ones.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_ = l.listener.Close()
		l.listener = nil
	}
	for c := range l.conns {
		reset(c)
	}
	l.set(LinkCut)
}

// CutAfter cuts the link when so many more bytes have passed towards the hub:
// in the middle of a message, most likely. The channel is closed when that has
// happened, or when the link was cut or restored otherwise before.
func (l *Link) CutAfter(bytes int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disarm()
	l.fuse, l.blown = max(0, bytes), make(chan struct{})
	return l.blown
}

// disarm forgets a CutAfter. The caller holds mu.
func (l *Link) disarm() {
	if l.blown != nil {
		close(l.blown)
		l.blown = nil
	}
}

// burn says how many of n bytes may go up, and whether the link is to be cut then.
func (l *Link) burn(n int) (pass int, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blown == nil {
		return n, false
	}
	pass = int(min(int64(n), l.fuse))
	l.fuse -= int64(pass)
	return pass, l.fuse == 0
}

// BlackHole keeps connections open and accepts new ones, but lets nothing pass:
// the half-open link that only time-outs reveal.
func (l *Link) BlackHole() error { return l.open(LinkBlackHole) }

// Restore lets connections through again.
func (l *Link) Restore() error { return l.open(LinkUp) }

// Close cuts the link for good and waits until nothing of it runs.
func (l *Link) Close() {
	l.Cut()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *Link) open(state LinkState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("link to %s: %w", l.target, net.ErrClosed)
	}
	if l.listener == nil {
		listener, err := net.Listen("tcp", l.addr)
		if err != nil {
			return fmt.Errorf("link to %s: %w", l.target, err)
		}
		l.listener = listener
		l.wg.Add(1)
		go l.accept(listener)
	}
	l.set(state)
	return nil
}

func (l *Link) set(state LinkState) {
	l.disarm()
	l.state = state
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) accept(listener net.Listener) {
	defer l.wg.Done()
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		if !l.track(c) {
			continue
		}
		l.wg.Add(1)
		go l.serve(c)
	}
}

// track remembers a connection so that Cut finds it; it refuses while cut.
func (l *Link) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == LinkCut {
		reset(c)
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	_ = c.Close()
}

func (l *Link) serve(near net.Conn) {
	defer l.wg.Done()
	defer l.forget(near)
	if !l.waitUp() {
		return
	}
	far, err := net.DialTimeout("tcp", l.target, 5*time.Second)
	if err != nil {
		reset(near) // nobody listens behind the link
		return
	}
	if !l.track(far) {
		return
	}
	defer l.forget(far)
	var both sync.WaitGroup
	both.Go(func() { l.pass(far, near, &l.up) })
	both.Go(func() { l.pass(near, far, &l.down) })
	both.Wait()
}

// pass copies one direction and closes both ends when it ends.
func (l *Link) pass(to, from net.Conn, count *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.waitUp() {
				return
			}
			cut := false
			if count == &l.up {
				n, cut = l.burn(n)
			}
			// Counted first: whoever reads the bytes finds them counted.
			count.Add(int64(n))
			if written, err := to.Write(buf[:n]); err != nil {
				count.Add(int64(written - n))
				return
			}
			if cut {
				l.Cut()
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				l.waitUp() // the end must not overtake what was held back
			}
			return
		}
	}
}

// waitUp returns true when the link is up, false when it has been cut.
func (l *Link) waitUp() bool {
	for {
		l.mu.Lock()
		state, changed := l.state, l.changed
		l.mu.Unlock()
		switch state {
		case LinkUp:
			return true
		case LinkCut:
			return false
		}
		<-changed
	}
}

// reset closes with RST instead of FIN.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
