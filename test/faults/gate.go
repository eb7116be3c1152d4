package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	tenant     string        // only with pushes of this one; empty: with all
}

// gate stands before Loki. It passes pushes on and counts, for every number,
// how often Loki took it: Loki itself keeps one of two equal entries. It can
// behave like a backend in trouble. A relay's name stands before the path.
type gate struct {
	addr, loki string
	client     *http.Client

	mu       sync.Mutex
	now      behaviour
	changed  chan struct{}              // closed and replaced on every change
	server   *http.Server               // nil while refusing
	accepted []uint16                   // by number
	first    []int                      // by number: with which push it was taken first, 0 if never
	pushes   int                        // taken
	troubled int                        // requests that met the trouble
	recent   []taking                   // what Loki took in the last recentFor
	underway map[string]int             // records with Loki at the moment, by relay
	delays   map[string][]time.Duration // by tenant, of pushes since watch
}

// taking is a push that Loki took.
type taking struct {
	at      time.Time
	relay   string
	items   int
	repeats int // of them, taken before
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
		underway: make(map[string]int), delays: make(map[string][]time.Duration),
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
	relay, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	r.URL.Path = "/" + path
	now, changed := g.behaviour(r)
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
	g.pass(w, r, relay, body)
}

const tenantHeader = "X-Scope-OrgID"

// behaviour is what happens to a request.
func (g *gate) behaviour(r *http.Request) (now behaviour, changed chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, changed = g.now, g.changed
	if now.tenant != "" && now.tenant != r.Header.Get(tenantHeader) {
		return behaviour{}, changed
	}
	if r.Method == http.MethodPost && (now.hang || now.status != 0) {
		g.troubled++
	}
	return now, changed
}

// pass hands a push to Loki, whether or not the relay is still there to hear the
// answer, and a question as it is.
func (g *gate) pass(w http.ResponseWriter, r *http.Request, relay string, body []byte) {
	var records []record
	if r.Method == http.MethodPost {
		var err error
		if records, err = recordsIn(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	g.begin(relay, len(records))
	status, answer, err := g.push(r, body)
	g.end(relay, r.Header.Get(tenantHeader), records, err == nil && status/100 == 2)
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

// record is a numbered one in a push.
type record struct {
	number int
	at     time.Time
}

// recordsIn reads a push's numbered records.
func recordsIn(body []byte) (records []record, err error) {
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
				records = append(records, record{n, entry.Timestamp})
			}
		}
	}
	return records, nil
}

func (g *gate) begin(relay string, items int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underway[relay] += items
}

// end notes what became of a push that began.
func (g *gate) end(relay, tenant string, records []record, taken bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underway[relay] -= len(records)
	if !taken || len(records) == 0 {
		return
	}
	now := time.Now()
	done := taking{at: now, relay: relay, items: len(records)}
	g.pushes++
	for _, r := range records {
		for len(g.accepted) <= r.number {
			g.accepted = append(g.accepted, make([]uint16, 1024)...)
			g.first = append(g.first, make([]int, 1024)...)
		}
		if g.accepted[r.number] > 0 {
			done.repeats++
		} else {
			g.first[r.number] = g.pushes
			g.delays[tenant] = append(g.delays[tenant], now.Sub(r.at))
		}
		if g.accepted[r.number] < 1<<16-1 {
			g.accepted[r.number]++
		}
	}
	for len(g.recent) > 0 && now.Sub(g.recent[0].at) > recentFor {
		g.recent = g.recent[1:]
	}
	g.recent = append(g.recent, done)
}

// onTheWay returns how many records Loki took from a relay in the last while or
// has in its hands: one that is killed now may not have noted that.
func (g *gate) onTheWay(relay string, last time.Duration) (items int) {
	items, _ = g.takenFrom(relay, last)
	g.mu.Lock()
	defer g.mu.Unlock()
	return items + g.underway[relay]
}

// takenFrom returns how many records Loki took from a relay in the last while (a
// minute at most), and how many of them it had already.
func (g *gate) takenFrom(relay string, last time.Duration) (items, repeats int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.recent {
		if t.relay == relay && time.Since(t.at) <= last {
			items += t.items
			repeats += t.repeats
		}
	}
	return items, repeats
}

// watchDelays begins to measure how late records are.
func (g *gate) watchDelays() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.delays)
}

// delaysOf returns how late a tenant's records were since watchDelays, the least late first.
func (g *gate) delaysOf(tenant string) []time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(slices.Values(g.delays[tenant]))
}

// firsts returns with which push Loki took each number first, 0 if it did not.
func (g *gate) firsts() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.first)
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
