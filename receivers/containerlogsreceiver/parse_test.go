package containerlogsreceiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"pgregory.net/rapid"
)

func TestParseCRI(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 500, time.UTC).UnixNano()
	for line, want := range map[string]entry{
		"2026-11-23T10:00:00.0000005Z stdout F hello world":    {at, stdout, false, []byte("hello world")},
		"2026-11-23T12:00:00.000000500+02:00 stderr P  x ":     {at, stderr, true, []byte(" x ")},
		"2026-11-23T10:00:00.0000005Z stdout F ":               {at, stdout, false, []byte("")},
		"2026-11-23T10:00:00.0000005Z stdout F":                {at, stdout, false, nil},
		"2026-11-23T10:00:00.0000005Z stdout P:more:tags \x00": {at, stdout, true, []byte("\x00")},
	} {
		got, ok := parseCRI([]byte(line))
		assert.True(t, ok, line)
		assert.Equal(t, want.time, got.time, line)
		assert.Equal(t, want.stream, got.stream, line)
		assert.Equal(t, want.partial, got.partial, line)
		assert.Equal(t, string(want.content), string(got.content), line)
	}
	for _, line := range []string{
		"", " ", "hello", "2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z stdout", "2026-11-23T10:00:00Z stdout ",
		"2026-11-23T10:00:00Z stdin F x", "2026-11-23T10:00:00Z stdout X x", "2026-11-23T10:00:00Z stdout Full x",
		"2026-13-23T10:00:00Z stdout F x", "1969-12-31T23:59:59Z stdout F x", "2300-01-01T00:00:00Z stdout F x",
		"2026-11-23 10:00:00Z stdout F x", " 2026-11-23T10:00:00Z stdout F x", "2026-02-29T10:00:00Z stdout F x",
		"2026-11-23T10:00:00.Z stdout F x", "2026-11-23T10:00:00 stdout F x", "1970-01-01T00:00:00+01:00 stdout F x",
	} {
		_, ok := parseCRI([]byte(line))
		assert.False(t, ok, line)
	}
}

func TestTimestampEqualsTheStandardLibrarys(t *testing.T) {
	first := time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC).UnixNano()
	last := time.Date(2261, 12, 30, 0, 0, 0, 0, time.UTC).UnixNano()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(first, last).Draw(t, "ns")
		zone := time.FixedZone("", rapid.IntRange(-14*60, 14*60).Draw(t, "minutes")*60)
		layout := rapid.SampledFrom([]string{time.RFC3339Nano, "2006-01-02T15:04:05.000000000Z07:00"}).Draw(t, "layout")
		text := time.Unix(0, at).In(zone).Format(layout)
		got, ok := parseTimestamp([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, at, got, text)
	})
}

type jsonFileLine struct {
	Log    string            `json:"log,omitempty"`
	Stream string            `json:"stream,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
	Time   time.Time         `json:"time"`
}

func TestJSONFileReadsWhatDockerWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := jsonFileLine{
			Log:    rapid.String().Draw(t, "log") + rapid.SampledFrom([]string{"", "\n", "\r\n", "\U0001F600\"\\"}).Draw(t, "end") + "x",
			Stream: rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream"),
			Attrs:  rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "attrs"),
			Time:   time.Unix(0, rapid.Int64Range(1e9, 8e18).Draw(t, "time")).UTC(),
		}
		complete := rapid.Bool().Draw(t, "complete")
		content := want.Log
		if complete {
			want.Log += "\n"
		}
		text, err := json.Marshal(want)
		require.NoError(t, err)
		got, _, ok := parseJSONFile(text, []byte("old"))
		require.True(t, ok, "%s", text)
		require.Equal(t, content, string(got.content))
		require.Equal(t, !complete, got.partial)
		require.Equal(t, want.Stream, got.stream.String())
		require.Equal(t, want.Time.UnixNano(), got.time)
	})
}

func TestJSONFileEscapes(t *testing.T) {
	for literal, want := range map[string]string{
		`a\u003c\u0026\u00e9`: "a<&é", `\ud83d\ude00`: "😀", `\ud83d`: "\uFFFD", `\ud83dx`: "\uFFFDx", `\ud83d\u0041`: "\uFFFDA",
		`\b\f\n\r\t\"\/\\`: "\b\f\n\r\t\"/\\", `\x`: `\x`, `\u12`: `\u12`, `\u12g4`: `\u12g4`, `\`: `\`, "": "",
	} {
		assert.Equal(t, want, string(appendUnescaped(nil, []byte(literal))), literal)
	}
}

func TestJSONFileRefusesWhatWouldLoseText(t *testing.T) {
	for _, line := range []string{
		`{"log":"a\n","stream":"stdout","time":"2026-11-23T10:00:00Z"}{"log":"b\n"}`,
		`{"log":"a{"log":"b\n","stream":"stdout","time":"2026-11-23T10:00:00Z"}`,
		`{"log":"a\n","stream":"stdout"}`, `{"log":"a\n","time":"2026-11-23T10:00:00Z"}`, `{"stream":"stdout","time":"2026-11-23T10:00:00Z"}`,
		`{"log":7,"stream":"stdout","time":"2026-11-23T10:00:00Z"}`, `{`, `{}`, ``, `null`, `[]`,
	} {
		_, _, ok := parseJSONFile([]byte(line), nil)
		assert.False(t, ok, line)
	}
}

func TestParseSource(t *testing.T) {
	got, ok := parseSource("/var/log/pods/kube-system_etcd-node.a_9f3/etcd/12.log")
	require.True(t, ok)
	assert.Equal(t, source{"kube-system", "etcd-node.a", "9f3", "etcd", 12, "/var/log/pods/kube-system_etcd-node.a_9f3/etcd/12.log", false}, got)
	got, ok = parseSource("a_b_c/d/x.log")
	require.True(t, ok)
	assert.Equal(t, int64(-1), got.restartCount)
	for _, path := range []string{"", "/", "0.log", "/srv/x/0.log", "/a_b/c/0.log", "/a_b_c_d/c/0.log", "/_b_c/d/0.log", "/a__c/d/0.log", "/a_b_/d/0.log", "/a_b_c//0.log"} {
		_, ok := parseSource(path)
		assert.False(t, ok, path)
	}
	outside := sourceOf("/srv/app.log", func(string) (string, error) { return "", errors.New("no link") })
	attributes := plog.NewLogs().ResourceLogs().AppendEmpty().Resource().Attributes()
	outside.put(attributes)
	assert.Equal(t, map[string]any{"log.file.path": "/srv/app.log"}, attributes.AsRaw())
	loop := sourceOf("/srv/loop.log", func(string) (string, error) { return "loop.log", nil })
	assert.Equal(t, "/srv/loop.log", loop.path)
}

func FuzzParseCRI(f *testing.F) {
	f.Add([]byte("2026-11-23T10:00:00.123456789Z stdout F hello"))
	f.Add([]byte("2026-11-23T10:00:00+02:00 stderr P:x part"))
	f.Add([]byte("2026-11-23T10:00:00.1Z stdout F"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := parseCRI(line)
		if !ok {
			return
		}
		if !bytes.HasSuffix(line, e.content) || e.time < 0 || e.stream > stderr {
			t.Fatalf("%q became %+v", line, e)
		}
		timestamp, _, _ := strings.Cut(string(line), " ")
		if at, err := time.Parse(time.RFC3339Nano, timestamp); err == nil && at.UnixNano() != e.time {
			t.Fatalf("%s became %d, not %d", timestamp, e.time, at.UnixNano())
		}
	})
}

func FuzzParseJSONFile(f *testing.F) {
	f.Add([]byte(`{"log":"hello\n","stream":"stdout","time":"2026-11-23T10:00:00.5Z"}`))
	f.Add([]byte(`{"log":"\u003c\ud83d\ude00\\","stream":"stderr","attrs":{"a":"}"},"time":"2026-11-23T10:00:00Z"}`))
	f.Add([]byte(`{"log":"a`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, _, ok := parseJSONFile(line, nil)
		if !ok || !json.Valid(line) || !utf8.Valid(line) {
			return
		}
		var want map[string]any
		require.NoError(t, json.Unmarshal(line, &want))
		content, isText := want["log"].(string)
		if !isText { // a member that is written with escapes in its name came last
			return
		}
		if string(e.content) != strings.TrimSuffix(content, "\n") && !strings.Contains(string(line), `\u00`) {
			t.Fatalf("%q became %q, not %q", line, e.content, content)
		}
	})
}

func FuzzParseSource(f *testing.F) {
	f.Add("/var/log/pods/shop_till_0f3c/api/0.log")
	f.Add("/var/log/pods/a_b_c_d//x")
	f.Fuzz(func(t *testing.T, path string) {
		s, ok := parseSource(path)
		if ok && !strings.Contains(path, s.namespace+"_"+s.pod+"_"+s.uid+"/"+s.container+"/") {
			t.Fatalf("%q became %+v", path, s)
		}
	})
}

func FuzzParsePositions(f *testing.F) {
	table := newPositions("")
	table.apply([]mark{{position: position{Path: "/x", Device: 1, Inode: 2, Offset: 9, FingerprintBytes: 3}}})
	table.apply([]mark{{position: position{Path: "/y", Device: 1, Inode: 2, Partial: &[2]int64{-1, 4}, Carried: &[2]int{0, 3}}, fresh: true}})
	content, err := table.encode(time.Now())
	require.NoError(f, err)
	f.Add(content)
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parsePositions(text)
		for _, entry := range list {
			if err == nil && entry.Offset < 0 {
				t.Fatalf("%+v", entry)
			}
		}
	})
}
