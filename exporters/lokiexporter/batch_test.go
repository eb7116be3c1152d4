package lokiexporter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func streamOf(labels string, at time.Time, lines ...string) *stream {
	s := &stream{labels: labels}
	for i, line := range lines {
		entry := push.Entry{Timestamp: at.Add(time.Duration(i)), Line: line}
		s.entries = append(s.entries, entry)
		s.bytes += entry.Size()
	}
	return s
}

func testPlanner(maxBytes int) *planner {
	return &planner{maxBytes: maxBytes, now: func() time.Time { return noon }}
}

func TestRequestsAreBoundedAndHoldEveryEntryOnceInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := testPlanner(rapid.IntRange(200, 4000).Draw(t, "bytes"))
		var streams []*stream
		want := make(map[string][]string)
		for i := range rapid.IntRange(0, 8).Draw(t, "streams") {
			labels := fmt.Sprintf(`{a="%d"}`, i)
			p.recent.set(labels, rapid.Bool().Draw(t, "recent"), noon)
			var lines []string
			for n := range rapid.IntRange(1, 30).Draw(t, "entries") {
				lines = append(lines, fmt.Sprintf("%d %s", n, strings.Repeat("x", rapid.IntRange(0, 300).Draw(t, "length"))))
			}
			age := time.Duration(rapid.IntRange(0, 60).Draw(t, "minutes")) * time.Minute
			streams = append(streams, streamOf(labels, noon.Add(-age), lines...))
			want[labels] = lines
		}
		got := make(map[string][]string)
		risky := make(map[string]bool)
		for _, s := range streams {
			risky[s.labels] = p.risky(s)
		}
		for _, r := range p.pack(p.split(streams)) {
			message := r.message()
			require.True(t, message.Size() <= p.maxBytes || r.entries == 1, "%d bytes in a request of at most %d", message.Size(), p.maxBytes)
			n := 0
			for _, s := range message.Streams {
				require.False(t, risky[s.Labels] && len(message.Streams) > 1, "a stream that may be refused shares a request")
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
	r := &request{}
	r.add(part{labels: `{a="1"}`, entries: streamOf("", noon, "1", "2", "3").entries})
	r.add(part{labels: `{a="2"}`, entries: streamOf("", noon, "4", "5").entries})
	first, second := r.halves()
	lines := func(r *request) (all []string) {
		for _, p := range r.parts {
			for _, e := range p.entries {
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
	var r recentStreams
	r.set("a", true, noon)
	require.True(t, r.has("a", noon.Add(recentFor/2-1)))
	require.True(t, r.has("a", noon.Add(recentFor/2)))
	r.set("b", true, noon.Add(recentFor/2))
	require.False(t, r.has("a", noon.Add(recentFor)))
	require.True(t, r.has("b", noon.Add(recentFor)))
	require.False(t, r.has("b", noon.Add(5*recentFor)))
	r.set("c", true, noon.Add(5*recentFor))
	r.set("c", false, noon.Add(5*recentFor))
	require.False(t, r.has("c", noon.Add(5*recentFor)))
}

func TestWhatLokiCouldRefuseTravelsAlone(t *testing.T) {
	p := testPlanner(1 << 20)
	young := streamOf("known", noon, "x")
	require.True(t, p.risky(young), "a stream that is new to Loki")
	p.recent.set("known", true, noon)
	require.False(t, p.risky(young))
	require.True(t, p.risky(streamOf("known", noon.Add(-31*time.Minute), "x")), "late entries")
	require.True(t, p.risky(streamOf("known", noon, strings.Repeat("x", largeStreamBytes))), "much at once")
}

func TestAPartIsKnownByItsContent(t *testing.T) {
	make1 := func(change func(*part)) uint64 {
		p := part{labels: "{}", entries: []push.Entry{
			{Timestamp: noon, Line: "ab", StructuredMetadata: push.LabelsAdapter{{Name: "n", Value: "v"}}},
			{Timestamp: noon, Line: "c"},
		}}
		if change != nil {
			change(&p)
		}
		return p.hash()
	}
	same := make1(nil)
	require.Equal(t, same, make1(nil))
	for _, change := range []func(*part){
		func(p *part) { p.labels = "{a}" },
		func(p *part) { p.entries = p.entries[:1] },
		func(p *part) { p.entries[0].Line, p.entries[1].Line = "a", "bc" },
		func(p *part) { p.entries[1].Timestamp = noon.Add(1) },
		func(p *part) { p.entries[0].StructuredMetadata[0].Value = "w" },
	} {
		require.NotEqual(t, same, make1(change))
	}
}
