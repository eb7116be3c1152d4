package natsreceiver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	retryMin = 250 * time.Millisecond
	retryMax = 15 * time.Second
	// deliverGrace is how long a shutdown lets deliveries finish that are under way:
	// one that is cut short is delivered again by the next start.
	deliverGrace = 5 * time.Second
)

// core is the receiver of all signals of one configuration.
type core struct {
	config    *Config
	log       *zap.Logger
	telemetry *telemetry
	sinks     map[frame.Signal]sink
	records   consumer.Logs // takes the log records of gaps; nil without a logs pipeline
	forget    func()

	mu      sync.Mutex
	started int

	ledger    *custody.Ledger
	instances *custody.Instances
	edges     *edges
	suspects  *suspects
	hellos    chan *nats.Msg
	nc        *nats.Conn
	js        jetstream.JetStream
	readers   map[frame.Signal]*reader
	settler   *settler
	running   sync.WaitGroup
	stop      context.CancelFunc // ends reading

	delivering  context.Context // of the exporters: ends deliverGrace after reading
	stopDeliver context.CancelFunc
}

func newCore(config *Config, set receiver.Settings, telemetry *telemetry) *core {
	c := &core{
		config: config, log: set.Logger, telemetry: telemetry,
		sinks: make(map[frame.Signal]sink), hellos: make(chan *nats.Msg, maxHellos),
		ledger: custody.NewLedger(), instances: custody.NewInstances(), edges: newEdges(),
	}
	c.suspects = newSuspects(c)
	return c
}

// Start connects and begins to read. It does not wait for the hub.
func (c *core) Start(ctx context.Context, host component.Host) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started++
	if c.started > 1 {
		return nil
	}
	if err := c.open(ctx, host); err != nil {
		c.started--
		return err
	}
	return nil
}

func (c *core) open(ctx context.Context, host component.Host) error {
	inProcess, err := c.inProcess(host)
	if err != nil {
		return err
	}
	c.nc, err = c.config.Connection.Connect(ctx, "longhaul-relay", inProcess, hub.Events{Connected: c.ledger.StoreAgain}, c.log)
	if err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(1<<16), jetstream.WithPublishAsyncTimeout(10*time.Second))
	if err != nil {
		c.nc.Close()
		return fmt.Errorf("JetStream: %w", err)
	}
	if err := c.telemetry.observe(c.edges, c.instances); err != nil {
		c.nc.Close()
		return fmt.Errorf("self-telemetry: %w", err)
	}
	running, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.delivering, c.stopDeliver = context.WithCancel(context.Background())
	c.settler = newSettler(c)
	c.readers = make(map[frame.Signal]*reader)
	for signal, to := range c.sinks {
		c.readers[signal] = newReader(c, signal, to)
	}
	c.running.Go(func() { c.run(running) })
	return nil
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

// run prepares the hub and then reads until ctx is done.
func (c *core) run(ctx context.Context) {
	if !c.untilDone(ctx, "the hub is not ready for the relay; trying again", c.prepare) {
		return
	}
	hellos, err := c.nc.ChanSubscribe(hub.HelloSubjects, c.hellos)
	if err != nil { // only a closed connection
		c.log.Error("the relay cannot hear the edges", zap.Error(err))
		return
	}
	defer func() { _ = hellos.Unsubscribe() }() // fails only on a closed connection
	var group sync.WaitGroup
	for _, r := range c.readers {
		group.Go(func() { r.run(ctx) })
	}
	group.Go(func() { c.hear(ctx) })
	group.Go(func() { c.suspects.run(ctx) })
	group.Go(func() { c.tellGaps(ctx) })
	settling, settled := context.WithCancel(context.WithoutCancel(ctx))
	var settler sync.WaitGroup
	settler.Go(func() { c.settler.run(settling) })
	group.Wait()
	settled()
	settler.Wait()
}

// prepare makes what the relay needs on the hub besides the signals' streams,
// and loads the watermarks. Without them every frame would be delivered again.
func (c *core) prepare(ctx context.Context) error {
	if err := hub.EnsureRejected(ctx, c.js, c.config.Streams); err != nil {
		return err
	}
	bucket, err := hub.EnsureCustody(ctx, c.js, c.config.Streams)
	if err != nil {
		return err
	}
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("read the custody bucket: %w", err)
	}
	defer func() { _ = watcher.Stop() }() // a leftover subscription ends with the connection
	loaded := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			if !ok {
				return fmt.Errorf("read the custody bucket: interrupted after %d watermarks", loaded)
			}
			if entry == nil {
				c.log.Info("watermarks loaded", zap.Int("spools", loaded))
				return nil
			}
			if entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			if err := c.load(entry); err != nil {
				c.log.Error("watermarks cannot be read; that spool's frames may be delivered twice", zap.String("key", entry.Key()), zap.Error(err))
				continue
			}
			loaded++
		}
	}
}

func (c *core) load(entry jetstream.KeyValueEntry) error {
	origin, epoch, err := hub.ParseCustodyKey(entry.Key())
	if err != nil {
		return err
	}
	return c.ledger.Load(custody.Spool{Origin: origin, Epoch: epoch}, entry.Value(), time.Now())
}

// untilDone calls do until it succeeds (true) or ctx is done (false).
func (c *core) untilDone(ctx context.Context, complaint string, do func(context.Context) error) bool {
	retry := &backoff.ExponentialBackOff{InitialInterval: retryMin, MaxInterval: retryMax, Multiplier: 2, RandomizationFactor: 0.5}
	retry.Reset()
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

// Shutdown stops reading, lets running deliveries finish, stores what was
// delivered, and leaves the rest on the hub.
func (c *core) Shutdown(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started == 0 {
		return nil
	}
	c.started--
	if c.started > 0 {
		return nil
	}
	c.forget()
	c.stop()
	grace := time.AfterFunc(deliverGrace, c.stopDeliver)
	c.running.Wait()
	grace.Stop()
	c.stopDeliver()
	c.nc.Close()
	return c.telemetry.unobserve()
}
