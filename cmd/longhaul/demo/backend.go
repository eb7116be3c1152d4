package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
	"github.com/longhaul/longhaul/internal/lab"
)

// backend is one of Loki, Prometheus and Jaeger, from its source to its end.
type backend struct {
	name   string
	module string // its name in the lab
	signal int    // what it gets, an index of view.Signals
	url    string
	build  *lab.Builder
	after  <-chan struct{} // closed when it is this one's turn to be built
	built  chan struct{}   // closed when the next may be built
	next   sync.Once       // closes built
	// prepare makes the process once the binary is there.
	prepare func(binary string) (*lab.Process, error)
	story   *story

	mu      sync.Mutex
	state   view.State
	percent int
	detail  string
	proc    *lab.Process
	busy    bool
}

// raise builds the backend if need be and starts it. Trouble is noted, and
// returned for a script that cannot go on without it.
func (b *backend) raise(ctx context.Context) error {
	err := b.bringUp(ctx)
	if err == nil {
		b.set(view.Up, "")
		b.story.add("%s is up: %s", b.name, b.url)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	b.set(view.Failed, first)
	b.story.add("%s could not be brought up: %v", b.name, err)
	return fmt.Errorf("bring up %s: %w", b.name, err)
}

func (b *backend) bringUp(ctx context.Context) error {
	proc := b.process()
	if proc == nil {
		binary, err := b.binary(ctx)
		b.next.Do(func() { close(b.built) })
		if err != nil {
			return err
		}
		if proc, err = b.prepare(binary); err != nil {
			return err
		}
		b.mu.Lock()
		b.proc = proc
		b.mu.Unlock()
	}
	b.set(view.Starting, "")
	return proc.Start(ctx)
}

// binary gets the program, from the cache or by a build when it is its turn:
// two builds at once would slow each other and the pipeline.
func (b *backend) binary(ctx context.Context) (string, error) {
	path, found, err := b.build.Cached(b.module)
	if err != nil || found {
		return path, err
	}
	b.set(view.Queued, "is built when the one before is done")
	select {
	case <-b.after:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	b.set(view.Building, "")
	b.story.add("building %s from source, at low priority; the hub holds what it will get", b.name)
	began := time.Now()
	path, err = b.build.Binary(ctx, b.module)
	if err == nil {
		b.story.add("%s is built, after %v", b.name, time.Since(began).Round(time.Second))
	}
	return path, err
}

// progress takes the builder's events.
func (b *backend) progress(e lab.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Stage {
	case lab.Waiting:
		b.state, b.detail = view.Building, fmt.Sprintf("another process builds it, %v", e.Elapsed.Round(time.Second))
	case lab.Listing:
		b.state, b.detail = view.Building, fmt.Sprintf("fetching its modules, %v", e.Elapsed.Round(time.Second))
	case lab.Building:
		b.state, b.detail = view.Building, fmt.Sprintf("%d of about %d packages, %v", e.Done, e.Total, e.Elapsed.Round(time.Second))
		b.percent = min(99, 100*e.Done/max(1, e.Total)) // the link comes last and has no packages
	}
}

func (b *backend) set(s view.State, detail string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.detail = s, detail
}

// begin claims the backend for a key's work and returns its state.
func (b *backend) begin() (view.State, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy || b.state == view.Queued || b.state == view.Building || b.state == view.Starting {
		return b.state, false
	}
	b.busy = true
	return b.state, true
}

func (b *backend) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
}

// process returns the process, or nil when there is none yet.
func (b *backend) process() *lab.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc
}

// watch notices a backend that ended by itself.
func (b *backend) watch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == view.Up && !b.busy && !b.proc.Running() {
		b.state, b.detail = view.Failed, "ended by itself; see "+b.proc.LogFile()
		b.story.add("%s ended by itself; its log: %s", b.name, b.proc.LogFile())
	}
}

func (b *backend) view() view.Backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	return view.Backend{Name: b.name, State: b.state, Percent: b.percent, Detail: b.detail, URL: b.url}
}
