package natsreceiver

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/receiver"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

const (
	retryMin = 250 * time.Millisecond
	retryMax = 15 * time.Second
	// deliverGrace is how long a partition that is given on, or a shutdown, lets
	// deliveries finish that are under way: one that is cut short is delivered again.
	deliverGrace = 4 * time.Second
	// processBytes is what a relay of a large fleet takes besides memory_limit.
	processBytes = 192 << 20
)

// core is the receivers of one connection: what they share.
type core struct {
	config    *Config // of the receiver that was made first
	log       *zap.Logger
	telemetry *telemetry
	forget    func()

	destinations []*destination // fixed once started

	mu       sync.Mutex
	expected int // receivers, one a signal and destination
	started  int
	stopped  bool

	instances *custody.Instances
	epochs    *custody.Epochs
	edges     *edges
	hellos    chan *nats.Msg
	nc        *nats.Conn
	js        jetstream.JetStream
	running   sync.WaitGroup
	stop      context.CancelFunc // ends reading

	owned   sync.Mutex
	owns    []*partition
	active  atomic.Int64 // spools whose watermarks were written lately, or are to be
	handled atomic.Int64 // frames in hands

	connects atomic.Int64 // how often the hub was reached
	notices  notices

	delivering  context.Context // of the exporters: ends deliverGrace after reading
	stopDeliver context.CancelFunc
}

// destination is one receiver's pipelines.
type destination struct {
	*core
	id      component.ID
	name    string
	config  *Config
	log     *zap.Logger
	outlets map[frame.Signal]*outlet
	records logsConsumer // takes the log records of gaps; nil without a logs pipeline
}

// signals returns the signals that the destination reads, in order.
func (d *destination) signals() (signals []frame.Signal) {
	for _, signal := range frame.Signals {
		if d.outlets[signal] != nil {
			signals = append(signals, signal)
		}
	}
	return signals
}

func newCore(config *Config, set receiver.Settings, telemetry *telemetry) *core {
	return &core{
		config: config, log: set.Logger, telemetry: telemetry, hellos: make(chan *nats.Msg, maxHellos),
		instances: custody.NewInstances(), epochs: custody.NewEpochs(), edges: newEdges(),
	}
}

// Start connects. Reading begins with the last of the receivers, because a
// pipeline may not be ready before; nothing waits for the hub.
func (c *core) Start(ctx context.Context, host component.Host) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started == 0 {
		if err := c.open(ctx, host); err != nil {
			return err
		}
	}
	c.started++
	if c.started == c.expected {
		running, stop := context.WithCancel(context.Background())
		c.stop = stop
		c.running.Go(func() { c.run(running) })
	}
	return nil
}

func (c *core) open(ctx context.Context, host component.Host) error {
	inProcess, err := c.inProcess(host)
	if err != nil {
		return err
	}
	c.nc, err = c.config.Connection.Connect(ctx, "longhaul-relay", inProcess, hub.Events{Connected: c.connected}, c.log)
	if err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(1<<16), jetstream.WithPublishAsyncTimeout(10*time.Second))
	if err != nil {
		c.nc.Close()
		return fmt.Errorf("JetStream: %w", err)
	}
	c.goDirect(host)
	c.share()
	if err := c.telemetry.observe(c); err != nil {
		c.nc.Close()
		return fmt.Errorf("self-telemetry: %w", err)
	}
	c.delivering, c.stopDeliver = context.WithCancel(context.Background())
	return nil
}

// share divides the memory between all outlets, so that one whose backend is away
// cannot hold what the others need.
func (c *core) share() {
	limit, outlets := int64(0), int64(0)
	for _, d := range c.destinations {
		limit = max(limit, int64(d.config.MemoryLimit))
		outlets += int64(len(d.outlets))
	}
	for _, d := range c.destinations {
		for _, o := range d.outlets {
			o.limit(limit / outlets)
		}
	}
	// A soft limit of the process below that would have it collect garbage without end.
	if least := limit + processBytes; os.Getenv("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) < least {
		debug.SetMemoryLimit(least)
	}
}

// inProcess finds the embedded hub's connection, when one is configured.
func (c *core) inProcess(host component.Host) (nats.InProcessConnProvider, error) {
	id := c.config.Connection.Extension
	if id == nil {
		return nil, nil
	}
	extension, ok := host.GetExtensions()[*id]
	if !ok {
		return nil, fmt.Errorf("connection::extension: %s is not among service::extensions", id)
	}
	provider, ok := extension.(nats.InProcessConnProvider)
	if !ok {
		return nil, fmt.Errorf("connection::extension: %s is no embedded hub", id)
	}
	return provider, nil
}

// run prepares the hub and then shares its partitions until ctx is done.
func (c *core) run(ctx context.Context) {
	prepare := func(ctx context.Context) error { return hub.EnsureRejected(ctx, c.js, c.config.Streams) }
	if !c.untilDone(ctx, "the hub is not ready for the relay; trying again", prepare) {
		return
	}
	hellos, err := c.nc.ChanSubscribe(hub.HelloSubjects, c.hellos)
	if err != nil { // only a closed connection
		c.log.Error("the relay cannot hear the edges", zap.Error(err))
		return
	}
	defer func() { _ = hellos.Unsubscribe() }() // fails only on a closed connection
	working, done := context.WithCancel(context.WithoutCancel(ctx))
	var workers, hearing sync.WaitGroup
	for _, d := range c.destinations {
		for _, o := range d.outlets {
			workers.Go(func() { o.run(working) })
		}
	}
	hearing.Go(func() { c.hear(ctx) })
	lease.New(c.js, c.settings(), c.log).Run(ctx, c.serve) // returns when every partition is given on
	hearing.Wait()
	done()
	workers.Wait()
}

func (c *core) settings() lease.Settings {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	set := lease.Settings{Name: name, Streams: c.config.Streams, Signals: make(map[string][]frame.Signal), Start: make(map[string]string)}
	for _, d := range c.destinations {
		set.Signals[d.name], set.Start[d.name] = d.signals(), d.config.Start
		set.Drop = append(set.Drop, d.config.DropDestinations...)
	}
	return set
}

// serve reads one partition while it is this relay's.
func (c *core) serve(ctx context.Context, claim *lease.Claim) {
	p := newPartition(c, claim)
	claim.OnStoreLost(p.storeAgain)
	c.owned.Lock()
	c.owns = append(c.owns, p)
	c.owned.Unlock()
	c.telemetry.moved(true)
	p.run(ctx)
	c.owned.Lock()
	c.owns = slices.DeleteFunc(c.owns, func(one *partition) bool { return one == p })
	c.owned.Unlock()
	c.telemetry.moved(false)
}

// partitions returns those that are this relay's by now.
func (c *core) partitions() []*partition {
	c.owned.Lock()
	defer c.owned.Unlock()
	return slices.Clone(c.owns)
}

// owner returns the partition of an origin, if it is this relay's.
func (c *core) owner(origin hub.Origin) *partition {
	c.owned.Lock()
	defer c.owned.Unlock()
	for _, p := range c.owns {
		if p.claim.Owns(origin) {
			return p
		}
	}
	return nil
}

// connected writes all watermarks again, because the hub may be another one, and has
// the readers begin again, because what it had sent may be lost.
func (c *core) connected() {
	c.connects.Add(1)
	for _, p := range c.partitions() {
		p.storeAgain()
	}
}

// untilDone calls do until it succeeds (true) or ctx is done (false).
func (c *core) untilDone(ctx context.Context, complaint string, do func(context.Context) error) bool {
	retry := newRetry()
	for ctx.Err() == nil {
		if c.nc.IsConnected() { // else the connection itself has said what is wrong
			bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
			err := do(bounded)
			cancel()
			if err == nil {
				return true
			}
			if ctx.Err() == nil {
				c.log.Warn(complaint, zap.Error(err))
			}
		}
		wait := retry.NextBackOff()
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return false
}

func newRetry() *backoff.ExponentialBackOff {
	retry := &backoff.ExponentialBackOff{InitialInterval: retryMin, MaxInterval: retryMax, Multiplier: 2, RandomizationFactor: 0.5}
	retry.Reset()
	return retry
}

// Shutdown stops reading, lets running deliveries finish, stores what was
// delivered, and leaves the rest on the hub. The first of the receivers that is
// stopped stops all: the exporters may go next.
func (c *core) Shutdown(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.started == 0 {
		return nil
	}
	c.stopped = true
	c.forget()
	if c.stop != nil {
		c.stop()
	}
	grace := time.AfterFunc(deliverGrace, c.stopDeliver)
	c.running.Wait()
	grace.Stop()
	c.stopDeliver()
	c.nc.Close()
	return c.telemetry.unobserve()
}
