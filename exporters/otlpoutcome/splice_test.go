package otlpoutcome

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// recorded returns the requests of the end-to-end tests' recording of HotROD.
func recorded(t testing.TB) (requests [][]byte) {
	t.Helper()
	packed, err := os.ReadFile("../../test/e2e/testdata/traces/hotrod.otlp.zst")
	require.NoError(t, err)
	decoder, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer decoder.Close()
	all, err := decoder.DecodeAll(packed, nil)
	require.NoError(t, err)
	for len(all) > 0 {
		size := binary.LittleEndian.Uint32(all)
		requests = append(requests, all[4:4+size])
		all = all[4+size:]
	}
	require.NotEmpty(t, requests)
	return requests
}

// pieces are requests of several origins, some left behind by an outage.
func pieces(requests [][]byte) []direct.Piece {
	all := make([]direct.Piece, len(requests))
	for i, r := range requests {
		all[i] = direct.Piece{OTLP: r, Cluster: "c", Node: fmt.Sprintf("n%d", i%3), Backlog: i%2 == 1}
	}
	return all
}

// stamp writes the origin as the receiver does where requests go by pdata.
func stamp(p *direct.Piece, resource pcommon.Resource) {
	resource.Attributes().RemoveIf(func(key string, _ pcommon.Value) bool {
		return key == direct.ClusterAttribute || key == direct.NodeAttribute || key == direct.LaneAttribute
	})
	resource.Attributes().PutStr(direct.ClusterAttribute, p.Cluster)
	resource.Attributes().PutStr(direct.NodeAttribute, p.Node)
	if p.Backlog {
		resource.Attributes().PutStr(direct.LaneAttribute, "backlog")
	}
}

func readTraces(request []byte) (ptrace.Traces, error) {
	return (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(request)
}

// byPdata is what arrives when pieces go by pdata.
func byPdata(t testing.TB, pieces []direct.Piece) ptrace.Traces {
	t.Helper()
	all := ptrace.NewTraces()
	for i := range pieces {
		one, err := readTraces(pieces[i].OTLP)
		require.NoError(t, err)
		for _, r := range one.ResourceSpans().All() {
			stamp(&pieces[i], r.Resource())
		}
		one.ResourceSpans().MoveAndAppendTo(all.ResourceSpans())
	}
	return all
}

// merged is the data of several requests.
func merged(all []ptrace.Traces) ptrace.Traces {
	one := ptrace.NewTraces()
	for _, td := range all {
		td.ResourceSpans().MoveAndAppendTo(one.ResourceSpans())
	}
	return one
}

func marshal(t testing.TB, td ptrace.Traces) []byte {
	t.Helper()
	b, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
	require.NoError(t, err)
	return b
}

// spansOf is each span with its resource and scope.
func spansOf(t testing.TB, td ptrace.Traces) (all []string) {
	t.Helper()
	for _, r := range td.ResourceSpans().All() {
		for _, s := range r.ScopeSpans().All() {
			for _, span := range s.Spans().All() {
				one := ptrace.NewTraces()
				toResource := one.ResourceSpans().AppendEmpty()
				r.Resource().CopyTo(toResource.Resource())
				toResource.SetSchemaUrl(r.SchemaUrl())
				toScope := toResource.ScopeSpans().AppendEmpty()
				s.Scope().CopyTo(toScope.Scope())
				toScope.SetSchemaUrl(s.SchemaUrl())
				span.CopyTo(toScope.Spans().AppendEmpty())
				all = append(all, string(marshal(t, one)))
			}
		}
	}
	return all
}

func unanswered(int, int) bool { return false }

// packed makes requests and checks what they say of themselves.
func packed(t testing.TB, of *signal, pieces []direct.Piece, limit int) (bodies [][]byte, err error) {
	t.Helper()
	requests, err := pack(of, pieces, limit, unanswered)
	for _, r := range requests {
		body := r.body.list.Materialize()
		require.Len(t, body, r.body.size)
		bodies = append(bodies, body)
	}
	return bodies, err
}

// field is a field of a message, and of some the bytes of it.
type field struct {
	number protowire.Number
	raw    string
	bytes  []byte
}

func fieldsOf(t require.TestingT, message []byte) (all []field) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		require.Positive(t, tag)
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		require.GreaterOrEqual(t, size, 0)
		one := field{number: number, raw: string(message[:tag+size])}
		if kind == protowire.BytesType {
			one.bytes, _ = protowire.ConsumeBytes(message[tag:])
		}
		all, message = append(all, one), message[tag+size:]
	}
	return all
}

// described is a request field by field: of each message of resources its other
// fields, and the fields of its Resource, all as they are encoded.
func described(t require.TestingT, request []byte, origin *direct.Piece) (all [][2][]string) {
	for _, top := range fieldsOf(t, request) {
		if top.number != requestResources {
			continue
		}
		var one [2][]string
		for _, f := range fieldsOf(t, top.bytes) {
			if f.number != resourcesResource {
				one[0] = append(one[0], f.raw)
				continue
			}
			for _, in := range fieldsOf(t, f.bytes) {
				if in.number == resourceAttributes && origin != nil {
					a, err := otlpwire.ReadAttribute(in.bytes)
					require.NoError(t, err)
					if a.Key == direct.ClusterAttribute || a.Key == direct.NodeAttribute || a.Key == direct.LaneAttribute {
						continue
					}
				}
				one[1] = append(one[1], in.raw)
			}
		}
		if origin != nil {
			for _, stamp := range [][2]string{{direct.ClusterAttribute, origin.Cluster}, {direct.NodeAttribute, origin.Node}, {direct.LaneAttribute, "backlog"}} {
				if stamp[0] != direct.LaneAttribute || origin.Backlog {
					one[1] = append(one[1], string(nested(resourceAttributes, append(nested(1, []byte(stamp[0])), nested(2, nested(1, []byte(stamp[1])))...))))
				}
			}
		}
		all = append(all, one)
	}
	return all
}

// message draws the fields of a message in any order, with some that nobody knows.
func message(t *rapid.T, known ...[]byte) []byte {
	for range rapid.IntRange(0, 2).Draw(t, "unknown") {
		number := protowire.Number(rapid.IntRange(2000, 2005).Draw(t, "number"))
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			known = append(known, protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), rapid.Uint64().Draw(t, "varint")))
		case 1:
			known = append(known, protowire.AppendFixed32(protowire.AppendTag(nil, number, protowire.Fixed32Type), rapid.Uint32().Draw(t, "fixed32")))
		case 2:
			known = append(known, protowire.AppendFixed64(protowire.AppendTag(nil, number, protowire.Fixed64Type), rapid.Uint64().Draw(t, "fixed64")))
		default:
			known = append(known, nested(number, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")))
		}
	}
	return slices.Concat(rapid.Permutation(known).Draw(t, "order")...)
}

func nested(number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

func several(t *rapid.T, most int, label string, one func() []byte) (all [][]byte) {
	for range rapid.IntRange(0, most).Draw(t, label) {
		all = append(all, one())
	}
	return all
}

// drawRequest draws a request of traces with what senders may write and what none does.
func drawRequest(t *rapid.T) []byte {
	attribute := func() []byte {
		key := rapid.SampledFrom([]string{"a", "service.name", "", direct.ClusterAttribute, direct.NodeAttribute, direct.LaneAttribute}).Draw(t, "key")
		value := nested(1, []byte(rapid.StringN(0, 20, -1).Draw(t, "value")))
		return message(t, nested(1, []byte(key)), nested(2, value))
	}
	span := func() []byte {
		return nested(scopesItems, message(t, nested(1, make([]byte, 16)), nested(5, []byte(rapid.StringN(0, 40, -1).Draw(t, "name"))), nested(9, attribute())))
	}
	scope := func() []byte {
		return nested(resourcesScopes, message(t, append(several(t, 4, "spans", span), nested(1, nested(1, []byte("scope"))), nested(3, []byte("schema")))...))
	}
	resource := func() []byte {
		fields := several(t, 5, "attributes", func() []byte { return nested(resourceAttributes, attribute()) })
		fields = append(fields, protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 7), nested(3, nested(2, []byte("entity"))))
		return nested(resourcesResource, message(t, fields...))
	}
	one := func() []byte {
		fields := append(several(t, 2, "resources", resource), several(t, 3, "scopes", scope)...)
		return nested(requestResources, message(t, append(fields, nested(3, []byte("https://schema")))...))
	}
	return slices.Concat(several(t, 4, "messages", one)...)
}

func drawPieces(t *rapid.T) []direct.Piece {
	all := make([]direct.Piece, rapid.IntRange(1, 4).Draw(t, "pieces"))
	for i := range all {
		all[i] = direct.Piece{
			OTLP: drawRequest(t), Cluster: rapid.SampledFrom([]string{"", "c", "Läden"}).Draw(t, "cluster"),
			Node: rapid.StringN(0, 200, -1).Draw(t, "node"), Backlog: rapid.Bool().Draw(t, "backlog"),
		}
	}
	return all
}

func TestNothingChangesButTheOrigin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := drawPieces(rt)
		bodies, err := packed(t, tracesSignal, all, maxRequestBytes)
		require.NoError(t, err)
		var want, got [][2][]string
		for i := range all {
			want = append(want, described(t, all[i].OTLP, &all[i])...)
		}
		for _, body := range bodies {
			got = append(got, described(t, body, nil)...)
		}
		require.Equal(t, want, got)
	})
}

func TestWhatIsCutKeepsEverySpan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := drawPieces(rt)
		limit := rapid.IntRange(1, 3000).Draw(rt, "limit")
		bodies, err := packed(t, tracesSignal, all, limit)
		require.NoError(t, err)
		var got []ptrace.Traces
		for _, body := range bodies {
			td, err := readTraces(body)
			require.NoError(t, err)
			require.True(t, len(body) <= limit || td.SpanCount() <= 1, "%d bytes, %d spans", len(body), td.SpanCount())
			got = append(got, td)
		}
		require.Equal(t, spansOf(t, byPdata(t, all)), spansOf(t, merged(got)))
	})
}

func TestOnlyAPieceLargerThanARequestIsCut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := drawPieces(rt)
		limit := rapid.IntRange(1, 3000).Draw(rt, "limit")
		requests, err := pack(tracesSignal, all, limit, unanswered)
		require.NoError(t, err)
		seen := make(map[int]int)
		for _, r := range requests {
			for _, piece := range r.pieces {
				require.Equal(t, r.part, wholePiece+seen[piece]+min(1, r.part+1), "the parts of a piece are numbered")
				seen[piece]++
			}
			require.True(t, r.part == wholePiece || len(r.pieces) == 1)
		}
		for i := range all {
			alone, err := pack(tracesSignal, all[i:i+1], limit, unanswered)
			require.NoError(t, err)
			require.Len(t, alone, seen[i], "how a piece is cut depends on it alone")
		}
	})
}

func logsRequest(t testing.TB) []byte {
	logs := plog.NewLogs()
	r := logs.ResourceLogs().AppendEmpty()
	r.Resource().Attributes().PutStr(direct.NodeAttribute, "another")
	for i := range 2 {
		record := r.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		record.SetTimestamp(pcommon.Timestamp(i + 1))
		record.SetObservedTimestamp(5)
		record.SetSeverityNumber(plog.SeverityNumberError)
		record.SetFlags(1)
		record.SetTraceID(pcommon.TraceID{1})
		record.SetSpanID(pcommon.SpanID{1})
		record.SetDroppedAttributesCount(3)
		record.Body().SetStr("a line")
	}
	b, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	require.NoError(t, err)
	return b
}

func metricsRequest(t testing.TB) []byte {
	md := pmetric.NewMetrics()
	list := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	gauge := list.AppendEmpty()
	gauge.SetName("g")
	gauge.Metadata().PutStr("a", "b")
	gauge.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(3)
	gauge.Gauge().DataPoints().AppendEmpty().SetDoubleValue(3)
	list.AppendEmpty().SetEmptySum().DataPoints().AppendEmpty()
	list.AppendEmpty().SetEmptyHistogram().DataPoints().AppendEmpty()
	list.AppendEmpty().SetEmptyExponentialHistogram().DataPoints().AppendEmpty()
	list.AppendEmpty().SetEmptySummary().DataPoints().AppendEmpty()
	list.AppendEmpty()
	b, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	require.NoError(t, err)
	return b
}

func TestItemsAreCountedAsUpstreamDoes(t *testing.T) {
	for _, test := range []struct {
		of      *signal
		request []byte
		items   int
	}{
		{tracesSignal, marshal(t, spans(3)), 3},
		{logsSignal, logsRequest(t), 2},
		{metricsSignal, metricsRequest(t), 6},
	} {
		for _, limit := range []int{maxRequestBytes, 10} {
			requests, err := pack(test.of, pieces([][]byte{test.request}), limit, unanswered)
			require.NoError(t, err)
			items := 0
			for _, r := range requests {
				items += r.ItemsCount()
			}
			require.Equal(t, test.items, items, "%s in requests of %d bytes", test.of.name, limit)
		}
	}
}

func TestAMalformedPieceIsNamed(t *testing.T) {
	good := marshal(t, spans(1))
	within := func(span []byte) []byte {
		return nested(requestResources, nested(resourcesScopes, nested(scopesItems, span)))
	}
	for name, bad := range map[string][]byte{
		"cut short":              good[:len(good)-1],
		"resources as a number":  {0x08, 1},
		"scopes as a number":     nested(requestResources, []byte{0x10, 1}),
		"a resource as a number": nested(requestResources, []byte{0x08, 1}),
		"a key as a number":      nested(requestResources, nested(resourcesResource, nested(resourceAttributes, []byte{0x08, 1}))),
		"a span as a number":     nested(requestResources, nested(resourcesScopes, []byte{0x10, 1})),
		"a name as a number":     within([]byte{0x28, 1}),
		"a long trace ID":        within(nested(1, make([]byte, 17))),
		"a span cut short":       within([]byte{0x0a, 16, 1}),
		"a group":                within([]byte{0x0b, 0x0c}),
	} {
		_, err := pack(tracesSignal, pieces([][]byte{good, bad, good}), maxRequestBytes, unanswered)
		var undecodable *direct.UndecodableError
		require.ErrorAs(t, err, &undecodable, name)
		require.Equal(t, 1, undecodable.Piece, name)
		require.ErrorIs(t, err, otlpwire.ErrMalformed, name)
	}
}

// FuzzSplice: no bytes make it panic; what pdata can read, it reads as before, with
// the origin put right, however small the requests are.
func FuzzSplice(f *testing.F) {
	all := recorded(f)
	slices.SortFunc(all, func(a, b []byte) int { return len(a) - len(b) })
	f.Add(all[0], 1000)
	f.Add(logsRequest(f), 10)
	f.Add(metricsRequest(f), 10)
	f.Add(nested(requestResources, nested(resourcesOldScopes, nested(scopesItems, nested(5, []byte("old"))))), 10)
	f.Fuzz(func(t *testing.T, request []byte, limit int) {
		for _, of := range []*signal{logsSignal, metricsSignal} {
			_, _ = packed(t, of, pieces([][]byte{request}), limit)
		}
		all := pieces([][]byte{request, request})
		bodies, err := packed(t, tracesSignal, all, limit)
		if _, unreadable := readTraces(request); unreadable != nil || err != nil {
			return
		}
		var got []ptrace.Traces
		for _, body := range bodies {
			td, err := readTraces(body)
			require.NoError(t, err)
			got = append(got, td)
		}
		require.Equal(t, spansOf(t, byPdata(t, all)), spansOf(t, merged(got)))
		bodies, err = packed(t, tracesSignal, all, 1<<30)
		require.NoError(t, err)
		whole, err := readTraces(bytes.Join(bodies, nil))
		require.NoError(t, err)
		require.Equal(t, marshal(t, byPdata(t, all)), marshal(t, whole))
	})
}

// What all items of a resource share is sent with each part of it: where that is most of
// a request, cutting would send a frame a thousand times over.
func TestAResourceThatFillsARequestIsNotSentWithEachItem(t *testing.T) {
	td := spans(500)
	td.ResourceSpans().At(0).Resource().Attributes().PutStr("large", strings.Repeat("x", 2000))
	for _, limit := range []int{2000, 2150, 2500} {
		requests, err := pack(tracesSignal, []direct.Piece{{OTLP: marshal(t, td), Cluster: "c", Node: "n"}}, limit, func(int, int) bool { return false })
		require.NoError(t, err)
		size := 0
		for _, r := range requests {
			size += r.body.size
		}
		require.Less(t, size, 9*len(marshal(t, td)), "%d requests within %d", len(requests), limit)
	}
}
