package prometheusexporter

import (
	"fmt"
	"hash/maphash"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// counts is what a batch carries.
type counts struct{ samples, exemplars int }

// batch is what one request carries: series, each with samples in order of time. It
// is kept as the request of remote write 2.0, and opened where that is too large for
// a server, or the wrong protocol.
type batch struct {
	body []byte // compressed; nil of a part of an opened batch
	counts
	written  int            // series
	families []familySeries // of series that are not called as their family

	request *writev2.Request // nil unless opened
	names   []string         // of the families, by series of request
}

// familySeries are series of a family that have names of their own.
type familySeries struct {
	from, to int // by their place in the request
	name     string
}

// wrote notes that a series was written.
func (b *batch) wrote(s *series) {
	if f := s.family; f.several {
		last := len(b.families) - 1
		if last >= 0 && b.families[last].to == b.written && b.families[last].name == f.name {
			b.families[last].to++
		} else {
			b.families = append(b.families, familySeries{b.written, b.written + 1, f.name})
		}
	}
	b.written++
}

// open reads the request.
func (b *batch) open() error {
	if b.request != nil {
		return nil
	}
	raw, err := s2.Decode(nil, b.body)
	if err != nil {
		return fmt.Errorf("read a request again: %w", err)
	}
	request := &writev2.Request{}
	if err := request.Unmarshal(raw); err != nil {
		return fmt.Errorf("read a request again: %w", err)
	}
	b.request, b.names = request, make([]string, len(request.Timeseries))
	for i := range request.Timeseries {
		refs := request.Timeseries[i].LabelsRefs
		for at := 0; at+1 < len(refs); at += 2 {
			if request.Symbols[refs[at]] == model.MetricNameLabel {
				b.names[i] = request.Symbols[refs[at+1]]
			}
		}
	}
	for _, f := range b.families {
		for i := f.from; i < f.to; i++ {
			b.names[i] = f.name
		}
	}
	return nil
}

// part is an empty batch with the strings of b.
func (b *batch) part() *batch { return &batch{request: &writev2.Request{Symbols: b.request.Symbols}} }

func (b *batch) add(s writev2.TimeSeries, family string) {
	b.request.Timeseries = append(b.request.Timeseries, s)
	b.names = append(b.names, family)
	b.samples += len(s.Samples) + len(s.Histograms)
	b.exemplars += len(s.Exemplars)
}

// cut cuts a series in two, the first with n of its samples. The exemplars stay with
// the last ones.
func cut(s writev2.TimeSeries, n int) (first, rest writev2.TimeSeries) {
	first, rest = s, s
	floats := min(n, len(s.Samples))
	first.Samples, rest.Samples = s.Samples[:floats], s.Samples[floats:]
	first.Histograms, rest.Histograms = s.Histograms[:n-floats], s.Histograms[n-floats:]
	if len(rest.Samples)+len(rest.Histograms) > 0 {
		first.Exemplars = nil
	} else {
		rest.Exemplars = nil
	}
	return first, rest
}

// halves splits a batch that a server finds too large or refuses whole.
func (b *batch) halves() (first, second *batch, err error) {
	if err := b.open(); err != nil {
		return nil, nil, err
	}
	first, second = b.part(), b.part()
	half := b.samples / 2
	for i, s := range b.request.Timeseries {
		all := len(s.Samples) + len(s.Histograms)
		n := min(max(half-first.samples, 0), all)
		head, rest := cut(s, n)
		if n > 0 {
			first.add(head, b.names[i])
		}
		if n < all {
			second.add(rest, b.names[i])
		}
	}
	return first, second, nil
}

// encode2 is the batch as a request of remote write 2.0.
func (b *batch) encode2() ([]byte, error) {
	if b.body != nil {
		return b.body, nil
	}
	raw, err := b.request.Marshal()
	if err != nil {
		return nil, err
	}
	return s2.EncodeSnappy(nil, raw), nil
}

// hash knows a batch by its tenant and content, for the life of the process.
func (b *batch) hash(tenant string) uint64 {
	body, err := b.encode2()
	if err != nil { // it was never sent then
		return 0
	}
	var h maphash.Hash
	h.SetSeed(batchSeed)
	_, _ = h.WriteString(tenant)
	_ = h.WriteByte(0)
	_, _ = h.Write(body)
	return h.Sum64()
}

var batchSeed = maphash.MakeSeed()

// Upper bounds of what things take in a request of 1.0, which repeats all labels in
// each series.
const (
	sampleBytes = 32 // three numbers, tags and lengths
	seriesBytes = 24 // tags, lengths
	labelBytes  = 12 // per label: tags, lengths
)

// forVersion1 divides a batch that was made for 2.0, where strings are shared.
func (b *batch) forVersion1(maxBytes int) ([]*batch, error) {
	if err := b.open(); err != nil {
		return nil, err
	}
	var parts []*batch
	open, bytes := b.part(), 0
	for i, s := range b.request.Timeseries {
		head := seriesBytes + len(b.names[i]) + len(b.text(s.Metadata.HelpRef)) + len(b.text(s.Metadata.UnitRef))
		for at := 0; at+1 < len(s.LabelsRefs); at += 2 {
			head += labelBytes + len(b.text(s.LabelsRefs[at])) + len(b.text(s.LabelsRefs[at+1]))
		}
		for j := range s.Exemplars {
			head += exemplarSize
			for _, ref := range s.Exemplars[j].LabelsRefs {
				head += labelBytes + len(b.text(ref))
			}
		}
		for len(s.Samples)+len(s.Histograms) > 0 {
			n, size := fitting(s, maxBytes-bytes-head)
			if n == 0 {
				if open.samples > 0 {
					parts = append(parts, open)
					open, bytes = b.part(), 0
					continue
				}
				n = 1 // larger than a request: alone
			}
			var first writev2.TimeSeries
			first, s = cut(s, n)
			open.add(first, b.names[i])
			bytes += head + size
		}
	}
	if len(parts) == 0 {
		return []*batch{b}, nil
	}
	return append(parts, open), nil
}

// fitting is how many samples of a series take at most room bytes, and how many they
// take.
func fitting(s writev2.TimeSeries, room int) (n, bytes int) {
	for range s.Samples {
		if bytes+sampleBytes > room {
			return n, bytes
		}
		n, bytes = n+1, bytes+sampleBytes
	}
	for i := range s.Histograms {
		size := s.Histograms[i].Size() + sampleBytes
		if bytes+size > room {
			return n, bytes
		}
		n, bytes = n+1, bytes+size
	}
	return n, bytes
}

func (b *batch) text(ref uint32) string { return b.request.Symbols[ref] }

// encode1 writes a batch that is open as a request of remote write 1.0, which has no
// start timestamps, and metadata beside the series.
func (b *batch) encode1() ([]byte, error) {
	request := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(b.request.Timeseries))}
	pairs := func(refs []uint32) []prompb.Label {
		list := make([]prompb.Label, 0, len(refs)/2)
		for at := 0; at+1 < len(refs); at += 2 {
			list = append(list, prompb.Label{Name: b.text(refs[at]), Value: b.text(refs[at+1])})
		}
		return list
	}
	described := make(map[string]struct{})
	for i, r := range b.request.Timeseries {
		s := prompb.TimeSeries{Labels: pairs(r.LabelsRefs)}
		for _, f := range r.Samples {
			s.Samples = append(s.Samples, prompb.Sample{Value: f.Value, Timestamp: f.Timestamp})
		}
		for _, h := range r.Histograms {
			s.Histograms = append(s.Histograms, prompb.FromIntHistogram(h.Timestamp, h.ToIntHistogram()))
		}
		for _, e := range r.Exemplars {
			s.Exemplars = append(s.Exemplars, prompb.Exemplar{Labels: pairs(e.LabelsRefs), Value: e.Value, Timestamp: e.Timestamp})
		}
		request.Timeseries[i] = s
		if _, found := described[b.names[i]]; !found && b.names[i] != "" {
			described[b.names[i]] = struct{}{}
			metadata, err := r.ToMetadata(b.request.Symbols)
			if err != nil {
				return nil, err
			}
			request.Metadata = append(request.Metadata, prompb.MetricMetadata{
				MetricFamilyName: b.names[i],
				Type:             prompb.FromMetadataType(metadata.Type),
				Help:             metadata.Help,
				Unit:             metadata.Unit,
			})
		}
	}
	raw, err := proto.Marshal(&request)
	if err != nil {
		return nil, err
	}
	return s2.EncodeSnappy(nil, raw), nil
}
