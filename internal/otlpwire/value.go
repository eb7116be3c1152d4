package otlpwire

import (
	"fmt"
	"math"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"google.golang.org/protobuf/encoding/protowire"
)

// Attribute is a KeyValue message.
type Attribute struct {
	Key   string
	Value Value
}

// Value is an AnyValue message. The zero Value is an empty one.
type Value struct {
	Type   pcommon.ValueType
	text   string // of a string
	number uint64 // of a bool, int or double
	whole  []byte // the message, of bytes, maps and slices
}

// TextValue is a string as a value.
func TextValue(text string) Value { return Value{Type: pcommon.ValueTypeStr, text: text} }

// ReadAttribute reads a KeyValue message.
func ReadAttribute(message []byte) (a Attribute, err error) {
	if key, value, ok := pairOf(message); ok {
		a.Key = Text(key)
		a.Value, err = ReadValue(value)
		return a, err
	}
	var value []byte
	r := Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			a.Key = r.Text()
		case 2:
			value = Join(value, r.Bytes())
		case 3:
			r.Varint() // the key's place in a dictionary, which only profiles have
		}
	}
	if r.Err() != nil {
		return a, r.Err()
	}
	a.Value, err = ReadValue(value)
	return a, err
}

// pairOf is the short way through a KeyValue message as senders write it: a key and a
// value, or as pdata has it, a value and a key, both of fewer than 128 bytes.
func pairOf(message []byte) (key, value []byte, ok bool) {
	if len(message) < 4 || message[1] >= 0x80 {
		return nil, nil, false
	}
	end := 2 + int(message[1])
	if len(message) < end+2 || message[end+1] >= 0x80 || int(message[end+1]) != len(message)-end-2 {
		return nil, nil, false
	}
	one, other := message[2:end:end], message[end+2:]
	switch {
	case message[0] == tagPairValue && message[end] == tagText:
		return other, one, true
	case message[0] == tagText && message[end] == tagPairValue:
		return one, other, true
	}
	return nil, nil, false
}

const (
	tagText      = 1<<3 | byte(protowire.BytesType) // of a key, and of a value that is a string
	tagPairValue = 2<<3 | byte(protowire.BytesType)
	// maxDepth is how deep values may be nested: reading deeper ones as pdata does
	// could outgrow the stack.
	maxDepth = 1000
)

// ReadValue reads an AnyValue message.
func ReadValue(message []byte) (v Value, err error) {
	if len(message) >= 2 && message[0] == tagText && message[1] < 0x80 && int(message[1]) == len(message)-2 {
		return TextValue(Text(message[2:])), nil
	}
	return readValue(message, maxDepth)
}

func readValue(message []byte, depth int) (v Value, err error) {
	r := Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			v = TextValue(r.Text())
		case 2:
			v = Value{Type: pcommon.ValueTypeBool, number: r.Varint()}
		case 3:
			v = Value{Type: pcommon.ValueTypeInt, number: r.Varint()}
		case 4:
			v = Value{Type: pcommon.ValueTypeDouble, number: r.Fixed64()}
		case 5:
			v = Value{Type: pcommon.ValueTypeSlice, whole: message}
			err = checkElements(r.Bytes(), depth-1)
		case 6:
			v = Value{Type: pcommon.ValueTypeMap, whole: message}
			err = checkPairs(r.Bytes(), depth-1)
		case 7:
			r.Bytes()
			v = Value{Type: pcommon.ValueTypeBytes, whole: message}
		case 8: // a place in a dictionary, which only profiles have
			r.Varint()
			v = Value{}
		}
		if err != nil {
			return v, err
		}
	}
	return v, r.Err()
}

// checkElements looks for what pdata would not read in an ArrayValue message.
func checkElements(message []byte, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: value: nested deeper than %d", ErrMalformed, maxDepth)
	}
	r := Read(message)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		if _, err := readValue(r.Bytes(), depth); err != nil {
			return err
		}
	}
	return r.Err()
}

// checkPairs does the same in a KeyValueList message.
func checkPairs(message []byte, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: value: nested deeper than %d", ErrMalformed, maxDepth)
	}
	r := Read(message)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		q := Read(r.Bytes())
		for q.Next() {
			switch q.Number {
			case 1:
				q.Bytes()
			case 2:
				if _, err := readValue(q.Bytes(), depth); err != nil {
					return err
				}
			case 3:
				q.Varint()
			}
		}
		if q.Err() != nil {
			return q.Err()
		}
	}
	return r.Err()
}

// Join puts two messages of one kind together where a field that is there once comes
// twice: what the later one says counts, and the rest of the earlier one stands. Both
// are what Bytes returned, or earlier is what Join did.
func Join(earlier, later []byte) []byte {
	if len(earlier) == 0 {
		return later
	}
	return append(earlier, later...) // never into the message: see Next
}

// Text is the value as pcommon.Value.AsString has it: a string as it is, maps and
// slices as JSON.
func (v Value) Text() string {
	switch v.Type {
	case pcommon.ValueTypeEmpty:
		return ""
	case pcommon.ValueTypeStr:
		return v.text
	case pcommon.ValueTypeInt:
		return strconv.FormatInt(int64(v.number), 10)
	case pcommon.ValueTypeBool:
		return strconv.FormatBool(v.number != 0)
	}
	return v.Pdata().AsString()
}

// Pdata is the value as an object of its own.
func (v Value) Pdata() pcommon.Value {
	switch v.Type {
	case pcommon.ValueTypeEmpty:
		return pcommon.NewValueEmpty()
	case pcommon.ValueTypeStr:
		return pcommon.NewValueStr(v.text)
	case pcommon.ValueTypeInt:
		return pcommon.NewValueInt(int64(v.number))
	case pcommon.ValueTypeBool:
		return pcommon.NewValueBool(v.number != 0)
	case pcommon.ValueTypeDouble:
		return pcommon.NewValueDouble(math.Float64frombits(v.number))
	}
	value, err := unmarshalValue(v.whole)
	if err != nil {
		return pcommon.NewValueEmpty()
	}
	return value
}

// Map is the value as a map; ok is false when it is none.
func (v Value) Map() (m pcommon.Map, ok bool) {
	if v.Type != pcommon.ValueTypeMap {
		return m, false
	}
	value := v.Pdata()
	if value.Type() != pcommon.ValueTypeMap {
		return m, false
	}
	return value.Map(), true
}

// unmarshalValue has pdata read an AnyValue message, as the body of a log record,
// which is the way its public functions give.
func unmarshalValue(message []byte) (pcommon.Value, error) {
	const body, logRecords, scopeLogs, resourceLogs = 5, 2, 2, 1
	request := message
	for _, field := range []protowire.Number{body, logRecords, scopeLogs, resourceLogs} {
		request = protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), request)
	}
	logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(request)
	if err != nil {
		return pcommon.Value{}, fmt.Errorf("%w: value: %w", ErrMalformed, err)
	}
	return logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body(), nil
}

// AppendValue appends the value as an AnyValue message, without tag and length.
func (v Value) AppendValue(message []byte) []byte {
	switch v.Type {
	case pcommon.ValueTypeEmpty:
		return message
	case pcommon.ValueTypeStr:
		return protowire.AppendString(protowire.AppendTag(message, 1, protowire.BytesType), v.text)
	case pcommon.ValueTypeBool:
		return protowire.AppendVarint(protowire.AppendTag(message, 2, protowire.VarintType), v.number)
	case pcommon.ValueTypeInt:
		return protowire.AppendVarint(protowire.AppendTag(message, 3, protowire.VarintType), v.number)
	case pcommon.ValueTypeDouble:
		return protowire.AppendFixed64(protowire.AppendTag(message, 4, protowire.Fixed64Type), v.number)
	}
	return append(message, v.whole...)
}
