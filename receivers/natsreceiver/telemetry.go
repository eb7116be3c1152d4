package natsreceiver

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
)

const scopeName = "github.com/longhaul/longhaul/receivers/natsreceiver"

// telemetry is everything the receiver tells about itself and about the fleet.
type telemetry struct {
	meter metric.Meter

	itemsDelivered  metric.Int64Counter
	bytesReceived   metric.Int64Counter
	framesDuplicate metric.Int64Counter
	itemsRejected   metric.Int64Counter
	itemsLost       metric.Int64Counter
	itemsRecovered  metric.Int64Counter
	delay           metric.Float64Histogram

	edgeAge          metric.Float64ObservableGauge
	edgeSpoolBytes   metric.Int64ObservableGauge
	edgeOldestUnsent metric.Float64ObservableGauge
	conflicts        metric.Int64ObservableGauge
	registration     metric.Registration
}

// delayBuckets in seconds: from live to an outage of three days.
var delayBuckets = []float64{.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600}

func newTelemetry(set component.TelemetrySettings) (*telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	t := &telemetry{meter: meter}
	var problems []error
	counter := func(name, unit, help string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
	}
	age := func(name, help string) metric.Float64ObservableGauge {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(help))
		problems = append(problems, err)
		return g
	}
	t.itemsDelivered = counter("longhaul_relay_items_delivered", "{item}", "Items that all backends of the signal accepted.")
	t.bytesReceived = counter("longhaul_relay_bytes_received", "By", "Bytes of frames read from the hub, repeats included.")
	t.framesDuplicate = counter("longhaul_relay_frames_duplicate", "{frame}", "Frames dropped because their number had been taken before.")
	t.itemsRejected = counter("longhaul_relay_items_rejected", "{item}", "Items of frames that were moved to the rejected stream, by reason.")
	t.itemsLost = counter("longhaul_lost_items", "{item}", "Items that are lost for good, by cause, counted once that is stored on the hub. What longhaul_recovered_items says is to be taken off.")
	t.itemsRecovered = counter("longhaul_recovered_items", "{item}", "Items counted as lost by this cause that arrived after all, or whose loss is counted by another cause by now.")
	delay, err := meter.Float64Histogram("longhaul_relay_delivery_delay", metric.WithUnit("s"),
		metric.WithDescription("Time from a frame's newest item to its acceptance by the backends."),
		metric.WithExplicitBucketBoundaries(delayBuckets...))
	t.delay = delay
	problems = append(problems, err)
	t.edgeAge = age("longhaul_edge_last_seen_age", "Time since the edge last said hello.")
	t.edgeOldestUnsent = age("longhaul_edge_oldest_unsent_age", "Age of the oldest item that the edge had not shipped when it last said hello.")
	t.edgeSpoolBytes, err = meter.Int64ObservableGauge("longhaul_edge_spool_bytes", metric.WithUnit("By"),
		metric.WithDescription("Size of the edge's spool when it last said hello."))
	problems = append(problems, err)
	t.conflicts, err = meter.Int64ObservableGauge("longhaul_origin_conflicts", metric.WithUnit("{collector}"),
		metric.WithDescription("Collectors that use copies of one spool at the same time: none of their data is confirmed until all but one have stopped. Absent where all is well."))
	problems = append(problems, err)
	return t, errors.Join(problems...)
}

// observe begins to report the edges at every collection.
func (t *telemetry) observe(e *edges, instances *custody.Instances) (err error) {
	t.registration, err = t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for id, n := range instances.InConflict(time.Now()) {
			o.ObserveInt64(t.conflicts, int64(n), metric.WithAttributes(
				attribute.String("cluster", id.Origin.Cluster), attribute.String("node", id.Origin.Node)))
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for origin, edge := range e.seen {
			age := time.Since(edge.at)
			if age > edgeForgottenAfter {
				delete(e.seen, origin)
				continue
			}
			of := metric.WithAttributes(attribute.String("cluster", origin.Cluster), attribute.String("node", origin.Node))
			o.ObserveFloat64(t.edgeAge, age.Seconds(), of)
			o.ObserveInt64(t.edgeSpoolBytes, edge.spoolBytes, of)
			o.ObserveFloat64(t.edgeOldestUnsent, edge.oldestUnsent, of)
		}
		return nil
	}, t.edgeAge, t.edgeSpoolBytes, t.edgeOldestUnsent, t.conflicts)
	return err
}

func (t *telemetry) unobserve() error { return t.registration.Unregister() }

func signalAndCluster(key custody.Key) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("signal", key.Lane.Signal.String()), attribute.String("cluster", key.Origin.Cluster))
}

func (t *telemetry) received(a *arrival) {
	t.bytesReceived.Add(context.Background(), int64(len(a.msg.Data())), signalAndCluster(a.key))
}

func (t *telemetry) delivered(a *arrival) {
	t.itemsDelivered.Add(context.Background(), int64(a.header.Items), signalAndCluster(a.key))
	if a.header.Last > 0 {
		delay := max(0, time.Since(time.Unix(0, a.header.Last)))
		t.delay.Record(context.Background(), delay.Seconds(), metric.WithAttributes(
			attribute.String("signal", a.key.Lane.Signal.String()), attribute.String("class", a.class.String())))
	}
}

func (t *telemetry) duplicate(signal frame.Signal) {
	t.framesDuplicate.Add(context.Background(), 1, metric.WithAttributes(attribute.String("signal", signal.String())))
}

func (t *telemetry) rejected(a *arrival, reason error) {
	kind := "backend"
	switch {
	case a.poison != nil:
		kind = "damaged"
	case errors.Is(reason, frame.ErrCorrupt), errors.Is(reason, frame.ErrVersion):
		kind = "undecodable"
	}
	t.itemsRejected.Add(context.Background(), int64(a.header.Items), metric.WithAttributes(
		attribute.String("signal", a.key.Lane.Signal.String()), attribute.String("reason", kind)))
}

// changed counts what was lost and what was recovered.
func (t *telemetry) changed(r *custody.Report) {
	add := func(to metric.Int64Counter, items custody.Counts) {
		for cause, n := range items {
			if n > 0 {
				to.Add(context.Background(), int64(n), metric.WithAttributes(
					attribute.String("cluster", r.Key.Origin.Cluster), attribute.String("signal", r.Key.Lane.Signal.String()),
					attribute.String("cause", frame.Cause(cause).String())))
			}
		}
	}
	add(t.itemsLost, r.Lost)
	add(t.itemsRecovered, r.Recovered)
}
