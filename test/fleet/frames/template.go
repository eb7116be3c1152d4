// Package frames makes the frames of a fleet cheaply. A template is a batch of
// recorded telemetry, encoded and compressed once with times near now; a frame is
// a template with a header of its own and one item more, the marker, that says
// which frame of which origin it is. Making one costs a copy and a checksum.
//
// The marker comes last in the OTLP request and stands uncompressed in the last
// block of the payload's zstd frame, where it can be written over. So every frame is what a
// collector could have made, every frame's data differs, and whoever takes the
// data in the end can tell which frames arrived, how often and in what order.
package frames

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/longhaul/longhaul/internal/frame"
)

// Sizes say how much a frame holds: what an ordinary node has in a second, or in
// a scrape.
type Sizes struct {
	Logs, Spans int
}

// DefaultSizes are those of an ordinary node: 50 lines and 20 spans a second.
var DefaultSizes = Sizes{Logs: 50, Spans: 20}

// Variants of each signal are made in each round, so that not all frames of a moment
// are alike.
const Variants = 4

// prototype is telemetry of which templates are made.
type prototype interface {
	stamp(at time.Time) (oldest time.Time)
	count() (items, samples int)
	marshal() ([]byte, error)
	marker() ([]byte, error)
}

// Maker makes templates. It is not safe for concurrent use; what it made is.
type Maker struct {
	prototypes map[frame.Signal][]prototype
}

// NewMaker reads the corpus from a directory.
func NewMaker(dir string, sizes Sizes) (*Maker, error) {
	c, err := loadCorpus(dir)
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	if sizes.Logs < 2 || sizes.Spans < 2 {
		return nil, errors.New("a frame has at least two items, one of them the marker")
	}
	m := &Maker{prototypes: make(map[frame.Signal][]prototype)}
	for v := range Variants {
		m.prototypes[frame.Logs] = append(m.prototypes[frame.Logs], newLogs(c, v*3, sizes.Logs-1))
		m.prototypes[frame.Traces] = append(m.prototypes[frame.Traces], newTraces(c, v*29, sizes.Spans-1))
	}
	// Four targets, about the 2,000 series of an ordinary node.
	for i, p := range append(c.pages, c.pages[1]) {
		scraped, err := newMetrics(p, fmt.Sprintf("%s-%d", p.job, i))
		if err != nil {
			return nil, err
		}
		m.prototypes[frame.Metrics] = append(m.prototypes[frame.Metrics], scraped)
	}
	return m, nil
}

// Round are the templates of one moment, by signal. Those of metrics are one for
// each target of a node; an origin takes them in turn, so that its series are
// sampled once a turn.
type Round map[frame.Signal][]*Template

// Round makes templates whose newest item is from a time.
func (m *Maker) Round(at time.Time) (Round, error) {
	r := make(Round, len(m.prototypes))
	for signal, prototypes := range m.prototypes {
		for _, p := range prototypes {
			t, err := newTemplate(signal, p, at)
			if err != nil {
				return nil, fmt.Errorf("template of %s: %w", signal, err)
			}
			r[signal] = append(r[signal], t)
		}
	}
	return r, nil
}

// Template is a frame but for its numbers. It is never changed.
type Template struct {
	Signal frame.Signal
	// Items are log records, data points or spans, Samples what becomes of them at
	// the backend: a summary is several samples.
	Items, Samples int
	// OTLP is how many bytes the payload decodes to.
	OTLP int

	oldest, newest time.Time
	payload        []byte
	places         places // offsets into payload
}

func newTemplate(signal frame.Signal, p prototype, at time.Time) (*Template, error) {
	oldest := p.stamp(at)
	otlp, err := p.marshal()
	if err != nil {
		return nil, err
	}
	packed, err := frame.CodecFor(signal).Encode(nil, otlp)
	if err != nil {
		return nil, err
	}
	marker, err := p.marker()
	if err != nil {
		return nil, err
	}
	payload, err := appendRaw(packed, len(otlp), marker)
	if err != nil {
		return nil, err
	}
	t := &Template{Signal: signal, OTLP: len(otlp) + len(marker), oldest: oldest, newest: at, payload: payload}
	t.Items, t.Samples = p.count()
	t.Items++
	t.Samples++
	if t.Samples > 1<<16-1 {
		return nil, fmt.Errorf("%d samples are too many for a marker", t.Samples)
	}
	before := len(payload) - len(marker)
	t.places = findPlaces(marker)
	for _, at := range []*int{&t.places.text, &t.places.lane, &t.places.value, &t.places.trace, &t.places.span} {
		*at += before
	}
	for i := range t.places.times {
		t.places.times[i] += before
	}
	return t, nil
}

// PayloadBytes is what a frame of the template weighs without its header.
func (t *Template) PayloadBytes() int { return len(t.payload) }

// Newest is the time of the newest item but the marker.
func (t *Template) Newest() time.Time { return t.newest }

// What a zstd frame is made of: RFC 8878, 3.1.1.
const (
	zstdMagic       = "\x28\xb5\x2f\xfd"
	fourByteSize    = 2 << 6 // of the frame header descriptor: four bytes of content size, no checksum
	blockHeader     = 3
	lastBlock       = 1
	maxBlock        = 128 << 10
	minWindowLog    = 10
	windowLogOffset = 3 // of the exponent in the window descriptor
)

var errZstd = errors.New("the encoder made a zstd frame of another kind than this can extend")

// appendRaw returns the zstd frame of so many bytes with one more block, in which
// more bytes stand as they are.
func appendRaw(packed []byte, contentSize int, more []byte) ([]byte, error) {
	var header zstd.Header
	if err := header.Decode(packed); err != nil {
		return nil, err
	}
	if header.HasCheckSum || header.DictionaryID != 0 || len(more) > maxBlock {
		return nil, errZstd
	}
	size := uint64(contentSize + len(more))
	window := max(minWindowLog, bits.Len64(max(size, header.WindowSize)-1))
	out := append([]byte(zstdMagic), fourByteSize, byte(window-minWindowLog)<<windowLogOffset)
	out = append(out, byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
	body := len(out)
	out = append(out, packed[header.HeaderSize:]...)
	for at := body; ; {
		if at+blockHeader > len(out) {
			return nil, errZstd
		}
		b := uint32(out[at]) | uint32(out[at+1])<<8 | uint32(out[at+2])<<16
		length := int(b >> 3)
		if kind := b >> 1 & 3; kind == 1 {
			length = 1 // one byte, repeated
		}
		if b&lastBlock != 0 {
			if at+blockHeader+length != len(out) {
				return nil, errZstd
			}
			out[at] &^= lastBlock
			break
		}
		at += blockHeader + length
	}
	raw := uint32(len(more))<<3 | lastBlock
	out = append(out, byte(raw), byte(raw>>8), byte(raw>>16))
	return append(out, more...), nil
}

// Numbers are what makes a template a frame.
type Numbers struct {
	Origin  uint32
	Life    uint8
	Epoch   frame.Epoch
	Lane    uint32
	Number  uint64
	Floor   uint64
	Before  uint64
	Written time.Time     // by the simulator's clock
	Skew    time.Duration // of the origin's clock, which stamps the header's times
}

// AppendFrame appends the frame to dst; scratch is used and returned.
func (t *Template) AppendFrame(dst, scratch []byte, n *Numbers) (out, _ []byte) {
	scratch = t.AppendPayload(scratch[:0], n)
	h := frame.Header{
		Codec: frame.OTLPZstd, Signal: t.Signal, Class: frame.Live, Lane: n.Lane, Items: uint32(t.Items),
		Epoch: n.Epoch, Number: n.Number, Floor: n.Floor, Before: n.Before,
		First: t.oldest.Add(n.Skew).UnixNano(), Last: n.Written.Add(n.Skew).UnixNano(), Uncompressed: uint32(t.OTLP),
	}
	return frame.Append(dst, &h, scratch), scratch
}

// AppendPayload appends what AppendFrame puts into the frame.
func (t *Template) AppendPayload(dst []byte, n *Numbers) []byte {
	start := len(dst)
	dst = append(dst, t.payload...)
	m := Marker{
		Signal: t.Signal, Origin: n.Origin, Life: n.Life, Lane: uint16(n.Lane), Number: n.Number,
		Samples: uint16(t.Samples), Written: n.Written,
	}
	t.places.write(dst[start:], &m)
	return dst
}
