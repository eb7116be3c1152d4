package edge

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/longhaul/longhaul/internal/hub"
)

// As in internal/hub.
const (
	pingInterval     = 20 * time.Second
	maxPingsOut      = 2
	connectTimeout   = 20 * time.Second
	reconnectWaitMin = 500 * time.Millisecond
	reconnectWaitMax = 15 * time.Second
)

const (
	readBuffer = 2 << 10
	// maxMessage bounds what a node is sent: acknowledgements and confirmations.
	maxMessage = 1 << 20
)

var errProtocol = errors.New("not the NATS protocol")

// link is one connection to the hub with the nodes behind it.
type link struct {
	fleet *Fleet
	nodes []*Node
	from  net.IP // source address: one has ports for 28,000 connections only

	mu      sync.Mutex
	conn    net.Conn
	inbox   string // of this connection
	pending []byte // to be written
	writing bool
	pings   int // not answered

	attempts atomic.Int32
	wanted   atomic.Bool // be connected
	dialling atomic.Bool
	nextDial time.Time // owned by the tick
	nextPing time.Time
}

// connected says whether the hub has answered.
func (l *link) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil
}

// tick keeps the connection as it should be. One goroutine calls it.
func (l *link) tick(now time.Time) {
	if !l.wanted.Load() {
		l.drop()
		return
	}
	if l.connected() {
		if now.Before(l.nextPing) {
			return
		}
		l.nextPing = now.Add(pingInterval)
		l.mu.Lock()
		l.pings++
		lost := l.pings > maxPingsOut
		l.mu.Unlock()
		if lost {
			l.drop()
			return
		}
		l.send(func(to []byte) []byte { return append(to, "PING\r\n"...) })
		return
	}
	if now.Before(l.nextDial) || !l.dialling.CompareAndSwap(false, true) {
		return
	}
	l.nextDial = now.Add(reconnectDelay(int(l.attempts.Add(1))))
	l.fleet.working.Go(func() {
		defer l.dialling.Store(false)
		l.run()
	})
}

// reconnectDelay is internal/hub's.
func reconnectDelay(attempts int) time.Duration {
	wait := reconnectWaitMax
	if attempts < 5 {
		wait = reconnectWaitMin << attempts
	}
	return wait/2 + rand.N(wait/2+1)
}

// run connects and reads until the connection ends.
func (l *link) run() {
	select { // a server's accept queue is short
	case l.fleet.dials <- struct{}{}:
	case <-l.fleet.done:
		return
	}
	in, conn, err := l.dial()
	<-l.fleet.dials
	if err != nil {
		l.fleet.failedDials.Add(1)
		return
	}
	for _, n := range l.nodes {
		n.connected()
	}
	err = l.read(in)
	_ = conn.Close() // it is over
	l.mu.Lock()
	if l.conn == conn {
		l.conn, l.pending = nil, nil
	}
	l.mu.Unlock()
	l.fleet.lostLinks.Add(1)
	for _, n := range l.nodes {
		n.disconnected()
	}
	_ = err // the hub ended it, or this did; either way it is tried again
}

// dial connects, subscribes, and waits for the hub to have understood.
func (l *link) dial() (*bufio.Reader, net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout, LocalAddr: &net.TCPAddr{IP: l.from}}
	conn, err := dialer.Dial("tcp", l.fleet.options.Hub)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*bufio.Reader, net.Conn, error) {
		return nil, nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Now().Add(connectTimeout)) // fails on closed connections only, as does what follows
	in := bufio.NewReaderSize(conn, readBuffer)
	if line, err := readLine(in); err != nil || !bytes.HasPrefix(line, []byte("INFO ")) {
		return fail(errors.Join(errProtocol, err))
	}
	inbox := nats.NewInbox()
	var hello bytes.Buffer
	first := l.nodes[0].origin
	fmt.Fprintf(&hello, `CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"name":"longhaul-collector %s/%s","lang":"go","version":"1.55.0","protocol":1,"echo":true,"headers":true,"no_responders":true}`+"\r\n", first.Cluster, first.Node)
	fmt.Fprintf(&hello, "SUB %s.* 1\r\n", inbox)
	for i, n := range l.nodes {
		fmt.Fprintf(&hello, "SUB %s %d\r\n", hub.CustodySubject(n.origin), i+2)
	}
	hello.WriteString("PING\r\n")
	if _, err := conn.Write(hello.Bytes()); err != nil {
		return fail(err)
	}
	for {
		line, err := readLine(in)
		if err != nil || bytes.HasPrefix(line, []byte("-ERR")) {
			return fail(fmt.Errorf("%s: %w", line, errors.Join(errProtocol, err)))
		}
		if string(line) == "PONG" {
			break
		}
	}
	_ = conn.SetDeadline(time.Time{})
	l.mu.Lock()
	l.conn, l.inbox, l.pending, l.pings = conn, inbox, nil, 0
	l.mu.Unlock()
	l.attempts.Store(0)
	return in, conn, nil
}

// drop ends the connection, if there is one.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close() // the reader notices and tells the nodes
	}
}

// send appends to what is to be written and sees to it that it is. It says
// whether there was a connection.
func (l *link) send(more func(to []byte) []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return false
	}
	l.pending = more(l.pending)
	if !l.writing {
		l.writing = true
		l.fleet.working.Go(l.write)
	}
	return true
}

// write writes until nothing is pending: a goroutine while there is something.
func (l *link) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 && l.conn != nil {
		conn, out := l.conn, l.pending
		l.pending = nil
		if spare, ok := l.fleet.spare.Get().(*[]byte); ok {
			l.pending = (*spare)[:0]
		}
		l.mu.Unlock()
		_, err := conn.Write(out)
		l.fleet.bytesOut.Add(int64(len(out)))
		if cap(out) <= 1<<20 {
			l.fleet.spare.Put(&out)
		}
		if err != nil {
			_ = conn.Close() // the reader notices
		}
		l.mu.Lock()
	}
	l.writing = false
	if cap(l.pending) > 0 && len(l.pending) == 0 {
		spare := l.pending
		l.fleet.spare.Put(&spare)
		l.pending = nil
	}
}

// read handles what the hub sends until the connection ends.
func (l *link) read(in *bufio.Reader) error {
	var body []byte
	for {
		line, err := readLine(in)
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")), bytes.HasPrefix(line, []byte("HMSG ")):
			header := line[0] == 'H'
			fields := strings.Fields(string(line))
			size, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil || len(fields) < 4 || size < 0 || size > maxMessage {
				return fmt.Errorf("%w: %q", errProtocol, line)
			}
			if cap(body) < size+2 {
				body = make([]byte, size+2)
			}
			body = body[:size+2]
			if _, err := io.ReadFull(in, body); err != nil {
				return err
			}
			l.handle(fields[1], fields[2], body[:size], header)
		case string(line) == "PING":
			l.send(func(to []byte) []byte { return append(to, "PONG\r\n"...) })
		case string(line) == "PONG":
			l.mu.Lock()
			l.pings = 0
			l.mu.Unlock()
		case bytes.HasPrefix(line, []byte("-ERR")):
			return fmt.Errorf("%w: %s", errProtocol, line)
		}
	}
}

// readLine returns a line without its end. INFO may be longer than the buffer.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) && len(long) < maxMessage {
			line, err = in.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// handle hands a message to the node it is for.
func (l *link) handle(subject, sid string, body []byte, header bool) {
	if sid != "1" {
		if i, err := strconv.Atoi(sid); err == nil && i >= 2 && i-2 < len(l.nodes) {
			l.nodes[i-2].heard(body)
		}
		return
	}
	_, token, _ := strings.Cut(strings.TrimPrefix(subject, "_INBOX."), ".")
	if i, a, ok := parseReply(token); ok && i < len(l.nodes) {
		// A header without a body is the server saying that no stream listens.
		a.failed = header || bytes.Contains(body, []byte(`"error"`))
		if a.failed {
			l.fleet.refusedPublishes.Add(1)
		}
		l.nodes[i].acknowledged(a)
	}
}
