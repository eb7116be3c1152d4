package otlpwire

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"google.golang.org/protobuf/encoding/protowire"
)

// logBytes is a request with one record, whose body is value.
func logBytes(t testing.TB, value pcommon.Value) []byte {
	logs := plog.NewLogs()
	value.CopyTo(logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body())
	request, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	require.NoError(t, err)
	return request
}

// within follows nested messages by their field numbers.
func within(t testing.TB, message []byte, path ...int32) []byte {
	for _, number := range path {
		r := Read(message)
		found := false
		for r.Next() {
			if r.Number == number {
				message, found = r.Bytes(), true
				break
			}
		}
		require.NoError(t, r.Err())
		require.True(t, found)
	}
	return message
}

func values() map[string]pcommon.Value {
	list := pcommon.NewValueSlice()
	list.Slice().AppendEmpty().SetStr("a<b")
	list.Slice().AppendEmpty().SetInt(-1)
	nested := pcommon.NewValueMap()
	nested.Map().PutStr("a", "b")
	nested.Map().PutEmptyMap("c").PutBool("d", true)
	some := pcommon.NewValueBytes()
	some.Bytes().Append(0, 1, 255)
	return map[string]pcommon.Value{
		"none": pcommon.NewValueEmpty(), "text": pcommon.NewValueStr("Grüße\x00"), "no text": pcommon.NewValueStr(""),
		"yes": pcommon.NewValueBool(true), "no": pcommon.NewValueBool(false),
		"int": pcommon.NewValueInt(1 << 62), "negative": pcommon.NewValueInt(-5), "double": pcommon.NewValueDouble(1.5e-9),
		"list": list, "map": nested, "bytes": some,
	}
}

func TestValuesReadAsPdataHasThem(t *testing.T) {
	for name, want := range values() {
		t.Run(name, func(t *testing.T) {
			got, err := ReadValue(within(t, logBytes(t, want), 1, 2, 2, 5))
			require.NoError(t, err)
			require.Equal(t, want.Type(), got.Type)
			require.Equal(t, want.AsString(), got.Text())
			require.Equal(t, want.AsRaw(), got.Pdata().AsRaw())
			again, err := ReadValue(got.AppendValue(nil))
			require.NoError(t, err)
			require.Equal(t, want.AsRaw(), again.Pdata().AsRaw())
			m, ok := got.Map()
			require.Equal(t, want.Type() == pcommon.ValueTypeMap, ok)
			if ok {
				require.Equal(t, want.Map().AsRaw(), m.AsRaw())
			}
		})
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	request := logBytes(t, pcommon.NewValueStr("a line"))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for r := Read(request); r.Next(); {
			for q := Read(r.Bytes()); q.Next(); {
				_ = q.Bytes()
			}
		}
	}))
}

func field(number protowire.Number, messages ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(messages, nil))
}

func TestAnAttributeIsReadInWhateverFormItComes(t *testing.T) {
	key, value := field(1, []byte("key")), field(2, field(1, []byte("value")))
	long := strings.Repeat("x", 200)
	number := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 7)
	for name, c := range map[string]struct {
		message   []byte
		key, text string
	}{
		"key first":         {slices.Concat(key, value), "key", "value"},
		"value first":       {slices.Concat(value, key), "key", "value"},
		"long key":          {slices.Concat(field(1, []byte(long)), value), long, "value"},
		"long value":        {slices.Concat(key, field(2, field(1, []byte(long)))), "key", long},
		"no key":            {value, "", "value"},
		"no value":          {key, "key", ""},
		"nothing":           {nil, "", ""},
		"with other fields": {slices.Concat(key, number, field(99, key), value), "key", "value"},
		"twice":             {slices.Concat(field(1, []byte("old")), field(2, number), key, value), "key", "value"},
		"then empty":        {slices.Concat(value, key, field(2), field(2)), "key", "value"},
	} {
		t.Run(name, func(t *testing.T) {
			whole := bytes.Clone(c.message)
			a, err := ReadAttribute(c.message[:len(c.message):len(c.message)])
			require.NoError(t, err)
			require.Equal(t, c.key, a.Key)
			require.Equal(t, c.text, a.Value.Text())
			require.Equal(t, whole, c.message)
		})
	}
}

func TestWhatIsMalformedWithinAValueIsAnError(t *testing.T) {
	number := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	deep := func(levels int) []byte {
		value := field(1, []byte("x"))
		for range levels {
			value = field(5, field(1, value))
		}
		return value
	}
	_, err := ReadValue(deep(maxDepth - 1))
	require.NoError(t, err)
	for name, message := range map[string][]byte{
		"in a list":           field(5, field(1, number)),
		"cut short in a list": field(5, []byte{0x0a, 0x05}),
		"a key of a map":      field(6, field(1, number)),
		"a value of a map":    field(6, field(1, field(1, []byte("k")), field(2, number))),
		"in a list in a map":  field(6, field(1, field(2, field(5, field(1, number))))),
		"a value of numbers":  number,
		"nested too deep":     deep(maxDepth),
	} {
		_, err := ReadValue(message)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

// walk reads a message as deep as it goes: every field of type bytes may be one.
func walk(message []byte, depth int) {
	r := Read(message)
	for r.Next() {
		_, _ = ReadAttribute(r.bytes)
		if v, err := ReadValue(r.bytes); err == nil {
			_ = v.Text()
		}
		if depth > 0 {
			walk(r.bytes, depth-1)
		}
	}
}

// FuzzReader: no bytes make it panic, and a value that pdata reads too is the same.
func FuzzReader(f *testing.F) {
	for _, value := range values() {
		f.Add(logBytes(f, value))
		f.Add(within(f, logBytes(f, value), 1, 2, 2, 5))
	}
	f.Add([]byte{0x0b, 0x0c})                   // a group
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff}) // a tag without end
	f.Fuzz(func(t *testing.T, message []byte) {
		walk(message, 5)
		mine, err := ReadValue(message)
		theirs, theirErr := unmarshalValue(message)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NoError(t, theirErr)
		require.Equal(t, theirs.AsString(), mine.Text())
	})
}
