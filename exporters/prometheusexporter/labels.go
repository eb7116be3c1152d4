package prometheusexporter

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// readPoint reads the attributes of a number point as labels; see setAttributes.
// It returns false if they are no attributes, and t.malformed says why.
func (t *translation) readPoint(fields []byte, metric string) (ok bool) {
	t.read, t.malformed = readAttributes(t.read[:0], fields, attributesField)
	return t.malformed == nil && t.setPoint(metric)
}

// readPdata does the same with a point's attributes in pdata.
func (t *translation) readPdata(attributes pcommon.Map, metric string) bool {
	t.read = t.read[:0]
	for key, value := range attributes.All() {
		text := value.Str()
		if value.Type() != pcommon.ValueTypeStr {
			text = value.AsString()
		}
		t.read = append(t.read, otlpwire.Attribute{Key: key, Value: otlpwire.TextValue(text)})
	}
	return t.setPoint(metric)
}

// setPoint makes labels of the attributes that were read, sorted. It returns false,
// having counted the point as refused, if one cannot be a label.
func (t *translation) setPoint(metric string) bool {
	t.attributes, t.scoped, t.distinct = t.attributes[:0], false, true
	empty := false
	for i := range t.read {
		key := t.read[i].Key
		if key == model.MetricNameLabel {
			continue
		}
		name, ok := key, true
		if !t.scraped {
			if name, ok = t.names.label(key); !ok {
				t.refused.add(reasonLabelName, 1, metric)
				return false
			}
		}
		t.scoped = t.scoped || strings.HasPrefix(name, scopePrefix)
		l := t.symbols.label(name, t.read[i].Value.Text())
		empty = empty || l.value == 0
		t.attributes = append(t.attributes, l)
	}
	t.sort(t.attributes)
	t.distinct = distinct(t.attributes)
	if empty {
		// The same as no label, unless another attribute becomes the same label.
		t.distinct = t.distinct && t.scraped
		t.attributes = slices.DeleteFunc(t.attributes, func(l label) bool { return l.value == 0 })
	}
	// What the scope does not say takes the label away, too.
	t.simple = t.plain && t.distinct && (len(t.scopeLabels) == 0 || !t.scoped)
	return true
}

// one returns the series of the point that was read, of a metric that makes one
// series of each.
func (t *translation) one(name string) *series {
	t.begin()
	return t.another(name, labelPair{})
}

// begin prepares for the series of a point that makes several.
func (t *translation) begin() {
	if t.simple {
		t.named, t.simple = t.merge(t.named[:0], t.base, t.attributes)
		t.hashed = hashOf(t.named)
		t.name, _ = t.position(t.named, t.symbols.number(model.MetricNameLabel))
	}
}

// another returns one of the series of a point that makes several: with a name,
// and with a bound if that has one.
func (t *translation) another(name string, bound labelPair) *series {
	if !t.simple {
		return t.carefully(name, bound)
	}
	own := [2]label{t.symbols.label(model.MetricNameLabel, name)}
	extra, after := own[:1], len(t.named)
	if bound.Name != "" {
		var found bool
		own[1] = t.symbols.label(bound.Name, bound.Value)
		if after, found = t.position(t.named, own[1].name); found {
			return t.carefully(name, bound)
		}
		extra = own[:2]
	}
	// The names of bounds come after __name__.
	t.merging = append(append(t.merging[:0], t.named[:t.name]...), own[0])
	t.merging = append(t.merging, t.named[t.name:after]...)
	if bound.Name != "" {
		t.merging = append(t.merging, own[1])
	}
	t.merging = append(t.merging, t.named[after:]...)
	return t.add(t.merging, t.hashed+hashOf(extra), t.family)
}

// carefully puts labels together in the order in which they override or rename
// one another. It is for points that have a label of the same name twice.
//
// Where a sample has a label of the same name as one of the resource's, its own
// is kept as exported_<name>, as a scrape with those target labels would do.
func (t *translation) carefully(name string, bound labelPair) *series {
	b := t.builder
	b.Reset(labels.EmptyLabels())
	t.setAttributes(b, t.read, func(key string) bool { return key != model.MetricNameLabel })
	for _, l := range t.scopeLabels {
		b.Set(l.Name, l.Value)
	}
	return t.finish(name, bound)
}

// setAttributes sets attributes, and what the resource says.
func (t *translation) setAttributes(b *labels.Builder, attributes []otlpwire.Attribute, wanted func(key string) bool) {
	keys := make([]string, 0, len(attributes))
	for i := range attributes {
		if key := attributes[i].Key; wanted(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		value, _ := valueOf(attributes, key)
		name, ok := key, true
		if !t.scraped {
			if name, ok = t.names.label(key); !ok {
				continue
			}
		}
		if known := b.Get(name); known != "" {
			b.Set(name, known+";"+value.Text())
		} else {
			b.Set(name, value.Text())
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
	t.merging = t.merging[:0]
	b.Labels().Range(func(l labelPair) { t.merging = append(t.merging, t.symbols.label(l.Name, l.Value)) })
	return t.add(t.merging, hashOf(t.merging), t.family)
}
