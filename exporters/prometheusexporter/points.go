package prometheusexporter

import (
	"encoding/hex"
	"math"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

var stale = math.Float64frombits(value.StaleNaN)

// put adds a sample to a series, or the marker that the series ended.
func (s *series) put(start, at int64, v float64, flags pmetric.DataPointFlags) {
	if flags.NoRecordedValue() {
		v = stale
	}
	s.floats = append(s.floats, floatSample{start, at, v})
}

// numbers translates gauges and sums, where they lie.
func (t *translation) numbers(m *metricMessage, f *knownFamily) error {
	delta := m.isDelta()
	hint := &f.point
	p := &t.point
	r := otlpwire.Read(m.data)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		if err := p.read(r.Bytes()); err != nil {
			return err
		}
		var s *series
		known := t.find(f, p.attributes, hint)
		if known != nil {
			s = t.known(known)
		}
		if s == nil {
			if !t.readPoint(p.attributes, f.metric.name) {
				if t.malformed != nil {
					return t.malformed
				}
				continue // refused
			}
			if known == nil {
				t.remember(f, p.attributes, hint)
			}
			s = t.one(f.sample)
		}
		if *hint != nil {
			hint = &(*hint).next
		}
		t.seen(p.at)
		if delta && !p.flags.NoRecordedValue() {
			if !t.deltaNumber(s, p, m) {
				continue
			}
		} else {
			s.put(milliseconds(p.start), milliseconds(p.at), p.value, p.flags)
		}
		if p.exemplars { // which is rare
			decoded, err := p.pdata(&t.memory)
			if err != nil {
				return err
			}
			if m.kind == pmetric.MetricTypeSum {
				s.exemplars = append(s.exemplars, exemplarsOf(decoded.Exemplars())...)
			}
		}
	}
	return r.Err()
}

func (t *translation) summaries(m pmetric.Metric) {
	name := t.family.name
	for _, p := range m.Summary().DataPoints().All() {
		if !t.readPdata(p.Attributes(), m.Name()) {
			continue
		}
		t.seen(p.Timestamp())
		t.begin()
		start, at := milliseconds(p.StartTimestamp()), milliseconds(p.Timestamp())
		t.another(name+"_sum", labelPair{}).put(start, at, p.Sum(), p.Flags())
		t.another(name+"_count", labelPair{}).put(start, at, float64(p.Count()), p.Flags())
		for _, q := range p.QuantileValues().All() {
			quantile := labelPair{Name: model.QuantileLabel, Value: t.names.number(q.Quantile(), t.scraped)}
			t.another(name, quantile).put(start, at, q.Value(), p.Flags())
		}
	}
}

// classic is the state of a histogram with explicit bounds.
type classic struct {
	count  uint64
	sum    float64
	hasSum bool
	counts []uint64 // by bucket, the last without a bound; empty if there are none
	bounds []float64
}

// histograms translates histograms with explicit bounds.
func (t *translation) histograms(m pmetric.Metric) {
	h := m.Histogram()
	delta := h.AggregationTemporality() == pmetric.AggregationTemporalityDelta
	series := classicNames{t.family.name + "_sum", t.family.name + "_count", t.family.name + "_bucket"}
	var now classic
	for _, p := range h.DataPoints().All() {
		if !t.readPdata(p.Attributes(), m.Name()) {
			continue
		}
		t.seen(p.Timestamp())
		t.begin()
		start, at := milliseconds(p.StartTimestamp()), milliseconds(p.Timestamp())
		now.read(p)
		exemplars := exemplarsOf(p.Exemplars())
		if delta && !p.Flags().NoRecordedValue() {
			count := t.another(series.count, labelPair{})
			grown, reason := t.deltaClassic(count, p, &now)
			if reason != "" {
				t.refused.add(reason, 1, m.Name())
				continue
			}
			if grown.zero != 0 {
				zero := classic{hasSum: grown.value.hasSum, counts: make([]uint64, len(grown.value.counts)), bounds: grown.value.bounds}
				t.classic(p, series, &zero, grown.start, grown.zero, nil)
			}
			t.classic(p, series, grown.value, grown.start, at, exemplars)
			continue
		}
		if p.Flags().NoRecordedValue() {
			// A scrape leaves the sum out then; its series would never end.
			now.hasSum = true
		}
		t.classic(p, series, &now, start, at, exemplars)
	}
}

type classicNames struct{ sum, count, bucket string }

func (c *classic) read(p pmetric.HistogramDataPoint) {
	c.count, c.sum, c.hasSum = p.Count(), p.Sum(), p.HasSum()
	c.counts, c.bounds = c.counts[:0], c.bounds[:0]
	for i, n := 0, p.BucketCounts(); i < n.Len(); i++ {
		c.counts = append(c.counts, n.At(i))
	}
	for i, b := 0, p.ExplicitBounds(); i < b.Len(); i++ {
		c.bounds = append(c.bounds, b.At(i))
	}
}

// classic writes a histogram as the series it has in Prometheus. exemplars are
// in the order of their values.
func (t *translation) classic(p pmetric.HistogramDataPoint, names classicNames, h *classic, start, at int64, exemplars []exemplar.Exemplar) {
	flags := p.Flags()
	if h.hasSum {
		t.another(names.sum, labelPair{}).put(start, at, h.sum, flags)
	}
	t.another(names.count, labelPair{}).put(start, at, float64(h.count), flags)
	var below uint64
	for i := 0; i < len(h.bounds) && i < len(h.counts); i++ {
		below += h.counts[i]
		n := 0
		for n < len(exemplars) && exemplars[n].Value <= h.bounds[i] {
			n++
		}
		s := t.another(names.bucket, labelPair{Name: model.BucketLabel, Value: t.names.number(h.bounds[i], t.scraped)})
		s.put(start, at, float64(below), flags)
		s.exemplars = append(s.exemplars, exemplars[:n]...)
		exemplars = exemplars[n:]
	}
	s := t.another(names.bucket, labelPair{Name: model.BucketLabel, Value: "+Inf"})
	s.put(start, at, float64(h.count), flags)
	s.exemplars = append(s.exemplars, exemplars...)
}

// maxExemplarRunes is what OpenMetrics allows the labels of an exemplar.
const maxExemplarRunes = 128

// exemplarsOf translates exemplars that have a value. The attributes are left out
// where there are more of them than an exemplar may have.
func exemplarsOf(list pmetric.ExemplarSlice) []exemplar.Exemplar {
	if list.Len() == 0 {
		return nil
	}
	translated := make([]exemplar.Exemplar, 0, list.Len())
	builder := labels.NewScratchBuilder(4)
	for _, e := range list.All() {
		at := milliseconds(e.Timestamp())
		one := exemplar.Exemplar{Ts: at, HasTs: at != 0}
		switch e.ValueType() {
		case pmetric.ExemplarValueTypeInt:
			one.Value = float64(e.IntValue())
		case pmetric.ExemplarValueTypeDouble:
			one.Value = e.DoubleValue()
		default:
			continue
		}
		builder.Reset()
		runes := 0
		add := func(name, value string) {
			runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
			builder.Add(name, value)
		}
		if id := e.TraceID(); !id.IsEmpty() {
			add("trace_id", hex.EncodeToString(id[:]))
		}
		if id := e.SpanID(); !id.IsEmpty() {
			add("span_id", hex.EncodeToString(id[:]))
		}
		attributes := e.FilteredAttributes()
		for name, value := range attributes.All() {
			runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value.AsString())
		}
		if runes <= maxExemplarRunes {
			for name, value := range attributes.All() {
				builder.Add(name, value.AsString())
			}
		}
		builder.Sort()
		one.Labels = builder.Labels()
		translated = append(translated, one)
	}
	return translated
}
