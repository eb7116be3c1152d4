package prometheusexporter

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// sizer tells what the head of a series (labels and metadata) takes in a
// request. It is told when a request ends.
type sizer interface {
	// series adds the head of a series to the request.
	series(*series) head
	// undo takes back the last head.
	undo()
	// next begins the next request and returns the strings that the last one's
	// series refer to: by number in it (2.0) or by symbol (1.0).
	next() []string
}

// head is what a request says of a series apart from its samples.
type head struct {
	bytes      int      // at most
	refs       []uint32 // of 2.0: numbers of the names and values of its labels
	help, unit uint32
}

// sizer2 knows that 2.0 sends every string once per request, and numbers them.
type sizer2 struct {
	*symbols          // of the call
	numbers  []uint32 // in the request, by symbol; 0 if it is not in it yet
	sent     []uint32 // symbols of the request, by their number in it
	before   int      // len(sent) before the last head
	refs     []uint32
}

func newSizer2(of *symbols) *sizer2 {
	return &sizer2{symbols: of, sent: []uint32{0}} // the protocol wants the empty string first
}

func (z *sizer2) next() []string {
	texts := make([]string, len(z.sent))
	for i, symbol := range z.sent {
		texts[i] = z.texts[symbol]
		z.numbers[symbol] = 0
	}
	z.sent = z.sent[:1]
	return texts
}

func (z *sizer2) undo() {
	for _, symbol := range z.sent[z.before:] {
		z.numbers[symbol] = 0
	}
	z.sent = z.sent[:z.before]
}

// reset lets go of the numbers of a call.
func (z *sizer2) reset() {
	if clear(z.numbers); len(z.numbers) > maxKept {
		z.numbers = nil
	}
	z.sent, z.refs = z.sent[:1], z.refs[:0]
}

func (z *sizer2) series(s *series) head {
	if len(z.numbers) < len(z.texts) {
		z.numbers = append(z.numbers, make([]uint32, len(z.texts)-len(z.numbers))...)
	}
	if cap(z.refs)-len(z.refs) < 2*len(s.labels) {
		z.refs = make([]uint32, 0, max(32*slabSize, 2*cap(z.refs), 2*len(s.labels)))
	}
	z.before = len(z.sent)
	from := len(z.refs)
	for _, l := range s.labels {
		z.refs = append(z.refs, z.number(l.name), z.number(l.value))
	}
	h := head{refs: z.refs[from:len(z.refs):len(z.refs)], help: z.number(s.family.help), unit: z.number(s.family.unit)}
	h.bytes = seriesBytes + len(s.labels)*labelBytes
	for _, symbol := range z.sent[z.before:] {
		h.bytes += len(z.texts[symbol]) + symbolBytes
	}
	return h
}

// number is that of a symbol in the request.
func (z *sizer2) number(symbol uint32) uint32 {
	n := z.numbers[symbol]
	if n == 0 && symbol != 0 {
		n = uint32(len(z.sent))
		z.numbers[symbol] = n
		z.sent = append(z.sent, symbol)
	}
	return n
}

// sizer1 knows that 1.0 repeats all labels in each series.
type sizer1 struct{ list []string } // by symbol

func (sizer1) undo()            {}
func (z sizer1) next() []string { return z.list }

func (z sizer1) series(s *series) head {
	bytes := seriesBytes + len(s.family.name) + len(s.family.Help) + len(s.family.Unit)
	for _, l := range s.labels {
		bytes += labelBytes + len(z.list[l.name]) + len(z.list[l.value])
	}
	return head{bytes: bytes}
}

// Keys of the fields of a request, as protobuf writes them: number and wire type.
const (
	keySymbols    = 4<<3 | 2
	keyTimeseries = 5<<3 | 2

	keyRefs       = 1<<3 | 2
	keySamples    = 2<<3 | 2
	keyHistograms = 3<<3 | 2
	keyExemplars  = 4<<3 | 2
	keyMetadata   = 5<<3 | 2

	keyValue = 1<<3 | 1 // of a sample
	keyAt    = 2 << 3
	keyStart = 3 << 3

	keyType = 1 << 3 // of metadata
	keyHelp = 3 << 3
	keyUnit = 4 << 3
)

// encoders keep what a request of 2.0 is put together in.
var encoders = sync.Pool{New: func() any { return new(encoder2) }}

type encoder2 struct{ request, series, part []byte }

// encode2 writes a batch as a request of remote write 2.0.
func encode2(b *batch) ([]byte, error) {
	e := encoders.Get().(*encoder2)
	defer encoders.Put(e)
	// Exemplars have strings of their own, which come after those of the series.
	symbols := exemplarSymbols{list: b.symbols}
	request := e.request[:0]
	for i := range b.runs {
		r := &b.runs[i]
		// A message of a series has floats or histograms, not both.
		if len(r.floats) > 0 {
			var exemplars []exemplar.Exemplar
			if len(r.histograms) == 0 {
				exemplars = r.exemplars
			}
			e.floats(r)
			if err := e.end(&request, r, exemplars, &symbols); err != nil {
				return nil, err
			}
		}
		if len(r.histograms) > 0 {
			if err := e.histograms(r); err != nil {
				return nil, err
			}
			if err := e.end(&request, r, r.exemplars, &symbols); err != nil {
				return nil, err
			}
		}
	}
	for _, text := range symbols.list {
		request = append(binary.AppendUvarint(append(request, keySymbols), uint64(len(text))), text...)
	}
	e.request = request
	return s2.EncodeSnappy(nil, request), nil
}

func sizeOf(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// begin begins a series.
func (e *encoder2) begin(r *run) {
	size := 0
	for _, ref := range r.refs {
		size += sizeOf(uint64(ref))
	}
	out := binary.AppendUvarint(append(e.series[:0], keyRefs), uint64(size))
	for _, ref := range r.refs {
		out = binary.AppendUvarint(out, uint64(ref))
	}
	e.series = out
}

func (e *encoder2) floats(r *run) {
	e.begin(r)
	out := e.series
	for _, f := range r.floats {
		size := 9 + 1 + sizeOf(uint64(f.at))
		if f.start != 0 {
			size += 1 + sizeOf(uint64(f.start))
		}
		out = binary.AppendUvarint(append(out, keySamples), uint64(size))
		out = binary.LittleEndian.AppendUint64(append(out, keyValue), math.Float64bits(f.value))
		out = binary.AppendUvarint(append(out, keyAt), uint64(f.at))
		if f.start != 0 {
			out = binary.AppendUvarint(append(out, keyStart), uint64(f.start))
		}
	}
	e.series = out
}

func (e *encoder2) histograms(r *run) error {
	e.begin(r)
	for _, h := range r.histograms {
		message := writev2.FromIntHistogram(h.at, h.value)
		message.StartTimestamp = h.start
		encoded, err := message.Marshal()
		if err != nil {
			return err
		}
		e.series = append(binary.AppendUvarint(append(e.series, keyHistograms), uint64(len(encoded))), encoded...)
	}
	return nil
}

// end writes what follows the samples of a series, and the series to the request.
func (e *encoder2) end(request *[]byte, r *run, exemplars []exemplar.Exemplar, symbols *exemplarSymbols) error {
	out := e.series
	for _, x := range exemplars {
		message := writev2.Exemplar{LabelsRefs: symbols.refs(x.Labels), Value: x.Value, Timestamp: x.Ts}
		encoded, err := message.Marshal()
		if err != nil {
			return err
		}
		out = append(binary.AppendUvarint(append(out, keyExemplars), uint64(len(encoded))), encoded...)
	}
	kind := uint64(writev2.FromMetadataType(r.family.Type))
	metadata := e.part[:0]
	for _, field := range [...]struct {
		key byte
		n   uint64
	}{{keyType, kind}, {keyHelp, uint64(r.help)}, {keyUnit, uint64(r.unit)}} {
		if field.n != 0 {
			metadata = binary.AppendUvarint(append(metadata, field.key), field.n)
		}
	}
	out = append(binary.AppendUvarint(append(out, keyMetadata), uint64(len(metadata))), metadata...)
	*request = append(binary.AppendUvarint(append(*request, keyTimeseries), uint64(len(out))), out...)
	e.series, e.part = out, metadata
	return nil
}

// exemplarSymbols adds the strings of exemplars to those of the series.
type exemplarSymbols struct {
	list    []string
	numbers map[string]uint32
}

func (s *exemplarSymbols) refs(ls labels.Labels) []uint32 {
	if s.numbers == nil {
		s.numbers = make(map[string]uint32)
	}
	var refs []uint32
	number := func(text string) uint32 {
		n, found := s.numbers[text]
		if !found {
			n = uint32(len(s.list))
			s.numbers[text] = n
			s.list = append(s.list, text)
		}
		return n
	}
	ls.Range(func(l labelPair) { refs = append(refs, number(l.Name), number(l.Value)) })
	return refs
}

// encode1 writes a batch as a request of remote write 1.0, which has no start
// timestamps, and metadata beside the series.
func encode1(b *batch) ([]byte, error) {
	request := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(b.runs))}
	described := make(map[string]struct{})
	for i, r := range b.runs {
		s := prompb.TimeSeries{Labels: make([]prompb.Label, len(r.labels))}
		for i, l := range r.labels {
			s.Labels[i] = prompb.Label{Name: b.symbols[l.name], Value: b.symbols[l.value]}
		}
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
		if _, found := described[r.family.name]; !found && r.family.name != "" {
			described[r.family.name] = struct{}{}
			request.Metadata = append(request.Metadata, prompb.MetricMetadata{
				MetricFamilyName: r.family.name,
				Type:             prompb.FromMetadataType(r.family.Type),
				Help:             r.family.Help,
				Unit:             r.family.Unit,
			})
		}
	}
	raw, err := proto.Marshal(&request)
	if err != nil {
		return nil, err
	}
	return s2.EncodeSnappy(nil, raw), nil
}
