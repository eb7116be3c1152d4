package lokiexporter

import (
	"bytes"
	"fmt"
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
	"pgregory.net/rapid"
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

func testTranslator() translator {
	cfg := createDefaultConfig().(*Config)
	return translator{labels: newStreamLabels(cfg), maxLineSize: int(cfg.MaxLineSize), now: func() time.Time { return noon }}
}

func allResources(logs plog.Logs) []int32 {
	list := make([]int32, logs.ResourceLogs().Len())
	for i := range list {
		list[i] = int32(i)
	}
	return list
}

func newBatch() *batch { return batches.New().(*batch) }

func translate(t require.TestingT, logs plog.Logs) ([]sentStream, cuts) {
	translator, b := testTranslator(), newBatch()
	translator.translate(b, logs, allResources(logs), policy{})
	return decoded(t, b), cutsOf(b)
}

// one translates a single record.
func one(t *testing.T, resource map[string]any, change func(plog.LogRecord)) (string, push.Entry, cuts) {
	t.Helper()
	logs := plog.NewLogs()
	record := addRecord(addLogs(logs, resource), noon, "line")
	if change != nil {
		change(record)
	}
	streams, cut := translate(t, logs)
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
	require.Equal(t, `{service_name="unknown_service"}`, string(labels.appendTo(nil, labels.values(nil, pcommon.NewMap()), 0, "info", "")))
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
		record := plog.NewLogRecord()
		record.SetSeverityNumber(n)
		require.Equal(t, want, levelOf(record).String(), "severity %d", n)
	}
	for text, want := range map[string]string{
		"INFO": "info", "Information": "info", "informational": "info", "WARNING": "warn", "err": "error", "CRITICAL": "fatal", "E": "", "user 17 logged in": "", "": "",
	} {
		record := plog.NewLogRecord()
		record.SetSeverityText(text)
		require.Equal(t, want, levelOf(record).String(), text)
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
		once, _ := translate(t, first)
		twice, _ := translate(t, again)
		require.Equal(t, once, twice, name)

		// The relay delivers both in one call, when both come from a backlog.
		again.ResourceLogs().MoveAndAppendTo(first.ResourceLogs())
		both, _ := translate(t, first)
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
	streams, _ := translate(t, other)
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
	name := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "_", "__", "1", "a.b", "a_b", "a-b", "cluster", "level", "trace_id", "repetition", "service.name", "_x", "__y__"}))
	value := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "x", "y", strings.Repeat("z", 40<<10)}))
	logs := plog.NewLogs()
	records := 0
	for range rapid.IntRange(1, 4).Draw(t, "resources") {
		scope := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
		fill := func(m pcommon.Map) {
			for range rapid.IntRange(0, 8).Draw(t, "attributes") {
				key := name.Draw(t, "name")
				if rapid.Bool().Draw(t, "nested") {
					m.PutEmptyMap(key).PutStr(name.Draw(t, "inner"), value.Draw(t, "value"))
				} else {
					m.PutStr(key, value.Draw(t, "value"))
				}
			}
		}
		fill(logs.ResourceLogs().At(logs.ResourceLogs().Len() - 1).Resource().Attributes())
		fill(scope.Scope().Attributes())
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			records++
			r := addRecord(scope, noon.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "ms"))*time.Millisecond), value.Draw(t, "body"))
			r.SetSeverityNumber(plog.SeverityNumber(rapid.IntRange(0, 30).Draw(t, "severity")))
			fill(r.Attributes())
		}
	}
	return logs, records
}

func TestWhateverComesLokiAcceptsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, records := anyLogs(t)
		streams, _ := translate(t, logs)
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

// The short way to an entry's metadata, by pieces encoded once, leads where the
// long way does.
func TestTheShortWayIsTheLongWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, _ := anyLogs(t)
		translator, b := testTranslator(), newBatch()
		translator.translate(b, logs, allResources(logs), policy{})
		m := metadata{names: make(metadataNames), labels: &translator.labels}
		next := 0
		for _, r := range logs.ResourceLogs().All() {
			for _, s := range r.ScopeLogs().All() {
				for _, record := range s.LogRecords().All() {
					m.reset()
					m.record(record, false)
					m.resource(r.Resource().Attributes())
					m.scope(s.Scope())
					want := m.appendTo(nil)
					got := b.metadata(&b.entries[next])
					require.True(t, bytes.HasPrefix(got, want), "got %q, want %q", got, want)
					var extra push.EntryAdapter
					require.NoError(t, extra.Unmarshal(got[len(want):]))
					for _, pair := range extra.StructuredMetadata {
						require.Equal(t, repetitionName, pair.Name)
					}
					require.Equal(t, m.cut, b.entries[next].cut&cutMetadata != 0)
					next++
				}
			}
		}
	})
}
