package prometheusexporter

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

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
