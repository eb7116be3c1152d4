package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
	"github.com/longhaul/longhaul/internal/lab"
)

// node is the one node each store has.
const node = "node-a"

// store is one edge cluster: a link, a collector and an application.
type store struct {
	name      string
	run       string
	link      *lab.Link
	collector *lab.Collector
	app       *lab.Process
	control   string // host:port of the application's counts
	ledger    string // path, or empty

	mu      sync.Mutex
	state   view.State // of the collector
	busy    bool       // a key's work is under way
	appDown bool       // told already
	reading edgeReading
}

// newStore prepares a store below dir; natsAddr is the hub's host:port.
func newStore(o *options, p *place, dir, run, name, natsAddr string, seed int) (_ *store, err error) {
	s := &store{name: name, run: run, state: view.Starting}
	if s.link, err = lab.NewLink(natsAddr); err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, name)
	s.collector, err = lab.NewCollector(lab.CollectorOptions{
		Binary: p.collector, Dir: dir, Cluster: name, Node: node, NATSURL: "nats://" + s.link.Addr(),
	})
	if err != nil {
		s.link.Close()
		return nil, err
	}
	port, err := lab.FreePort()
	if err != nil {
		s.link.Close()
		return nil, err
	}
	s.control = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	args := []string{
		"demo", "orderapp", "--run", run, "--cluster", name, "--control", s.control,
		"--otlp-grpc", s.collector.OTLPGRPC, "--otlp-http", strings.TrimPrefix(s.collector.OTLPHTTP, "http://"),
		"--pod-logs", s.collector.PodLogsDir,
		"--rate", fmt.Sprint(o.Rate), "--seed", strconv.Itoa(seed),
	}
	if o.Seconds > 0 {
		// For the count: remember every item, rotate often, remove no file.
		s.ledger = filepath.Join(dir, "ledger.jsonl")
		args = append(args, "--ledger", s.ledger, "--rotate-bytes", strconv.Itoa(128<<10), "--rotate-keep", "100000")
	}
	s.app = lab.NewProcess(lab.Spec{
		Name: "order application of " + name, Binary: p.self, Args: args,
		LogFile: filepath.Join(dir, "orderapp.log"),
		Ready: func(ctx context.Context) error {
			_, err := s.counts(ctx, http.MethodGet, "/counts")
			return err
		},
	})
	return s, nil
}

func (s *store) start(ctx context.Context) error {
	if err := s.collector.Start(ctx); err != nil {
		return fmt.Errorf("collector of %s: %w", s.name, err)
	}
	s.setState(view.Up)
	return s.app.Start(ctx)
}

func (s *store) setState(st view.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
}

// begin claims the store for a key's work; it says no while other work is under way.
func (s *store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return false
	}
	s.busy = true
	return true
}

func (s *store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

// cut cuts the link or restores it.
func (s *store) cut(cut bool) error {
	if cut {
		s.link.Cut()
		return nil
	}
	return s.link.Restore()
}

// finish stops the application's load and returns its counts once the
// collector has accepted all it made.
func (s *store) finish(ctx context.Context) (orderapp.Snapshot, error) {
	return s.counts(ctx, http.MethodPost, "/finish")
}

var appClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (s *store) counts(ctx context.Context, method, path string) (c orderapp.Snapshot, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.control+path, nil)
	if err != nil {
		return c, err
	}
	resp, err := appClient.Do(req)
	if err != nil {
		return c, fmt.Errorf("ask the application of %s: %w", s.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // best effort: it only explains the status
		return c, fmt.Errorf("ask the application of %s: %s: %s", s.name, resp.Status, text)
	}
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		return c, fmt.Errorf("ask the application of %s: %w", s.name, err)
	}
	return c, nil
}

// watch notices a collector or application that ended by itself.
func (s *store) watch(st *story) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == view.Up && !s.busy && !s.collector.Running() {
		s.state = view.Failed
		st.add("%s: the collector ended by itself; its log: %s", s.name, s.collector.LogFile())
	}
	if down := !s.app.Running(); down && !s.appDown {
		s.appDown = true
		st.add("%s: the order application ended by itself; its log: %s", s.name, s.app.LogFile())
	}
}

// view gives the store's part of a snapshot.
func (s *store) view() view.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view.Store{
		Name: s.name, Link: view.Up, Collector: s.state,
		In: s.reading.in.items(), Unconfirmed: s.reading.waiting,
		SpoolBytes: s.reading.spoolBytes, SpoolLimit: s.reading.spoolLimit,
	}
	if s.reading.oldest > 0 {
		v.Oldest = s.reading.oldest
		if s.state != view.Up { // it ages on while nobody measures it
			v.Oldest += time.Since(s.reading.at)
		}
	}
	switch {
	case s.link.State() != lab.LinkUp:
		v.Link = view.Cut
	case s.state == view.Up && !s.reading.connected:
		v.Link = view.Lost
	}
	return v
}
