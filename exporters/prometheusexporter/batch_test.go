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

// drawn are series and the strings of their labels.
type drawn struct {
	symbols
	all []*series
}

func (d *drawn) labels(namesAndValues ...string) []label {
	var list []label
	for i := 0; i < len(namesAndValues); i += 2 {
		list = append(list, d.symbols.label(namesAndValues[i], namesAndValues[i+1]))
	}
	return list
}

func (d *drawn) name(s *series) string {
	for _, l := range s.labels {
		if d.texts[l.name] == "__name__" {
			return d.texts[l.value]
		}
	}
	return ""
}

func drawSeries(t *rapid.T) *drawn {
	d := &drawn{symbols: newSymbols()}
	for i := range rapid.IntRange(0, 10).Draw(t, "series") {
		s := &series{
			labels: d.labels("__name__", fmt.Sprintf("metric_%d", i), "l", strings.Repeat("v", rapid.IntRange(0, 40).Draw(t, "label"))),
			family: &family{Metadata: metadata.Metadata{Help: strings.Repeat("h", rapid.IntRange(0, 40).Draw(t, "help"))}},
		}
		s.family.help = d.number(s.family.Help)
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
		d.all = append(d.all, s)
	}
	return d
}

func TestRequestsAreBoundedAndHoldEverySampleOnceInOrder(t *testing.T) {
	protocols := map[string]struct {
		size   func(*symbols) sizer
		encode func(*batch) ([]byte, error)
	}{
		"2.0": {func(s *symbols) sizer { return newSizer2(s) }, encode2},
		"1.0": {func(s *symbols) sizer { return sizer1{s.texts} }, encode1},
	}
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				maxBytes := rapid.IntRange(600, 4000).Draw(t, "bytes")
				d := drawSeries(t)
				floats, histograms, exemplars := make(map[string][]floatSample), make(map[string][]histogramSample), make(map[string]int)
				for _, b := range plan(d.all, d.texts, maxBytes, protocol.size(&d.symbols), nil) {
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
						floats[d.name(r.series)] = append(floats[d.name(r.series)], r.floats...)
						histograms[d.name(r.series)] = append(histograms[d.name(r.series)], r.histograms...)
						exemplars[d.name(r.series)] += len(r.exemplars)
					}
					require.Equal(t, counts{n, e}, b.counts)
				}
				for _, s := range d.all {
					require.Equal(t, s.floats, floats[d.name(s)])
					require.Equal(t, s.histograms, histograms[d.name(s)])
					require.Equal(t, len(s.exemplars), exemplars[d.name(s)])
				}
			})
		})
	}
}

func TestHalvesHoldAllInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawSeries(t)
		for _, b := range plan(d.all, d.texts, 1<<20, newSizer2(&d.symbols), nil) {
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
					floats[d.name(r.series)] = append(floats[d.name(r.series)], r.floats...)
				}
			}
			for _, s := range d.all {
				require.Equal(t, s.floats, floats[d.name(s)])
			}
		}
	})
}

func TestABatchIsKnownByItsContent(t *testing.T) {
	d := &drawn{symbols: newSymbols()}
	make1 := func(change func(*batch)) uint64 {
		s := &series{labels: d.labels("__name__", "a")}
		b := &batch{}
		b.add(run{series: s, floats: []floatSample{{0, 1, 2}, {0, 2, 3}}, histograms: []histogramSample{{0, 1, &histogram.Histogram{Count: 1, Sum: 2}}}})
		if change != nil {
			change(b)
		}
		b.strings = d.texts
		return b.hash("t")
	}
	same := make1(nil)
	require.Equal(t, same, make1(nil))
	for _, change := range []func(*batch){
		func(b *batch) { b.runs[0].labels = d.labels("__name__", "b") },
		func(b *batch) { b.runs[0].floats[0].value++ },
		func(b *batch) { b.runs[0].floats[0].at++ },
		func(b *batch) { b.runs[0].floats = b.runs[0].floats[:1] },
		func(b *batch) { b.runs[0].histograms[0].value.Sum++ },
	} {
		require.NotEqual(t, same, make1(change))
	}
}
