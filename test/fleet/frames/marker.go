package frames

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/longhaul/longhaul/internal/frame"
)

// Marker is what one item of every frame tells to whoever takes the data in the
// end: which frame it was. In a log it is the line, in metrics the label and the
// value of a series of its own, in traces the ids of a span of its own.
type Marker struct {
	Signal frame.Signal
	Origin uint32 // which of the fleet's nodes
	Life   uint8  // of its spool: counted up when that is made anew
	Lane   uint16
	Number uint64
	// Samples is how many items the frame has where it arrives, the marker included.
	Samples uint16
	// Written is when the frame was made, by the simulator's own clock. Of metrics
	// only milliseconds arrive.
	Written time.Time
}

// How a marker is known.
const (
	MarkerLine   = "fleet-frame "
	MarkerMetric = "fleet_frame"
	MarkerLabel  = "fleet_lane"
	MarkerSpan   = "fleet-frame"
	// markerProgram is what the markers of logs and metrics say they are from.
	markerProgram = "fleet"
)

// What stands in a template's marker until a frame is made of it. All are as long
// as what takes their place.
const (
	placeholderText               = MarkerLine + "oooooooo-ll-aaaa-nnnnnnnnnn-ssss-wwwwwwwwwwwwwwww"
	placeholderLane               = "oooooooo-ll-aaaa"
	placeholderTime               = pcommon.Timestamp(0x4242424242424242)
	placeholderValue              = 7.25e-201
	placeholderTrace              = "oooolaaannnnnnnn"
	placeholderSpan               = "sssspppp"
	laneAt, numberAt, textSamples = 0, 17, 28
	textWritten                   = 33
)

// ErrMarker is returned for what looks like a marker and cannot be one.
var ErrMarker = errors.New("not a marker of the fleet")

// places are offsets into a marker's bytes.
type places struct {
	text, lane, value, trace, span int // -1 where the signal has none
	times                          []int
}

func findPlaces(marker []byte) (p places) {
	p.text = bytes.Index(marker, []byte(placeholderText))
	p.lane = bytes.Index(marker, []byte(placeholderLane))
	p.trace = bytes.Index(marker, []byte(placeholderTrace))
	p.span = bytes.Index(marker, []byte(placeholderSpan))
	p.value = bytes.Index(marker, binary.LittleEndian.AppendUint64(nil, math.Float64bits(placeholderValue)))
	stamp := binary.LittleEndian.AppendUint64(nil, uint64(placeholderTime))
	for from := 0; ; {
		at := bytes.Index(marker[from:], stamp)
		if at < 0 {
			return p
		}
		p.times = append(p.times, from+at)
		from += at + len(stamp)
	}
}

// write puts a marker in the place of the placeholders.
func (p *places) write(to []byte, m *Marker) {
	le, be := binary.LittleEndian, binary.BigEndian
	for _, at := range p.times {
		le.PutUint64(to[at:], uint64(m.Written.UnixNano()))
	}
	switch m.Signal {
	case frame.Logs:
		text := to[p.text+len(MarkerLine):]
		putLane(text, m)
		putHex(text[numberAt:numberAt+10], m.Number)
		putHex(text[textSamples:textSamples+4], uint64(m.Samples))
		putHex(text[textWritten:textWritten+16], uint64(m.Written.UnixNano()))
	case frame.Metrics:
		putLane(to[p.lane:], m)
		le.PutUint64(to[p.value:], math.Float64bits(float64(m.Number<<16|uint64(m.Samples))))
	case frame.Traces:
		id := to[p.trace:]
		be.PutUint32(id, m.Origin)
		id[4], id[5] = m.Life, 1
		be.PutUint16(id[6:], m.Lane)
		be.PutUint64(id[8:], m.Number)
		be.PutUint64(to[p.span:], uint64(m.Samples))
	}
}

func putLane(to []byte, m *Marker) {
	putHex(to[0:8], uint64(m.Origin))
	putHex(to[9:11], uint64(m.Life))
	putHex(to[12:16], uint64(m.Lane))
}

func putHex(to []byte, n uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

// ParseLine reads the marker from a log line that begins with MarkerLine.
func ParseLine(line []byte) (m Marker, err error) {
	if len(line) != len(placeholderText) {
		return m, fmt.Errorf("%w: %q", ErrMarker, line)
	}
	text := string(line[len(MarkerLine):])
	if m, err = parseLane(text); err != nil {
		return m, err
	}
	m.Signal = frame.Logs
	number, err1 := strconv.ParseUint(text[numberAt:numberAt+10], 16, 64)
	samples, err2 := strconv.ParseUint(text[textSamples:textSamples+4], 16, 16)
	written, err3 := strconv.ParseUint(text[textWritten:textWritten+16], 16, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return m, fmt.Errorf("%w: %q", ErrMarker, line)
	}
	m.Number, m.Samples, m.Written = number, uint16(samples), time.Unix(0, int64(written))
	return m, nil
}

func parseLane(text string) (m Marker, err error) {
	if len(text) < len(placeholderLane) {
		return m, fmt.Errorf("%w: %q", ErrMarker, text)
	}
	origin, err1 := strconv.ParseUint(text[0:8], 16, 32)
	life, err2 := strconv.ParseUint(text[9:11], 16, 8)
	lane, err3 := strconv.ParseUint(text[12:16], 16, 16)
	if err := errors.Join(err1, err2, err3); err != nil {
		return m, fmt.Errorf("%w: %q", ErrMarker, text)
	}
	return Marker{Origin: uint32(origin), Life: uint8(life), Lane: uint16(lane)}, nil
}

// ParseSample reads the marker from a sample of MarkerMetric.
func ParseSample(label string, value float64, milliseconds int64) (m Marker, err error) {
	if m, err = parseLane(label); err != nil {
		return m, err
	}
	bits := uint64(value)
	if float64(bits) != value {
		return m, fmt.Errorf("%w: value %v", ErrMarker, value)
	}
	m.Signal, m.Number, m.Samples = frame.Metrics, bits>>16, uint16(bits)
	m.Written = time.UnixMilli(milliseconds)
	return m, nil
}

// ParseSpan reads the marker from a span that is named MarkerSpan.
func ParseSpan(trace, span []byte, start uint64) (m Marker, err error) {
	if len(trace) != len(placeholderTrace) || len(span) != len(placeholderSpan) {
		return m, fmt.Errorf("%w: ids of %d and %d bytes", ErrMarker, len(trace), len(span))
	}
	be := binary.BigEndian
	return Marker{
		Signal: frame.Traces, Origin: be.Uint32(trace), Life: trace[4], Lane: be.Uint16(trace[6:]),
		Number: be.Uint64(trace[8:]), Samples: uint16(be.Uint64(span)), Written: time.Unix(0, int64(start)),
	}, nil
}
