package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"github.com/longhaul/longhaul/internal/frame"
)

// Type is the component's name in configurations.
var Type = component.MustNewType("nats")

// NewFactory returns the factory of the nats receiver.
func NewFactory() receiver.Factory {
	shared := &shared{}
	return receiver.NewFactory(Type,
		func() component.Config { return defaultConfig() },
		receiver.WithLogs(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
			return shared.with(cfg.(*Config), set, frame.Logs, logsTo(next), next)
		}, component.StabilityLevelBeta),
		receiver.WithMetrics(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
			return shared.with(cfg.(*Config), set, frame.Metrics, metricsTo(next), nil)
		}, component.StabilityLevelBeta),
		receiver.WithTraces(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Traces) (receiver.Traces, error) {
			return shared.with(cfg.(*Config), set, frame.Traces, tracesTo(next), nil)
		}, component.StabilityLevelBeta),
	)
}

// shared gives the receivers of one connection the same core: one connection, one
// member of the relays that share the hub.
type shared struct {
	mu    sync.Mutex
	cores []*core
}

// with returns the receiver of one signal of one configuration. records is set for
// logs: it takes the log records of gaps.
func (s *shared) with(config *Config, set receiver.Settings, signal frame.Signal, to sink, records consumer.Logs) (*core, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.core(config, set)
	if err != nil {
		return nil, err
	}
	d, err := c.destination(config, set)
	if err != nil {
		return nil, err
	}
	d.outlets[signal] = newOutlet(d, signal, to)
	if records != nil {
		d.records = records
	}
	c.expected++
	return c, nil
}

func (s *shared) core(config *Config, set receiver.Settings) (*core, error) {
	at := slices.IndexFunc(s.cores, func(c *core) bool {
		return reflect.DeepEqual(c.config.Connection, config.Connection)
	})
	if at >= 0 {
		return s.cores[at], nil
	}
	telemetry, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("self-telemetry: %w", err)
	}
	c := newCore(config, set, telemetry)
	c.forget = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cores = slices.DeleteFunc(s.cores, func(one *core) bool { return one == c })
	}
	s.cores = append(s.cores, c)
	return c, nil
}

// destination returns the destination of a configuration, made at its first signal.
func (c *core) destination(config *Config, set receiver.Settings) (*destination, error) {
	for _, d := range c.destinations {
		if d.config == config {
			return d, nil
		}
	}
	var problems []error
	for _, d := range c.destinations {
		if d.name == config.Destination {
			problems = append(problems, fmt.Errorf("destination: %q is that of receiver %s, which reads the same hub; give one of them another name", d.name, d.id))
		}
		if !reflect.DeepEqual(d.config.Streams, config.Streams) {
			problems = append(problems, fmt.Errorf("streams: differ from those of receiver %s, which reads the same hub; give both the same", d.id))
		}
		if slices.Contains(d.config.DropDestinations, config.Destination) {
			problems = append(problems, fmt.Errorf("destination: receiver %s would drop %q (drop_destinations)", d.id, config.Destination))
		}
		if slices.Contains(config.DropDestinations, d.name) {
			problems = append(problems, fmt.Errorf("drop_destinations: %q is the destination of receiver %s", d.name, d.id))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	d := &destination{core: c, id: set.ID, name: config.Destination, config: config, log: set.Logger, outlets: make(map[frame.Signal]*outlet)}
	c.destinations = append(c.destinations, d)
	return d, nil
}
