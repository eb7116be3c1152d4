package lokiexporter

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scopeName = "github.com/longhaul/longhaul/exporters/lokiexporter"

// telemetry is what the exporter says about itself.
type telemetry struct {
	sent     metric.Int64Counter
	rejected metric.Int64Counter
	cut      metric.Int64Counter
}

func newTelemetry(set component.TelemetrySettings) (telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	var (
		t    telemetry
		errs [3]error
	)
	t.sent, errs[0] = meter.Int64Counter("longhaul_loki_entries_sent",
		metric.WithDescription("Log entries that Loki accepted."))
	t.rejected, errs[1] = meter.Int64Counter("longhaul_loki_entries_rejected",
		metric.WithDescription("Log entries that Loki refused for good, by reason."))
	t.cut, errs[2] = meter.Int64Counter("longhaul_loki_entries_cut",
		metric.WithDescription("Log entries shortened to fit Loki's limits, by the part that was cut (line or metadata)."))
	return t, errors.Join(errs[:]...)
}

func (t telemetry) reject(ctx context.Context, r refusal) {
	t.rejected.Add(ctx, int64(r.entries), metric.WithAttributes(attribute.String("reason", r.reason)))
}

func (t telemetry) countCuts(ctx context.Context, c cuts) {
	if c.lines > 0 {
		t.cut.Add(ctx, int64(c.lines), metric.WithAttributes(attribute.String("part", "line")))
	}
	if c.metadata > 0 {
		t.cut.Add(ctx, int64(c.metadata), metric.WithAttributes(attribute.String("part", "metadata")))
	}
}
