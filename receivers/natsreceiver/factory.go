package natsreceiver

import (
	"context"
	"fmt"
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
	shared := &shared{cores: make(map[*Config]*core)}
	return receiver.NewFactory(Type,
		func() component.Config { return defaultConfig() },
		receiver.WithLogs(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
			c, err := shared.with(cfg.(*Config), set, frame.Logs, logsTo(next))
			if err == nil {
				c.records = next
			}
			return c, err
		}, component.StabilityLevelBeta),
		receiver.WithMetrics(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
			return shared.with(cfg.(*Config), set, frame.Metrics, metricsTo(next))
		}, component.StabilityLevelBeta),
		receiver.WithTraces(func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Traces) (receiver.Traces, error) {
			return shared.with(cfg.(*Config), set, frame.Traces, tracesTo(next))
		}, component.StabilityLevelBeta),
	)
}

// shared gives the receivers of one configuration the same core: one
// connection, one ledger.
type shared struct {
	mu    sync.Mutex
	cores map[*Config]*core
}

func (s *shared) with(config *Config, set receiver.Settings, signal frame.Signal, to sink) (*core, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cores[config]
	if !ok {
		telemetry, err := newTelemetry(set.TelemetrySettings)
		if err != nil {
			return nil, fmt.Errorf("self-telemetry: %w", err)
		}
		c = newCore(config, set, telemetry)
		c.forget = func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.cores, config)
		}
		s.cores[config] = c
	}
	c.sinks[signal] = to
	return c, nil
}
