package prometheusexporter

import (
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

type labelPair = labels.Label

// symbols numbers strings, so that labels are compared, hashed and written as
// numbers. 0 is the empty string. A number holds for a call, and for good if it is
// kept. The strings of a call are pointed to, those that are kept are copied.
type symbols struct {
	numbers map[string]uint32
	texts   []string
	kept    []bool
	passing []uint32 // numbers given out in the call
	free    []uint32 // numbers that can be given out again
}

func newSymbols() symbols {
	return symbols{numbers: map[string]uint32{"": 0}, texts: []string{""}, kept: []bool{true}}
}

func (s *symbols) number(text string) uint32 {
	n, found := s.numbers[text]
	if !found {
		if last := len(s.free) - 1; last >= 0 {
			n, s.free = s.free[last], s.free[:last]
			s.texts[n] = text
		} else {
			n = uint32(len(s.texts))
			s.texts, s.kept = append(s.texts, text), append(s.kept, false)
		}
		s.numbers[text] = n
		s.passing = append(s.passing, n)
	}
	return n
}

func (s *symbols) label(name, value string) label {
	return label{s.number(name), s.number(value)}
}

// keep keeps a number for good.
func (s *symbols) keep(n uint32) { s.kept[n] = true }

// pass ends a call: what is not kept is let go of.
func (s *symbols) pass() {
	for _, n := range s.passing {
		text := s.texts[n]
		delete(s.numbers, text)
		if s.kept[n] {
			text = strings.Clone(text)
			s.texts[n], s.numbers[text] = text, n
		} else {
			s.texts[n] = ""
			s.free = append(s.free, n)
		}
	}
	s.passing = s.passing[:0]
}

// label is a label by its symbols.
type label struct{ name, value uint32 }

// series is all that one call brings for one set of labels, in order of time.
type series struct {
	labels     []label // sorted by name
	hash       uint64  // of labels, by their numbers
	family     *family
	floats     []floatSample
	histograms []histogramSample
	exemplars  []exemplar.Exemplar

	only [1]floatSample // where floats begin: most series have one sample in a call
}

// family is what the series of a metric have in common.
type family struct {
	name string
	metadata.Metadata
	help, unit uint32 // symbols
	several    bool   // series have names of their own
}

type floatSample struct {
	start, at int64 // unix milliseconds; start 0 if unknown
	value     float64
}

type histogramSample struct {
	start, at int64
	value     *histogram.Histogram
}

// gathered holds the series of one call, each once. Its memory is used again by
// later calls.
type gathered struct {
	symbols
	list   []*series
	slots  []uint64 // open addressing by hash: its upper half, and index in list plus one
	labels []label
	slabs  [][]series
	used   int // series of slabs
}

const (
	slabSize  = 512
	firstSlot = 1024
)

// add returns the series with the labels, which the caller may use again.
func (g *gathered) add(ls []label, hash uint64, f *family) *series {
	g.room(len(ls))
	g.labels = append(g.labels, ls...)
	return g.addLast(len(ls), hash, f)
}

// room makes room for n labels.
func (g *gathered) room(n int) {
	if cap(g.labels)-len(g.labels) < n {
		// The old array lives on in the series that point to it.
		g.labels = make([]label, 0, max(2*cap(g.labels), 16*slabSize, n))
	}
}

// addLast returns the series whose labels are the last n, which stay only if it is
// a new one.
func (g *gathered) addLast(n int, hash uint64, f *family) *series {
	if 2*len(g.list) >= len(g.slots) {
		g.grow()
	}
	from := len(g.labels) - n
	ls := g.labels[from:len(g.labels):len(g.labels)]
	mask := uint64(len(g.slots) - 1)
	at := hash & mask
	for ; g.slots[at] != 0; at = (at + 1) & mask {
		if g.slots[at]>>32 != hash>>32 {
			continue
		}
		if s := g.list[uint32(g.slots[at])-1]; s.hash == hash && slices.Equal(s.labels, ls) {
			g.labels = g.labels[:from]
			return s
		}
	}
	s := g.next()
	s.labels, s.hash, s.family = ls, hash, f
	s.floats = s.only[:0]
	g.list = append(g.list, s)
	g.slots[at] = slot(hash, len(g.list)-1)
	return s
}

func (g *gathered) grow() {
	g.slots = make([]uint64, max(firstSlot, 2*len(g.slots)))
	mask := uint64(len(g.slots) - 1)
	for i, s := range g.list {
		at := s.hash & mask
		for g.slots[at] != 0 {
			at = (at + 1) & mask
		}
		g.slots[at] = slot(s.hash, i)
	}
}

func slot(hash uint64, i int) uint64 { return hash&^math.MaxUint32 | uint64(i+1) }

func (g *gathered) next() *series {
	slab := g.used / slabSize
	if slab == len(g.slabs) {
		g.slabs = append(g.slabs, make([]series, slabSize))
	}
	s := &g.slabs[slab][g.used%slabSize]
	g.used++
	return s
}

// maxKept bounds what is kept of a large call for later ones: series.
const maxKept = 64 * slabSize

// reset lets go of all that a call brought.
func (g *gathered) reset() {
	g.symbols.pass()
	if g.used > maxKept {
		*g = gathered{symbols: g.symbols}
		return
	}
	for i := 0; i < g.used; i += slabSize {
		clear(g.slabs[i/slabSize][:min(slabSize, g.used-i)])
	}
	clear(g.list)
	clear(g.slots)
	g.list, g.labels, g.used = g.list[:0], g.labels[:0], 0
}

// sorted returns the series with their samples in order of time, each once.
func (g *gathered) sorted() []*series {
	for _, s := range g.list {
		if len(s.floats) > 1 {
			s.floats = inOrder(s.floats, floatSample.time, func(a, b floatSample) bool {
				return a.at == b.at && math.Float64bits(a.value) == math.Float64bits(b.value)
			})
		}
		if len(s.histograms) > 1 {
			s.histograms = inOrder(s.histograms, histogramSample.time, func(a, b histogramSample) bool {
				return a.at == b.at && a.value.Equals(b.value)
			})
		}
		if len(s.exemplars) > 1 {
			slices.SortStableFunc(s.exemplars, func(a, b exemplar.Exemplar) int { return compare(a.Ts, b.Ts) })
		}
	}
	return g.list
}

func (s floatSample) time() int64     { return s.at }
func (s histogramSample) time() int64 { return s.at }

// inOrder sorts samples by time and drops those that say the same again, as
// target_info does once per scope.
func inOrder[S any](samples []S, at func(S) int64, same func(a, b S) bool) []S {
	byTime := func(a, b S) int { return compare(at(a), at(b)) }
	if !slices.IsSortedFunc(samples, byTime) {
		slices.SortStableFunc(samples, byTime)
	}
	return slices.CompactFunc(samples, same)
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// hashOf is the sum of what each label hashes to, so that a hash can be put
// together from parts. It holds as long as the numbers do.
func hashOf(ls []label) uint64 {
	var sum uint64
	for _, l := range ls {
		high, low := bits.Mul64((uint64(l.name)<<32|uint64(l.value))^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
		sum += high ^ low
	}
	return sum
}

// merge appends the labels of two lists that are sorted, each name once, to to,
// sorted. It returns false when a name is in both.
func (s *symbols) merge(to, a, b []label) (merged []label, ok bool) {
	for len(a) > 0 && len(b) > 0 {
		if a[0].name == b[0].name {
			return to, false
		}
		if s.texts[a[0].name] < s.texts[b[0].name] {
			to, a = append(to, a[0]), a[1:]
		} else {
			to, b = append(to, b[0]), b[1:]
		}
	}
	return append(append(to, a...), b...), true
}

// position is where a name is, or would be, in a sorted list.
func (s *symbols) position(ls []label, name uint32) (at int, found bool) {
	return slices.BinarySearchFunc(ls, name, func(l label, name uint32) int {
		if l.name == name {
			return 0
		}
		return strings.Compare(s.texts[l.name], s.texts[name])
	})
}

// sort sorts labels by name. The lists are short and mostly sorted.
func (s *symbols) sort(ls []label) {
	for i := 1; i < len(ls); i++ {
		for j := i; j > 0 && s.texts[ls[j].name] < s.texts[ls[j-1].name]; j-- {
			ls[j], ls[j-1] = ls[j-1], ls[j]
		}
	}
}

// distinct says whether no name is twice in a sorted list.
func distinct(ls []label) bool {
	for i := 1; i < len(ls); i++ {
		if ls[i].name == ls[i-1].name {
			return false
		}
	}
	return true
}
