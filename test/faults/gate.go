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
}

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
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, g.loki+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	resp, err := g.client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if resp.StatusCode/100 == 2 {
		if err := g.count(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer) // a relay that was killed does not hear it
}

// count notes the numbers of a push that Loki took.
func (g *gate) count(body []byte) error {
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return fmt.Errorf("decode a push: %w", err)
	}
	var request push.PushRequest
	if err := request.Unmarshal(raw); err != nil {
		return fmt.Errorf("decode a push: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, stream := range request.Streams {
		for _, entry := range stream.Entries {
			n, ok := number(entry.Line)
			if !ok {
				continue
			}
			for len(g.accepted) <= n {
				g.accepted = append(g.accepted, make([]uint16, 1024)...)
			}
			if g.accepted[n] < 1<<16-1 {
				g.accepted[n]++
			}
		}
	}
	return nil
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
