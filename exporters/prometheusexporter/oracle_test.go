package prometheusexporter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// oracle translates with the library of Prometheus's own OTLP endpoint, and then
// does to its series what a scrape with target labels would have done. It says
// what our translation has to come to.
type oracle struct {
	gathered
	resource []resourceLabel
	promoted []labels.Label
	scraped  bool
	types    map[string]model.MetricType // of scraped families, as exposed
	builder  *labels.Builder
}

func newOracle(cfg *Config) *oracle {
	return &oracle{gathered: gathered{symbols: newSymbols()}, resource: resourceLabels(cfg), builder: labels.NewBuilder(labels.EmptyLabels())}
}

func (o *oracle) translate(md pmetric.Metrics) error {
	for _, resource := range md.ResourceMetrics().All() {
		external := make(map[string]string)
		o.promoted = nil
		for _, l := range o.resource {
			if value, found := resource.Resource().Attributes().Get(l.attribute); found {
				if text := strings.ToValidUTF8(value.AsString(), "\uFFFD"); text != "" {
					external[l.label] = text
					o.promoted = append(o.promoted, labels.Label{Name: l.label, Value: text})
				}
			}
		}
		for of := range origins {
			if err := o.scopes(resource, of, external); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *oracle) scopes(resource pmetric.ResourceMetrics, of origin, external map[string]string) error {
	md := pmetric.NewMetrics()
	view := md.ResourceMetrics().AppendEmpty()
	o.scraped, o.types = of != instrumented, make(map[string]model.MetricType)
	for _, scope := range resource.ScopeMetrics().All() {
		if scope.Metrics().Len() == 0 || originOf(scope) != of {
			continue
		}
		copied := view.ScopeMetrics().AppendEmpty()
		scope.CopyTo(copied)
		for _, m := range copied.Metrics().All() {
			if exposed, found := m.Metadata().Get(typeKey); found && o.scraped {
				o.types[m.Name()] = model.MetricType(exposed.Str())
			}
			if m.Type() == pmetric.MetricTypeHistogram {
				for _, p := range m.Histogram().DataPoints().All() {
					if p.Flags().NoRecordedValue() && !p.HasSum() {
						p.SetSum(0)
					}
				}
			}
		}
	}
	if view.ScopeMetrics().Len() == 0 {
		return nil
	}
	resource.Resource().Attributes().CopyTo(view.Resource().Attributes())
	view.Resource().Attributes().RemoveIf(func(name string, _ pcommon.Value) bool {
		return name == laneKey || slices.ContainsFunc(o.resource, func(l resourceLabel) bool { return l.attribute == name })
	})
	_, err := prometheusremotewrite.NewPrometheusConverter(o).FromMetrics(context.Background(), md, prometheusremotewrite.Settings{
		ExternalLabels:                       external,
		AddMetricSuffixes:                    of == instrumented,
		AllowUTF8:                            of != instrumented,
		LabelNamePreserveMultipleUnderscores: of != instrumented,
		PromoteScopeMetadata:                 of == scrapedWithScope,
	})
	return err
}

var _ storage.AppenderV2 = (*oracle)(nil)

func (*oracle) Commit() error   { return nil }
func (*oracle) Rollback() error { return nil }

func (o *oracle) Append(_ storage.SeriesRef, ls labels.Labels, start, at int64, value float64,
	h *histogram.Histogram, _ *histogram.FloatHistogram, opts storage.AppendV2Options,
) (storage.SeriesRef, error) {
	if exposed, found := o.types[opts.MetricFamilyName]; found {
		opts.Metadata.Type = exposed
	}
	var list []label
	o.relabel(ls, opts.Metadata.Type).Range(func(l labels.Label) { list = append(list, o.symbols.label(l.Name, l.Value)) })
	s := o.add(list, hashOf(list), &family{name: opts.MetricFamilyName, Metadata: opts.Metadata})
	if h != nil {
		s.histograms = append(s.histograms, histogramSample{start, at, h})
	} else {
		s.floats = append(s.floats, floatSample{start, at, value})
	}
	s.exemplars = append(s.exemplars, slices.Clone(opts.Exemplars)...)
	return 0, nil
}

func (o *oracle) relabel(ls labels.Labels, kind model.MetricType) labels.Labels {
	b := o.builder
	b.Reset(ls)
	for _, promoted := range o.promoted {
		if own := b.Get(promoted.Name); own != promoted.Value {
			name := promoted.Name
			for b.Get(name) != "" {
				name = "exported_" + name
			}
			if own != "" {
				b.Set(name, own)
			}
			b.Set(promoted.Name, promoted.Value)
		}
	}
	if o.scraped {
		if name := ls.Get(model.MetricNameLabel); kind == model.MetricTypeInfo && !strings.HasSuffix(name, "_info") {
			b.Set(model.MetricNameLabel, name+"_info")
		}
		bound := map[model.MetricType]string{model.MetricTypeHistogram: model.BucketLabel, model.MetricTypeSummary: model.QuantileLabel}[kind]
		if number, err := strconv.ParseFloat(b.Get(bound), 64); err == nil && bound != "" {
			b.Set(bound, labels.FormatOpenMetricsFloat(number))
		}
	}
	return b.Labels()
}

// described are series as text that can be compared.
func described(g *gathered) map[string]string {
	m := make(map[string]string)
	for _, s := range g.sorted() {
		if len(s.floats)+len(s.histograms) == 0 {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %v\n", s.family.name, s.family.Metadata)
		for _, f := range s.floats {
			fmt.Fprintf(&b, "%d %d %x\n", f.start, f.at, f.value)
		}
		for _, h := range s.histograms {
			compact := h.value.Copy().Compact(0)
			fmt.Fprintf(&b, "%d %d %d %x %v\n", h.start, h.at, h.value.Count, h.value.Sum, compact)
		}
		for _, e := range s.exemplars {
			fmt.Fprintf(&b, "%v %v\n", e.Labels, exemplar.Exemplar{Value: e.Value, Ts: e.Ts, HasTs: e.HasTs})
		}
		var key string
		for _, l := range s.labels {
			key += fmt.Sprintf("%s=%q,", g.texts[l.name], g.texts[l.value])
		}
		m[key] += b.String()
	}
	return m
}

type fataler interface {
	require.TestingT
	Helper()
}

// requireSame compares our translation with the oracle's.
func requireSame(t fataler, md pmetric.Metrics, change func(*Config)) {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	o := newOracle(cfg)
	require.NoError(t, o.translate(md))
	request, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	require.NoError(t, err)
	ours := newTranslation(resourceLabels(cfg))
	for range 3 { // then with memory that was used, and with what is known by then
		require.NoError(t, (&source{otlp: request}).readResources(func(_ int, attributes []otlpwire.Attribute, message []byte) {
			require.NoError(t, ours.resource(&resource{attributes: attributes, message: message}))
		}))
		require.Empty(t, ours.refused)
		require.Equal(t, described(&o.gathered), described(&ours.gathered))
		for _, s := range ours.list {
			require.True(t, slices.IsSortedFunc(s.labels, func(a, b label) int { return strings.Compare(ours.texts[a.name], ours.texts[b.name]) }))
			require.Equal(t, hashOf(s.labels), s.hash)
		}
		ours.reset()
	}
}

// originOf says how the metrics of a scope came to be.
func originOf(scope pmetric.ScopeMetrics) origin {
	isScraped := false
	for _, m := range scope.Metrics().All() {
		if _, found := m.Metadata().Get(typeKey); found {
			isScraped = true
		}
	}
	switch {
	case !isScraped:
		return instrumented
	case scope.Scope().Name() == receiverScope:
		return scraped
	}
	return scrapedWithScope
}

func TestScrapesAreTranslatedAsPrometheusDoes(t *testing.T) {
	requireSame(t, fleetScrapes(t, 2), nil)
}

func TestAnythingIsTranslatedAsPrometheusDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		requireSame(t, drawMetrics(t), func(cfg *Config) {
			if rapid.Bool().Draw(t, "more labels") {
				cfg.ResourceLabels["a.b"] = "a_b"
				cfg.ResourceLabels["service.name"] = "service"
			}
		})
	})
}

// drawMetrics makes metrics that collide in every way: names that become the
// same, labels that the resource has too, samples twice.
func drawMetrics(t *rapid.T) pmetric.Metrics {
	md := pmetric.NewMetrics()
	families := 0
	for range rapid.IntRange(1, 3).Draw(t, "resources") {
		resource := md.ResourceMetrics().AppendEmpty()
		drawAttributes(t, resource.Resource().Attributes(), []string{
			"k8s.cluster.name", "k8s.node.name", "service.name", "service.namespace", "service.instance.id", "a.b", "os.type", laneKey, "1digit",
		})
		for range rapid.IntRange(1, 3).Draw(t, "scopes") {
			scope := resource.ScopeMetrics().AppendEmpty()
			scope.Scope().SetName(rapid.SampledFrom([]string{"", "lib", receiverScope}).Draw(t, "scope"))
			drawAttributes(t, scope.Scope().Attributes(), []string{"name", "x", "y"})
			scraped := rapid.Bool().Draw(t, "scraped")
			for range rapid.IntRange(1, 4).Draw(t, "metrics") {
				m := scope.Metrics().AppendEmpty()
				// Two families of one name are never in a scrape.
				name := rapid.SampledFrom([]string{"up", "http.requests", "http_requests", "queue.length", "Ünïcode name", "1st"}).Draw(t, "name")
				if scraped {
					families++
					name = fmt.Sprint(name, families)
				}
				m.SetName(name)
				drawMetric(t, m, scraped)
			}
		}
	}
	return md
}

func drawAttributes(t *rapid.T, to pcommon.Map, keys []string) {
	for _, key := range rapid.Permutation(keys).Draw(t, "keys")[:rapid.IntRange(0, len(keys)).Draw(t, "attributes")] {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			to.PutInt(key, int64(rapid.IntRange(0, 2).Draw(t, "value")))
		default:
			to.PutStr(key, rapid.SampledFrom([]string{"", "a", "b", "store-0001"}).Draw(t, "value"))
		}
	}
}

var pointAttributes = []string{
	"cluster", "exported_cluster", "node", "job", "instance", "a.b", "a_b", "a-b", "http.route", "otel_scope_name", "otel_scope_x", "otel_scope_version", "Upper", "__name__", "le2", "ünï",
}

func drawMetric(t *rapid.T, m pmetric.Metric, scraped bool) {
	m.SetUnit(rapid.SampledFrom([]string{"", "s", "By", "1", "{item}", "m/s"}).Draw(t, "unit"))
	m.SetDescription(rapid.SampledFrom([]string{"", "Help."}).Draw(t, "help"))
	kinds := []model.MetricType{model.MetricTypeGauge, model.MetricTypeUnknown, model.MetricTypeInfo}
	kind := rapid.IntRange(0, 4).Draw(t, "metric type")
	monotonic := rapid.Bool().Draw(t, "monotonic")
	switch kind {
	case 1:
		kinds = []model.MetricType{model.MetricTypeCounter, model.MetricTypeInfo, model.MetricTypeStateset}
	case 2, 3:
		kinds = []model.MetricType{model.MetricTypeHistogram}
	case 4:
		kinds = []model.MetricType{model.MetricTypeSummary}
	}
	if scraped {
		m.Metadata().PutStr(typeKey, string(rapid.SampledFrom(kinds).Draw(t, "type")))
	}
	for range rapid.IntRange(1, 3).Draw(t, "points") {
		drawPoint(t, m, kind, monotonic)
	}
}

// timed is what points of every kind have.
type timed interface {
	SetTimestamp(pcommon.Timestamp)
	SetStartTimestamp(pcommon.Timestamp)
	SetFlags(pmetric.DataPointFlags)
	Attributes() pcommon.Map
}

func drawPoint(t *rapid.T, m pmetric.Metric, kind int, monotonic bool) {
	var p timed
	switch kind {
	case 0, 1:
		p = drawNumber(t, m, kind == 1, monotonic)
	case 2:
		p = drawHistogram(t, m)
	case 3:
		if m.Type() == pmetric.MetricTypeEmpty {
			m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		}
		one := m.ExponentialHistogram().DataPoints().AppendEmpty()
		drawExponential(t, one, histogram.ExponentialSchemaMax)
		drawExemplars(t, one.Exemplars())
		p = one
	case 4:
		p = drawSummary(t, m)
	}
	base := time.UnixMilli(1795473620776)
	p.SetTimestamp(pcommon.NewTimestampFromTime(base.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "minute")) * time.Minute)))
	p.SetStartTimestamp(pcommon.NewTimestampFromTime(base.Add(-time.Hour)))
	p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(rapid.IntRange(0, 5).Draw(t, "stale") == 0))
	drawAttributes(t, p.Attributes(), pointAttributes)
}

func drawNumber(t *rapid.T, m pmetric.Metric, sum, monotonic bool) pmetric.NumberDataPoint {
	var p pmetric.NumberDataPoint
	if !sum {
		if m.Type() == pmetric.MetricTypeEmpty {
			m.SetEmptyGauge()
		}
		p = m.Gauge().DataPoints().AppendEmpty()
	} else {
		if m.Type() == pmetric.MetricTypeEmpty {
			m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			m.Sum().SetIsMonotonic(monotonic)
		}
		p = m.Sum().DataPoints().AppendEmpty()
		drawExemplars(t, p.Exemplars())
	}
	if rapid.Bool().Draw(t, "integer") {
		p.SetIntValue(int64(rapid.IntRange(0, 5).Draw(t, "value")))
	} else {
		p.SetDoubleValue(rapid.Float64().Draw(t, "value"))
	}
	return p
}

func drawHistogram(t *rapid.T, m pmetric.Metric) pmetric.HistogramDataPoint {
	if m.Type() == pmetric.MetricTypeEmpty {
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	}
	p := m.Histogram().DataPoints().AppendEmpty()
	p.SetCount(10)
	if rapid.Bool().Draw(t, "sum") {
		p.SetSum(1.5)
	}
	bounds := []float64{0.005, 1, 2.5, 1e10}[:rapid.IntRange(0, 4).Draw(t, "bounds")]
	p.ExplicitBounds().FromRaw(bounds)
	counts := make([]uint64, rapid.SampledFrom([]int{0, len(bounds), len(bounds) + 1}).Draw(t, "buckets"))
	for i := range counts {
		counts[i] = rapid.Uint64Range(0, 3).Draw(t, "count")
	}
	p.BucketCounts().FromRaw(counts)
	drawExemplars(t, p.Exemplars())
	return p
}

func drawSummary(t *rapid.T, m pmetric.Metric) pmetric.SummaryDataPoint {
	if m.Type() == pmetric.MetricTypeEmpty {
		m.SetEmptySummary()
	}
	p := m.Summary().DataPoints().AppendEmpty()
	p.SetCount(3)
	p.SetSum(0.1)
	for _, quantile := range []float64{0.5, 1}[:rapid.IntRange(0, 2).Draw(t, "quantiles")] {
		q := p.QuantileValues().AppendEmpty()
		q.SetQuantile(quantile)
		q.SetValue(7)
	}
	return p
}

func drawExponential(t *rapid.T, p pmetric.ExponentialHistogramDataPoint, maxScale int32) {
	p.SetScale(rapid.Int32Range(histogram.ExponentialSchemaMin, maxScale).Draw(t, "scale"))
	p.SetSum(rapid.Float64Range(0, 1e6).Draw(t, "sum"))
	p.SetZeroCount(uint64(rapid.IntRange(0, 3).Draw(t, "zeros")))
	count := p.ZeroCount()
	for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{p.Positive(), p.Negative()} {
		b.SetOffset(rapid.Int32Range(-40, 40).Draw(t, "offset"))
		counts := rapid.SliceOfN(rapid.Uint64Range(0, 3), 0, 30).Draw(t, "counts")
		b.BucketCounts().FromRaw(counts)
		for _, n := range counts {
			count += n
		}
	}
	p.SetCount(count)
}

func drawExemplars(t *rapid.T, to pmetric.ExemplarSlice) {
	for _, v := range []float64{0.001, 2, 1e12}[:rapid.IntRange(0, 3).Draw(t, "exemplars")] {
		e := to.AppendEmpty()
		e.SetDoubleValue(v)
		if rapid.Bool().Draw(t, "with time") {
			e.SetTimestamp(pcommon.NewTimestampFromTime(time.UnixMilli(1795473620776)))
		}
		if rapid.Bool().Draw(t, "with trace") {
			e.SetTraceID(pcommon.TraceID{1})
		}
		e.FilteredAttributes().PutStr("k", strings.Repeat("v", rapid.SampledFrom([]int{1, 200}).Draw(t, "length")))
	}
}
