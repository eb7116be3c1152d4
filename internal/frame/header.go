package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of the parts of a frame and bounds on them, in bytes.
const (
	HeaderSize  = 144 // written by this version; a reader takes it from the frame
	TrailerSize = 4

	MaxHeader       = 4096      // a longer header is taken for damage
	MaxPayload      = 64 << 20  // 64 times what NATS takes by default
	MaxUncompressed = 256 << 20 // the most a payload may decode to

	// MaxRequest is the most an edge has a payload decode to: it splits what is larger.
	// A relay has memory for that, whatever its limit, and may reject what is larger.
	MaxRequest = 8 << 20
	// MaxItems is likewise the most items that an edge puts into a frame.
	MaxItems = 1 << 16
)

// Magic opens every frame.
const Magic = "LHF1"

// Version is what this package writes and reads.
const Version = 1

// flagsMustUnderstand is the half of the flags a reader may not ignore.
const flagsMustUnderstand = 0xff00

// Errors of Parse, ParseHeader and Codec.Decode. Test with errors.Is.
var (
	// ErrTruncated means the bytes end before the frame does; more of them
	// may make it whole.
	ErrTruncated = errors.New("frame is cut short")
	// ErrCorrupt means these bytes are not, or no longer, a frame.
	ErrCorrupt = errors.New("frame is damaged")
	// ErrVersion means the frame is intact but written by a newer longhaul
	// in a way this one does not understand.
	ErrVersion = errors.New("frame needs a newer longhaul")
	// ErrTooLarge means a batch does not fit into a frame.
	ErrTooLarge = errors.New("too large for a frame")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is everything about a frame that can be known without decoding it.
type Header struct {
	Codec  CodecID
	Signal Signal
	Class  Class
	Lane   uint32 // sequence of the lane within the signal, from 1
	Items  uint32 // log records, data points or spans in the payload

	Epoch  Epoch
	Number uint64 // position in the lane, from 1
	Floor  uint64 // lowest number that the spool could still send when this was written

	First, Last int64 // oldest and newest item, Unix nanoseconds, 0 if unknown

	Uncompressed uint32 // bytes the payload decodes to
	PayloadLen   uint32 // set by Append

	// Lost counts, by Cause, the items this lane has lost since its epoch
	// began. It only grows within a lane.
	Lost [NumCauses]uint64

	// Before counts the items of all frames of the lane with lower numbers,
	// whatever became of them: between two frames that are at hand, it tells
	// how many items the missing ones between them held.
	Before uint64
}

// LaneID returns the lane the frame belongs to.
func (h *Header) LaneID() Lane { return Lane{Signal: h.Signal, Seq: h.Lane} }

// Append appends the frame of h and payload to dst. It sets h.PayloadLen. The
// caller keeps payload within MaxPayload; no reader accepts more.
func Append(dst []byte, h *Header, payload []byte) []byte {
	h.PayloadLen = uint32(len(payload))
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, Magic...)
	dst = le.AppendUint16(dst, HeaderSize)
	dst = append(dst, Version, byte(h.Codec), byte(h.Signal), byte(h.Class))
	dst = le.AppendUint16(dst, 0) // flags
	dst = le.AppendUint32(dst, h.Lane)
	dst = le.AppendUint32(dst, h.Items)
	dst = le.AppendUint64(dst, uint64(h.Epoch))
	dst = le.AppendUint64(dst, h.Number)
	dst = le.AppendUint64(dst, h.Floor)
	dst = le.AppendUint64(dst, uint64(h.First))
	dst = le.AppendUint64(dst, uint64(h.Last))
	dst = le.AppendUint32(dst, h.Uncompressed)
	dst = le.AppendUint32(dst, h.PayloadLen)
	for _, n := range h.Lost {
		dst = le.AppendUint64(dst, n)
	}
	dst = le.AppendUint64(dst, h.Before)
	dst = le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	dst = append(dst, payload...)
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// ParseHeader reads the header at the start of b and checks the header's own
// checksum, not that of the frame. n is the length of the whole frame with its
// trailer. h and n are also set when the error is ErrVersion, so that a newer
// frame can be carried without being understood.
func ParseHeader(b []byte) (h Header, n int, err error) {
	le := binary.LittleEndian
	if have := min(len(b), len(Magic)); string(b[:have]) != Magic[:have] {
		return Header{}, 0, fmt.Errorf("%w: no magic", ErrCorrupt)
	}
	if len(b) < len(Magic)+2 {
		return Header{}, 0, fmt.Errorf("%w: %d bytes of header", ErrTruncated, len(b))
	}
	size := int(le.Uint16(b[4:]))
	if size < HeaderSize || size > MaxHeader {
		return Header{}, 0, fmt.Errorf("%w: header length %d", ErrCorrupt, size)
	}
	if len(b) < size {
		return Header{}, 0, fmt.Errorf("%w: %d of %d bytes of header", ErrTruncated, len(b), size)
	}
	if crc32.Checksum(b[:size-4], castagnoli) != le.Uint32(b[size-4:]) {
		return Header{}, 0, fmt.Errorf("%w: header checksum", ErrCorrupt)
	}

	h = Header{
		Codec:        CodecID(b[7]),
		Signal:       Signal(b[8]),
		Class:        Class(b[9]),
		Lane:         le.Uint32(b[12:]),
		Items:        le.Uint32(b[16:]),
		Epoch:        Epoch(le.Uint64(b[20:])),
		Number:       le.Uint64(b[28:]),
		Floor:        le.Uint64(b[36:]),
		First:        int64(le.Uint64(b[44:])),
		Last:         int64(le.Uint64(b[52:])),
		Uncompressed: le.Uint32(b[60:]),
		PayloadLen:   le.Uint32(b[64:]),
	}
	for i := range h.Lost {
		h.Lost[i] = le.Uint64(b[68+8*i:])
	}
	h.Before = le.Uint64(b[132:])
	if h.PayloadLen > MaxPayload || h.Uncompressed > MaxUncompressed {
		return Header{}, 0, fmt.Errorf("%w: payload of %d bytes, %d uncompressed", ErrCorrupt, h.PayloadLen, h.Uncompressed)
	}
	n = size + int(h.PayloadLen) + TrailerSize
	if b[6] != Version || le.Uint16(b[10:])&flagsMustUnderstand != 0 || !h.Signal.Valid() || !h.Class.Valid() {
		err = fmt.Errorf("%w: version %d, flags %#04x, %s, %s", ErrVersion, b[6], le.Uint16(b[10:]), h.Signal, h.Class)
	}
	return h, n, err
}

// Parse reads the frame at the start of b and verifies both checksums. payload
// aliases b; n is the length of the whole frame. With ErrVersion, h, payload
// and n are set and both checksums are right.
func Parse(b []byte) (h Header, payload []byte, n int, err error) {
	h, n, err = ParseHeader(b)
	if err != nil && !errors.Is(err, ErrVersion) {
		return Header{}, nil, 0, err
	}
	if len(b) < n {
		return Header{}, nil, 0, fmt.Errorf("%w: %d of %d bytes", ErrTruncated, len(b), n)
	}
	end := n - TrailerSize
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return Header{}, nil, 0, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	return h, b[end-int(h.PayloadLen) : end : end], n, err
}
