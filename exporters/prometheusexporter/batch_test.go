package prometheusexporter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
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

// write2 writes series as the exporter does.
func (d *drawn) write2(t require.TestingT, maxBytes int) []*batch {
	w := newWriter2(&d.symbols)
	w.maxBytes = maxBytes
	batches, err := w.write(d.all)
	require.NoError(t, err)
	return batches
}

// contents are what requests hold, by series.
type contents struct {
	floats     map[string][]floatSample
	histograms map[string][]histogramSample
	exemplars  map[string]int
	counts
}

func newContents() *contents {
	return &contents{floats: make(map[string][]floatSample), histograms: make(map[string][]histogramSample), exemplars: make(map[string]int)}
}

// plainly has no lists without elements.
func plainly(h *histogram.Histogram) *histogram.Histogram {
	if len(h.NegativeSpans) == 0 {
		h.NegativeSpans = nil
	}
	return h
}

// read2 adds what a request of 2.0 holds, and returns how large it is.
func (c *contents) read2(t require.TestingT, b *batch) int {
	body, err := b.encode2()
	require.NoError(t, err)
	raw, err := snappy.Decode(nil, body)
	require.NoError(t, err)
	request := decode2(t, bytes.NewReader(body))
	for _, s := range request.Timeseries {
		name := request.Symbols[s.LabelsRefs[1]]
		require.NotZero(t, len(s.Samples)+len(s.Histograms))
		for _, f := range s.Samples {
			c.floats[name] = append(c.floats[name], floatSample{f.StartTimestamp, f.Timestamp, f.Value})
		}
		for _, h := range s.Histograms {
			c.histograms[name] = append(c.histograms[name], histogramSample{h.StartTimestamp, h.Timestamp, plainly(h.ToIntHistogram())})
		}
		c.add(name, len(s.Samples)+len(s.Histograms), len(s.Exemplars))
	}
	return len(raw)
}

// read1 does the same with one of 1.0, which has no start timestamps.
func (c *contents) read1(t require.TestingT, b *batch, start int64) int {
	body, err := b.encode1()
	require.NoError(t, err)
	raw, err := snappy.Decode(nil, body)
	require.NoError(t, err)
	request := &prompb.WriteRequest{}
	require.NoError(t, proto.Unmarshal(raw, request))
	for _, s := range request.Timeseries {
		name := s.Labels[0].Value
		require.NotZero(t, len(s.Samples)+len(s.Histograms))
		for _, f := range s.Samples {
			c.floats[name] = append(c.floats[name], floatSample{start, f.Timestamp, f.Value})
		}
		for _, h := range s.Histograms {
			c.histograms[name] = append(c.histograms[name], histogramSample{start, h.Timestamp, plainly(h.ToIntHistogram())})
		}
		c.add(name, len(s.Samples)+len(s.Histograms), len(s.Exemplars))
	}
	return len(raw)
}

func (c *contents) add(name string, samples, exemplars int) {
	c.samples += samples
	c.counts.exemplars += exemplars
	c.exemplars[name] += exemplars
}

func (c *contents) requireAll(t require.TestingT, d *drawn) {
	for _, s := range d.all {
		require.Equal(t, s.floats, c.floats[d.name(s)])
		require.Equal(t, s.histograms, c.histograms[d.name(s)])
		require.Equal(t, len(s.exemplars), c.exemplars[d.name(s)])
	}
}

func TestRequestsAreBoundedAndHoldEverySampleOnceInOrder(t *testing.T) {
	const start = 1795473620776 // of all that is drawn
	t.Run("2.0", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			maxBytes := rapid.IntRange(600, 4000).Draw(t, "bytes")
			d, all := drawSeries(t), newContents()
			for _, b := range d.write2(t, maxBytes) {
				before := all.counts
				size := all.read2(t, b)
				require.True(t, size <= maxBytes || b.samples == 1, "%d bytes in a request of at most %d with %d samples", size, maxBytes, b.samples)
				require.NotZero(t, b.samples)
				require.Equal(t, counts{all.samples - before.samples, all.counts.exemplars - before.exemplars}, b.counts)
			}
			all.requireAll(t, d)
		})
	})
	t.Run("1.0", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			maxBytes := rapid.IntRange(600, 4000).Draw(t, "bytes")
			d, all := drawSeries(t), newContents()
			for _, shared := range d.write2(t, 2*maxBytes) {
				parts, err := shared.forVersion1(maxBytes)
				require.NoError(t, err)
				for _, b := range parts {
					before := all.counts
					size := all.read1(t, b, start)
					require.True(t, size <= maxBytes || b.samples == 1, "%d bytes in a request of at most %d with %d samples", size, maxBytes, b.samples)
					require.NotZero(t, b.samples)
					require.Equal(t, counts{all.samples - before.samples, all.counts.exemplars - before.exemplars}, b.counts)
				}
			}
			all.requireAll(t, d)
		})
	})
}

func TestHalvesHoldAllInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawSeries(t)
		for _, b := range d.write2(t, 0) {
			if b.samples < 2 {
				continue
			}
			first, second, err := b.halves()
			require.NoError(t, err)
			require.NotZero(t, first.samples)
			require.NotZero(t, second.samples)
			require.Equal(t, b.counts, counts{first.samples + second.samples, first.exemplars + second.exemplars})
			all := newContents()
			for _, half := range []*batch{first, second} {
				before := all.counts
				all.read2(t, half)
				require.Equal(t, counts{all.samples - before.samples, all.counts.exemplars - before.exemplars}, half.counts)
			}
			all.requireAll(t, d)
		}
	})
}

// In 1.0 metadata is by family, which is not in a request of 2.0.
func TestAFamilyKeepsItsNameInVersion1(t *testing.T) {
	d := &drawn{symbols: newSymbols()}
	add := func(name string, f *family) {
		d.all = append(d.all, &series{labels: d.labels("__name__", name), family: f, floats: []floatSample{{0, 1, 2}}})
	}
	classic := &family{name: "took", several: true, Metadata: metadata.Metadata{Type: model.MetricTypeHistogram, Help: "How long."}}
	classic.help = d.number("How long.")
	add("orders_count", &family{name: "orders_count", Metadata: metadata.Metadata{Type: model.MetricTypeGauge}})
	add("took_count", classic)
	add("took_bucket", classic)
	add("build_info", &family{name: "build", several: true, Metadata: metadata.Metadata{Type: model.MetricTypeInfo}})
	b := d.write2(t, 0)[0]
	_, second, err := b.halves()
	require.NoError(t, err)
	families := func(b *batch) map[string]string {
		require.NoError(t, b.open())
		body, err := b.encode1()
		require.NoError(t, err)
		raw, err := snappy.Decode(nil, body)
		require.NoError(t, err)
		request := &prompb.WriteRequest{}
		require.NoError(t, proto.Unmarshal(raw, request))
		found := make(map[string]string)
		for _, m := range request.Metadata {
			found[m.MetricFamilyName] = m.Type.String() + " " + m.Help
		}
		return found
	}
	require.Equal(t, map[string]string{"orders_count": "GAUGE ", "took": "HISTOGRAM How long.", "build": "INFO "}, families(b))
	require.Equal(t, map[string]string{"took": "HISTOGRAM How long.", "build": "INFO "}, families(second))
}

func TestABatchIsKnownByItsContent(t *testing.T) {
	hash := func(tenant string, change func(*drawn)) uint64 {
		d := &drawn{symbols: newSymbols()}
		d.all = []*series{{
			labels: d.labels("__name__", "a"), family: &family{},
			floats: []floatSample{{0, 1, 2}, {0, 2, 3}}, histograms: []histogramSample{{0, 1, &histogram.Histogram{Count: 1, Sum: 2}}},
		}}
		if change != nil {
			change(d)
		}
		return d.write2(t, 0)[0].hash(tenant)
	}
	same := hash("t", nil)
	require.Equal(t, same, hash("t", nil))
	require.NotEqual(t, same, hash("u", nil))
	for _, change := range []func(*drawn){
		func(d *drawn) { d.all[0].labels = d.labels("__name__", "b") },
		func(d *drawn) { d.all[0].floats[0].value++ },
		func(d *drawn) { d.all[0].floats[0].at++ },
		func(d *drawn) { d.all[0].floats = d.all[0].floats[:1] },
		func(d *drawn) { d.all[0].histograms[0].value.Sum++ },
	} {
		require.NotEqual(t, same, hash("t", change))
	}
}
