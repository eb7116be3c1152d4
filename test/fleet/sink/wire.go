package sink

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// errWire is returned for a request that is not the protobuf message it should be.
var errWire = errors.New("not the message this address takes")

// field is one field of a protobuf message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte // of a length-delimited field
	value  uint64 // of any other
}

// walk calls each for every field of a message, in order.
func walk(message []byte, each func(field) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
		}
		message = message[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			f.value, n = protowire.ConsumeFixed64(message)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(message)
			f.value = uint64(v)
		default:
			return fmt.Errorf("%w: field %d is of type %d", errWire, number, kind)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", errWire, number, protowire.ParseError(n))
		}
		message = message[n:]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// isMessage says whether a field is the length-delimited one of that number.
func (f *field) isMessage(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.BytesType
}

// only calls each for the length-delimited fields of one number. Fields may come
// in any order: what others need to be understood is looked for first.
func only(message []byte, number protowire.Number, each func([]byte) error) error {
	return walk(message, func(f field) error {
		if f.isMessage(number) {
			return each(f.bytes)
		}
		return nil
	})
}
