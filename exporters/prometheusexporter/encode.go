package prometheusexporter

import (
	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

type labelPair = labels.Label

// sizer tells what the head of a series (labels and metadata) takes in a
// request. It is told when a request begins.
type sizer interface {
	series(*series) int
	reset()
}

// sizer2 knows that 2.0 sends every string once per request.
type sizer2 struct{ seen map[string]struct{} }

func (z *sizer2) reset() { clear(z.seen) }

func (z *sizer2) series(s *series) int {
	if z.seen == nil {
		z.seen = make(map[string]struct{})
	}
	bytes := seriesBytes
	once := func(text string) {
		if _, found := z.seen[text]; !found {
			z.seen[text] = struct{}{}
			bytes += len(text) + symbolBytes
		}
	}
	s.labels.Range(func(l labelPair) {
		bytes += labelBytes
		once(l.Name)
		once(l.Value)
	})
	once(s.metadata.Help)
	once(s.metadata.Unit)
	return bytes
}

// sizer1 knows that 1.0 repeats all labels in each series.
type sizer1 struct{}

func (sizer1) reset() {}

func (sizer1) series(s *series) int {
	bytes := seriesBytes + len(s.family) + len(s.metadata.Help) + len(s.metadata.Unit)
	s.labels.Range(func(l labelPair) { bytes += labelBytes + len(l.Name) + len(l.Value) })
	return bytes
}

// encode2 writes a batch as a request of remote write 2.0.
func encode2(b *batch) ([]byte, error) {
	symbols := writev2.NewSymbolTable()
	request := writev2.Request{Timeseries: make([]writev2.TimeSeries, 0, len(b.runs))}
	for _, r := range b.runs {
		head := writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(r.labels, nil),
			Metadata: writev2.Metadata{
				Type:    writev2.FromMetadataType(r.metadata.Type),
				HelpRef: symbols.Symbolize(r.metadata.Help),
				UnitRef: symbols.Symbolize(r.metadata.Unit),
			},
		}
		// A message of a series has floats or histograms, not both.
		if len(r.floats) > 0 {
			s := head
			s.Samples = make([]writev2.Sample, len(r.floats))
			for i, f := range r.floats {
				s.Samples[i] = writev2.Sample{Value: f.value, Timestamp: f.at, StartTimestamp: f.start}
			}
			if len(r.histograms) == 0 {
				s.Exemplars = exemplars2(r.exemplars, &symbols)
			}
			request.Timeseries = append(request.Timeseries, s)
		}
		if len(r.histograms) > 0 {
			s := head
			s.Histograms = make([]writev2.Histogram, len(r.histograms))
			for i, h := range r.histograms {
				s.Histograms[i] = writev2.FromIntHistogram(h.at, h.value)
				s.Histograms[i].StartTimestamp = h.start
			}
			s.Exemplars = exemplars2(r.exemplars, &symbols)
			request.Timeseries = append(request.Timeseries, s)
		}
	}
	request.Symbols = symbols.Symbols()
	raw, err := request.OptimizedMarshal(nil)
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}

func exemplars2(list []exemplar.Exemplar, symbols *writev2.SymbolsTable) []writev2.Exemplar {
	if len(list) == 0 {
		return nil
	}
	encoded := make([]writev2.Exemplar, len(list))
	for i, e := range list {
		encoded[i] = writev2.Exemplar{LabelsRefs: symbols.SymbolizeLabels(e.Labels, nil), Value: e.Value, Timestamp: e.Ts}
	}
	return encoded
}

// encode1 writes a batch as a request of remote write 1.0, which has no start
// timestamps, and metadata beside the series.
func encode1(b *batch) ([]byte, error) {
	request := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(b.runs))}
	described := make(map[string]struct{})
	for i, r := range b.runs {
		s := prompb.TimeSeries{Labels: prompb.FromLabels(r.labels, nil)}
		for _, f := range r.floats {
			s.Samples = append(s.Samples, prompb.Sample{Value: f.value, Timestamp: f.at})
		}
		for _, h := range r.histograms {
			s.Histograms = append(s.Histograms, prompb.FromIntHistogram(h.at, h.value))
		}
		for _, e := range r.exemplars {
			s.Exemplars = append(s.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(e.Labels, nil), Value: e.Value, Timestamp: e.Ts})
		}
		request.Timeseries[i] = s
		if _, found := described[r.family]; !found && r.family != "" {
			described[r.family] = struct{}{}
			request.Metadata = append(request.Metadata, prompb.MetricMetadata{
				MetricFamilyName: r.family,
				Type:             prompb.FromMetadataType(r.metadata.Type),
				Help:             r.metadata.Help,
				Unit:             r.metadata.Unit,
			})
		}
	}
	raw, err := proto.Marshal(&request)
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}
