package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"

	"github.com/longhaul/longhaul/internal/lab"
)

// behaviour is what a gate does with a push.
type behaviour struct {
	refuse     bool          // no listener
	hang       bool          // takes the request and never answers
	status     int           // answers this and stores nothing
	retryAfter time.Duration // with status
	delay      time.Duration // before it passes the push on
}

// gate stands before Loki. It passes pushes on and counts, for every number,
// how often Loki took it: Loki itself keeps one of two equal entries. It can
// behave like a backend in trouble.
type gate struct {
	addr, loki string
	client     *http.Client

	mu       sync.Mutex
	now      behaviour
	changed  chan struct{} // closed and replaced on every change
	server   *http.Server  // nil while refusing
	accepted []uint16      // by number
	troubled int           // requests that met the trouble
	recent   []taking      // what Loki took in the last recentFor
	underway int           // records with Loki at the moment
}

// taking is a push that Loki took.
type taking struct {
	at    time.Time
	items int
}

const recentFor = time.Minute

func newGate(lokiURL string) (*gate, error) {
	port, err := lab.FreePort()
	if err != nil {
		return nil, err
	}
	g := &gate{
		addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), loki: lokiURL,
		client: &http.Client{Timeout: time.Minute}, changed: make(chan struct{}),
	}
	return g, g.behave(behaviour{})
}

func (g *gate) url() string { return "http://" + g.addr }

// behave changes what happens to pushes, those under way included.
func (g *gate) behave(b behaviour) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = b
	close(g.changed)
	g.changed = make(chan struct{})
	if b.refuse {
		if g.server != nil {
			_ = g.server.Close()
			g.server = nil
		}
		return nil
	}
	if g.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", g.addr)
	if err != nil {
		return fmt.Errorf("gate before Loki: %w", err)
	}
	server := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	g.server = server
	go func() { _ = server.Serve(listener) }() // ends when it is closed
	return nil
}

func (g *gate) close() {
	_ = g.behave(behaviour{refuse: true})
	g.client.CloseIdleConnections()
}

// ServeHTTP takes a push.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return
	}
	g.mu.Lock()
	now, changed := g.now, g.changed
	if now.hang || now.status != 0 {
		g.troubled++
	}
	g.mu.Unlock()
	switch {
	case now.hang:
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler) // the connection ends without an answer
	case now.status != 0:
		if now.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(now.retryAfter.Seconds())))
		}
		http.Error(w, "the gate answers "+strconv.Itoa(now.status), now.status)
		return
	}
	time.Sleep(now.delay)
	g.pass(w, r, body)
}

// pass hands a push to Loki, whether or not the relay is still there to hear the
// answer.
func (g *gate) pass(w http.ResponseWriter, r *http.Request, body []byte) {
	numbers, err := numbersIn(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.begin(len(numbers))
	status, answer, err := g.push(r, body)
	g.end(numbers, err == nil && status/100 == 2)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a relay that was killed does not hear it
}

func (g *gate) push(r *http.Request, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, g.loki+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = r.Header.Clone()
	resp, err := g.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// numbersIn reads the numbers of a push's records.
func numbersIn(body []byte) (numbers []int, err error) {
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, fmt.Errorf("decode a push: %w", err)
	}
	var request push.PushRequest
	if err := request.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode a push: %w", err)
	}
	for _, stream := range request.Streams {
		for _, entry := range stream.Entries {
			if n, ok := number(entry.Line); ok {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers, nil
}

func (g *gate) begin(items int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underway += items
}

// end notes what became of a push that began.
func (g *gate) end(numbers []int, taken bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underway -= len(numbers)
	if !taken {
		return
	}
	for _, n := range numbers {
		for len(g.accepted) <= n {
			g.accepted = append(g.accepted, make([]uint16, 1024)...)
		}
		if g.accepted[n] < 1<<16-1 {
			g.accepted[n]++
		}
	}
	now := time.Now()
	for len(g.recent) > 0 && now.Sub(g.recent[0].at) > recentFor {
		g.recent = g.recent[1:]
	}
	g.recent = append(g.recent, taking{now, len(numbers)})
}

// onTheWay returns how many records Loki took in the last while or has in its
// hands: a relay that is killed now may not have noted that.
func (g *gate) onTheWay(last time.Duration) (items int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.recent {
		if time.Since(t.at) <= last {
			items += t.items
		}
	}
	return items + g.underway
}

// counts returns how often Loki took each number.
func (g *gate) counts() []uint16 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]uint16(nil), g.accepted...)
}

// met returns how many pushes met the trouble so far.
func (g *gate) met() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.troubled
}
