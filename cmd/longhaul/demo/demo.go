package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
	"github.com/longhaul/longhaul/internal/lab"
)

// stores is how many edge clusters there are.
const stores = 3

const (
	pollInterval = time.Second
	pollTimeout  = 2 * time.Second
)

// demo is everything that runs.
type demo struct {
	o     *options
	dir   string // the run directory
	run   string // run id
	story *story

	relay    *lab.Relay
	stores   []*store
	backends []*backend
	loki     *lab.Loki // the three are set when their backend is prepared
	prom     *lab.Prometheus
	jaeger   *lab.Jaeger

	began time.Time // the pipeline was up
	work  sync.WaitGroup

	mu         sync.Mutex
	relayState view.State
	reading    relayReading
	ctx        context.Context // of work that keys begin
}

// newDemo makes the run directory and prepares every process; it starts none.
func newDemo(o *options, p *place) (_ *demo, err error) {
	d := &demo{o: o, story: &story{}, relayState: view.Starting}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	d.run = hex.EncodeToString(id)
	if d.dir = o.Dir; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "longhaul-demo-"); err != nil {
			return nil, fmt.Errorf("make the run directory: %w; choose another place with --dir (DEMO_DIR) or TMPDIR", err)
		}
	} else if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w; choose another place with --dir (DEMO_DIR)", err)
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = d.close(true)
			if o.Dir == "" {
				d.remove()
			}
		}
	}()
	if err := d.prepare(p); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *demo) prepare(p *place) error {
	ports := [4]int{d.o.LokiPort, d.o.PrometheusPort, d.o.JaegerPort, 0} // the last: Jaeger's OTLP
	for i := range ports {
		if ports[i] == 0 {
			var err error
			if ports[i], err = lab.FreePort(); err != nil {
				return err
			}
		}
	}
	url := func(port int) string { return "http://" + loopback(port) }
	var err error
	d.relay, err = lab.NewRelay(lab.RelayOptions{
		Binary: p.relay, Dir: filepath.Join(d.dir, "relay"),
		LokiURL: url(ports[0]), PrometheusURL: url(ports[1]), JaegerOTLP: loopback(ports[3]),
	})
	if err != nil {
		return err
	}
	for i := range stores {
		s, err := newStore(d.o, p, d.dir, fmt.Sprintf("%s-%d", d.run, i+1), fmt.Sprintf("store-%04d", i+1), d.relay.NATSAddr, i+1)
		if err != nil {
			return err
		}
		d.stores = append(d.stores, s)
	}

	build := &lab.Builder{Checkout: p.checkout, Progress: func(e lab.Event) {
		for _, b := range d.backends {
			if b.module == e.Backend {
				b.progress(e)
			}
		}
	}}
	dir := func(name string) string { return filepath.Join(d.dir, name) }
	d.backends = []*backend{
		{name: "Loki", module: "loki", signal: 0, url: url(ports[0]), prepare: func(bin string) (_ *lab.Process, err error) {
			d.loki, err = lab.NewLoki(lab.LokiOptions{Binary: bin, Dir: dir("loki"), Port: ports[0]})
			if err != nil {
				return nil, err
			}
			return d.loki.Process, nil
		}},
		{name: "Prometheus", module: "prometheus", signal: 1, url: url(ports[1]), prepare: func(bin string) (_ *lab.Process, err error) {
			d.prom, err = lab.NewPrometheus(lab.PrometheusOptions{Binary: bin, Dir: dir("prometheus"), Port: ports[1]})
			if err != nil {
				return nil, err
			}
			return d.prom.Process, nil
		}},
		{name: "Jaeger", module: "jaeger", signal: 2, url: url(ports[2]), prepare: func(bin string) (_ *lab.Process, err error) {
			// Durable: stopping and starting it by key must not look like loss.
			d.jaeger, err = lab.NewJaeger(lab.JaegerOptions{Binary: bin, Dir: dir("jaeger"), QueryPort: ports[2], OTLPGRPC: ports[3], Durable: true})
			if err != nil {
				return nil, err
			}
			return d.jaeger.Process, nil
		}},
	}
	for _, b := range d.backends {
		b.build, b.story, b.state, b.built = build, d.story, view.Queued, make(chan struct{})
		if p.built[b.module] {
			b.state = view.Starting
		}
	}
	first := make(chan struct{})
	close(first)
	var turn <-chan struct{} = first
	for _, name := range lab.BackendNames { // the quickest build first
		for _, b := range d.backends {
			if b.module == name {
				b.after, turn = turn, b.built
			}
		}
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// start brings the pipeline up: relay, collectors, applications. It does not
// wait for the backends.
func (d *demo) start(ctx context.Context) error {
	if err := d.relay.Start(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	d.relayState, d.ctx = view.Up, ctx
	d.mu.Unlock()
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range d.stores {
		g.Go(func() error { return s.start(gctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.began = time.Now()
	d.story.add("the pipeline is up: relay with hub, %d collectors, %d order applications", stores, stores)
	return nil
}

// raiseBackends builds and starts the backends and returns when all are up or
// one cannot be.
func (d *demo) raiseBackends(ctx context.Context) error {
	var g errgroup.Group
	for _, b := range d.backends {
		g.Go(func() error { return b.raise(ctx) })
	}
	return g.Wait()
}

// poll reads every process's own telemetry until ctx is done.
func (d *demo) poll(ctx context.Context) {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for {
		d.pollOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (d *demo) pollOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range d.stores {
		wg.Go(func() {
			m, err := lab.ReadMetrics(ctx, s.collector.MetricsURL)
			if err == nil { // a collector that is down keeps its last reading
				s.mu.Lock()
				s.reading.update(m, time.Now())
				s.mu.Unlock()
			}
			if ctx.Err() == nil {
				s.watch(d.story)
			}
		})
	}
	wg.Go(func() {
		m, err := lab.ReadMetrics(ctx, d.relay.MetricsURL)
		d.mu.Lock()
		defer d.mu.Unlock()
		if err == nil {
			d.reading.update(m)
		}
		if ctx.Err() == nil && d.relayState == view.Up && !d.relay.Running() {
			d.relayState = view.Failed
			d.story.add("the relay ended by itself; its log: %s", d.relay.LogFile())
		}
	})
	for _, b := range d.backends {
		if ctx.Err() == nil {
			b.watch()
		}
	}
	wg.Wait()
}

// Snapshot implements view.Controls.
func (d *demo) Snapshot() view.Snapshot {
	s := view.Snapshot{At: time.Now(), Running: time.Since(d.began), RunDir: d.dir, HubURL: d.relay.NATSURL, Notes: d.story.all()}
	var waiting view.Items
	for _, st := range d.stores {
		v := st.view()
		for i, n := range v.Unconfirmed {
			waiting[i] += n
		}
		s.Stores = append(s.Stores, v)
	}
	d.mu.Lock()
	s.Relay = d.relayState
	delivered := d.reading.delivered.items()
	d.mu.Unlock()
	for _, b := range d.backends {
		v := b.view()
		v.Delivered, v.Waiting = delivered[b.signal], waiting[b.signal]
		s.Backends = append(s.Backends, v)
	}
	return s
}

// patience is how long a process gets to stop when nobody needs its data.
const patience = 3 * time.Second

// close stops everything, the sources first, and waits until it is gone. With
// throwAway it does not wait for what is under way, such as deliveries to a
// backend that is not there.
func (d *demo) close(throwAway bool) error {
	d.work.Wait()
	var errs []error
	stopAll := func(stops ...func() error) {
		out := make([]error, len(stops))
		var wg sync.WaitGroup
		for i, stop := range stops {
			wg.Go(func() { out[i] = stop() })
		}
		wg.Wait()
		errs = append(errs, out...)
	}
	stop := func(p *lab.Process) func() error {
		return func() error {
			if throwAway {
				impatience := time.AfterFunc(patience, func() { _ = p.Kill() })
				defer impatience.Stop()
			}
			return p.Stop()
		}
	}
	var apps, collectors, rest []func() error
	for _, s := range d.stores {
		apps, collectors = append(apps, stop(s.app)), append(collectors, stop(s.collector.Process))
	}
	if d.relay != nil {
		rest = append(rest, stop(d.relay.Process))
	}
	for _, b := range d.backends {
		if p := b.process(); p != nil {
			rest = append(rest, stop(p))
		}
	}
	stopAll(apps...)
	stopAll(collectors...)
	stopAll(rest...)
	for _, s := range d.stores {
		s.link.Close()
	}
	return errors.Join(errs...)
}

// remove deletes the run directory; what cannot be deleted stays.
func (d *demo) remove() { _ = os.RemoveAll(d.dir) }
