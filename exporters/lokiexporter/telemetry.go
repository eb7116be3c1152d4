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
	sent      metric.Int64Counter
	rejected  metric.Int64Counter
	cut       metric.Int64Counter
	demoted   metric.Int64UpDownCounter
	sharding  metric.Int64Gauge
	oldestAge metric.Float64Gauge
}

func newTelemetry(set component.TelemetrySettings) (telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	var (
		t    telemetry
		errs [6]error
	)
	t.sent, errs[0] = meter.Int64Counter("longhaul_loki_entries_sent",
		metric.WithDescription("Log entries that Loki accepted."))
	t.rejected, errs[1] = meter.Int64Counter("longhaul_loki_entries_rejected",
		metric.WithDescription("Log entries that Loki refused for good, by reason."))
	t.cut, errs[2] = meter.Int64Counter("longhaul_loki_entries_cut",
		metric.WithDescription("Log entries shortened to fit Loki's limits, by the part that was cut (line or metadata)."))
	t.demoted, errs[3] = meter.Int64UpDownCounter("longhaul_loki_labels_demoted",
		metric.WithDescription("Tenants for which a label has more values than its bound, so that it is structured metadata, by label."))
	t.sharding, errs[4] = meter.Int64Gauge("longhaul_loki_time_sharding",
		metric.WithDescription("Whether Loki shards streams by time, so that it takes late entries: 1 yes, 0 no, -1 not known."))
	t.oldestAge, errs[5] = meter.Float64Gauge("longhaul_loki_oldest_accepted",
		metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest entry that Loki accepts (reject_old_samples_max_age); 0 if of any age. Absent as long as it is not known."))
	return t, errors.Join(errs[:]...)
}

func (t telemetry) reject(ctx context.Context, r refusal) {
	t.rejected.Add(ctx, int64(r.entries), metric.WithAttributes(attribute.String("reason", r.reason)))
}

func (t telemetry) countCuts(ctx context.Context, lines, metadata int) {
	if lines > 0 {
		t.cut.Add(ctx, int64(lines), metric.WithAttributes(attribute.String("part", "line")))
	}
	if metadata > 0 {
		t.cut.Add(ctx, int64(metadata), metric.WithAttributes(attribute.String("part", "metadata")))
	}
}

func (t telemetry) labelTurned(label string, demoted bool) {
	step := int64(-1)
	if demoted {
		step = 1
	}
	t.demoted.Add(context.Background(), step, metric.WithAttributes(attribute.String("label", label)))
}
