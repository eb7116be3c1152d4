package prometheusexporter

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	// typeKey is where the Prometheus receiver notes the type a family was
	// exposed with. Its presence tells that a metric was scraped.
	typeKey = "prometheus.type"
	// receiverScope is the scope of scraped metrics that name none themselves.
	receiverScope = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver"
	// laneKey is where the relay notes that a resource comes from a backlog. It
	// is of no use in Prometheus.
	laneKey = "longhaul.lane"
)

// origin says how metrics came to be, which decides how they are named.
type origin int

const (
	// instrumented by OpenTelemetry: named by Prometheus's rules for OTLP, with
	// unit and type suffixes.
	instrumented origin = iota
	// scraped: names and labels are Prometheus's already.
	scraped
	// scrapedWithScope: likewise, and otel_scope_* were labels.
	scrapedWithScope
	origins
)

func originOf(scope pmetric.ScopeMetrics) origin {
	switch {
	case !isScraped(scope):
		return instrumented
	case scope.Scope().Name() == receiverScope:
		return scraped
	}
	return scrapedWithScope
}

func isScraped(scope pmetric.ScopeMetrics) bool {
	for _, m := range scope.Metrics().All() {
		if _, found := m.Metadata().Get(typeKey); found {
			return true
		}
	}
	return false
}

// attributeLabel remembers what became of an attribute's name and value.
type attributeLabel struct {
	key string
	label
}

// resourceLabel is a label that all series of a resource get.
type resourceLabel struct{ label, attribute string }

func resourceLabels(cfg *Config) []resourceLabel {
	var all []resourceLabel
	for attribute, label := range cfg.ResourceLabels {
		if label != "" {
			all = append(all, resourceLabel{label, attribute})
		}
	}
	slices.SortFunc(all, func(a, b resourceLabel) int { return strings.Compare(a.label, b.label) })
	return all
}

// translation turns metrics into series, as Prometheus's own OTLP endpoint does
// (its library is what the tests compare with), at a fraction of the cost: labels
// that points share are put together once, and nothing is copied that can be
// pointed to. It changes nothing of the metrics, whose strings it points to until
// reset.
type translation struct {
	gathered
	names
	refused refusals
	delta   *accumulation // nil: there is no delta temporality in the call

	resourceLabels []resourceLabel
	tenant         string

	// Of the resource being translated:
	promoted      []labelPair // labels every series gets, by name
	job, instance string
	first, last   pcommon.Timestamp // of the points so far

	// Of the scope:
	scraped     bool
	scopeLabels []labelPair      // otel_scope_*, in the order they are set
	base        []label          // all of the above, sorted
	plain       bool             // no two of them had the same name
	memo        []attributeLabel // of the last point, in its order
	memoPlain   bool             // what its names came to: no two labels had the same
	memoSorted  bool             // and they were in order

	// Of the metric:
	family *family
	named  []label // base with the metric's name
	hashed uint64  // of named

	// Of the point:
	attributes []label // under their label names, sorted
	simple     bool    // the labels can be put together without care
	same       bool    // the names are those of the last point
	point      []label
	places     []int // of attributes in point; empty if that holds another metric's
	name       int   // where the metric's name goes in named

	builder *labels.Builder
	sizer   *sizer2
	runs    []run
}

func newTranslation(resource []resourceLabel) *translation {
	t := &translation{
		gathered:       gathered{symbols: newSymbols()},
		names:          newNames(),
		refused:        make(refusals),
		resourceLabels: resource,
		builder:        labels.NewBuilder(labels.EmptyLabels()),
	}
	t.sizer = newSizer2(&t.symbols)
	return t
}

func (t *translation) reset() {
	t.gathered.reset()
	t.refused, t.delta = make(refusals), nil
	for _, list := range []*[]labelPair{&t.promoted, &t.scopeLabels} {
		clear((*list)[:cap(*list)])
		*list = (*list)[:0]
	}
	clear(t.memo[:cap(t.memo)])
	t.memo, t.places = t.memo[:0], t.places[:0]
	t.job, t.instance, t.family = "", "", nil
	t.builder.Reset(labels.EmptyLabels())
	t.names.forget()
	t.sizer.reset()
	if t.runs = t.runs[:0]; cap(t.runs) > 2*maxKept {
		t.runs = nil
	}
	clear(t.runs[:cap(t.runs)])
}

// resource translates all metrics of a resource.
func (t *translation) resource(resource pmetric.ResourceMetrics) {
	attributes := resource.Resource().Attributes()
	t.enter(attributes)
	if t.delta != nil {
		t.delta.group = t.delta.groups[t.groupKey()]
	}
	for o := range origins {
		t.first, t.last = math.MaxUint64, 0
		for _, scope := range resource.ScopeMetrics().All() {
			if scope.Metrics().Len() > 0 && originOf(scope) == o {
				t.scope(scope, o)
			}
		}
		if t.first != math.MaxUint64 {
			t.targetInfo(attributes, o)
		}
	}
}

func (t *translation) enter(attributes pcommon.Map) {
	t.promoted = t.promoted[:0]
	for _, l := range t.resourceLabels {
		if value, found := attributes.Get(l.attribute); found {
			if text := strings.ToValidUTF8(value.AsString(), "\uFFFD"); text != "" {
				t.promoted = append(t.promoted, labelPair{Name: l.label, Value: text})
			}
		}
	}
	t.job, t.instance = "", ""
	if name, found := t.identity(attributes, "service.name"); found {
		t.job = name.AsString()
		if namespace, found := t.identity(attributes, "service.namespace"); found {
			t.job = namespace.AsString() + "/" + t.job
		}
	}
	if instance, found := t.identity(attributes, "service.instance.id"); found {
		t.instance = instance.AsString()
	}
}

// identity returns an attribute unless it was made a label of its own.
func (t *translation) identity(attributes pcommon.Map, key string) (pcommon.Value, bool) {
	if t.isPromoted(key) {
		return pcommon.Value{}, false
	}
	return attributes.Get(key)
}

func (t *translation) isPromoted(attribute string) bool {
	return slices.ContainsFunc(t.resourceLabels, func(l resourceLabel) bool { return l.attribute == attribute })
}

func (t *translation) scope(scope pmetric.ScopeMetrics, o origin) {
	t.scraped = o != instrumented
	t.scopeLabels = t.scopeLabels[:0]
	if o == scrapedWithScope && scope.Scope().Name() != "" {
		for key, value := range scope.Scope().Attributes().All() {
			if text := value.AsString(); text != "" {
				t.scopeLabels = append(t.scopeLabels, labelPair{Name: scopePrefix + key, Value: text})
			}
		}
		t.scopeLabels = append(t.scopeLabels,
			labelPair{Name: "otel_scope_name", Value: scope.Scope().Name()},
			labelPair{Name: "otel_scope_version", Value: scope.Scope().Version()},
			labelPair{Name: "otel_scope_schema_url", Value: scope.SchemaUrl()})
	}
	t.setBase()
	t.memo = t.memo[:0]
	for _, m := range scope.Metrics().All() {
		t.metric(m)
	}
}

// setBase puts together what all series of a scope have.
func (t *translation) setBase() {
	t.base = t.base[:0]
	add := func(l labelPair) {
		if l.Value != "" {
			t.base = append(t.base, t.symbols.label(l.Name, l.Value))
		}
	}
	for _, l := range t.promoted {
		add(l)
	}
	for _, l := range t.scopeLabels {
		add(l)
	}
	add(labelPair{Name: model.JobLabel, Value: t.job})
	add(labelPair{Name: model.InstanceLabel, Value: t.instance})
	t.sort(t.base)
	t.plain = distinct(t.base)
}

// metric translates a metric, or refuses it.
func (t *translation) metric(m pmetric.Metric) {
	name, reason := t.nameOf(m)
	if reason != "" {
		t.refused.add(reason, points(m), m.Name())
		return
	}
	t.family = &family{name: name, Metadata: metadata.Metadata{Type: t.typeOf(m), Unit: t.unit(m.Unit()), Help: m.Description()}}
	t.family.help, t.family.unit = t.symbols.number(t.family.Help), t.symbols.number(t.family.Unit)
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		t.numbers(m, m.Gauge().DataPoints(), false)
	case pmetric.MetricTypeSum:
		t.numbers(m, m.Sum().DataPoints(), true)
	case pmetric.MetricTypeSummary:
		t.summaries(m)
	case pmetric.MetricTypeHistogram:
		t.histograms(m)
	case pmetric.MetricTypeExponentialHistogram:
		t.exponentials(m)
	}
}

// typeOf is the type as exposed, or that of the OTLP metric.
func (t *translation) typeOf(m pmetric.Metric) model.MetricType {
	if t.scraped {
		if exposed, found := m.Metadata().Get(typeKey); found {
			return model.MetricType(exposed.Str())
		}
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return model.MetricTypeGauge
	case pmetric.MetricTypeSum:
		if m.Sum().IsMonotonic() {
			return model.MetricTypeCounter
		}
		return model.MetricTypeGauge
	case pmetric.MetricTypeSummary:
		return model.MetricTypeSummary
	}
	return model.MetricTypeHistogram
}

// seen widens the time for which the target is described.
func (t *translation) seen(at pcommon.Timestamp) {
	t.first, t.last = min(t.first, at), max(t.last, at)
}

const (
	scopePrefix        = "otel_scope_"
	targetInfo         = "target_info"
	targetHelp         = "Target metadata"
	targetInfoInterval = 150e9 // nanoseconds: half of what a query looks back
)

// targetInfo describes the resource for the time of its points, by the attributes
// that are not labels of every series.
func (t *translation) targetInfo(attributes pcommon.Map, o origin) {
	t.scraped, t.family = o != instrumented, &family{
		name:     targetInfo,
		Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: targetHelp},
		help:     t.symbols.number(targetHelp),
	}
	described := func(key string) bool {
		switch key {
		case "service.name", "service.namespace", "service.instance.id", laneKey:
			return false
		}
		return !t.isPromoted(key)
	}
	more := false
	for key := range attributes.All() {
		more = more || described(key)
	}
	if !more {
		return
	}
	b := t.builder
	b.Reset(labels.EmptyLabels())
	t.setAttributes(b, attributes, func(key string) bool { return described(key) && key != model.MetricNameLabel })
	if b.Get(model.JobLabel) == "" && b.Get(model.InstanceLabel) == "" {
		return
	}
	s := t.finish(targetInfo, labelPair{})
	for at := t.first; at < t.last; at += targetInfoInterval {
		s.floats = append(s.floats, floatSample{at: milliseconds(at), value: 1})
	}
	s.floats = append(s.floats, floatSample{at: milliseconds(t.last), value: 1})
}

func milliseconds(at pcommon.Timestamp) int64 { return int64(at) / 1e6 }
