package orderapp

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// metricsLoop collects the metrics of a service at an interval and sends each
// collection until the collector accepted it. The SDK's periodic reader is not
// used because it gives a collection up when its time is over.
type metricsLoop struct {
	mu       sync.Mutex // one collection at a time
	life     context.Context
	reader   *sdkmetric.ManualReader
	exporter sdkmetric.Exporter
	interval time.Duration
	service  string
	counts   *Counts
	ledger   *ledger
	log      *slog.Logger
	finished bool
}

func (m *metricsLoop) run(ctx context.Context) {
	t := time.NewTicker(m.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := m.collect(); err != nil && ctx.Err() == nil {
				m.log.Error("metrics are lost before the pipeline got them", "error", err)
			}
		}
	}
}

// collect sends one collection.
func (m *metricsLoop) collect() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.finished {
		return nil
	}
	return m.send()
}

// finish sends a last collection.
func (m *metricsLoop) finish() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.finished {
		return nil
	}
	m.finished = true
	return m.send()
}

func (m *metricsLoop) send() error {
	var rm metricdata.ResourceMetrics
	if err := m.reader.Collect(m.life, &rm); err != nil {
		return err
	}
	points := pointsOf(&rm)
	m.counts.Metrics.Made.Add(int64(len(points)))
	err := insist(m.life, m.counts, m.log, "metrics", func(ctx context.Context) error {
		return m.exporter.Export(ctx, &rm)
	})
	if err != nil {
		return err
	}
	m.counts.Metrics.Accepted.Add(int64(len(points)))
	for i := range points {
		m.ledger.add(Entry{Kind: KindPoint, Service: m.service, Point: &points[i]})
	}
	return nil
}

// pointsOf lists the data points of a collection.
func pointsOf(rm *metricdata.ResourceMetrics) []Point {
	var out []Point
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			at := len(out)
			switch d := m.Data.(type) {
			case metricdata.Gauge[int64]:
				out = appendNumbers(out, Gauge, d.DataPoints)
			case metricdata.Gauge[float64]:
				out = appendNumbers(out, Gauge, d.DataPoints)
			case metricdata.Sum[int64]:
				out = appendNumbers(out, sumType(d.IsMonotonic), d.DataPoints)
			case metricdata.Sum[float64]:
				out = appendNumbers(out, sumType(d.IsMonotonic), d.DataPoints)
			case metricdata.Histogram[int64]:
				out = appendHistograms(out, d.DataPoints)
			case metricdata.Histogram[float64]:
				out = appendHistograms(out, d.DataPoints)
			case metricdata.ExponentialHistogram[float64]:
				for _, p := range d.DataPoints {
					out = append(out, Point{
						Type: ExpHistogram, Attrs: attrMap(p.Attributes), UnixMilli: p.Time.UnixMilli(),
						Value: p.Sum, Count: p.Count,
					})
				}
			}
			for i := range out[at:] {
				out[at+i].Name, out[at+i].Unit = m.Name, m.Unit
			}
		}
	}
	return out
}

func sumType(monotonic bool) PointType {
	if monotonic {
		return Counter
	}
	return UpDownCounter
}

func appendNumbers[N int64 | float64](out []Point, t PointType, points []metricdata.DataPoint[N]) []Point {
	for _, p := range points {
		out = append(out, Point{Type: t, Attrs: attrMap(p.Attributes), UnixMilli: p.Time.UnixMilli(), Value: float64(p.Value)})
	}
	return out
}

func appendHistograms[N int64 | float64](out []Point, points []metricdata.HistogramDataPoint[N]) []Point {
	for _, p := range points {
		out = append(out, Point{
			Type: Histogram, Attrs: attrMap(p.Attributes), UnixMilli: p.Time.UnixMilli(),
			Value: float64(p.Sum), Count: p.Count, Bounds: p.Bounds, Buckets: append([]uint64(nil), p.BucketCounts...),
		})
	}
	return out
}

func attrMap(s attribute.Set) map[string]string {
	if s.Len() == 0 {
		return nil
	}
	m := make(map[string]string, s.Len())
	for it := s.Iter(); it.Next(); {
		kv := it.Attribute()
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}
