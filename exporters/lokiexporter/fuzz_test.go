package lokiexporter

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// FuzzConsumeOTLP: whatever a request's bytes are, they are refused as undecodable or
// become what pdata's objects of them would. What pdata itself writes is not refused,
// what it cannot read is.
func FuzzConsumeOTLP(f *testing.F) {
	for _, one := range requests() {
		f.Add(one.bytes)
	}
	translator := testTranslator()
	f.Fuzz(func(t *testing.T, request []byte) {
		origin := &direct.Piece{Cluster: "store-0001", Node: "node-a"}
		original := bytes.Clone(request)
		b := newBatch()
		_, err := translator.translate([]input{{nil, origin}, {request, origin}}, func(string) *share {
			return &share{tenant: &tenantState{}, batch: b, late: noneLate}
		})
		require.Equal(t, original, request, "the bytes are not changed")
		logs, bad := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(request)
		if err != nil {
			var undecodable *direct.UndecodableError
			require.True(t, errors.As(err, &undecodable), "%v", err)
			require.Equal(t, 1, undecodable.Piece)
			require.True(t, bad != nil || !bytes.Equal(request, marshal(logs)) || deep(request), "pdata wrote that: %v", err)
			return
		}
		require.NoError(t, bad, "pdata cannot read that")
		requireSameWays(t, translator, request, logs, origin)
	})
}

// deep says whether bytes may be a value that is nested deeper than is read.
func deep(request []byte) bool { return len(request) > 4000 }

func TestMalformedRequestsAreUndecodable(t *testing.T) {
	for name, one := range requests() {
		t.Run(name, func(t *testing.T) {
			translator, b := testTranslator(), newBatch()
			_, err := translator.translate([]input{{one.bytes, &direct.Piece{}}}, func(string) *share {
				return &share{tenant: &tenantState{}, batch: b, late: noneLate}
			})
			require.Equal(t, one.bad, err != nil, "%v", err)
			require.True(t, err == nil || errors.Is(err, otlpwire.ErrMalformed), "%v", err)
		})
	}
}

// anyRequest is a request, well or badly made.
type anyRequest struct {
	bytes []byte
	bad   bool
}

// requests are requests of many kinds.
func requests() map[string]anyRequest {
	good, bad := make(map[string][]byte), make(map[string][]byte)
	fillRequests(good, bad)
	all := make(map[string]anyRequest)
	for name, request := range good {
		all[name] = anyRequest{request, false}
	}
	for name, request := range bad {
		all[name] = anyRequest{request, true}
	}
	return all
}

func fillRequests(good, bad map[string][]byte) {
	logs := plog.NewLogs()
	good["nothing"] = marshal(logs)
	scope := addLogs(logs, map[string]any{
		"k8s.cluster.name": "not true", "k8s.node.name": "nor this", "service.name": "shop", "k8s.container.name": "c", "http": map[string]any{"method": "GET"}, "list": []any{1, "x"},
		"k8s.container.restart_count": 0,
	})
	good["no records"] = marshal(logs)
	record := addRecord(scope, noon, "line")
	record.Attributes().PutStr("log.iostream", "stdout")
	good["a record"] = marshal(logs)
	record.SetTraceID(pcommon.TraceID{1})
	record.SetSpanID(pcommon.SpanID{2})
	record.SetSeverityNumber(plog.SeverityNumberError)
	record.SetSeverityText("ERROR")
	record.SetEventName("event")
	record.SetFlags(1)
	record.SetDroppedAttributesCount(3)
	record.SetObservedTimestamp(pcommon.NewTimestampFromTime(noon.Add(time.Second)))
	record.Attributes().PutEmptyMap("deep").PutEmptyMap("er").PutEmptySlice("list").AppendEmpty().SetDouble(1.5)
	record.Attributes().PutEmptyBytes("bytes").Append(0, 1)
	record.Attributes().PutBool("bool", true)
	scope.Scope().SetName("scope")
	scope.Scope().SetVersion("1")
	scope.Scope().Attributes().PutInt("n", -1)
	addRecord(scope, noon, "").Body().SetEmptyMap().PutStr("a", "b")
	addRecord(addLogs(logs, nil), noon, "of another resource")
	good["all there is"] = marshal(logs)
	bad["cut short"] = marshal(logs)[:100]

	field := func(number protowire.Number, messages ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(messages, nil))
	}
	number := func(field protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), 1)
	}
	text := func(number protowire.Number, text string) []byte { return field(number, []byte(text)) }
	of := func(record ...[]byte) []byte { return field(1, field(2, field(2, record...))) }
	body := func(text string) []byte { return field(5, field(1, []byte(text))) }
	attribute := field(6, text(1, "a"), field(2, text(1, "b")))
	good["records before their scope, before its resource"] = field(1, field(2, field(2, body("x")), field(1, text(1, "scope"))), field(1, field(1, text(1, "service.name"), field(2, text(1, "shop")))))
	pair := func(key, value string) []byte { return field(1, text(1, key), field(2, text(1, value))) }
	good["fields twice"] = field(1, field(1, pair("a", "b")), field(1, pair("a", "c")),
		field(2, field(1, text(1, "scope")), field(2, body("x"), body("y"), field(5)), field(1, text(2, "1"))))
	good["two of a name"] = field(1, field(1, pair("service.name", "shop"), pair("service.name", "\xff")), field(2, field(2, body("x"))))
	good["a key and value twice"] = of(body("x"), field(6, text(1, "a"), text(1, "b"), field(2, text(1, "x")), field(2, number(3)), field(2)))
	good["unknown fields"] = field(9, of(body("x")), of(body("x"), text(77, "y"), attribute))
	bad["logs of old"] = field(1, field(1000, field(2, body("x"))))
	bad["a trace id of 3 bytes"] = of(body("x"), text(9, "abc"))
	bad["a body that is a number"] = of(number(5))
	bad["an attribute cut short"] = of(body("x"), field(6, attribute[:len(attribute)-1]))
	bad["an entity of a number"] = field(1, field(1, field(3, number(1))))
	bad["a list with something in it that is none"] = of(field(5, field(5, field(1, []byte{0x0a, 0x7f}))))
	bad["a group"] = of([]byte{0x0b, 0x0c})
	nested := text(1, "x")
	for range 1100 {
		nested = field(5, field(1, nested))
	}
	bad["nested very deep"] = of(field(5, nested))
}
