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
	r := Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			a.Key = r.Text()
		case 2:
			if a.Value, err = ReadValue(r.Bytes()); err != nil {
				return a, err
			}
		}
	}
	return a, r.Err()
}

// ReadValue reads an AnyValue message. Of maps and slices only the frame is checked
// here; what is malformed within them is an empty value when it is asked for.
func ReadValue(message []byte) (v Value, err error) {
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
			r.Bytes()
			v = Value{Type: pcommon.ValueTypeSlice, whole: message}
		case 6:
			r.Bytes()
			v = Value{Type: pcommon.ValueTypeMap, whole: message}
		case 7:
			r.Bytes()
			v = Value{Type: pcommon.ValueTypeBytes, whole: message}
		case 8: // a place in a dictionary, which only profiles have
			r.Varint()
			v = Value{}
		}
	}
	return v, r.Err()
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
