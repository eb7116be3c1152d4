package frame

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// CodecID names how a payload encodes its OTLP bytes. Its numbers are part of
// the format.
type CodecID uint8

// OTLPZstd is an OTLP export request as protobuf, in one zstd frame.
const OTLPZstd CodecID = 1

func (c CodecID) String() string {
	if c == OTLPZstd {
		return "otlp+zstd"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ErrCodec means the payload is encoded in a way this longhaul does not know.
var ErrCodec = errors.New("unknown codec")

// Codec turns OTLP protobuf bytes into a payload and back, exactly. It is safe
// for concurrent use.
type Codec interface {
	ID() CodecID
	// Encode appends the payload of otlp to dst.
	Encode(dst, otlp []byte) ([]byte, error)
	// Decode appends the OTLP bytes of payload to dst. uncompressed is what
	// the header says they measure; Decode fails when they do not, and
	// allocates no more than that whatever the payload says of itself.
	Decode(dst, payload []byte, uncompressed int) ([]byte, error)
}

// CodecByID returns the codec for what stands in a header, or ErrCodec.
func CodecByID(id CodecID) (Codec, error) {
	if id == OTLPZstd {
		return otlpZstd{defaultEncoder}, nil
	}
	return nil, fmt.Errorf("%w %d", ErrCodec, uint8(id))
}

// CodecFor returns the codec to write a signal's frames with. zstd's fastest level
// takes a third less time than its default and makes logs 3 % smaller (short
// matches cost more than they bring), traces 1 % and metrics 4 % larger: of
// metrics a node has so few that the time does not matter.
func CodecFor(signal Signal) Codec {
	if signal == Metrics {
		return otlpZstd{defaultEncoder}
	}
	return otlpZstd{fastestEncoder}
}

// otlpZstd is zstd at the level of its encoder. Encoders and the decoder are made
// at the first use: an edge never decodes, a relay never encodes. They hold a
// bounded number of workers and queue callers beyond that.
type otlpZstd struct {
	encoder func() (*zstd.Encoder, error)
}

// zstdWindow bounds the encoder's history. Frames are 1 MiB of OTLP by
// default; a larger window costs memory at both ends and gains nothing.
const zstdWindow = 1 << 20

var (
	defaultEncoder = sync.OnceValues(func() (*zstd.Encoder, error) { return newEncoder(zstd.SpeedDefault) })
	fastestEncoder = sync.OnceValues(func() (*zstd.Encoder, error) { return newEncoder(zstd.SpeedFastest) })
)

func newEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(min(4, runtime.GOMAXPROCS(0))),
		zstd.WithEncoderCRC(false), // the frame has a checksum of its own
		zstd.WithWindowSize(zstdWindow),
		zstd.WithLowerEncoderMem(true))
}

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxUncompressed),
		zstd.WithDecodeAllCapLimit(true))
})

func (otlpZstd) ID() CodecID { return OTLPZstd }

func (z otlpZstd) Encode(dst, otlp []byte) ([]byte, error) {
	if len(otlp) > MaxUncompressed {
		return dst, fmt.Errorf("encode %d bytes: %w (limit %d)", len(otlp), ErrTooLarge, MaxUncompressed)
	}
	encoder, err := z.encoder()
	if err != nil {
		return dst, fmt.Errorf("start zstd encoder: %w", err)
	}
	start := len(dst)
	dst = encoder.EncodeAll(otlp, dst)
	if n := len(dst) - start; n > MaxPayload {
		return dst[:start], fmt.Errorf("payload of %d bytes: %w (limit %d)", n, ErrTooLarge, MaxPayload)
	}
	return dst, nil
}

// zstdMaxBlock is the most one zstd block decodes to, and zstdMinBlock the
// fewest bytes such a block takes: three of header, one of content.
const (
	zstdMaxBlock = 128 << 10
	zstdMinBlock = 4
)

func (otlpZstd) Decode(dst, payload []byte, uncompressed int) ([]byte, error) {
	if uncompressed < 0 || uncompressed > MaxUncompressed || len(payload) > MaxPayload {
		return dst, fmt.Errorf("%w: payload of %d bytes, %d uncompressed", ErrCorrupt, len(payload), uncompressed)
	}
	if int64(uncompressed) > int64(len(payload)/zstdMinBlock)*zstdMaxBlock {
		return dst, fmt.Errorf("%w: %d bytes cannot hold %d", ErrCorrupt, len(payload), uncompressed)
	}
	decoder, err := zstdDecoder()
	if err != nil {
		return dst, fmt.Errorf("start zstd decoder: %w", err)
	}
	// The decoder stops at the capacity of what it is given, so the capacity
	// is exactly what the header announced.
	start := len(dst)
	if cap(dst)-start < uncompressed {
		grown := make([]byte, start, start+uncompressed)
		copy(grown, dst)
		dst = grown
	}
	out, err := decoder.DecodeAll(payload, dst[:start:start+uncompressed])
	if err != nil {
		return dst[:start], fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if n := len(out) - start; n != uncompressed {
		return dst[:start], fmt.Errorf("%w: payload decodes to %d bytes, header says %d", ErrCorrupt, n, uncompressed)
	}
	return out, nil
}
