package prometheusexporter

import (
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

const (
	// typeKey is where the Prometheus receiver notes the type a family was
	// exposed with. Its presence tells that a metric was scraped.
	typeKey = "prometheus.type"
	// receiverScope is the scope of scraped metrics that name none themselves.
	receiverScope = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver"
	// laneKey is where the relay notes that a resource comes from a backlog. It
	// is of no use in Prometheus.
	laneKey = direct.LaneAttribute
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
// (its library is what the tests compare with), at a fraction of the cost: what
// points come to is remembered, labels that they share are put together once, and
// nothing is copied that can be pointed to. It points to the requests until reset.
type translation struct {
	gathered
	names
	shapes
	refused refusals
	delta   *accumulation // nil: no delta temporality is expected in the call

	resourceLabels []resourceLabel
	tenant         string

	// Of the resource being translated:
	target
	first, last pcommon.Timestamp // of the points so far

	// Of the scope:
	scraped     bool
	scopeLabels []labelPair // otel_scope_*, in the order they are set
	base        []label     // all of the above, sorted
	baseHash    uint64
	layout      *layout
	plain       bool // no two of them had the same name

	// Of the metric:
	metricMessage metricMessage
	family        *family

	// Of the point:
	read       []otlpwire.Attribute // its attributes
	malformed  error                // why they cannot be read
	attributes []label              // under their label names, sorted
	distinct   bool                 // they have different names
	scoped     bool                 // some have names of labels of scopes
	simple     bool                 // the labels can be put together without care
	named      []label              // attributes and base
	hashed     uint64               // of named
	name       int                  // where the metric's name goes in named
	merging    []label
	point      point

	builder *labels.Builder
	writer  *writer2
	memory  []byte // of a metric for pdata
}

func newTranslation(resource []resourceLabel) *translation {
	t := &translation{
		gathered:       gathered{symbols: newSymbols()},
		names:          newNames(),
		shapes:         newShapes(),
		refused:        make(refusals),
		resourceLabels: resource,
		builder:        labels.NewBuilder(labels.EmptyLabels()),
	}
	t.writer = newWriter2(&t.symbols)
	return t
}

// reset lets go of all that belongs to the call.
func (t *translation) reset() {
	t.writer.reset()
	t.gathered.reset()
	if t.bytes >= maxShapeBytes || len(t.texts) > maxKept {
		t.shapes, t.symbols = newShapes(), newSymbols()
	}
	t.refused, t.delta = make(refusals), nil
	t.target = target{}
	clear(t.scopeLabels[:cap(t.scopeLabels)])
	clear(t.read[:cap(t.read)])
	t.scopeLabels, t.read = t.scopeLabels[:0], t.read[:0]
	t.base, t.layout, t.family = t.base[:0], nil, nil
	t.metricMessage, t.point = metricMessage{}, point{}
	t.builder.Reset(labels.EmptyLabels())
	t.names.forget()
	if cap(t.memory) > maxMemory {
		t.memory = nil
	}
}

// maxMemory bounds a buffer that is kept for later calls.
const maxMemory = 1 << 20

// errDelta says that a translation met delta temporality and was not prepared.
var errDelta = errors.New("delta temporality")

// resource translates all metrics of a resource.
func (t *translation) resource(of *resource) error {
	t.target = targetOf(t.resourceLabels, of.attributes)
	if t.delta != nil {
		t.delta.group = t.delta.groups[t.target.groupKey(t.tenant)]
	}
	var (
		memory [4]scope
		scopes = memory[:0]
		have   [origins]bool
	)
	r := otlpwire.Read(of.message)
	for r.Next() {
		if r.Number != 2 {
			continue
		}
		s, err := readScope(r.Bytes())
		if err != nil {
			return err
		}
		if s.metrics > 0 {
			scopes = append(scopes, s)
			have[s.origin] = true
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	for o := range origins {
		if !have[o] {
			continue
		}
		t.first, t.last = math.MaxUint64, 0
		for i := range scopes {
			if scopes[i].origin == o {
				if err := t.scope(&scopes[i]); err != nil {
					return err
				}
			}
		}
		if t.first != math.MaxUint64 {
			t.targetInfo(of.attributes, o)
		}
	}
	return nil
}

// target is what the series of a resource have in common.
type target struct {
	promoted      []labelPair // labels every series gets, by name
	job, instance string
}

func targetOf(resourceLabels []resourceLabel, attributes []otlpwire.Attribute) target {
	var of target
	for _, l := range resourceLabels {
		if value, found := valueOf(attributes, l.attribute); found {
			if text := strings.ToValidUTF8(value.Text(), "\uFFFD"); text != "" {
				of.promoted = append(of.promoted, labelPair{Name: l.label, Value: text})
			}
		}
	}
	// What was made a label of its own is none of a target's.
	identity := func(key string) (otlpwire.Value, bool) {
		if isPromoted(resourceLabels, key) {
			return otlpwire.Value{}, false
		}
		return valueOf(attributes, key)
	}
	if name, found := identity("service.name"); found {
		of.job = name.Text()
		if namespace, found := identity("service.namespace"); found {
			of.job = namespace.Text() + "/" + of.job
		}
	}
	if instance, found := identity("service.instance.id"); found {
		of.instance = instance.Text()
	}
	return of
}

func isPromoted(resourceLabels []resourceLabel, attribute string) bool {
	return slices.ContainsFunc(resourceLabels, func(l resourceLabel) bool { return l.attribute == attribute })
}

func (t *translation) scope(s *scope) error {
	t.scraped = s.origin != instrumented
	t.scopeLabels = t.scopeLabels[:0]
	if s.origin == scrapedWithScope && s.name != "" {
		for i := range s.attributes {
			if text := s.attributes[i].Value.Text(); text != "" {
				t.scopeLabels = append(t.scopeLabels, labelPair{Name: scopePrefix + s.attributes[i].Key, Value: text})
			}
		}
		t.scopeLabels = append(t.scopeLabels,
			labelPair{Name: "otel_scope_name", Value: s.name},
			labelPair{Name: "otel_scope_version", Value: s.version},
			labelPair{Name: "otel_scope_schema_url", Value: s.schema})
	}
	t.setBase()
	hint := &t.shapes.first
	m := &t.metricMessage
	r := otlpwire.Read(s.message)
	for r.Next() {
		if r.Number != 2 {
			continue
		}
		if err := m.read(r.Bytes()); err != nil {
			return err
		}
		f, err := t.familyOf(m, hint)
		if err != nil {
			return err
		}
		if f.cached {
			hint = &f.next
		}
		if err := t.metric(m, f); err != nil {
			return err
		}
	}
	return r.Err()
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
	t.baseHash, t.layout = hashOf(t.base), t.layoutOf(t.base)
}

// metric translates a metric, or refuses it.
func (t *translation) metric(m *metricMessage, f *knownFamily) error {
	if f.reason == "" && m.isDelta() && t.delta == nil {
		return errDelta
	}
	t.family = &f.family
	if f.reason != "" {
		n, err := m.check(&t.memory)
		t.refused.add(f.reason, n, m.name)
		return err
	}
	if m.kind == pmetric.MetricTypeGauge || m.kind == pmetric.MetricTypeSum {
		return t.numbers(m, f)
	}
	decoded, err := m.pdata(&t.memory)
	if err != nil {
		return err
	}
	switch m.kind {
	case pmetric.MetricTypeSummary:
		t.summaries(decoded)
	case pmetric.MetricTypeHistogram:
		t.histograms(decoded)
	case pmetric.MetricTypeExponentialHistogram:
		t.exponentials(decoded)
	}
	return nil
}

// typeOf is the type of an OTLP metric.
func typeOf(m *metricMessage) model.MetricType {
	switch m.kind {
	case pmetric.MetricTypeGauge:
		return model.MetricTypeGauge
	case pmetric.MetricTypeSum:
		if m.monotonic {
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
	maxTargetInfos     = 2000  // more than three days: what a spool has
)

// targetInfo describes the resource for the time of its points, by the attributes
// that are not labels of every series.
func (t *translation) targetInfo(attributes []otlpwire.Attribute, o origin) {
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
		return !isPromoted(t.resourceLabels, key)
	}
	more := false
	for i := range attributes {
		more = more || described(attributes[i].Key)
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
	first := t.first
	if t.last-first > maxTargetInfos*targetInfoInterval { // one of the times is wrong
		first = t.last - maxTargetInfos*targetInfoInterval
	}
	for at := first; at < t.last; at += targetInfoInterval {
		s.floats = append(s.floats, floatSample{at: milliseconds(at), value: 1})
		if t.last-at <= targetInfoInterval { // the next time may be more than a number holds
			break
		}
	}
	s.floats = append(s.floats, floatSample{at: milliseconds(t.last), value: 1})
}

func milliseconds(at pcommon.Timestamp) int64 { return int64(at) / 1e6 }
