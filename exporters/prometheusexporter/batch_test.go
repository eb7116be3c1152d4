package prometheusexporter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func pairs(namesAndValues ...string) []labelPair {
	var list []labelPair
	for i := 0; i < len(namesAndValues); i += 2 {
		list = append(list, labelPair{Name: namesAndValues[i], Value: namesAndValues[i+1]})
	}
	return list
}

func drawSeries(t *rapid.T) []*series {
	var all []*series
	for i := range rapid.IntRange(0, 10).Draw(t, "series") {
		s := &series{
			labels: pairs("__name__", fmt.Sprintf("metric_%d", i), "l", strings.Repeat("v", rapid.IntRange(0, 40).Draw(t, "label"))),
			family: &family{Metadata: metadata.Metadata{Help: strings.Repeat("h", rapid.IntRange(0, 40).Draw(t, "help"))}},
		}
		s.hash = hashOf(s.labels)
		for n := range rapid.IntRange(0, 60).Draw(t, "floats") {
			s.floats = append(s.floats, floatSample{start: 1795473620776, at: 1795473620776 + int64(n), value: 1.1})
		}
		for n := range rapid.IntRange(0, 5).Draw(t, "histograms") {
			h := &histogram.Histogram{Count: 1 << 60, ZeroCount: 1 << 60, Sum: 1.1, PositiveSpans: []histogram.Span{{Length: 20}}}
			for range 20 {
				h.PositiveBuckets = append(h.PositiveBuckets, 1<<40)
			}
			s.histograms = append(s.histograms, histogramSample{1795473620776, 1795473620776 + int64(n), h})
		}
		if len(s.floats)+len(s.histograms) > 0 {
			for range rapid.IntRange(0, 2).Draw(t, "exemplars") {
				s.exemplars = append(s.exemplars, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "0af7651916cd43dd8448eb211c80319c"), Value: 1, Ts: 1795473620776})
			}
		}
		all = append(all, s)
	}
	return all
}

func TestRequestsAreBoundedAndHoldEverySampleOnceInOrder(t *testing.T) {
	protocols := map[string]struct {
		size   func() sizer
		encode func(*batch) ([]byte, error)
	}{
		"2.0": {func() sizer { return newSizer2() }, encode2},
		"1.0": {func() sizer { return sizer1{} }, encode1},
	}
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				maxBytes := rapid.IntRange(600, 4000).Draw(t, "bytes")
				all := drawSeries(t)
				floats, histograms, exemplars := make(map[string][]floatSample), make(map[string][]histogramSample), make(map[string]int)
				for _, b := range plan(all, maxBytes, protocol.size(), nil) {
					body, err := protocol.encode(b)
					require.NoError(t, err)
					raw, err := snappy.Decode(nil, body)
					require.NoError(t, err)
					require.True(t, len(raw) <= maxBytes || b.samples == 1, "%d bytes in a request of at most %d with %d samples", len(raw), maxBytes, b.samples)
					require.NotZero(t, b.samples)
					n, e := 0, 0
					for _, r := range b.runs {
						require.NotZero(t, len(r.floats)+len(r.histograms))
						n += len(r.floats) + len(r.histograms)
						e += len(r.exemplars)
						floats[r.name()] = append(floats[r.name()], r.floats...)
						histograms[r.name()] = append(histograms[r.name()], r.histograms...)
						exemplars[r.name()] += len(r.exemplars)
					}
					require.Equal(t, counts{n, e}, b.counts)
				}
				for _, s := range all {
					require.Equal(t, s.floats, floats[s.name()])
					require.Equal(t, s.histograms, histograms[s.name()])
					require.Equal(t, len(s.exemplars), exemplars[s.name()])
				}
			})
		})
	}
}

func TestHalvesHoldAllInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawSeries(t)
		for _, b := range plan(all, 1<<20, newSizer2(), nil) {
			if b.samples < 2 {
				continue
			}
			first, second := b.halves()
			require.NotZero(t, first.samples)
			require.NotZero(t, second.samples)
			require.Equal(t, b.counts, counts{first.samples + second.samples, first.exemplars + second.exemplars})
			floats := make(map[string][]floatSample)
			for _, half := range []*batch{first, second} {
				for _, r := range half.runs {
					floats[r.name()] = append(floats[r.name()], r.floats...)
				}
			}
			for _, s := range all {
				require.Equal(t, s.floats, floats[s.name()])
			}
		}
	})
}

func TestABatchIsKnownByItsContent(t *testing.T) {
	make1 := func(change func(*batch)) uint64 {
		b := &batch{}
		s := &series{labels: pairs("__name__", "a")}
		b.add(run{series: s, floats: []floatSample{{0, 1, 2}, {0, 2, 3}}, histograms: []histogramSample{{0, 1, &histogram.Histogram{Count: 1, Sum: 2}}}})
		if change != nil {
			change(b)
		}
		b.runs[0].hash = hashOf(b.runs[0].labels)
		return b.hash("t")
	}
	same := make1(nil)
	require.Equal(t, same, make1(nil))
	for _, change := range []func(*batch){
		func(b *batch) { b.runs[0].labels = pairs("__name__", "b") },
		func(b *batch) { b.runs[0].floats[0].value++ },
		func(b *batch) { b.runs[0].floats[0].at++ },
		func(b *batch) { b.runs[0].floats = b.runs[0].floats[:1] },
		func(b *batch) { b.runs[0].histograms[0].value.Sum++ },
	} {
		require.NotEqual(t, same, make1(change))
	}
}
