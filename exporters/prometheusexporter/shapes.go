package prometheusexporter

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"strings"

	"github.com/prometheus/common/model"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// What labels a point comes to does not depend on where it was measured, and a fleet
// runs the same software on all its nodes. So that is found out once, and remembered
// across calls: shapes. Points come in the same order again and again: what came
// after the last one is tried first, by comparing bytes.

// shapes remembers metrics and points, up to maxShapeBytes.
type shapes struct {
	families  map[string]*knownFamily // by the metric's name
	points    map[uint64]*shape       // by hash of family and attributes
	layouts   map[string]*layout      // by the names' symbols
	sightings []uint64                // hashes of points seen once, each at its place
	bytes     int                     // about what all take
	first     *knownFamily            // of the last scope
	hash      uint64                  // of the point that was looked for last
}

const (
	// maxShapeBytes bounds what is remembered. At about 300 bytes a series, that is
	// the different series of a dozen nodes. Above it everything is forgotten.
	maxShapeBytes = 8 << 20
	// seenSlots is how many points are known to have been seen. A point is
	// remembered the second time, because some are of one node alone.
	seenSlots = 1 << 15
	// maxSameName is how many metrics of one name are remembered, which differ in
	// what they say of themselves.
	maxSameName = 16
)

var shapeSeed = maphash.MakeSeed()

func newShapes() shapes {
	return shapes{
		families: make(map[string]*knownFamily), points: make(map[uint64]*shape), layouts: make(map[string]*layout),
		sightings: make([]uint64, seenSlots),
	}
}

// knownFamily is a metric without its points.
type knownFamily struct {
	family
	metric   metricMessage // its strings and metadata; without message and data
	scraped  bool          // how it was translated
	reason   string        // why it cannot be
	salt     uint64
	cached   bool // is remembered
	next     *knownFamily
	other    *knownFamily // of the same name
	point    *shape       // the first one of the last time
	sample   string       // the name of the series of numbers
	sampleAt uint32       // its symbol
}

func (f *knownFamily) is(m *metricMessage, scraped bool) bool {
	return f.scraped == scraped && f.metric.kind == m.kind && f.metric.name == m.name && f.metric.temporality == m.temporality &&
		f.metric.monotonic == m.monotonic && f.metric.unit == m.unit && f.metric.description == m.description &&
		bytes.Equal(f.metric.metadata, m.metadata) && !m.moreMetadata
}

// shape is what a point's attributes come to.
type shape struct {
	family *knownFamily
	key    []byte  // the point's attributes, as they are encoded
	labels []label // with the metric's name, sorted
	hash   uint64  // of labels
	plain  bool    // no two attributes became one label
	scoped bool    // some are called as the labels of scopes are
	layout *layout
	next   *shape // the point after it, the last time
	chain  *shape // of the same hash
}

// layout is the names of labels, sorted.
type layout struct {
	base  *layout            // what it was merged with last
	order []int8             // see merged
	known map[*layout][]int8 // all it was merged with, by base
}

// familyOf returns what is known of a metric, or finds it out.
func (t *translation) familyOf(m *metricMessage, hint **knownFamily) (*knownFamily, error) {
	f := *hint
	if f == nil || !f.is(m, t.scraped) {
		others := 0
		for f = t.families[m.name]; f != nil && !f.is(m, t.scraped); f = f.other {
			others++
		}
		if f == nil {
			var err error
			if f, err = t.newFamily(m, others < maxSameName); err != nil {
				return nil, err
			}
		}
		if f.cached {
			*hint = f
		}
	}
	return f, nil
}

// newFamily finds out about a metric, and remembers it if that is worth it.
func (t *translation) newFamily(m *metricMessage, remember bool) (*knownFamily, error) {
	f := &knownFamily{metric: *m, scraped: t.scraped}
	f.metric.message, f.metric.data = nil, nil
	exposed, found, err := exposedType(m.message)
	if err != nil {
		return nil, err
	}
	if f.family.name, f.reason = t.nameOf(m); f.reason == "" {
		f.Type, f.family.Unit, f.Help = typeOf(m), t.names.unit(m.unit), m.description
		if found && t.scraped {
			f.Type = model.MetricType(exposed)
		}
		f.sample = f.family.name
		// The receiver names the family, the exposition the sample.
		const info = "_info"
		if t.scraped && f.Type == model.MetricTypeInfo && !strings.HasSuffix(f.sample, info) {
			f.sample += info
		}
		f.several = f.sample != f.family.name || m.kind != pmetric.MetricTypeGauge && m.kind != pmetric.MetricTypeSum
	}
	if f.cached = remember && t.bytes < maxShapeBytes && !m.moreMetadata; f.cached {
		// What is remembered must not hold on to the request.
		f.metric.name, f.metric.unit, f.metric.description = strings.Clone(m.name), strings.Clone(m.unit), strings.Clone(m.description)
		f.metric.metadata = bytes.Clone(m.metadata)
		f.family.name, f.sample, f.Help = strings.Clone(f.family.name), strings.Clone(f.sample), f.metric.description
		f.family.Unit, f.Type = strings.Clone(f.family.Unit), model.MetricType(strings.Clone(string(f.Type)))
		f.other = t.families[m.name]
		t.families[f.metric.name] = f
		f.salt = maphash.Comparable(shapeSeed, f)
		t.bytes += 400 + 2*len(m.name) + len(m.unit) + len(m.description) + len(m.metadata)
	}
	f.help, f.family.unit, f.sampleAt = t.symbols.number(f.Help), t.symbols.number(f.family.Unit), t.symbols.number(f.sample)
	if f.cached {
		t.keep(f.help)
		t.keep(f.family.unit)
		t.keep(f.sampleAt)
	}
	return f, nil
}

// find returns what is known of a point; nil if it is not yet.
func (t *translation) find(f *knownFamily, key []byte, hint **shape) *shape {
	if s := *hint; s != nil && s.family == f && bytes.Equal(s.key, key) {
		return s
	}
	if !f.cached {
		return nil
	}
	t.hash = maphash.Bytes(shapeSeed, key) ^ f.salt
	for s := t.points[t.hash]; s != nil; s = s.chain {
		if s.family == f && bytes.Equal(s.key, key) {
			*hint = s
			return s
		}
	}
	return nil
}

// remember remembers the point that was looked for and then read, if it was seen
// before.
func (t *translation) remember(f *knownFamily, key []byte, hint **shape) {
	if !f.cached || t.bytes >= maxShapeBytes {
		return
	}
	if seen := &t.sightings[t.hash%seenSlots]; *seen != t.hash {
		*seen = t.hash
		return
	}
	s := t.newShape(f, key)
	s.chain = t.points[t.hash]
	t.points[t.hash] = s
	*hint = s
}

// newShape remembers the point whose attributes were just read.
func (t *translation) newShape(f *knownFamily, key []byte) *shape {
	own := [1]label{{t.symbols.number(model.MetricNameLabel), f.sampleAt}}
	s := &shape{family: f, key: bytes.Clone(key), plain: t.distinct, scoped: t.scoped}
	s.labels, _ = t.merge(make([]label, 0, len(t.attributes)+1), own[:], t.attributes)
	s.hash = hashOf(s.labels)
	for _, l := range s.labels {
		t.keep(l.name)
		t.keep(l.value)
	}
	s.layout = t.layoutOf(s.labels)
	t.bytes += 200 + len(key) + len(key)/2 + 8*len(s.labels)
	return s
}

// layoutOf returns the layout of labels that are sorted.
func (t *translation) layoutOf(ls []label) *layout {
	var memory [32 * 4]byte
	key := memory[:0]
	for _, l := range ls {
		key = binary.LittleEndian.AppendUint32(key, l.name)
	}
	known := t.layouts[string(key)]
	if known == nil {
		known = &layout{known: make(map[*layout][]int8)}
		t.layouts[string(key)] = known
		for _, l := range ls {
			t.keep(l.name)
		}
		t.bytes += 300 + len(key)
	}
	return known
}

// maxMerged bounds how many labels a base and a point of a known order have.
const maxMerged = 120

// merged is the order of the labels of both a base and a point: those of the base
// by their index, those of the point by -1 minus theirs. It is empty if a name is
// in both.
func (t *translation) merged(base *layout, names []label, s *shape) []int8 {
	own := s.layout
	if own.base == base {
		return own.order
	}
	order, known := own.known[base]
	if !known && len(names)+len(s.labels) <= maxMerged {
		order = make([]int8, 0, len(names)+len(s.labels))
		b, p := 0, 0
		for b < len(names) || p < len(s.labels) {
			switch {
			case p == len(s.labels) || b < len(names) && t.texts[names[b].name] < t.texts[s.labels[p].name]:
				order = append(order, int8(b))
				b++
			case b < len(names) && names[b].name == s.labels[p].name:
				order, b, p = order[:0], len(names), len(s.labels)
			default:
				order = append(order, int8(-1-p))
				p++
			}
		}
		own.known[base] = order
		t.bytes += 100 + len(order)
	}
	own.base, own.order = base, order
	return order
}

// known returns the series of a known point; nil if its labels have to be put
// together with care.
func (t *translation) known(s *shape) *series {
	if !s.plain || !t.plain || s.scoped && len(t.scopeLabels) > 0 {
		return nil
	}
	order := t.merged(t.layout, t.base, s)
	if len(order) == 0 {
		return nil
	}
	t.room(len(order))
	from := len(t.gathered.labels)
	labels := t.gathered.labels[:from+len(order)]
	for i, at := range order {
		if at >= 0 {
			labels[from+i] = t.base[at]
		} else {
			labels[from+i] = s.labels[-1-int(at)]
		}
	}
	t.gathered.labels = labels
	return t.addLast(len(order), t.baseHash+s.hash, &s.family.family)
}
