package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/book"
	"github.com/longhaul/longhaul/test/fleet/edge"
	"github.com/longhaul/longhaul/test/fleet/frames"
	"github.com/longhaul/longhaul/test/fleet/sink"
)

const (
	// sealAfter is the collectors' own, but in scripts that have no time for it.
	sealAfter = 30 * time.Second
	// spareFiles are those the process needs beside connections.
	spareFiles = 500
)

// world is everything that runs.
type world struct {
	options
	book   *book.Book
	fleet  *edge.Fleet
	sink   *sink.Sink
	hub    *lab.NATS
	relays []*lab.Relay
	// hubDown and relayDown say that it is so on purpose.
	hubDown, relayDown bool
	profilePort        int
	backends           backends
	resident           residents

	stop    context.CancelFunc // of the fleet
	running sync.WaitGroup
	failure error // of the fleet
}

func newWorld(ctx context.Context, o options, checkout string) (w *world, err error) {
	w = &world{options: o, book: book.New(o.clusters * o.perCluster)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	maker, err := frames.NewMaker(filepath.Join(checkout, frames.CorpusDir), o.sizes)
	if err != nil {
		return w, err
	}
	sinks := sink.Options{Taken: w.taken}
	if o.backends == "real" {
		if err := w.backends.start(ctx, o.dir); err != nil {
			return w, err
		}
		sinks.Loki, sinks.Prometheus, sinks.Jaeger = w.backends.loki.URL, w.backends.prometheus.URL, w.backends.jaeger.OTLPGRPC
	}
	if w.sink, err = sink.New(sinks); err != nil {
		return w, err
	}
	if w.hub, err = lab.NewNATS(lab.NATSOptions{Binary: filepath.Join(o.bin, "nats-server"), Dir: filepath.Join(o.dir, "hub")}); err != nil {
		return w, err
	}
	if err := w.hub.Start(ctx); err != nil {
		return w, err
	}
	for i := range o.relays {
		relay, err := w.newRelay(i)
		if err != nil {
			return w, err
		}
		w.relays = append(w.relays, relay)
		if err := relay.Start(ctx); err != nil {
			return w, err
		}
	}
	connections, err := mayOpen()
	if err != nil {
		return w, err
	}
	w.fleet, err = edge.New(edge.Options{
		Hub: w.hub.Addr, Clusters: o.clusters, PerNode: o.perCluster, Connections: connections, SealAfter: sealAfter,
	}, w.book, maker)
	return w, err
}

// mayOpen is how many connections this process, and the hub, may have.
func mayOpen() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return int(min(limit.Cur, 1<<20)) - spareFiles, nil // Go raises the soft limit to the hard one
}

const relayProfile = `extensions:
  pprof:
    endpoint: 127.0.0.1:%d
service:
  extensions: [health_check, pprof]
`

func (w *world) newRelay(i int) (*lab.Relay, error) {
	dir := filepath.Join(w.dir, fmt.Sprintf("relay-%d", i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	overlay := w.overlay
	if w.profile != "" && i == 0 {
		port, err := lab.FreePort()
		if err != nil {
			return nil, err
		}
		w.profilePort = port
		overlay = filepath.Join(dir, "profile.yaml")
		if err := os.WriteFile(overlay, fmt.Appendf(nil, relayProfile, port), 0o644); err != nil {
			return nil, err
		}
	}
	return lab.NewRelay(lab.RelayOptions{
		Binary: filepath.Join(w.bin, "longhaul-relay"), Dir: dir, Overlay: overlay,
		LokiURL: w.sink.URL, PrometheusURL: w.sink.URL, JaegerOTLP: w.sink.GRPC,
		Env: map[string]string{"LONGHAUL_NATS_URL": w.hub.URL, "LONGHAUL_HUB_MAX_BYTES": w.hubMax},
	})
}

// taken enters what a sink took into the book.
func (w *world) taken(b sink.Batch) {
	arrivals := make([]book.Arrival, len(b.Sightings))
	for i, s := range b.Sightings {
		arrivals[i] = book.Arrival{Marker: s.Marker, Named: s.Cluster, Cluster: w.fleet.ClusterOf(int(s.Origin))}
		if s.Cluster == "" {
			arrivals[i].Named = "none"
		}
	}
	w.book.Arrived(b.Signal, b.Items, b.At, arrivals)
}

// startFleet lets the nodes connect and waits until they have.
func (w *world) startFleet(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	w.stop = stop
	w.running.Go(func() { w.failure = w.fleet.Run(running, runtime.GOMAXPROCS(0)) })
	say("%d nodes of %d clusters connect, over %d connections", w.fleet.Nodes(), w.clusters, w.fleet.Links())
	return w.until(ctx, "connect", 2*time.Minute, func() (bool, string) {
		s := w.fleet.Stats()
		return s.Connected == w.fleet.Nodes(), fmt.Sprintf("%d of %d nodes are connected", s.Connected, w.fleet.Nodes())
	})
}

const (
	pollInterval = 250 * time.Millisecond
	sayInterval  = 5 * time.Second
)

// until waits for something, saying now and then how far it is.
func (w *world) until(ctx context.Context, what string, limit time.Duration, reached func() (bool, string)) error {
	start, said := time.Now(), time.Now()
	for {
		done, text := reached()
		if done {
			return nil
		}
		if err := w.alive(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if time.Since(start) > limit {
			return fmt.Errorf("%s: not done after %v: %s", what, limit, text)
		}
		if time.Since(said) >= sayInterval {
			said = time.Now()
			say("%s", text)
		}
		if err := lab.Pause(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// alive says what should run and does not.
func (w *world) alive() error {
	if err := w.sink.Trouble(); err != nil {
		return fmt.Errorf("a sink was sent what it does not understand: %w", err)
	}
	if !w.hubDown && !w.hub.Running() {
		return fmt.Errorf("the hub has ended; the end of its log:\n%s", w.hub.LogTail(2000))
	}
	for _, relay := range w.relays {
		if !w.relayDown && !relay.Running() {
			return fmt.Errorf("a relay has ended; the end of its log:\n%s", relay.LogTail(2000))
		}
	}
	return nil
}

// close ends everything, the fleet first.
func (w *world) close() error {
	if w.stop != nil {
		w.stop()
		w.running.Wait()
	}
	w.resident.stop()
	problems := []error{w.failure}
	for _, relay := range w.relays {
		problems = append(problems, relay.Stop())
	}
	if w.hub != nil {
		problems = append(problems, w.hub.Stop())
	}
	if w.sink != nil {
		problems = append(problems, w.sink.Close())
	}
	return errors.Join(append(problems, w.backends.stop())...)
}
