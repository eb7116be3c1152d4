// Package otlpwire reads OTLP export requests where they lie: in the protobuf bytes
// that a frame carries, without making objects of them. Nothing is copied or
// allocated; what is read points into the bytes.
//
// It knows the encoding (protobuf's), and of OTLP what all signals share: attributes
// and their values. Which field has which number stands in OTLP's own definitions,
// opentelemetry/proto/{logs,metrics,trace,common,resource}/v1.
//
// What OTLP's senders write is read as pdata's unmarshalers read it: a field of a
// wrong wire type or a length beyond the end is an error, a field that is not known is
// passed over, and of a field that comes twice the last counts (of a message: Join).
// Where OTLP says that a text is UTF-8, neither checks it. Stricter than pdata: groups,
// which no message of OTLP has, numbers of more than 64 bits and values that are nested
// a thousand deep are errors.
package otlpwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed is wrapped by every error about bytes that are no protobuf message, or
// not of the expected kind.
var ErrMalformed = errors.New("malformed OTLP")

var errKind = errors.New("a group, or of no wire type there is")

// Reader goes through the fields of one message, in their order.
//
//	r := otlpwire.Read(message)
//	for r.Next() {
//		switch r.Number {
//		case 1:
//			name = r.Text()
//		}
//	}
//	return r.Err()
type Reader struct {
	Number int32 // of the field

	kind   protowire.Type
	bytes  []byte // of a field of type bytes
	number uint64 // of any other

	rest []byte
	err  error
}

// Read begins a message.
func Read(message []byte) Reader { return Reader{rest: message} }

// Next goes to the next field. It returns false at the end and after an error.
func (r *Reader) Next() bool {
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	rest, ok := r.rest, true
	tag := uint64(rest[0])
	if rest = rest[1:]; tag >= 0x80 { // rarely
		if tag, rest, ok = r.varint(r.rest); !ok {
			return false
		}
	}
	r.Number, r.kind = int32(tag>>3), protowire.Type(tag&7)
	if r.Number <= 0 {
		return r.malformed("illegal field %d", r.Number)
	}
	switch r.kind {
	case protowire.BytesType:
		var length uint64
		if len(rest) > 0 && rest[0] < 0x80 {
			length, rest = uint64(rest[0]), rest[1:]
		} else if length, rest, ok = r.varint(rest); !ok {
			return false
		}
		if length > uint64(len(rest)) {
			return r.malformed("field %d has a length of %d where %d bytes are left", r.Number, length, len(rest))
		}
		r.bytes, r.rest = rest[:length:length], rest[length:]
		return true
	case protowire.VarintType:
		r.number, r.rest, ok = r.varint(rest)
		return ok
	case protowire.Fixed64Type:
		if len(rest) < 8 {
			return r.malformed("field %d is cut short", r.Number)
		}
		r.number, r.rest = binary.LittleEndian.Uint64(rest), rest[8:]
		return true
	case protowire.Fixed32Type:
		if len(rest) < 4 {
			return r.malformed("field %d is cut short", r.Number)
		}
		r.number, r.rest = uint64(binary.LittleEndian.Uint32(rest)), rest[4:]
		return true
	}
	return r.malformed("field %d: %w", r.Number, errKind)
}

// varint reads a number at the beginning of b and returns what is behind it.
func (r *Reader) varint(b []byte) (number uint64, rest []byte, ok bool) {
	switch {
	case len(b) > 0 && b[0] < 0x80:
		return uint64(b[0]), b[1:], true
	case len(b) > 1 && b[1] < 0x80:
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, b[2:], true
	}
	number, size := protowire.ConsumeVarint(b)
	if size < 0 {
		return 0, nil, r.malformed("number: %w", protowire.ParseError(size))
	}
	return number, b[size:], true
}

func (r *Reader) malformed(format string, args ...any) bool {
	r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	return false
}

// Err is why Next returned false; nil at the end of the message.
func (r *Reader) Err() error { return r.err }

// Left is how many bytes of the message are behind the field: a message of n bytes
// goes on at n-Left().
func (r *Reader) Left() int { return len(r.rest) }

// expect reports a field of another wire type than OTLP has for it.
func (r *Reader) expect(kind protowire.Type) bool {
	return r.kind == kind || r.malformed("field %d has wire type %d, not %d", r.Number, r.kind, kind)
}

// Bytes returns the field's bytes: those of a nested message, or of a field of type
// bytes. They are part of the message.
func (r *Reader) Bytes() []byte {
	if !r.expect(protowire.BytesType) {
		return nil
	}
	return r.bytes
}

// Text returns the field's text, which is part of the message: it changes with it.
func (r *Reader) Text() string { return Text(r.Bytes()) }

// Varint returns the field's number as OTLP writes enums, flags, counts and booleans.
func (r *Reader) Varint() uint64 {
	if !r.expect(protowire.VarintType) {
		return 0
	}
	return r.number
}

// Fixed64 returns the field's number as OTLP writes times, counts and doubles.
func (r *Reader) Fixed64() uint64 {
	if !r.expect(protowire.Fixed64Type) {
		return 0
	}
	return r.number
}

// Fixed32 returns the field's number as OTLP writes flags.
func (r *Reader) Fixed32() uint32 {
	if !r.expect(protowire.Fixed32Type) {
		return 0
	}
	return uint32(r.number)
}

// Text is b as a string that shares its bytes: for bytes that do not change as long
// as the string is in use.
func Text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
