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
	scopeLabels []labelPair // otel_scope_*, in the order they are set
	base        []labelPair // all of the above as sorted labels
	plain       bool        // no two of them had the same name

	// Of the metric:
	family *family
	named  []labelPair // base with the metric's name
	hashed uint64      // of named

	// Of the point:
	attributes []labelPair // under their label names, sorted
	simple     bool        // the labels can be put together without care
	point      []labelPair

	builder *labels.Builder
	sizer   *sizer2
	runs    []run
}

func newTranslation(resource []resourceLabel) *translation {
	return &translation{
		names:          newNames(),
		refused:        make(refusals),
		resourceLabels: resource,
		builder:        labels.NewBuilder(labels.EmptyLabels()),
		sizer:          newSizer2(),
	}
}

func (t *translation) reset() {
	t.gathered.reset()
	t.refused, t.delta = make(refusals), nil
	for _, list := range []*[]labelPair{&t.promoted, &t.scopeLabels, &t.base, &t.named, &t.attributes, &t.point} {
		clear((*list)[:cap(*list)])
		*list = (*list)[:0]
	}
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
	for _, m := range scope.Metrics().All() {
		t.metric(m)
	}
}

// setBase puts together what all series of a scope have.
func (t *translation) setBase() {
	base := append(t.base[:0], t.promoted...)
	base = append(base, t.scopeLabels...)
	base = append(base, labelPair{Name: model.JobLabel, Value: t.job}, labelPair{Name: model.InstanceLabel, Value: t.instance})
	base = slices.DeleteFunc(base, func(l labelPair) bool { return l.Value == "" })
	sortLabels(base)
	t.base, t.plain = base, true
	for i := 1; i < len(base); i++ {
		t.plain = t.plain && base[i].Name != base[i-1].Name
	}
}

// sortLabels is an insertion sort: the lists are short and mostly sorted.
func sortLabels(list []labelPair) {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j].Name < list[j-1].Name; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// metric translates a metric, or refuses it.
func (t *translation) metric(m pmetric.Metric) {
	name, reason := t.nameOf(m)
	if reason != "" {
		t.refused.add(reason, points(m), m.Name())
		return
	}
	t.family = &family{name: name, Metadata: metadata.Metadata{Type: t.typeOf(m), Unit: t.unit(m.Unit()), Help: m.Description()}}
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

// setName begins the series of a metric that all have the same name.
func (t *translation) setName(name string) {
	t.named = t.named[:0]
	if t.plain {
		var own [1]labelPair
		own[0] = labelPair{Name: model.MetricNameLabel, Value: name}
		t.named, _ = merge(t.named, t.base, own[:])
	}
	t.hashed = hashOf(t.named)
}

// readAttributes reads the attributes of a point as labels, sorted. It returns
// false, having counted the point as refused, if one cannot be a label.
func (t *translation) readAttributes(attributes pcommon.Map, metric string) bool {
	list := t.attributes[:0]
	t.simple = t.plain
	for key, value := range attributes.All() {
		name := key
		if !t.scraped {
			var ok bool
			if name, ok = t.label(key); !ok {
				t.refused.add(reasonLabelName, 1, metric)
				return false
			}
		}
		if key == model.MetricNameLabel {
			continue
		}
		text := value.AsString()
		if text == "" {
			// The same as no label, unless another attribute becomes the same label.
			t.simple = t.simple && t.scraped
			continue
		}
		list = append(list, labelPair{Name: name, Value: text})
		// What the scope does not say takes the label away, too.
		t.simple = t.simple && (len(t.scopeLabels) == 0 || !strings.HasPrefix(name, scopePrefix))
	}
	sortLabels(list)
	t.attributes = list
	return true
}

// one returns the series of a point of a metric that makes one series of each.
func (t *translation) one(attributes pcommon.Map, name string) *series {
	if t.simple {
		var ok bool
		if t.point, ok = merge(t.point[:0], t.named, t.attributes); ok {
			return t.add(t.point, t.hashed+hashOf(t.attributes), t.family)
		}
	}
	return t.carefully(attributes, name, labelPair{})
}

// begin prepares for the series of a point that makes several.
func (t *translation) begin() {
	if t.simple {
		t.named, t.simple = merge(t.named[:0], t.base, t.attributes)
		t.hashed = hashOf(t.named)
	}
}

// another returns one of the series of a point that makes several: with a name,
// and with a bound if that has one.
func (t *translation) another(attributes pcommon.Map, name string, bound labelPair) *series {
	if t.simple {
		own := [2]labelPair{{Name: model.MetricNameLabel, Value: name}, bound}
		extra := own[:2]
		if bound.Name == "" {
			extra = own[:1]
		}
		var ok bool
		if t.point, ok = merge(t.point[:0], t.named, extra); ok {
			return t.add(t.point, t.hashed+hashOf(extra), t.family)
		}
	}
	return t.carefully(attributes, name, bound)
}

// carefully puts labels together in the order in which they override or rename
// one another. It is for points that have a label of the same name twice.
//
// Where a sample has a label of the same name as one of the resource's, its own
// is kept as exported_<name>, as a scrape with those target labels would do.
func (t *translation) carefully(attributes pcommon.Map, name string, bound labelPair) *series {
	b := t.builder
	b.Reset(labels.EmptyLabels())
	t.setAttributes(b, attributes, func(key string) bool { return key != model.MetricNameLabel })
	for _, l := range t.scopeLabels {
		b.Set(l.Name, l.Value)
	}
	return t.finish(name, bound)
}

// setAttributes sets attributes, and what the resource says.
func (t *translation) setAttributes(b *labels.Builder, attributes pcommon.Map, wanted func(key string) bool) {
	keys := make([]string, 0, attributes.Len())
	for key := range attributes.All() {
		if wanted(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		value, _ := attributes.Get(key)
		name, ok := key, true
		if !t.scraped {
			if name, ok = t.label(key); !ok {
				continue
			}
		}
		if known := b.Get(name); known != "" {
			b.Set(name, known+";"+value.AsString())
		} else {
			b.Set(name, value.AsString())
		}
	}
	for _, own := range []labelPair{{Name: model.JobLabel, Value: t.job}, {Name: model.InstanceLabel, Value: t.instance}} {
		if own.Value != "" {
			b.Set(own.Name, own.Value)
		}
	}
	for _, l := range t.promoted {
		if b.Get(l.Name) == "" {
			b.Set(l.Name, l.Value)
		}
	}
}

func (t *translation) finish(name string, bound labelPair) *series {
	b := t.builder
	if bound.Name != "" {
		b.Set(bound.Name, bound.Value)
	}
	b.Set(model.MetricNameLabel, name)
	for _, promoted := range t.promoted {
		if own := b.Get(promoted.Name); own != promoted.Value {
			other := promoted.Name
			for b.Get(other) != "" {
				other = "exported_" + other
			}
			b.Set(other, own)
			b.Set(promoted.Name, promoted.Value)
		}
	}
	t.point = t.point[:0]
	b.Labels().Range(func(l labelPair) { t.point = append(t.point, l) })
	return t.add(t.point, hashOf(t.point), t.family)
}

const (
	scopePrefix        = "otel_scope_"
	targetInfo         = "target_info"
	targetInfoInterval = 150e9 // nanoseconds: half of what a query looks back
)

var targetInfoFamily = &family{name: targetInfo, Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: "Target metadata"}}

// targetInfo describes the resource for the time of its points, by the attributes
// that are not labels of every series.
func (t *translation) targetInfo(attributes pcommon.Map, o origin) {
	t.scraped, t.family = o != instrumented, targetInfoFamily
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
