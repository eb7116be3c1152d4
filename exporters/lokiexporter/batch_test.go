package lokiexporter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"pgregory.net/rapid"
)

// addStream adds a stream of one-line entries to a batch.
func addStream(b *batch, labels string, at time.Time, lines ...string) *stream {
	index := int32(len(b.streams))
	s := stream{labels: labels, id: uint64(index), n: len(lines)}
	for i, line := range lines {
		when := at.Add(time.Duration(i)).UnixNano()
		e := entry{at: when, line: line, size: int32(sizeOfEntry(when, line, 0)), stream: index, apart: true}
		s.bytes += e.framed()
		b.entries = append(b.entries, e)
	}
	b.streams = append(b.streams, s)
	return &b.streams[index]
}

func testPlanner(maxBytes int) *planner {
	return &planner{maxBytes: maxBytes, now: noon, recent: &recentStreams{}, rate: defaultStreamRate}
}

func TestRequestsAreBoundedAndHoldEveryEntryOnceInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, b := testPlanner(rapid.IntRange(200, 4000).Draw(t, "bytes")), newBatch()
		p.cautious = rapid.Bool().Draw(t, "cautious")
		p.risky = rapid.Bool().Draw(t, "risky")
		want := make(map[string][]string)
		alone, fresh := make(map[string]bool), make(map[string]bool)
		for i := range rapid.IntRange(0, 8).Draw(t, "streams") {
			labels := fmt.Sprintf(`{a="%d"}`, i)
			var lines []string
			for n := range rapid.IntRange(1, 30).Draw(t, "entries") {
				lines = append(lines, fmt.Sprintf("%d %s", n, strings.Repeat("x", rapid.IntRange(0, 300).Draw(t, "length"))))
			}
			s := addStream(b, labels, noon, lines...)
			s.late = rapid.Bool().Draw(t, "late")
			recent := rapid.Bool().Draw(t, "recent")
			if recent {
				p.recent.took(s.id, 1, p.rate, noon)
			}
			alone[labels] = s.late && p.risky || !recent && p.cautious
			fresh[labels] = !recent
			for k := range lines {
				if rapid.IntRange(0, 9).Draw(t, "answered") == 0 {
					b.entries[len(b.entries)-len(lines)+k].state = taken
				} else {
					want[labels] = append(want[labels], lines[k])
				}
			}
		}
		b.group()
		got := make(map[string][]string)
		for _, r := range p.pack(p.split(b)) {
			raw := r.appendTo(nil, b)
			require.Equal(t, r.bytes, len(raw))
			var message push.PushRequest
			require.NoError(t, message.Unmarshal(raw))
			require.True(t, len(raw) <= p.maxBytes || r.entries == 1, "%d bytes in a request of at most %d", len(raw), p.maxBytes)
			n, new := 0, false
			for _, s := range message.Streams {
				require.False(t, alone[s.Labels] && len(message.Streams) > 1, "a stream that may be refused shares a request")
				require.False(t, new && !fresh[s.Labels], "a known stream stands after a new one")
				new = fresh[s.Labels]
				n += len(s.Entries)
				for _, entry := range s.Entries {
					got[s.Labels] = append(got[s.Labels], entry.Line)
				}
			}
			require.Equal(t, n, r.entries)
		}
		require.Equal(t, want, got)
	})
}

func TestHalvesHoldAllInOrder(t *testing.T) {
	b := newBatch()
	addStream(b, `{a="1"}`, noon, "1", "2", "3")
	addStream(b, `{a="2"}`, noon, "4", "5")
	b.group()
	p := testPlanner(1 << 20)
	requests := p.pack(p.split(b))
	require.Len(t, requests, 1)
	first, second := requests[0].halves()
	lines := func(r *request) (all []string) {
		r.measure(b)
		raw := r.appendTo(nil, b)
		require.Len(t, raw, r.bytes)
		var message push.PushRequest
		require.NoError(t, message.Unmarshal(raw))
		for _, s := range message.Streams {
			for _, e := range s.Entries {
				all = append(all, e.Line)
			}
		}
		require.Len(t, all, r.entries)
		return all
	}
	require.Equal(t, []string{"1", "2"}, lines(first))
	require.Equal(t, []string{"3", "4", "5"}, lines(second))
}

func TestStreamsAreForgottenInTime(t *testing.T) {
	const a, b, c = 1, 2, 3
	var r recentStreams
	took := func(stream uint64, at time.Time) { r.took(stream, 1, defaultStreamRate, at) }
	has := func(stream uint64, at time.Time) bool {
		known, _ := r.has(stream, 1, defaultStreamRate, at)
		return known
	}
	took(a, noon)
	require.True(t, has(a, noon.Add(recentFor/2-1)))
	require.True(t, has(a, noon.Add(recentFor/2)))
	took(b, noon.Add(recentFor/2))
	require.False(t, has(a, noon.Add(recentFor)))
	require.True(t, has(b, noon.Add(recentFor)))
	require.False(t, has(b, noon.Add(5*recentFor)))
	took(c, noon.Add(5*recentFor))
	r.forget(c, noon.Add(5*recentFor))
	require.False(t, has(c, noon.Add(5*recentFor)))
}

func TestAStreamNearItsRateLimitIsKnown(t *testing.T) {
	var r recentStreams
	rate := streamRate{bytesPerSecond: 400, burst: 4000} // of which a quarter is ours
	room := func(at time.Time) bool {
		_, room := r.has(1, 500, rate, at)
		return room
	}
	require.True(t, room(noon))
	r.took(1, 400, rate, noon)
	require.True(t, room(noon))
	r.took(1, 400, rate, noon)
	require.False(t, room(noon))
	require.False(t, room(noon.Add(2*time.Second)))
	require.True(t, room(noon.Add(3*time.Second)))
	r.took(1, 600, rate, noon.Add(3*time.Second)) // 500 and 600
	require.False(t, room(noon.Add(8*time.Second)))
	require.True(t, room(noon.Add(9*time.Second)))
}

func TestWhatLokiCouldRefuseUnseenTravelsAlone(t *testing.T) {
	b := newBatch()
	addStream(b, "new", noon, "x")
	addStream(b, "known", noon, "x")
	addStream(b, "late", noon, "x").late = true
	addStream(b, "large", noon, strings.Repeat("x", 4<<20))
	b.group()
	p := testPlanner(1 << 20)
	for _, id := range []uint64{1, 2, 3} {
		p.recent.took(id, 1, p.rate, noon)
	}
	requests := func() (all []string) {
		for _, r := range p.pack(p.split(b)) {
			var labels []string
			for _, part := range r.parts {
				labels = append(labels, part.labels)
			}
			all = append(all, strings.Join(labels, " "))
		}
		return all
	}
	require.Equal(t, []string{"known late new", "large"}, requests())
	p.cautious = true
	require.Equal(t, []string{"known late", "large", "new"}, requests())
	p.risky = true
	require.Equal(t, []string{"known", "late", "large", "new"}, requests())
}

func TestAnEntryIsKnownByItsContentWhateverIsSentWithIt(t *testing.T) {
	key := func(neighbours int, change func(logs plog.Logs)) uint64 {
		logs := plog.NewLogs()
		scope := addLogs(logs, map[string]any{"k8s.pod.name": "p", "service.name": "s"})
		addRecord(scope, noon, "line").Attributes().PutStr("n", "v")
		if change != nil {
			change(logs)
		}
		for i := range neighbours {
			addRecord(addLogs(logs, map[string]any{"k8s.pod.name": fmt.Sprint("other", i), "service.name": "s"}), noon.Add(-1), "before")
		}
		b := asPdata.translateAll(t, testTranslator(), logs)
		again := asRequests.translateAll(t, testTranslator(), logs)
		require.Equal(t, b.key(&b.entries[0]), again.key(&again.entries[0]), "whatever the way")
		return b.key(&b.entries[0])
	}
	same := key(0, nil)
	require.Equal(t, same, key(3, nil))
	record := func(logs plog.Logs) plog.LogRecord {
		return logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	}
	for _, change := range []func(plog.Logs){
		func(l plog.Logs) { record(l).Body().SetStr("lin") },
		func(l plog.Logs) { record(l).SetTimestamp(1) },
		func(l plog.Logs) { record(l).Attributes().PutStr("n", "w") },
		func(l plog.Logs) { record(l).SetSeverityNumber(9) },
		func(l plog.Logs) { l.ResourceLogs().At(0).Resource().Attributes().PutStr("k8s.pod.name", "q") },
		func(l plog.Logs) { l.ResourceLogs().At(0).Resource().Attributes().PutStr("service.name", "q") },
		func(l plog.Logs) { l.ResourceLogs().At(0).ScopeLogs().At(0).Scope().SetName("q") },
	} {
		require.NotEqual(t, same, key(0, change))
	}
}
