package prometheusexporter

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

type labelPair = labels.Label

// series is all that one call brings for one set of labels, in order of time.
type series struct {
	labels     []labelPair // sorted by name
	hash       uint64      // of labels
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
	list  []*series
	slots []int32 // open addressing by hash: index in list plus one
	pairs []labelPair
	slabs [][]series
	used  int // series of slabs
}

const (
	slabSize  = 512
	firstSlot = 1024
)

// add returns the series with the labels, which the caller may use again.
func (g *gathered) add(ls []labelPair, hash uint64, f *family) *series {
	if 2*len(g.list) >= len(g.slots) {
		g.grow()
	}
	mask := uint64(len(g.slots) - 1)
	at := hash & mask
	for ; g.slots[at] != 0; at = (at + 1) & mask {
		if s := g.list[g.slots[at]-1]; s.hash == hash && slices.Equal(s.labels, ls) {
			return s
		}
	}
	s := g.next()
	s.labels, s.hash, s.family = g.keep(ls), hash, f
	s.floats = s.only[:0]
	g.list = append(g.list, s)
	g.slots[at] = int32(len(g.list))
	return s
}

func (g *gathered) grow() {
	g.slots = make([]int32, max(firstSlot, 2*len(g.slots)))
	mask := uint64(len(g.slots) - 1)
	for i, s := range g.list {
		at := s.hash & mask
		for g.slots[at] != 0 {
			at = (at + 1) & mask
		}
		g.slots[at] = int32(i + 1)
	}
}

func (g *gathered) next() *series {
	slab := g.used / slabSize
	if slab == len(g.slabs) {
		g.slabs = append(g.slabs, make([]series, slabSize))
	}
	s := &g.slabs[slab][g.used%slabSize]
	g.used++
	return s
}

// keep copies labels to memory that lasts until reset.
func (g *gathered) keep(ls []labelPair) []labelPair {
	if cap(g.pairs)-len(g.pairs) < len(ls) {
		// The old array lives on in the series that point to it.
		g.pairs = make([]labelPair, 0, max(2*cap(g.pairs), 16*slabSize, len(ls)))
	}
	from := len(g.pairs)
	g.pairs = append(g.pairs, ls...)
	return g.pairs[from:len(g.pairs):len(g.pairs)]
}

// maxKept bounds what is kept of a large call for later ones: series.
const maxKept = 64 * slabSize

// reset lets go of all that a call brought.
func (g *gathered) reset() {
	if g.used > maxKept {
		*g = gathered{}
		return
	}
	for i := 0; i < g.used; i += slabSize {
		clear(g.slabs[i/slabSize][:min(slabSize, g.used-i)])
	}
	clear(g.list)
	clear(g.slots)
	clear(g.pairs)
	g.list, g.pairs, g.used = g.list[:0], g.pairs[:0], 0
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

func (s *series) name() string {
	for _, l := range s.labels {
		if l.Name == model.MetricNameLabel {
			return strings.Clone(l.Value)
		}
	}
	return ""
}

var labelSeed = maphash.MakeSeed()

// hashOf is the sum of what each label hashes to, so that a hash can be put
// together from parts. It holds for the life of the process.
func hashOf(ls []labelPair) uint64 {
	var sum uint64
	for _, l := range ls {
		sum += hashPair(l)
	}
	return sum
}

func hashPair(l labelPair) uint64 {
	high, low := bits.Mul64(maphash.String(labelSeed, l.Name)^0x9e3779b97f4a7c15, maphash.String(labelSeed, l.Value)^0xc2b2ae3d27d4eb4f)
	return high ^ low
}

// merge appends the labels of two sorted lists to to, sorted. It returns false
// when a name is in both, or twice in one.
func merge(to, a, b []labelPair) (merged []labelPair, ok bool) {
	from := len(to)
	for len(a) > 0 && len(b) > 0 {
		switch order := strings.Compare(a[0].Name, b[0].Name); {
		case order < 0:
			to, a = append(to, a[0]), a[1:]
		case order > 0:
			to, b = append(to, b[0]), b[1:]
		default:
			return to, false
		}
	}
	to = append(append(to, a...), b...)
	for i := from + 1; i < len(to); i++ {
		if to[i].Name == to[i-1].Name {
			return to, false
		}
	}
	return to, true
}
