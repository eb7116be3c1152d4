package natsreceiver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
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
	meter    metric.Meter
	clusters *clusters
	classes  sync.Map // attributes of the delay histogram, by classKey

	framesDuplicate metric.Int64Counter
	framesDropped   metric.Int64Counter
	framesReplayed  metric.Int64Counter
	spoolsForgotten metric.Int64Counter
	lanesForgotten  metric.Int64Counter
	itemsRejected   metric.Int64Counter
	itemsLost       metric.Int64Counter
	itemsRecovered  metric.Int64Counter
	delay           metric.Float64Histogram
	batchItems      metric.Int64Histogram
	batchFrames     metric.Int64Histogram
	moves           metric.Int64Counter

	itemsDelivered   metric.Int64ObservableCounter
	bytesReceived    metric.Int64ObservableCounter
	edgeAge          metric.Float64ObservableGauge
	edgeSpoolBytes   metric.Int64ObservableGauge
	edgeOldestUnsent metric.Float64ObservableGauge
	conflicts        metric.Int64ObservableGauge
	partitions       metric.Int64ObservableGauge
	framesInHand     metric.Int64ObservableGauge
	originsParked    metric.Int64ObservableGauge
	memory           metric.Int64ObservableGauge
	memoryLimit      metric.Int64ObservableGauge
	registration     metric.Registration
}

var (
	// delayBuckets in seconds: from live to an outage of three days.
	delayBuckets = []float64{.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600}
	// batchBuckets in items, or frames, of one delivery.
	batchBuckets = []float64{1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000}
)

func newTelemetry(set component.TelemetrySettings) (*telemetry, error) {
	meter := set.MeterProvider.Meter(scopeName)
	t := &telemetry{meter: meter, clusters: &clusters{}}
	var problems []error
	counter := func(name, unit, help string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
	}
	observed := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
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
	sizes := func(name, unit, help string) metric.Int64Histogram {
		h, err := meter.Int64Histogram(name, metric.WithUnit(unit), metric.WithDescription(help), metric.WithExplicitBucketBoundaries(batchBuckets...))
		problems = append(problems, err)
		return h
	}
	t.itemsDelivered = observed("longhaul_relay_items_delivered", "{item}", "Items that all backends of the signal and destination accepted.")
	t.bytesReceived = observed("longhaul_relay_bytes_received", "By", "Bytes of frames read from the hub, repeats included; by each destination.")
	t.framesDuplicate = counter("longhaul_relay_frames_duplicate", "{frame}", "Frames dropped because their number had been taken before.")
	t.framesDropped = counter("longhaul_relay_frames_dropped", "{frame}", "Frames of parked origins that were taken off the hub because too many waited; the edge is asked for them again.")
	t.framesReplayed = counter("longhaul_relay_frames_replayed", "{frame}", "Frames marked as sent again from the rejected stream and let through whatever their number. Those with refused=false the relay does not know as refused: it has forgotten, or an edge has marked them.")
	t.spoolsForgotten = counter("longhaul_relay_spools_forgotten", "{spool}", "Spools whose watermarks were removed because their origin had more of them than are kept track of.")
	t.lanesForgotten = counter("longhaul_relay_lanes_forgotten", "{lane}", "Lanes that were forgotten because their spool had more of them than are kept track of.")
	t.itemsRejected = counter("longhaul_relay_items_rejected", "{item}", "Items of frames that were moved to the rejected stream, by reason.")
	t.itemsLost = counter("longhaul_lost_items", "{item}", "Items that are lost to a destination for good, by cause, counted once that is stored on the hub. What longhaul_recovered_items says is to be taken off.")
	t.itemsRecovered = counter("longhaul_recovered_items", "{item}", "Items counted as lost by this cause that arrived after all, or whose loss is counted by another cause by now.")
	t.moves = counter("longhaul_relay_partition_moves", "{partition}", "Partitions that this relay took or gave on.")
	t.batchItems = sizes("longhaul_relay_delivery_items", "{item}", "Items that were handed to the exporters as one piece.")
	t.batchFrames = sizes("longhaul_relay_delivery_frames", "{frame}", "Frames that were merged into one piece.")
	delay, err := meter.Float64Histogram("longhaul_relay_delivery_delay", metric.WithUnit("s"),
		metric.WithDescription("Time from a frame's newest item to its acceptance by the backends."),
		metric.WithExplicitBucketBoundaries(delayBuckets...))
	t.delay = delay
	problems = append(problems, err)
	t.edgeAge = age("longhaul_edge_last_seen_age", "Time since the edge last said hello, told by the relay that owns its partition.")
	t.edgeOldestUnsent = age("longhaul_edge_oldest_unsent_age", "Age of the oldest item that the edge had not shipped when it last said hello.")
	t.edgeSpoolBytes = gauge("longhaul_edge_spool_bytes", "By", "Size of the edge's spool when it last said hello.")
	t.conflicts = gauge("longhaul_origin_conflicts", "{collector}", "Collectors that use copies of one spool at the same time: none of their data is confirmed until all but one have stopped. Absent where all is well.")
	t.partitions = gauge("longhaul_relay_partitions", "{partition}", "Partitions of the hub that this relay reads.")
	t.framesInHand = gauge("longhaul_relay_frames_in_hand", "{frame}", "Frames read from the hub and not delivered, dropped or given back.")
	t.originsParked = gauge("longhaul_relay_origins_parked", "{origin}", "Origins that a backend refuses while it takes others.")
	t.memory = gauge("longhaul_relay_memory_in_use", "By", "What is counted against memory_limit: frames in hand, and what is decoded of them, estimated.")
	t.memoryLimit = gauge("longhaul_relay_memory_limit", "By", "The part of memory_limit that is this kind's.")
	return t, errors.Join(problems...)
}

// observe begins to report, at every collection, what is not counted as it happens.
func (t *telemetry) observe(c *core) (err error) {
	t.registration, err = t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		t.clusters.observe(o, t.itemsDelivered, t.bytesReceived)
		t.observeEdges(c, o)
		o.ObserveInt64(t.partitions, int64(len(c.partitions())))
		o.ObserveInt64(t.framesInHand, c.handled.Load())
		for _, d := range c.destinations {
			for _, out := range d.outlets {
				t.observeOutlet(out, o)
			}
		}
		return nil
	}, t.itemsDelivered, t.bytesReceived, t.edgeAge, t.edgeSpoolBytes, t.edgeOldestUnsent, t.conflicts,
		t.partitions, t.framesInHand, t.originsParked, t.memory, t.memoryLimit)
	return err
}

func (t *telemetry) observeOutlet(out *outlet, o metric.Observer) {
	parked := int64(0)
	for _, w := range out.workers {
		parked += w.parking.refused.Load()
	}
	o.ObserveInt64(t.originsParked, parked, out.attributes)
	for kind, b := range map[string]*budget{"frames": out.frames, "decoded": out.decoded} {
		of := metric.WithAttributes(attribute.String("destination", out.name), attribute.String("signal", out.signal.String()), attribute.String("kind", kind))
		o.ObserveInt64(t.memory, b.used.Load(), of)
		o.ObserveInt64(t.memoryLimit, b.limit, of)
	}
}

// observeEdges tells of the edges whose partitions are this relay's: with several
// relays each edge is told of by one.
func (t *telemetry) observeEdges(c *core, o metric.Observer) {
	for id, n := range c.instances.InConflict(time.Now()) {
		if c.owner(id.Origin) != nil {
			o.ObserveInt64(t.conflicts, int64(n), metric.WithAttributes(
				attribute.String("cluster", id.Origin.Cluster), attribute.String("node", id.Origin.Node)))
		}
	}
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	for origin, edge := range c.edges.seen {
		age := time.Since(edge.at)
		if age > edgeForgottenAfter {
			delete(c.edges.seen, origin)
			continue
		}
		if c.owner(origin) == nil {
			continue
		}
		of := metric.WithAttributes(attribute.String("cluster", origin.Cluster), attribute.String("node", origin.Node))
		o.ObserveFloat64(t.edgeAge, age.Seconds(), of)
		o.ObserveInt64(t.edgeSpoolBytes, edge.spoolBytes, of)
		o.ObserveFloat64(t.edgeOldestUnsent, edge.oldestUnsent, of)
	}
}

func (t *telemetry) unobserve() error { return t.registration.Unregister() }

// clusters counts what comes of each cluster. It is counted once a frame, so it is
// kept where it costs next to nothing.
type clusters struct{ all sync.Map } // clusterKey → *clusterCounts

type clusterKey struct {
	destination string
	signal      frame.Signal
	cluster     string
}

type clusterCounts struct {
	items, bytes atomic.Int64
	attributes   metric.MeasurementOption
}

func (c *clusters) of(destination string, signal frame.Signal, cluster string) *clusterCounts {
	key := clusterKey{destination, signal, cluster}
	if counts, ok := c.all.Load(key); ok {
		return counts.(*clusterCounts)
	}
	counts, _ := c.all.LoadOrStore(key, &clusterCounts{attributes: metric.WithAttributeSet(attribute.NewSet(
		attribute.String("destination", destination), attribute.String("signal", signal.String()), attribute.String("cluster", cluster)))})
	return counts.(*clusterCounts)
}

func (c *clusters) observe(o metric.Observer, items, bytes metric.Int64ObservableCounter) {
	c.all.Range(func(_, value any) bool {
		counts := value.(*clusterCounts)
		o.ObserveInt64(bytes, counts.bytes.Load(), counts.attributes)
		if n := counts.items.Load(); n > 0 {
			o.ObserveInt64(items, n, counts.attributes)
		}
		return true
	})
}

// classKey is what delays are told apart by.
type classKey struct {
	destination string
	signal      frame.Signal
	class       frame.Class
}

func (t *telemetry) delivered(a *arrival, now time.Time) {
	a.source.counts.items.Add(int64(a.header.Items))
	if a.header.Last <= 0 {
		return
	}
	key := classKey{a.share.dest.name, a.key.Lane.Signal, a.class}
	of, ok := t.classes.Load(key)
	if !ok {
		of, _ = t.classes.LoadOrStore(key, metric.WithAttributeSet(attribute.NewSet(attribute.String("destination", key.destination),
			attribute.String("signal", key.signal.String()), attribute.String("class", key.class.String()))))
	}
	delay := max(0, now.Sub(time.Unix(0, a.header.Last)))
	t.delay.Record(context.Background(), delay.Seconds(), of.(metric.MeasurementOption))
}

func (t *telemetry) duplicate(o *outlet) {
	t.framesDuplicate.Add(context.Background(), 1, o.attributes)
}

func (t *telemetry) overflowed(o *outlet) { t.framesDropped.Add(context.Background(), 1, o.attributes) }

func (t *telemetry) forgotten(destination string, gone *custody.Crowd) {
	of := metric.WithAttributes(attribute.String("destination", destination))
	t.spoolsForgotten.Add(context.Background(), int64(len(gone.Spools)), of)
	t.lanesForgotten.Add(context.Background(), int64(len(gone.Lanes)), of)
}

func (t *telemetry) replayed(o *outlet, refused bool) {
	t.framesReplayed.Add(context.Background(), 1, metric.WithAttributes(attribute.String("destination", o.name),
		attribute.String("signal", o.signal.String()), attribute.Bool("refused", refused)))
}

// attempted notes how large a piece the exporters were given.
func (t *telemetry) attempted(o *outlet, arrivals []*arrival) {
	items := int64(0)
	for _, a := range arrivals {
		items += int64(a.header.Items)
	}
	t.batchItems.Record(context.Background(), items, o.attributes)
	t.batchFrames.Record(context.Background(), int64(len(arrivals)), o.attributes)
}

func (t *telemetry) moved(here bool) {
	way := "given"
	if here {
		way = "taken"
	}
	t.moves.Add(context.Background(), 1, metric.WithAttributes(attribute.String("way", way)))
}

func (t *telemetry) rejected(a *arrival, reason error) {
	kind := "backend"
	var origin *originError
	switch {
	case errors.As(reason, &origin):
		kind = "origin"
	case errors.Is(reason, errOversize):
		kind = "oversize"
	case a.poison != nil:
		kind = "damaged"
	case errors.Is(reason, frame.ErrCorrupt), errors.Is(reason, frame.ErrVersion), errors.Is(reason, frame.ErrCodec), errors.Is(reason, errNoRequest):
		kind = "undecodable"
	}
	t.itemsRejected.Add(context.Background(), int64(a.header.Items), metric.WithAttributes(attribute.String("destination", a.share.dest.name),
		attribute.String("signal", a.out.signal.String()), attribute.String("reason", kind)))
}

// changed counts what was lost and what was recovered.
func (t *telemetry) changed(destination string, r *custody.Report) {
	add := func(to metric.Int64Counter, items custody.Counts) {
		for cause, n := range items {
			if n > 0 {
				to.Add(context.Background(), int64(n), metric.WithAttributes(
					attribute.String("destination", destination),
					attribute.String("cluster", r.Key.Origin.Cluster), attribute.String("signal", r.Key.Lane.Signal.String()),
					attribute.String("cause", frame.Cause(cause).String())))
			}
		}
	}
	add(t.itemsLost, r.Lost)
	add(t.itemsRecovered, r.Recovered)
}
