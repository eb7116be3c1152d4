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

// setName begins the series of a metric that all have the same name.
func (t *translation) setName(name string) {
	t.named, t.places = t.named[:0], t.places[:0]
	if t.plain {
		own := [1]label{t.symbols.label(model.MetricNameLabel, name)}
		t.named, _ = t.merge(t.named, t.base, own[:])
	}
	t.hashed = hashOf(t.named)
}

// readAttributes reads the attributes of a point as labels, sorted. It returns
// false, having counted the point as refused, if one cannot be a label. Points
// mostly have the names of the one before, and many of its values.
func (t *translation) readAttributes(attributes pcommon.Map, metric string) bool {
	list, n := t.attributes[:0], 0
	t.simple, t.same = t.plain, true
	for key, value := range attributes.All() {
		if key == model.MetricNameLabel {
			continue
		}
		text := ""
		if value.Type() == pcommon.ValueTypeStr {
			text = value.Str()
		} else {
			text = value.AsString()
		}
		if n == len(t.memo) || t.memo[n].key != key {
			t.same = false
			name, ok := key, true
			if !t.scraped {
				if name, ok = t.names.label(key); !ok {
					t.refused.add(reasonLabelName, 1, metric)
					t.memo = t.memo[:n]
					return false
				}
			}
			t.memo = append(t.memo[:n], attributeLabel{key, label{name: t.symbols.number(name)}})
		}
		own := &t.memo[n].label
		if t.texts[own.value] != text {
			own.value = t.symbols.number(text)
		}
		n++
		if own.value == 0 {
			// The same as no label, unless another attribute becomes the same label.
			t.simple = t.simple && t.scraped
			t.places = t.places[:0]
			continue
		}
		list = append(list, *own)
	}
	t.attributes = list
	if t.same = t.same && n == len(t.memo); !t.same {
		t.memo, t.places = t.memo[:n], t.places[:0]
		t.lookAtNames()
	}
	if !t.memoSorted {
		t.sort(list)
	}
	t.simple = t.simple && t.memoPlain
	return true
}

// lookAtNames finds out about the names of a point's attributes what holds as
// long as points have the same.
func (t *translation) lookAtNames() {
	names := make([]label, len(t.memo))
	t.memoSorted, t.memoPlain = true, true
	for i, a := range t.memo {
		names[i] = a.label
		t.memoSorted = t.memoSorted && (i == 0 || t.texts[names[i-1].name] < t.texts[names[i].name])
		// What the scope does not say takes the label away, too.
		t.memoPlain = t.memoPlain && (len(t.scopeLabels) == 0 || !strings.HasPrefix(t.texts[a.name], scopePrefix))
	}
	t.sort(names)
	t.memoPlain = t.memoPlain && distinct(names)
}

// one returns the series of a point of a metric that makes one series of each.
func (t *translation) one(attributes pcommon.Map, name string) *series {
	if t.simple {
		if t.arrange() {
			return t.add(t.point, t.hashed+hashOf(t.attributes), t.family)
		}
	}
	return t.carefully(attributes, name, labelPair{})
}

// arrange puts the labels of a point together with those of its metric.
func (t *translation) arrange() bool {
	if len(t.places) == len(t.attributes) && len(t.places) > 0 {
		for i, at := range t.places { // the same names in the same places
			t.point[at].value = t.attributes[i].value
		}
		return true
	}
	var ok bool
	if t.point, ok = t.merge(t.point[:0], t.named, t.attributes); !ok {
		t.places = t.places[:0]
		return false
	}
	t.places = t.places[:0]
	for i := 0; i < len(t.point) && len(t.places) < len(t.attributes); i++ {
		if t.point[i].name == t.attributes[len(t.places)].name {
			t.places = append(t.places, i)
		}
	}
	return true
}

// begin prepares for the series of a point that makes several.
func (t *translation) begin() {
	t.places = t.places[:0]
	if t.simple {
		t.named, t.simple = t.merge(t.named[:0], t.base, t.attributes)
		t.hashed = hashOf(t.named)
		t.name, _ = t.position(t.named, t.symbols.number(model.MetricNameLabel))
	}
}

// another returns one of the series of a point that makes several: with a name,
// and with a bound if that has one.
func (t *translation) another(attributes pcommon.Map, name string, bound labelPair) *series {
	if !t.simple {
		return t.carefully(attributes, name, bound)
	}
	own := [2]label{t.symbols.label(model.MetricNameLabel, name)}
	extra, after := own[:1], len(t.named)
	if bound.Name != "" {
		var found bool
		own[1] = t.symbols.label(bound.Name, bound.Value)
		if after, found = t.position(t.named, own[1].name); found {
			return t.carefully(attributes, name, bound)
		}
		extra = own[:2]
	}
	// The names of bounds come after __name__.
	t.point = append(append(t.point[:0], t.named[:t.name]...), own[0])
	t.point = append(t.point, t.named[t.name:after]...)
	if bound.Name != "" {
		t.point = append(t.point, own[1])
	}
	t.point = append(t.point, t.named[after:]...)
	return t.add(t.point, t.hashed+hashOf(extra), t.family)
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
			if name, ok = t.names.label(key); !ok {
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
	t.point, t.places = t.point[:0], t.places[:0]
	b.Labels().Range(func(l labelPair) { t.point = append(t.point, t.symbols.label(l.Name, l.Value)) })
	return t.add(t.point, hashOf(t.point), t.family)
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
