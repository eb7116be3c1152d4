package account

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/otlptranslator"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
	"github.com/longhaul/longhaul/internal/lab"
)

// CheckMetrics compares a store's data points with what Prometheus has of its
// cluster.
func CheckMetrics(ctx context.Context, prom *lab.Prometheus, l *Ledger, from, to time.Time) (Row, error) {
	series, err := prom.RawSamples(ctx, fmt.Sprintf(`{cluster=%q, job=~"%s/.+"}`, l.Store, orderapp.Namespace), from, to)
	if err != nil {
		return Row{}, err
	}
	return matchPoints(l, series)
}

var (
	metricNamer = otlptranslator.MetricNamer{WithMetricSuffixes: true}
	labelNamer  = otlptranslator.LabelNamer{}
)

// promName is the name a metric has in Prometheus, without _bucket and so on.
func promName(p *orderapp.Point) (string, error) {
	types := map[orderapp.PointType]otlptranslator.MetricType{
		orderapp.Gauge:         otlptranslator.MetricTypeGauge,
		orderapp.UpDownCounter: otlptranslator.MetricTypeNonMonotonicCounter,
		orderapp.Counter:       otlptranslator.MetricTypeMonotonicCounter,
		orderapp.Histogram:     otlptranslator.MetricTypeHistogram,
		orderapp.ExpHistogram:  otlptranslator.MetricTypeExponentialHistogram,
	}
	return metricNamer.Build(otlptranslator.Metric{Name: p.Name, Unit: p.Unit, Type: types[p.Type]})
}

// metric is a metric of one service and the labels its points carry: a series
// is told from another by these alone, whatever else the pipeline adds.
type metric struct {
	name   string
	labels map[string]bool
}

// matchPoints looks for every point of the ledger among raw samples.
func matchPoints(l *Ledger, series []lab.Series) (Row, error) {
	metrics := map[string]*metric{} // by service and OpenTelemetry name
	wanted := map[string]*metric{}  // by service and series name
	attrs := make([]map[string]string, len(l.Points))
	for i, e := range l.Points {
		id := e.Service + "\x00" + e.Point.Name
		m := metrics[id]
		if m == nil {
			name, err := promName(e.Point)
			if err != nil {
				return Row{}, fmt.Errorf("name of %s: %w", e.Point.Name, err)
			}
			m = &metric{name: name, labels: map[string]bool{}}
			metrics[id] = m
			for _, suffix := range suffixes(e.Point.Type) {
				wanted[e.Service+"\x00"+name+suffix] = m
			}
		}
		attrs[i] = make(map[string]string, len(e.Point.Attrs))
		for k, v := range e.Point.Attrs {
			label, err := labelNamer.Build(k)
			if err != nil {
				return Row{}, fmt.Errorf("label %s: %w", k, err)
			}
			attrs[i][label], m.labels[label] = v, true
		}
	}

	stored := newSamples()
	for _, s := range series {
		service := strings.TrimPrefix(s.Labels["job"], orderapp.Namespace+"/")
		m := wanted[service+"\x00"+s.Labels["__name__"]]
		if m == nil || s.Labels["instance"] != orderapp.Instance(l.Run, service) {
			continue
		}
		stored.add(seriesKey(service, s.Labels["__name__"], m, s.Labels, bound(s.Labels["le"])), s)
	}

	row := Row{Store: l.Store, Signal: Metrics, Sent: len(l.Points)}
	for i, e := range l.Points {
		m := metrics[e.Service+"\x00"+e.Point.Name]
		least, problem := stored.look(e.Service, m, attrs[i], e.Point)
		if problem != "" {
			row.Missing++
			row.example("%s of %s %v at %d", problem, e.Service, attrs[i], e.Point.UnixMilli)
			continue
		}
		row.Found++
		row.Duplicates += least - 1
	}
	return row, nil
}

func suffixes(t orderapp.PointType) []string {
	if t == orderapp.Histogram {
		return []string{"_count", "_sum", "_bucket"}
	}
	return []string{""}
}

func seriesKey(service, name string, m *metric, labels map[string]string, le string) string {
	var b strings.Builder
	b.WriteString(service + "\x00" + name + "\x00" + le)
	for _, k := range slices.Sorted(maps.Keys(m.labels)) {
		b.WriteString("\x00" + k + "=" + labels[k])
	}
	return b.String()
}

// bound writes a bucket's upper bound in one way only: 1, 1.0 and 1e0 are one.
func bound(le string) string {
	if f, err := strconv.ParseFloat(le, 64); err == nil {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return le
}

type at struct {
	key string
	ms  int64
}

type histogramValue struct{ count, sum float64 }

// samples is what Prometheus has, by series and time. More than one value at a
// time means more than one series.
type samples struct {
	floats     map[at][]float64
	histograms map[at][]histogramValue
}

func newSamples() *samples {
	return &samples{floats: map[at][]float64{}, histograms: map[at][]histogramValue{}}
}

func (s *samples) add(key string, series lab.Series) {
	for _, v := range series.Samples {
		k := at{key, v.Time}
		s.floats[k] = append(s.floats[k], v.Value)
	}
	for _, h := range series.Histograms {
		k := at{key, h.Time}
		s.histograms[k] = append(s.histograms[k], histogramValue{h.Count, h.Sum})
	}
}

// look says how many times a point is stored (the least of its parts), or what
// is wrong with it.
func (s *samples) look(service string, m *metric, attrs map[string]string, p *orderapp.Point) (times int, problem string) {
	if p.Type == orderapp.ExpHistogram {
		for _, h := range s.histograms[at{seriesKey(service, m.name, m, attrs, ""), p.UnixMilli}] {
			if h.count == float64(p.Count) && h.sum == p.Value {
				times++
			}
		}
		if times == 0 {
			return 0, "missing or altered: native histogram " + m.name
		}
		return times, ""
	}
	times = math.MaxInt
	need := func(suffix, le string, value float64) {
		found := s.floats[at{seriesKey(service, m.name+suffix, m, attrs, le), p.UnixMilli}]
		n := 0
		for _, v := range found {
			if v == value {
				n++
			}
		}
		times = min(times, n)
		switch {
		case n > 0 || problem != "":
		case len(found) > 0:
			problem = fmt.Sprintf("altered: %s%s le=%q is %v, sent %v,", m.name, suffix, le, found[0], value)
		default:
			problem = fmt.Sprintf("missing: %s%s le=%q", m.name, suffix, le)
		}
	}
	if p.Type != orderapp.Histogram {
		need("", "", p.Value)
		return times, problem
	}
	need("_count", "", float64(p.Count))
	need("_sum", "", p.Value)
	total := uint64(0)
	for i, n := range p.Buckets {
		total += n
		le := math.Inf(1)
		if i < len(p.Bounds) {
			le = p.Bounds[i]
		}
		need("_bucket", strconv.FormatFloat(le, 'g', -1, 64), float64(total))
	}
	return times, problem
}
