package prometheusexporter

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Keys of the fields of a request of remote write 2.0, as protobuf writes them:
// number and wire type.
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

// exemplarSize is what an exemplar takes at most, without its labels.
const exemplarSize = 32

// writer2 writes series into requests of remote write 2.0, of at most maxBytes each
// before compression. A request sends each string once, and numbers it. A series
// that does not fit is continued in the next request.
type writer2 struct {
	*symbols           // of the translation
	maxBytes  int      // 0: no bound
	numbers   []uint32 // of strings in the request, by symbol; 0 if it is not in it yet
	sent      []uint32 // symbols of the request, by their number in it
	textBytes int      // bytes that they take in the request
	request   []byte
	batch
	batches []*batch

	// Of the series being written:
	before, textBytesBefore int // sent and textBytes before it
	series, metadata        []byte
	packed                  []byte // the compressed request
}

func newWriter2(of *symbols) *writer2 {
	w := &writer2{symbols: of, sent: []uint32{0}} // the protocol wants the empty string first
	w.begin()
	return w
}

// begin begins a request.
func (w *writer2) begin() {
	for _, symbol := range w.sent {
		w.numbers = enough(w.numbers, symbol)
		w.numbers[symbol] = 0
	}
	w.sent, w.textBytes = w.sent[:1], 2
	w.request, w.batch = w.request[:0], batch{}
}

func enough(numbers []uint32, symbol uint32) []uint32 {
	if int(symbol) < len(numbers) {
		return numbers
	}
	return append(numbers, make([]uint32, int(symbol)+1-len(numbers))...)
}

// reset lets go of all that belongs to a call.
func (w *writer2) reset() {
	w.begin()
	w.batches = nil
	if len(w.numbers) > maxKept {
		w.numbers = nil
	}
	for _, buffer := range []*[]byte{&w.series, &w.metadata} {
		if cap(*buffer) > maxMemory {
			*buffer = nil
		}
	}
}

// write writes series and returns the requests they are in.
func (w *writer2) write(all []*series) ([]*batch, error) {
	if n := len(w.symbols.texts); n > len(w.numbers) {
		w.numbers = enough(w.numbers, uint32(n-1))
	}
	for _, s := range all {
		if err := w.add(s); err != nil {
			return nil, err
		}
	}
	if w.samples > 0 {
		w.end()
	}
	return w.batches, nil
}

// end ends a request.
func (w *writer2) end() {
	request := w.request
	for _, symbol := range w.sent {
		text := w.symbols.texts[symbol]
		request = append(binary.AppendUvarint(append(request, keySymbols), uint64(len(text))), text...)
	}
	w.request = request
	if most := s2.MaxEncodedLen(len(request)); most > cap(w.packed) {
		w.packed = make([]byte, most)
	}
	done := w.batch
	done.body = bytes.Clone(s2.EncodeSnappy(w.packed[:cap(w.packed)], request))
	w.batches = append(w.batches, &done)
	w.begin()
}

// number is that of a symbol in the request.
func (w *writer2) number(symbol uint32) uint32 {
	n := w.numbers[symbol]
	if n == 0 && symbol != 0 {
		n = uint32(len(w.sent))
		w.numbers[symbol] = n
		w.sent = append(w.sent, symbol)
		size := len(w.symbols.texts[symbol])
		w.textBytes += 1 + sizeOf(uint64(size)) + size
	}
	return n
}

func sizeOf(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// add writes a series.
func (w *writer2) add(s *series) error {
	floats, histograms, exemplars := s.floats, s.histograms, 0
	for i := range s.exemplars {
		exemplars += exemplarSize
		s.exemplars[i].Labels.Range(func(l labels.Label) { exemplars += len(l.Name) + len(l.Value) + 2*8 })
	}
	// A message has floats or histograms, not both.
	for len(floats)+len(histograms) > 0 {
		w.head(s)
		room := math.MaxInt
		if w.maxBytes > 0 {
			const around = 1 + 5 + 1 + 1 // tags and lengths
			room = w.maxBytes - len(w.request) - w.textBytes - around - len(w.series) - len(w.metadata) - exemplars
		}
		n := 0
		if len(floats) > 0 {
			n = w.floats(floats, room)
		} else {
			var err error
			if n, err = w.histograms(histograms, room); err != nil {
				return err
			}
		}
		if n == 0 {
			if w.samples > 0 {
				w.undo()
				w.end()
				continue
			}
			if n = 1; len(floats) > 0 { // larger than a request: alone
				w.floats(floats[:1], math.MaxInt)
			} else if _, err := w.histograms(histograms[:1], math.MaxInt); err != nil {
				return err
			}
		}
		if len(floats) > 0 {
			floats = floats[n:]
		} else {
			histograms = histograms[n:]
		}
		w.samples += n
		if len(floats)+len(histograms) == 0 {
			if err := w.exemplars(s); err != nil {
				return err
			}
		}
		w.finish(s)
	}
	return nil
}

// head writes the labels of a series, and its metadata apart.
func (w *writer2) head(s *series) {
	w.before, w.textBytesBefore = len(w.sent), w.textBytes
	out := append(w.series[:0], keyRefs, 0) // the length has one byte, mostly
	for _, l := range s.labels {
		out = appendNumber(out, w.number(l.name))
		out = appendNumber(out, w.number(l.value))
	}
	if length := len(out) - 2; length < 0x80 {
		out[1] = byte(length)
	} else {
		head := binary.AppendUvarint([]byte{keyRefs}, uint64(length))
		out = append(head, out[2:]...)
	}
	w.series = out

	f := s.family
	metadata := append(w.metadata[:0], keyMetadata, 0)
	if kind := writev2.FromMetadataType(f.Type); kind != 0 {
		metadata = append(metadata, keyType, byte(kind))
	}
	if f.help != 0 {
		metadata = appendNumber(append(metadata, keyHelp), w.number(f.help))
	}
	if f.unit != 0 {
		metadata = appendNumber(append(metadata, keyUnit), w.number(f.unit))
	}
	metadata[1] = byte(len(metadata) - 2)
	w.metadata = metadata
}

func appendNumber(to []byte, n uint32) []byte {
	switch {
	case n < 1<<7:
		return append(to, byte(n))
	case n < 1<<14:
		return append(to, byte(n)|0x80, byte(n>>7))
	}
	return binary.AppendUvarint(to, uint64(n))
}

// undo takes back the labels of a series.
func (w *writer2) undo() {
	for _, symbol := range w.sent[w.before:] {
		w.numbers[symbol] = 0
	}
	w.sent, w.textBytes = w.sent[:w.before], w.textBytesBefore
}

// floats writes as many samples as there is room for, and returns their number.
func (w *writer2) floats(samples []floatSample, room int) int {
	out := w.series
	for n, f := range samples {
		size := 9 + 1 + sizeOf(uint64(f.at))
		if f.start != 0 {
			size += 1 + sizeOf(uint64(f.start))
		}
		if room -= 2 + size; room < 0 {
			w.series = out
			return n
		}
		out = append(out, keySamples, byte(size), keyValue)
		out = binary.LittleEndian.AppendUint64(out, math.Float64bits(f.value))
		out = binary.AppendUvarint(append(out, keyAt), uint64(f.at))
		if f.start != 0 {
			out = binary.AppendUvarint(append(out, keyStart), uint64(f.start))
		}
	}
	w.series = out
	return len(samples)
}

// histograms does the same with histograms.
func (w *writer2) histograms(samples []histogramSample, room int) (int, error) {
	for n, h := range samples {
		message := writev2.FromIntHistogram(h.at, h.value)
		message.StartTimestamp = h.start
		encoded, err := message.Marshal()
		if err != nil {
			return 0, err
		}
		if room -= 1 + sizeOf(uint64(len(encoded))) + len(encoded); room < 0 {
			return n, nil
		}
		w.series = append(binary.AppendUvarint(append(w.series, keyHistograms), uint64(len(encoded))), encoded...)
	}
	return len(samples), nil
}

// exemplars writes those of a series, which go with its last samples, after which
// they were observed.
func (w *writer2) exemplars(s *series) error {
	for i := range s.exemplars {
		x := &s.exemplars[i]
		message := writev2.Exemplar{Value: x.Value, Timestamp: x.Ts}
		x.Labels.Range(func(l labels.Label) {
			for _, text := range [2]string{l.Name, l.Value} {
				symbol := w.symbols.number(text)
				w.numbers = enough(w.numbers, symbol)
				message.LabelsRefs = append(message.LabelsRefs, w.number(symbol))
			}
		})
		encoded, err := message.Marshal()
		if err != nil {
			return err
		}
		w.series = append(binary.AppendUvarint(append(w.series, keyExemplars), uint64(len(encoded))), encoded...)
	}
	w.batch.exemplars += len(s.exemplars)
	return nil
}

// finish writes the series to the request.
func (w *writer2) finish(s *series) {
	w.request = binary.AppendUvarint(append(w.request, keyTimeseries), uint64(len(w.series)+len(w.metadata)))
	w.request = append(append(w.request, w.series...), w.metadata...)
	w.batch.wrote(s)
}
