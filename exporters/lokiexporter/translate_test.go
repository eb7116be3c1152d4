package lokiexporter

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/grafana/loki/pkg/push"
	"github.com/prometheus/otlptranslator"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

func clientTo(endpoint string) confighttp.ClientConfig {
	client := confighttp.NewDefaultClientConfig()
	client.Endpoint = endpoint
	return client
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// sentStream is a stream as Loki gets it.
type sentStream struct {
	labels  string
	entries []push.Entry
	bytes   int
}

type cuts struct{ lines, metadata int }

// decoded returns the streams of a batch as Loki's own types read them.
func decoded(t require.TestingT, b *batch) []sentStream {
	var all []sentStream
	for i := range b.streams {
		s := &b.streams[i]
		r := &request{}
		r.add(part{labels: s.labels, order: b.of(s), bytes: s.bytes, stream: int32(i)})
		raw := r.appendTo(nil, b)
		require.Equal(t, len(raw), r.bytes, "the size is known exactly")
		var message push.PushRequest
		require.NoError(t, message.Unmarshal(raw))
		require.Len(t, message.Streams, 1)
		require.Equal(t, s.labels, message.Streams[0].Labels)
		again, err := message.Marshal()
		require.NoError(t, err)
		require.Equal(t, again, raw, "as the generated code encodes it")
		all = append(all, sentStream{s.labels, message.Streams[0].Entries, s.bytes})
	}
	return all
}

func cutsOf(b *batch) (c cuts) {
	for _, e := range b.entries {
		if e.cut&cutLine != 0 {
			c.lines++
		}
		if e.cut&cutMetadata != 0 {
			c.metadata++
		}
	}
	return c
}

func testTranslator() *translator {
	cfg := createDefaultConfig().(*Config)
	return &translator{tenant: &cfg.Tenant, labels: newStreamLabels(cfg), maxLineSize: int(cfg.MaxLineSize), now: func() time.Time { return noon }}
}

func newBatch() *batch { return batches.New().(*batch) }

func (w way) translate(t require.TestingT, logs plog.Logs) ([]sentStream, cuts) {
	b := w.translateAll(t, testTranslator(), logs)
	return decoded(t, b), cutsOf(b)
}

// one translates a single record, by both ways.
func one(t *testing.T, resource map[string]any, change func(plog.LogRecord)) (string, push.Entry, cuts) {
	t.Helper()
	logs := plog.NewLogs()
	record := addRecord(addLogs(logs, resource), noon, "line")
	if change != nil {
		change(record)
	}
	streams, cut := asPdata.translate(t, logs)
	again, cutAgain := asRequests.translate(t, logs)
	require.Equal(t, streams, again)
	require.Equal(t, cut, cutAgain)
	require.Len(t, streams, 1)
	require.Len(t, streams[0].entries, 1)
	return streams[0].labels, streams[0].entries[0], cut
}

func metadataOf(entry push.Entry) map[string]string {
	m := make(map[string]string)
	for _, pair := range entry.StructuredMetadata {
		m[pair.Name] = pair.Value
	}
	return m
}

func TestServiceNameFallsBack(t *testing.T) {
	for _, c := range []struct {
		resource map[string]any
		want     string
	}{
		{map[string]any{"service.name": "shop", "k8s.container.name": "c"}, `{container="c", service_name="shop"}`},
		{map[string]any{"k8s.container.name": "c"}, `{container="c", service_name="c"}`},
		{map[string]any{"service.name": ""}, `{service_name="unknown_service"}`},
		{nil, `{service_name="unknown_service"}`},
		{map[string]any{"k8s.cluster.name": "a\"b\\c\nd"}, `{cluster="a\"b\\c\nd", service_name="unknown_service"}`},
	} {
		labels, _, _ := one(t, c.resource, nil)
		require.Equal(t, c.want, labels)
	}
}

func TestAStreamAlwaysHasALabel(t *testing.T) {
	labels := newStreamLabels(&Config{Labels: map[string]string{"host.name": "host"}})
	require.Equal(t, `{service_name="unknown_service"}`, string(labels.appendTo(nil, make([]string, len(labels.rules)), 0, 0, "info", "")))
}

func TestAnOverlongLabelIsCutAndKeptWholeInMetadata(t *testing.T) {
	long := strings.Repeat("ü", 1500)
	labels, entry, _ := one(t, map[string]any{"service.name": long}, nil)
	require.Equal(t, `{service_name="`+strings.Repeat("ü", 1024)+`"}`, labels)
	require.Equal(t, long, metadataOf(entry)["service_name_2"])
}

func TestLevelsAreAClosedSet(t *testing.T) {
	for n, want := range map[plog.SeverityNumber]string{
		0: "", 1: "trace", 4: "trace", 5: "debug", 8: "debug", 9: "info", 12: "info", 13: "warn", 16: "warn", 17: "error", 20: "error", 21: "fatal", 24: "fatal", 25: "", -1: "",
	} {
		require.Equal(t, want, levelOf(n, "").String(), "severity %d", n)
	}
	for text, want := range map[string]string{
		"INFO": "info", "Information": "info", "informational": "info", "WARNING": "warn", "err": "error", "CRITICAL": "fatal", "E": "", "user 17 logged in": "", "": "",
	} {
		require.Equal(t, want, levelOf(0, text).String(), text)
	}
}

func TestBodiesBecomeLines(t *testing.T) {
	for want, set := range map[string]func(pcommon.Value){
		"text\twith\nlines\xff": func(v pcommon.Value) { v.SetStr("text\twith\nlines\xff") },
		`{"a":{"b":[1,"x"]}}`:   func(v pcommon.Value) { _ = v.FromRaw(map[string]any{"a": map[string]any{"b": []any{1, "x"}}}) },
		`["a",2]`:               func(v pcommon.Value) { _ = v.FromRaw([]any{"a", 2}) },
		"42":                    func(v pcommon.Value) { v.SetInt(42) },
		"":                      func(pcommon.Value) {},
	} {
		_, entry, _ := one(t, nil, func(r plog.LogRecord) {
			r.Body().SetStr("")
			set(r.Body())
		})
		require.Equal(t, want, entry.Line)
	}
}

func TestTimeFallsBackToObservedThenNow(t *testing.T) {
	_, entry, _ := one(t, nil, func(r plog.LogRecord) { r.SetTimestamp(0); r.SetObservedTimestamp(7) })
	require.Equal(t, int64(7), entry.Timestamp.UnixNano())
	require.Empty(t, entry.StructuredMetadata)
	_, entry, _ = one(t, nil, func(r plog.LogRecord) { r.SetTimestamp(0) })
	require.Equal(t, noon, entry.Timestamp)
	_, entry, _ = one(t, nil, func(r plog.LogRecord) { r.SetObservedTimestamp(r.Timestamp()) })
	require.Empty(t, entry.StructuredMetadata)
}

// readAt are lines of a container's log as the collector's receiver makes them, read
// at a time.
func readAt(seen time.Time, attributes map[string]any, lines ...string) plog.Logs {
	logs := plog.NewLogs()
	scope := addLogs(logs, map[string]any{"k8s.cluster.name": "store-0001", "k8s.container.name": "api"})
	scope.Scope().SetName(readScope)
	for _, line := range lines {
		record := addRecord(scope, noon, line)
		record.SetObservedTimestamp(pcommon.NewTimestampFromTime(seen))
		if err := record.Attributes().FromRaw(attributes); err != nil {
			panic(err)
		}
	}
	return logs
}

func TestLinesThatAreReadAgainAreTheSameEntries(t *testing.T) {
	for _, w := range ways {
		t.Run(string(w), func(t *testing.T) { testLinesThatAreReadAgain(t, w) })
	}
}

func testLinesThatAreReadAgain(t *testing.T, w way) {
	many := make([]string, 2*fewEntries)
	for name, c := range map[string]struct {
		attributes map[string]any
		lines      []string
	}{
		"plain":                    {map[string]any{"log.iostream": "stdout"}, []string{"line"}},
		"names to settle":          {map[string]any{"cluster": "spoofed"}, []string{"line"}},
		"without metadata":         {nil, []string{"line"}},
		"said twice in an instant": {nil, []string{"line", "line", "other"}},
		"said often in an instant": {nil, many},
	} {
		first, again := readAt(noon.Add(time.Second), c.attributes, c.lines...), readAt(noon.Add(time.Minute), c.attributes, c.lines...)
		once, _ := w.translate(t, first)
		twice, _ := w.translate(t, again)
		require.Equal(t, once, twice, name)

		// The relay delivers both in one call, when both come from a backlog.
		again.ResourceLogs().MoveAndAppendTo(first.ResourceLogs())
		both, _ := w.translate(t, first)
		distinct := make(map[string]int)
		for _, entry := range both[0].entries {
			distinct[entry.Line+fmt.Sprint(metadataOf(entry))]++
		}
		require.Len(t, distinct, len(c.lines), name)
		for entry, n := range distinct {
			require.Equal(t, 2, n, "%s: %s", name, entry)
		}
	}
	// Whatever comes from elsewhere tells when it was observed.
	other := readAt(noon.Add(time.Second), nil, "line")
	other.ResourceLogs().At(0).ScopeLogs().At(0).Scope().SetName("orders/log")
	streams, _ := w.translate(t, other)
	require.Contains(t, metadataOf(streams[0].entries[0]), nameObserved)
}

func TestOverlongLinesAreCutAndCounted(t *testing.T) {
	whole := strings.Repeat("x", 256<<10)
	_, entry, cut := one(t, nil, func(r plog.LogRecord) { r.Body().SetStr(whole) })
	require.Equal(t, whole, entry.Line)
	require.Zero(t, cut)

	_, entry, cut = one(t, nil, func(r plog.LogRecord) { r.Body().SetStr("a" + strings.Repeat("ü", 200<<10)) })
	require.LessOrEqual(t, len(entry.Line), 256<<10)
	require.True(t, utf8.ValidString(entry.Line))
	kept, mark, _ := strings.Cut(entry.Line, "…")
	require.Equal(t, fmt.Sprintf("[cut: %d bytes missing]", 1+400<<10-len(kept)), strings.TrimSpace(mark))
	require.Equal(t, cuts{lines: 1}, cut)
}

func TestOversizeMetadataIsCutFromItsEnd(t *testing.T) {
	_, entry, cut := one(t, map[string]any{"host.name": "last, and too long for what is left"}, func(r plog.LogRecord) {
		r.SetTraceID(pcommon.TraceID{1})
		r.Attributes().PutStr("small", "kept")
		r.Attributes().PutStr("huge", strings.Repeat("x", 100<<10))
	})
	m := metadataOf(entry)
	require.Contains(t, m, "trace_id")
	require.Equal(t, "kept", m["small"])
	require.Contains(t, m["huge"], "…[cut: ")
	require.NotContains(t, m, "host_name")
	require.Equal(t, cuts{metadata: 1}, cut)
	requireLokiAccepts(t, entry)

	_, entry, cut = one(t, nil, func(r plog.LogRecord) {
		for i := range 200 {
			r.Attributes().PutInt(fmt.Sprintf("a%d", i), int64(i))
		}
	})
	require.Len(t, entry.StructuredMetadata, 127)
	require.Equal(t, cuts{metadata: 1}, cut)
}

// A program that makes names up must not keep a relay busy: what can have no effect is
// not looked at for each record.
func TestAHundredThousandAttributesAreCutLikeTwoHundred(t *testing.T) {
	for _, w := range ways {
		logs := plog.NewLogs()
		attributes := map[string]any{"service.name": "shop"}
		for i := range 100_000 {
			attributes[fmt.Sprint("made.up.", i)] = i
		}
		scope := addLogs(logs, attributes)
		for i := range 500 {
			addRecord(scope, noon.Add(time.Duration(i)), "line")
		}
		streams, cut := w.translate(t, logs)
		require.Equal(t, cuts{metadata: 500}, cut)
		require.Len(t, streams[0].entries, 500)
		require.Len(t, streams[0].entries[0].StructuredMetadata, 127)
		require.Equal(t, `{service_name="shop"}`, streams[0].labels)
	}
}

// requireLokiAccepts applies the checks of Loki's distributor.
func requireLokiAccepts(t require.TestingT, entry push.Entry) {
	require.LessOrEqual(t, len(entry.StructuredMetadata), maxMetadataEntries)
	bytes, names := 0, make(map[string]bool)
	namer := otlptranslator.LabelNamer{}
	for _, pair := range entry.StructuredMetadata {
		bytes += len(pair.Name) + len(pair.Value)
		require.False(t, names[pair.Name], "%s twice", pair.Name)
		names[pair.Name] = true
		name, err := namer.Build(pair.Name)
		require.NoError(t, err)
		require.Equal(t, pair.Name, name, "Loki would rename it")
		require.NotEmpty(t, pair.Value)
	}
	require.LessOrEqual(t, bytes, maxMetadataBytes)
	require.LessOrEqual(t, len(entry.Line), 256<<10)
}

// anyLogs draws logs of all sorts, and says how many records they have.
func anyLogs(t *rapid.T) (plog.Logs, int) {
	name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		"", "_", "__", "1", "a.b", "a_b", "a-b", "cluster", "level", "trace_id", "repetition", "service.name", "_x", "__y__",
		"k8s.cluster.name", "k8s.node.name", "k8s.container.name", "k8s.namespace.name", "longhaul.lane", "scope_name", "log.iostream",
	}))
	value := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "x", "y", "ü\xff", strings.Repeat("z", 3<<10), strings.Repeat("z", 40<<10)}))
	put := func(v pcommon.Value) {
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0:
			v.SetEmptyMap().PutStr(name.Draw(t, "inner"), value.Draw(t, "value"))
		case 1:
			v.SetEmptyMap().PutEmptyMap("b").PutEmptySlice(name.Draw(t, "inner")).AppendEmpty().SetInt(1)
		case 2:
			v.SetEmptySlice().AppendEmpty().SetEmptyMap().PutBool("a", true)
		case 3:
			v.SetInt(rapid.Int64().Draw(t, "int"))
		case 4:
			v.SetDouble(rapid.Float64Range(-1e30, 1e30).Draw(t, "double"))
		case 5:
			v.SetBool(rapid.Bool().Draw(t, "bool"))
		case 6:
			v.SetEmptyBytes().Append(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")...)
		case 7:
		default:
			v.SetStr(value.Draw(t, "value"))
		}
	}
	fill := func(m pcommon.Map, most int) {
		for range rapid.IntRange(0, most).Draw(t, "attributes") {
			put(m.PutEmpty(name.Draw(t, "name")))
		}
	}
	logs := plog.NewLogs()
	records := 0
	for range rapid.IntRange(1, 4).Draw(t, "resources") {
		resource := logs.ResourceLogs().AppendEmpty()
		fill(resource.Resource().Attributes(), 8)
		for range rapid.IntRange(0, 2).Draw(t, "scopes") {
			scope := resource.ScopeLogs().AppendEmpty()
			if rapid.Bool().Draw(t, "scoped") {
				scope.Scope().SetName(rapid.OneOf(value, rapid.Just(readScope)).Draw(t, "scope"))
				scope.Scope().SetVersion(value.Draw(t, "version"))
				fill(scope.Scope().Attributes(), 2)
			}
			for range rapid.IntRange(0, 5).Draw(t, "records") {
				records++
				if n := scope.LogRecords().Len(); n > 0 && rapid.IntRange(0, 3).Draw(t, "again") == 0 {
					scope.LogRecords().At(n - 1).CopyTo(scope.LogRecords().AppendEmpty())
					continue
				}
				anyRecord(t, addRecord(scope, noon.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "ms"))*time.Millisecond), "line"), put, value)
			}
		}
	}
	return logs, records
}

func anyRecord(t *rapid.T, r plog.LogRecord, put func(pcommon.Value), value *rapid.Generator[string]) {
	put(r.Body())
	r.SetSeverityNumber(plog.SeverityNumber(rapid.IntRange(-1, 30).Draw(t, "severity")))
	r.SetSeverityText(rapid.SampledFrom([]string{"", "INFO", "error", "so so"}).Draw(t, "text"))
	r.SetObservedTimestamp(rapid.SampledFrom([]pcommon.Timestamp{0, 1, r.Timestamp(), r.Timestamp() + 1, math.MaxUint64}).Draw(t, "observed"))
	if rapid.IntRange(0, 3).Draw(t, "more") == 0 {
		r.SetTimestamp(0)
		r.SetEventName(value.Draw(t, "event"))
		r.SetFlags(plog.LogRecordFlags(rapid.Uint32().Draw(t, "flags")))
		r.SetDroppedAttributesCount(rapid.Uint32().Draw(t, "dropped"))
		r.SetTraceID(pcommon.TraceID{0: byte(rapid.IntRange(0, 1).Draw(t, "trace"))})
		r.SetSpanID(pcommon.SpanID{7: byte(rapid.IntRange(0, 1).Draw(t, "span"))})
	}
	for range rapid.IntRange(0, 4).Draw(t, "attributes") {
		put(r.Attributes().PutEmpty(rapid.SampledFrom([]string{"a", "a.b", "a_b", "log.iostream", "cluster", "trace_id", "http"}).Draw(t, "name")))
	}
}

func TestWhateverComesLokiAcceptsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, records := anyLogs(t)
		streams, _ := rapid.SampledFrom(ways).Draw(t, "way").translate(t, logs)
		labels := make(map[string]bool)
		for _, s := range streams {
			require.False(t, labels[s.labels])
			labels[s.labels] = true
			bytes := 0
			distinct := make(map[string]bool)
			for i, entry := range s.entries {
				records--
				requireLokiAccepts(t, entry)
				bytes += sizeOfField(entry.Size())
				require.False(t, i > 0 && entry.Timestamp.Before(s.entries[i-1].Timestamp), "entries are in order of time")
				key := fmt.Sprintf("%d %q %q", entry.Timestamp.UnixNano(), entry.Line, entry.StructuredMetadata)
				require.False(t, distinct[key], "Loki would store two equal entries once")
				distinct[key] = true
			}
			require.Equal(t, bytes, s.bytes)
		}
		require.Zero(t, records, "every record is one entry")
	})
}

// stamped are logs with an origin written on them as the receiver does, but that its
// attributes stand at the end.
func stamped(logs plog.Logs, origin *direct.Piece) plog.Logs {
	copied := plog.NewLogs()
	logs.CopyTo(copied)
	for _, r := range copied.ResourceLogs().All() {
		attributes := r.Resource().Attributes()
		attributes.RemoveIf(func(name string, _ pcommon.Value) bool {
			return name == "k8s.cluster.name" || name == "k8s.node.name" || name == "longhaul.lane"
		})
		attributes.PutStr("k8s.cluster.name", origin.Cluster)
		attributes.PutStr("k8s.node.name", origin.Node)
		if origin.Backlog {
			attributes.PutStr("longhaul.lane", "backlog")
		}
	}
	return copied
}

// requireOracle checks each entry of a batch against what the oracle says of logs.
func requireOracle(t require.TestingT, translator *translator, b *batch, logs plog.Logs) {
	want := oracle{&translator.labels, translator.maxLineSize, noon}.entries(logs)
	require.Len(t, b.entries, len(want))
	for i := range want {
		e := &b.entries[i]
		require.Equal(t, want[i].labels, b.streams[e.stream].labels)
		require.Equal(t, want[i].cut, e.cut)
		var got push.EntryAdapter
		raw := appendEntry(nil, e, b.own(e), b.common(e))
		require.NoError(t, got.Unmarshal(raw[1+protowire.SizeVarint(uint64(e.size)):]))
		require.Equal(t, want[i].Line, got.Line)
		require.Equal(t, want[i].Timestamp.UnixNano(), got.Timestamp.UnixNano())
		pairs := slices.DeleteFunc(got.StructuredMetadata, func(p push.LabelPairAdapter) bool { return p.Name == repetitionName })
		require.Len(t, pairs, len(want[i].StructuredMetadata))
		for k, p := range pairs {
			require.Equal(t, want[i].StructuredMetadata[k], push.LabelAdapter(p))
		}
	}
}

// requireSameWays checks that requests with an origin lead where the same logs do when
// it is written on them.
func requireSameWays(t require.TestingT, translator *translator, request []byte, logs plog.Logs, origin *direct.Piece) {
	byLogs := asPdata.translateAll(t, translator, stamped(logs, origin))
	byRequest := newBatch()
	_, err := translator.translate([]input{{request, origin}}, func(string) *share { return &share{tenant: &tenantState{}, batch: byRequest, late: noneLate} })
	require.NoError(t, err)
	require.Equal(t, decoded(t, byLogs), decoded(t, byRequest))
	require.Equal(t, cutsOf(byLogs), cutsOf(byRequest))
	requireOracle(t, translator, byRequest, stamped(logs, origin))
}

func anyOrigin(t *rapid.T) *direct.Piece {
	return &direct.Piece{
		Cluster: rapid.SampledFrom([]string{"", "store-0001", "ü"}).Draw(t, "cluster"), Node: rapid.SampledFrom([]string{"", "node-a"}).Draw(t, "node"),
		Backlog: rapid.Bool().Draw(t, "backlog"),
	}
}

func TestRecordsBecomeWhatTheOracleSays(t *testing.T) {
	translator := testTranslator() // what it keeps from call to call changes nothing
	rapid.Check(t, func(t *rapid.T) {
		logs, _ := anyLogs(t)
		requireOracle(t, translator, asPdata.translateAll(t, translator, logs), logs)
		requireSameWays(t, translator, marshal(logs), logs, anyOrigin(t))
	})
}

// The frames of a fleet are made of recorded lines.
func TestRecordedFramesBecomeWhatTheOracleSays(t *testing.T) {
	translator := testTranslator()
	maker, err := frames.NewMaker("../../test/e2e/testdata", frames.DefaultSizes)
	require.NoError(t, err)
	round, err := maker.Round(noon)
	require.NoError(t, err)
	require.NotEmpty(t, round[frame.Logs])
	for i, template := range round[frame.Logs] {
		request, err := frame.CodecFor(frame.Logs).Decode(nil, template.AppendPayload(nil, &frames.Numbers{Written: noon}), template.OTLP)
		require.NoError(t, err)
		logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(request)
		require.NoError(t, err)
		require.Equal(t, 50, logs.LogRecordCount())
		requireSameWays(t, translator, request, logs, &direct.Piece{Cluster: "store-0001", Node: fmt.Sprint("node-", i)})
	}
}
