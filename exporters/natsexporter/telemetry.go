package natsexporter

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/internal/spool"
)

const scopeName = "github.com/longhaul/longhaul/exporters/natsexporter"

// telemetry is everything the exporter tells about itself. The instruments that
// read the spool are observed: they cost nothing between two scrapes.
type telemetry struct {
	meter metric.Meter

	itemsRefused metric.Int64Counter
	itemsSpooled metric.Int64Counter
	bytesSpooled metric.Int64Counter
	itemsShipped metric.Int64Counter
	bytesShipped metric.Int64Counter
	fsync        metric.Float64Histogram
	publish      metric.Float64Histogram

	bytesIn        metric.Int64Counter
	itemsConfirmed metric.Int64ObservableCounter
	bytesConfirmed metric.Int64ObservableCounter
	bytesEvicted   metric.Int64ObservableCounter
	laneBytes      metric.Int64ObservableGauge
	lanes          metric.Int64ObservableGauge
	conflict       metric.Int64ObservableGauge
	itemsLost      metric.Int64ObservableCounter
	spoolBytes     metric.Int64ObservableGauge
	spoolLimit     metric.Int64ObservableGauge
	spoolItems     metric.Int64ObservableGauge
	oldestUnsent   metric.Float64ObservableGauge
	oldestKept     metric.Float64ObservableGauge
	linkUp         metric.Int64ObservableGauge

	registration metric.Registration
	attributes   map[frame.Signal]metric.MeasurementOption
}

// latencyBuckets in seconds: from a fast SSD's fsync to a satellite link's worst.
var latencyBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newTelemetry(set component.TelemetrySettings) (*telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	t := &telemetry{meter: meter, attributes: make(map[frame.Signal]metric.MeasurementOption)}
	for _, signal := range frame.Signals {
		t.attributes[signal] = metric.WithAttributeSet(attribute.NewSet(attribute.String("signal", signal.String())))
	}
	var problems []error
	counter := func(name, unit, help string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
	}
	histogram := func(name, help string) metric.Float64Histogram {
		h, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help),
			metric.WithExplicitBucketBoundaries(latencyBuckets...))
		problems = append(problems, err)
		return h
	}
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return g
	}
	age := func(name, help string) metric.Float64ObservableGauge {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(help))
		problems = append(problems, err)
		return g
	}
	observed := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
	}
	t.itemsRefused = counter("longhaul_items_refused", "{item}", "Items that were not taken because they could not be made durable; the sender was told.")
	t.itemsSpooled = counter("longhaul_items_in", "{item}", "Items taken: durable in the spool, or counted as lost.")
	t.bytesSpooled = counter("longhaul_bytes_spooled", "By", "Bytes of frames written to the spool.")
	t.itemsShipped = counter("longhaul_items_shipped", "{item}", "Items the hub acknowledged, repeats included.")
	t.bytesShipped = counter("longhaul_bytes_shipped", "By", "Bytes of frames the hub acknowledged, repeats included.")
	t.fsync = histogram("longhaul_fsync_duration", "Time an fsync of the spool took.")
	t.publish = histogram("longhaul_publish_duration", "Time from publishing a frame to the hub's acknowledgement.")
	t.itemsConfirmed = observed("longhaul_items_confirmed", "{item}", "Items that the relay confirmed: all backends accepted them. Since start.")
	t.itemsLost = observed("longhaul_items_lost", "{item}", "Items lost, by cause. Over the spool's life.")
	t.bytesIn = counter("longhaul_bytes_in", "By", "Bytes of OTLP taken, before compression.")
	t.bytesConfirmed = observed("longhaul_bytes_confirmed", "By", "Bytes of frames that the relay confirmed. Since start.")
	t.bytesEvicted = observed("longhaul_bytes_evicted", "By", "Bytes of frames deleted unconfirmed, for lack of space or because of their age. Since start.")
	t.laneBytes = gauge("longhaul_spool_lane_bytes", "By", "Bytes of the spool's files by signal and class of the lane: live is current, backlog was left behind by an outage.")
	t.lanes = gauge("longhaul_spool_lanes", "{lane}", "Lanes in the spool, by signal and class.")
	t.conflict = gauge("longhaul_origin_conflict", "", "1 while nothing is shipped because the relay hears another collector with the same origin and a copy of this spool, else 0.")
	t.spoolBytes = gauge("longhaul_spool_bytes", "By", "Bytes the spool holds.")
	t.spoolLimit = gauge("longhaul_spool_limit_bytes", "By", "Bytes the spool may hold before it evicts or refuses.")
	t.spoolItems = gauge("longhaul_spool_items", "{item}", "Items in the spool, not yet confirmed.")
	t.oldestUnsent = age("longhaul_oldest_unsent_age", "Age of the oldest frame that the hub has not acknowledged; 0 when there is none.")
	t.oldestKept = age("longhaul_oldest_unconfirmed_age", "Age of the oldest frame that the relay has not confirmed; 0 when there is none.")
	t.linkUp = gauge("longhaul_link_up", "", "1 while the hub is connected, else 0.")
	return t, errors.Join(problems...)
}

// observe begins to read the spool's and the link's state at every collection.
func (t *telemetry) observe(sp *spool.Spool, ship *shipper.Shipper) (err error) {
	t.registration, err = t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stats := sp.Stats()
		o.ObserveInt64(t.spoolBytes, stats.Bytes)
		o.ObserveInt64(t.spoolLimit, stats.MaxBytes)
		up := int64(0)
		if ship.LinkUp() {
			up = 1
		}
		o.ObserveInt64(t.linkUp, up)
		conflict := int64(0)
		if ship.Conflict() != "" {
			conflict = 1
		}
		o.ObserveInt64(t.conflict, conflict)
		for signal, traffic := range stats.Traffic {
			o.ObserveInt64(t.bytesConfirmed, traffic.BytesConfirmed, t.attributes[signal])
			o.ObserveInt64(t.bytesEvicted, traffic.BytesEvicted, t.attributes[signal])
		}
		t.observeLanes(o, stats)
		for signal, sum := range bySignal(stats, sp, ship) {
			o.ObserveInt64(t.itemsConfirmed, sum.confirmed, t.attributes[signal])
			o.ObserveInt64(t.spoolItems, sum.items, t.attributes[signal])
			o.ObserveFloat64(t.oldestUnsent, sum.oldestUnsent.Seconds(), t.attributes[signal])
			o.ObserveFloat64(t.oldestKept, sum.oldestKept.Seconds(), t.attributes[signal])
			for cause, lost := range sum.lost {
				if cause := frame.Cause(cause); lost > 0 {
					o.ObserveInt64(t.itemsLost, int64(lost), metric.WithAttributes(
						attribute.String("signal", signal.String()), attribute.String("cause", cause.String())))
				}
			}
		}
		return nil
	}, t.itemsConfirmed, t.bytesConfirmed, t.bytesEvicted, t.itemsLost, t.spoolBytes, t.spoolLimit, t.spoolItems,
		t.laneBytes, t.lanes, t.oldestUnsent, t.oldestKept, t.linkUp, t.conflict)
	return err
}

// observeLanes adds up the lanes of each signal by class.
func (t *telemetry) observeLanes(o metric.Observer, stats spool.Stats) {
	type key struct {
		signal frame.Signal
		class  frame.Class
	}
	bytes, count := make(map[key]int64), make(map[key]int64)
	for _, lane := range stats.Lanes {
		k := key{lane.Lane.Signal, lane.Class}
		bytes[k] += lane.DiskBytes
		count[k]++
	}
	for _, signal := range frame.Signals {
		for _, class := range []frame.Class{frame.Live, frame.Backlog} {
			attributes := metric.WithAttributes(attribute.String("signal", signal.String()), attribute.String("class", class.String()))
			o.ObserveInt64(t.laneBytes, bytes[key{signal, class}], attributes)
			o.ObserveInt64(t.lanes, count[key{signal, class}], attributes)
		}
	}
}

func (t *telemetry) unobserve() error { return t.registration.Unregister() }

// sums is one signal's state over its lanes.
type sums struct {
	confirmed, items         int64
	oldestUnsent, oldestKept time.Duration
	lost                     [frame.NumCauses]uint64
}

func bySignal(stats spool.Stats, sp *spool.Spool, ship *shipper.Shipper) map[frame.Signal]sums {
	result := make(map[frame.Signal]sums, len(frame.Signals))
	for _, lane := range stats.Lanes {
		sum := result[lane.Lane.Signal]
		sum.confirmed += int64(lane.ItemsConfirmed)
		sum.items += lane.Items
		sum.oldestKept = max(sum.oldestKept, since(lane.OldestUnconfirmed))
		sum.oldestUnsent = max(sum.oldestUnsent, since(sp.OldestTime(lane.Lane, ship.Unsent(lane.Lane))))
		for cause, lost := range lane.Lost {
			sum.lost[cause] += lost
		}
		result[lane.Lane.Signal] = sum
	}
	for signal, retired := range stats.Retired {
		sum := result[signal]
		sum.confirmed += int64(retired.ItemsConfirmed)
		for cause, lost := range retired.Lost {
			sum.lost[cause] += lost
		}
		result[signal] = sum
	}
	return result
}

func since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(0, time.Since(t))
}

func (t *telemetry) spooled(signal frame.Signal, items, otlp, bytes int) {
	t.bytesIn.Add(context.Background(), int64(otlp), t.attributes[signal])
	t.itemsSpooled.Add(context.Background(), int64(items), t.attributes[signal])
	t.bytesSpooled.Add(context.Background(), int64(bytes), t.attributes[signal])
}

// lost counts items that came in and were lost before they had a frame; the
// spool counts their loss.
func (t *telemetry) lost(signal frame.Signal, items int) {
	t.itemsSpooled.Add(context.Background(), int64(items), t.attributes[signal])
}

func (t *telemetry) refused(signal frame.Signal, items int) {
	t.itemsRefused.Add(context.Background(), int64(items), t.attributes[signal])
}

func (t *telemetry) fsynced(took time.Duration) {
	t.fsync.Record(context.Background(), took.Seconds())
}

// Shipped implements shipper.Observer.
func (t *telemetry) Shipped(signal frame.Signal, items, bytes int, took time.Duration) {
	t.itemsShipped.Add(context.Background(), int64(items), t.attributes[signal])
	t.bytesShipped.Add(context.Background(), int64(bytes), t.attributes[signal])
	t.publish.Record(context.Background(), took.Seconds(), t.attributes[signal])
}
