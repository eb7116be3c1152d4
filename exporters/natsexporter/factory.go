package natsexporter

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/frame"
)

// Type is the component's name in configurations.
var Type = component.MustNewType("nats")

// NewFactory returns the factory of the nats exporter.
func NewFactory() exporter.Factory {
	shared := newShared()
	return exporter.NewFactory(Type,
		func() component.Config { return defaultConfig() },
		exporter.WithLogs(func(_ context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
			return shared.exporter(cfg.(*Config), set, frame.Logs)
		}, component.StabilityLevelBeta),
		exporter.WithMetrics(func(_ context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
			return shared.exporter(cfg.(*Config), set, frame.Metrics)
		}, component.StabilityLevelBeta),
		exporter.WithTraces(func(_ context.Context, set exporter.Settings, cfg component.Config) (exporter.Traces, error) {
			return shared.exporter(cfg.(*Config), set, frame.Traces)
		}, component.StabilityLevelBeta),
	)
}

// signalExporter is what one pipeline sees. All signals of one configuration
// share the core: one spool, one connection.
type signalExporter struct {
	*core
	batch *batcher
}

// Capabilities: the data is only read.
func (signalExporter) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeLogs returns nil when the records are durable in the spool.
func (e signalExporter) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	items := ld.LogRecordCount()
	if items == 0 {
		return nil
	}
	otlp, err := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
	if err != nil {
		return e.unencodable(frame.Logs, items, err)
	}
	return e.batch.add(ctx, otlp, items, logTimes(ld))
}

// ConsumeMetrics returns nil when the data points are durable in the spool.
func (e signalExporter) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	items := md.DataPointCount()
	if items == 0 {
		return nil
	}
	otlp, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		return e.unencodable(frame.Metrics, items, err)
	}
	return e.batch.add(ctx, otlp, items, metricTimes(md))
}

// ConsumeTraces returns nil when the spans are durable in the spool.
func (e signalExporter) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	items := td.SpanCount()
	if items == 0 {
		return nil
	}
	otlp, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
	if err != nil {
		return e.unencodable(frame.Traces, items, err)
	}
	return e.batch.add(ctx, otlp, items, traceTimes(td))
}
