package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// What a lossy link does to TCP, as its two ends see it: bytes arrive late, and
// what follows a lost packet waits until that has been sent again.
const (
	lossyDelay  = 150 * time.Millisecond // one way: 300 ms there and back
	lossyChance = 0.3
	lossyStall  = 700 * time.Millisecond // at most
	lossyChunk  = 8 << 10
	lossyQueue  = 64 // chunks under way
)

// lossyLink is a link to the hub that is slow and loses three packets of ten.
// Where the kernel can do that it is a proxy behind a pair of interfaces on which
// the kernel does; elsewhere the proxy, on loopback, delays every chunk of bytes
// and stalls at three of ten.
type lossyLink struct {
	listener net.Listener
	target   string
	ns       *netns // nil where the proxy itself is slow
	how      string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	healed bool
	wg     sync.WaitGroup
}

func newLossyLink(target string, shape []string) (l *lossyLink, err error) {
	l = &lossyLink{target: target, conns: make(map[net.Conn]bool)}
	ns, err := newNetns(shape)
	if err == nil {
		l.ns, l.how = ns, "packets delayed and dropped by the kernel"
		l.listener, err = ns.listen()
		if err != nil {
			ns.close()
		}
	}
	if err != nil {
		l.ns, l.how = nil, fmt.Sprintf("a proxy delays and stalls, because the kernel cannot (%v)", err)
		if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("lossy link to %s: %w", target, err)
		}
	}
	l.wg.Go(l.accept)
	return l, nil
}

func (l *lossyLink) addr() string { return l.listener.Addr().String() }

// heal makes a good link of it.
func (l *lossyLink) heal() {
	l.mu.Lock()
	l.healed = true
	l.mu.Unlock()
	if l.ns != nil {
		l.ns.clear()
	}
}

// stalls says whether the proxy itself has to be slow.
func (l *lossyLink) stalls() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ns == nil && !l.healed
}

func (l *lossyLink) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	if l.ns != nil {
		l.ns.close()
	}
}

func (l *lossyLink) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", l.target, 5*time.Second)
		if err != nil {
			_ = near.Close()
			continue
		}
		if !l.track(near, far) {
			return
		}
		l.wg.Go(func() { l.pass(far, near) })
		l.wg.Go(func() { l.pass(near, far) })
	}
}

func (l *lossyLink) track(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.conns[c] = true
		if l.closed {
			_ = c.Close()
		}
	}
	return !l.closed
}

type chunk struct {
	bytes []byte
	due   time.Time
}

// pass copies one direction, late and in order, and closes both ends when it ends.
func (l *lossyLink) pass(to, from net.Conn) {
	queue := make(chan chunk, lossyQueue)
	l.wg.Go(func() {
		defer close(queue)
		for {
			buf := make([]byte, lossyChunk)
			n, err := from.Read(buf)
			if n > 0 {
				queue <- chunk{buf[:n], time.Now().Add(lossyDelay)}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range queue {
		if l.stalls() {
			time.Sleep(time.Until(c.due))
			if rand.Float64() < lossyChance {
				time.Sleep(rand.N(lossyStall))
			}
		}
		if _, err := to.Write(c.bytes); err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
	for range queue { // lets the reader end
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, to)
	delete(l.conns, from)
}
