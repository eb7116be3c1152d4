package natsexporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/internal/spool"
)

// shared gives the exporters of one configuration the same core.
type shared struct {
	mu    sync.Mutex
	cores map[*Config]*core
}

func newShared() *shared { return &shared{cores: make(map[*Config]*core)} }

func (s *shared) exporter(config *Config, set exporter.Settings, signal frame.Signal) (signalExporter, error) {
	c, err := s.get(config, set)
	if err != nil {
		return signalExporter{}, err
	}
	return signalExporter{c, c.batchers[signal]}, nil
}

func (s *shared) get(config *Config, set exporter.Settings) (*core, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.cores[config]; ok {
		return c, nil
	}
	c := &core{config: config, set: set, log: set.Logger, forget: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cores, config)
	}}
	telemetry, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("self-telemetry: %w", err)
	}
	c.telemetry = telemetry
	c.batchers = make(map[frame.Signal]*batcher, len(frame.Signals))
	for _, signal := range frame.Signals {
		c.batchers[signal] = newBatcher(signal, config, telemetry, c.log)
	}
	s.cores[config] = c
	return c, nil
}

// core owns the spool, the connection and the shipper of one configuration.
type core struct {
	config    *Config
	set       exporter.Settings
	log       *zap.Logger
	telemetry *telemetry
	batchers  map[frame.Signal]*batcher
	forget    func()

	mu      sync.Mutex
	started int // exporters that called Start and not yet Shutdown

	spool    *spool.Spool
	nc       *nats.Conn
	shipping sync.WaitGroup
	stop     context.CancelFunc
}

// Start opens the spool and begins to ship. It does not wait for the hub.
func (c *core) Start(ctx context.Context, _ component.Host) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started++
	if c.started > 1 {
		return nil
	}
	if err := c.open(ctx); err != nil {
		c.started--
		return err
	}
	return nil
}

func (c *core) open(ctx context.Context) error {
	sp, err := c.openSpool()
	if err != nil {
		return err
	}
	sp.OnFsync(c.telemetry.fsynced)
	ship := shipper.New(shipper.Config{
		Origin:         hub.Origin{Cluster: c.config.Cluster, Node: c.config.Node},
		WindowBytes:    int(c.config.Ship.WindowBytes),
		PublishTimeout: c.config.Ship.PublishTimeout,
		Release:        c.set.BuildInfo.Version,
		Recovery:       c.config.Recovery,
		SealAfter:      c.config.Ship.SealAfter,
	}, sp, c.telemetry, c.log)
	if err := c.telemetry.observe(sp, ship); err != nil {
		return errors.Join(fmt.Errorf("self-telemetry: %w", err), sp.Close())
	}
	name := "longhaul-collector " + c.config.Cluster + "/" + c.config.Node
	nc, err := c.config.Connection.Connect(ctx, name, nil, ship.Events(), c.log)
	if err != nil {
		return errors.Join(fmt.Errorf("connection: %w", err), c.telemetry.unobserve(), sp.Close())
	}
	c.spool, c.nc = sp, nc
	for _, b := range c.batchers {
		b.start(sp)
	}
	shipping, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.shipping.Go(func() {
		if err := ship.Run(shipping, nc); err != nil {
			c.log.Error("shipping cannot start; data is kept in the spool", zap.Error(err))
		}
	})
	return nil
}

func (c *core) openSpool() (*spool.Spool, error) {
	config := &c.config.Spool
	order, err := config.evictOrder()
	if err != nil {
		return nil, fmt.Errorf("spool::evict_order: %w", err)
	}
	sp, err := spool.Open(spool.Options{
		Dir:           config.Directory,
		Owner:         hub.Origin{Cluster: c.config.Cluster, Node: c.config.Node}.String(),
		MaxBytes:      int64(config.MaxBytes),
		MaxAge:        config.MaxAge,
		MinFreeBytes:  int64(config.MinFreeBytes),
		SegmentBytes:  int64(config.SegmentBytes),
		OnFull:        config.OnFull,
		Shares:        config.Shares.bySignal(),
		EvictOrder:    order,
		Fsync:         config.Fsync,
		FsyncInterval: config.FsyncInterval,
		Logger:        slog.New(zapslog.NewHandler(c.log.Core())),
	})
	if err != nil {
		return nil, fmt.Errorf("spool::directory: %w", err)
	}
	return sp, nil
}

// Shutdown writes what callers have handed in, stops shipping and closes the
// spool. What was not shipped is shipped after the next start.
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
	for _, b := range c.batchers {
		b.shutdown()
	}
	c.stop()
	c.shipping.Wait()
	c.nc.Close()
	return errors.Join(c.telemetry.unobserve(), c.spool.Close())
}

// unencodable counts what OTLP cannot carry (which the pipeline should never hold).
func (c *core) unencodable(signal frame.Signal, items int, err error) error {
	c.telemetry.refused(signal, items)
	return consumererror.NewPermanent(fmt.Errorf("encode %d %s items as OTLP: %w", items, signal, err))
}
