package prometheusexporter

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scopeName = "github.com/longhaul/longhaul/exporters/prometheusexporter"

// telemetry is what the exporter says about itself.
type telemetry struct {
	sent              metric.Int64Counter
	rejected          metric.Int64Counter
	exemplarsRejected metric.Int64Counter
	window            metric.Float64Gauge
}

func newTelemetry(set component.TelemetrySettings) (telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	var (
		t    telemetry
		errs [4]error
	)
	t.sent, errs[0] = meter.Int64Counter("longhaul_prometheus_samples_sent",
		metric.WithDescription("Samples that Prometheus accepted; a native histogram is one."))
	t.rejected, errs[1] = meter.Int64Counter("longhaul_prometheus_samples_rejected",
		metric.WithDescription("Samples that Prometheus refused for good, by reason; data points refused before translation count as one each."))
	t.exemplarsRejected, errs[2] = meter.Int64Counter("longhaul_prometheus_exemplars_rejected",
		metric.WithDescription("Exemplars that Prometheus refused for good, by reason; their samples were accepted."))
	t.window, errs[3] = meter.Float64Gauge("longhaul_prometheus_out_of_order_window",
		metric.WithUnit("s"),
		metric.WithDescription("How old a sample Prometheus takes beside newer ones (storage.tsdb.out_of_order_time_window); absent as long as it does not tell."))
	return t, errors.Join(errs[:]...)
}

func count(ctx context.Context, counter metric.Int64Counter, refused refusals) {
	for reason, r := range refused {
		counter.Add(ctx, int64(r.samples), metric.WithAttributes(attribute.String("reason", reason)))
	}
}
