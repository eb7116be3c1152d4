package lokiexporter

import (
	"bytes"
	"slices"
	"strings"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// shape is what the names of a resource's attributes decide: which are labels, and
// what the others are called in structured metadata. The containers of a fleet have
// few shapes, and the records of those of one shape nearly always have the same
// attributes in the same order.
type shape struct {
	attributes []string
	demoted    labelSet

	names  []string // in structured metadata, by attribute; empty: it is not told
	labels []int    // the attribute that a label is made from, by rule, or -1
	// container is the attribute that service_name falls back to, or -1.
	container int
	// different: the names are different from each other and from those of the labels,
	// so that none needs to be changed.
	different bool
	taken     nameSet // what an entry's own metadata must not be called
	clash     bool    // a name that records give is among them

	records []known
}

// known is an attribute of records of a shape whose name is known to be different
// from each other one of the entry, with the pair that one of its messages became.
type known struct {
	attribute, name string
	message, pair   []byte
	pairs, bytes    int
}

const (
	shapeSlots = 64
	// Shapes with more are made anew each time; those with more attributes than an
	// entry has room for are not settled.
	maxShapeAttributes = 64
	maxShapeBytes      = 4 << 10
	// maxRepeatedBytes is how long an attribute may be to be kept for comparison.
	maxRepeatedBytes = 64
)

type shapes [shapeSlots]*shape

// shapeOf returns the shape of a resource.
func (x *translation) shapeOf(attributes []otlpwire.Attribute, demoted labelSet) *shape {
	hash, size := uint64(demoted), 0
	for i := range attributes {
		key := attributes[i].Key
		size += len(key)
		hash = (hash ^ nameBit(key)) * 0x9e3779b97f4a7c15
	}
	slot := &x.shapes[hash>>(64-6)]
	if known := *slot; known != nil && known.is(attributes, demoted) {
		return known
	}
	s := x.newShape(attributes, demoted)
	if len(attributes) <= maxShapeAttributes && size <= maxShapeBytes {
		*slot = s
	}
	return s
}

func (s *shape) is(attributes []otlpwire.Attribute, demoted labelSet) bool {
	if len(s.attributes) != len(attributes) || s.demoted != demoted {
		return false
	}
	for i := range attributes {
		if s.attributes[i] != attributes[i].Key {
			return false
		}
	}
	return true
}

func (x *translation) newShape(attributes []otlpwire.Attribute, demoted labelSet) *shape {
	s := &shape{demoted: demoted, labels: make([]int, len(x.labels.rules)), container: -1, different: true}
	for i := range s.labels {
		s.labels[i] = -1
	}
	for i := len(attributes) - 1; i >= 0; i-- { // of two of one name the first counts
		if attributes[i].Key == containerAttribute {
			s.container = i
		}
		if rule := x.labels.ruleOf(attributes[i].Key); rule >= 0 {
			s.different = s.different && s.labels[rule] < 0
			s.labels[rule] = i
		}
	}
	for i, rule := range x.labels.rules {
		if !demoted.has(i) {
			s.taken.add(rule.label)
		}
	}
	s.taken.add(repetitionName)
	s.taken.add(nameScope)
	s.taken.add(nameScopeVer)
	if len(attributes) > maxMetadataEntries {
		s.different = false
		return s
	}
	for i := range attributes {
		key := strings.Clone(attributes[i].Key)
		name := x.nameOf(key, demoted)
		if name != "" {
			s.different = s.different && !s.taken.has(name)
			s.taken.add(name)
		}
		s.attributes, s.names = append(s.attributes, key), append(s.names, name)
	}
	s.clash = slices.ContainsFunc(recordNames, s.taken.has)
	return s
}

// nameOf is the name of a resource attribute in structured metadata; empty if a label
// holds it, or nobody is to be told.
func (x *translation) nameOf(attribute string, demoted labelSet) string {
	switch rule := x.labels.ruleOf(attribute); {
	case attribute == laneAttribute:
		return ""
	case rule < 0:
		return x.names.of(attribute)
	case demoted.has(rule):
		return x.labels.rules[rule].label
	}
	return ""
}

// readLabels reads the label values that the resource in hand gives.
func (x *translation) readLabels() {
	x.values, x.plain, x.whole = x.values[:0], 0, true
	for i := range x.labels.rules {
		rule := &x.labels.rules[i]
		if rule.attribute == "" {
			x.values = append(x.values, "")
			continue
		}
		text := x.attributeText(x.shape.labels[i])
		plain := isPlain(text)
		x.whole = x.whole && (plain || wholeInLabel(text))
		if text == "" && rule.label == serviceNameLabel {
			if text = x.attributeText(x.shape.container); text == "" {
				text = unknownService
			}
			plain = isPlain(text)
		}
		if plain {
			x.plain = x.plain.with(i)
		} else {
			text = inLabel(text)
		}
		x.values = append(x.values, text)
	}
}

func (x *translation) attributeText(i int) string {
	if i < 0 {
		return ""
	}
	return x.attributes[i].Value.Text()
}

// addShared adds the metadata that the records of a resource and scope share, encoded
// once for all of them.
func (x *translation) addShared() {
	b := x.share.batch
	start := len(b.arena)
	x.apart = false
	if !x.sharedMetadata() {
		b.arena = b.arena[:start]
		x.allShared()
	}
	x.shared = int32(len(b.shared))
	b.shared = append(b.shared, shared{
		encoded: b.arena[start:len(b.arena):len(b.arena)], number: x.number, read: x.scope.isRead,
		origin: x.origin, resource: x.resource, scope: x.scope.message,
	})
}

// sharedMetadata is the short way. It returns false where names collide, values are to
// be taken apart, or limits are near, and then what it appended is not valid.
func (x *translation) sharedMetadata() bool {
	if !x.shape.different || !x.whole || len(x.scope.attributes) > 0 {
		return false
	}
	o := own{arena: x.share.batch.arena}
	for i := range x.attributes {
		name, value := x.shape.names[i], &x.attributes[i].Value
		if name == "" {
			continue
		}
		if isMap(value) {
			return false
		}
		addOwn(&o, name, value.Text())
	}
	addOwn(&o, nameScope, x.scope.name)
	addOwn(&o, nameScopeVer, x.scope.version)
	x.share.batch.arena = o.arena
	x.pairs, x.bytes = o.pairs, o.bytes
	return o.bytes <= maxMetadataBytes-repetitionBytes && o.pairs < maxMetadataEntries
}

// allShared is the long way, which settles names and limits.
func (x *translation) allShared() {
	m := &x.metadata
	m.reset()
	m.resource(x.attributes)
	m.scope(&x.scope)
	if m.cut {
		x.apart = true // each entry shall count it
		return
	}
	x.share.batch.arena = m.appendTo(x.share.batch.arena)
	x.pairs, x.bytes = len(m.pairs), m.bytes
	x.odd = shape{records: x.odd.records[:0]}
	for _, p := range m.pairs {
		x.odd.taken.add(p.name)
	}
	for i, rule := range x.labels.rules {
		if !m.demoted.has(i) {
			x.odd.taken.add(rule.label)
		}
	}
	x.odd.taken.add(repetitionName)
	x.odd.clash = slices.ContainsFunc(recordNames, x.odd.taken.has)
	x.shape = &x.odd
}

// learn takes an attribute as the i-th of the shape's records, if its name is free.
func (x *translation) learn(i int, attribute string) bool {
	if i >= maxMetadataEntries || len(attribute) > maxKnownName {
		return false
	}
	s := x.shape
	s.records = s.records[:i]
	name := x.names.of(attribute)
	if s.taken.has(name) || slices.Contains(recordNames, name) || slices.ContainsFunc(s.records, func(k known) bool { return k.name == name }) {
		return false
	}
	k := known{attribute: strings.Clone(attribute), name: name}
	if i < cap(s.records) {
		old := &s.records[:i+1][i]
		k.message, k.pair = old.message[:0], old.pair[:0]
	}
	s.records = append(s.records, k)
	return true
}

// repeat takes the known pair if it is that of an attribute.
func (k *known) repeat(o *own, message []byte) bool {
	if !bytes.Equal(k.message, message) {
		return false
	}
	o.arena = append(o.arena, k.pair...)
	o.pairs += k.pairs
	o.bytes += k.bytes
	return true
}

// remember keeps the pair that stands in an arena from start on.
func (k *known) remember(message []byte, o *own, start, pairs, bytes int) {
	if len(message) <= maxRepeatedBytes {
		k.message = append(k.message[:0], message...)
		k.pair = append(k.pair[:0], o.arena[start:]...)
		k.pairs, k.bytes = o.pairs-pairs, o.bytes-bytes
	}
}
