package containerlogsreceiver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func sumOf(t *testing.T, metric metricdata.Metrics) (total int64) {
	switch data := metric.Data.(type) {
	case metricdata.Sum[int64]:
		for _, point := range data.DataPoints {
			total += point.Value
		}
	case metricdata.Gauge[int64]:
		for _, point := range data.DataPoints {
			total += point.Value
		}
	default:
		t.Fatalf("metric %s is %T", metric.Name, metric.Data)
	}
	return total
}

func TestRecordCarriesWhatPathAndLineSay(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	w.raw("2026-11-23T12:13:14.123456789+02:00 stderr F it works\n")
	before := time.Now()
	n.start()
	n.expect("it works")
	got := n.sink.records()[0]
	assert.Equal(t, map[string]any{
		"k8s.namespace.name": "shop", "k8s.pod.name": "till", "k8s.pod.uid": "0f3c",
		"k8s.container.name": "api", "k8s.container.restart_count": int64(0),
	}, got.attributes)
	assert.Equal(t, map[string]any{"log.iostream": "stderr"}, got.record.Attributes().AsRaw())
	assert.Equal(t, time.Date(2026, 11, 23, 10, 13, 14, 123456789, time.UTC), got.record.Timestamp().AsTime())
	assert.WithinRange(t, got.record.ObservedTimestamp().AsTime(), before.Add(-time.Second), time.Now())
}

func TestBothFormatsAreDetectedPerFile(t *testing.T) {
	n := newNode(t)
	newWriter(t, n.log("cri")).line("from containerd")
	docker := newWriter(t, n.log("docker"))
	docker.raw(`{"log":"from \"docker\" \u003c\u00e9\u003e\n","stream":"stderr","time":"2026-11-23T10:00:00.5Z"}` + "\n")
	docker.raw(`{"log":"one ","stream":"stdout","time":"2026-11-23T10:00:01Z"}` + "\n")
	docker.raw(`{"log":"line\n","stream":"stdout","attrs":{"tag":"x}"},"time":"2026-11-23T10:00:02Z"}` + "\n")
	n.start()
	n.expect("from containerd", `from "docker" <é>`, "one line")
}

func TestThousandsOfLinesOfManyFilesArriveOnce(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 97 // cuts within files
	var want []string
	for f := range 20 {
		name := fmt.Sprintf("c%d", f)
		want = append(want, newWriter(t, n.log(name)).lines(name, 0, 500)...)
	}
	n.start()
	live := newWriter(t, n.log("live"))
	for i := range 50 {
		want = append(want, live.lines("live", i*20, 20)...)
		time.Sleep(time.Millisecond)
	}
	n.expect(want...)
	n.counts("longhaul_containerlogs_lines", int64(len(want)))
	n.counts("longhaul_containerlogs_files", int64(21))
	n.counts("longhaul_containerlogs_bytes", int64(len(strings.Join(want, ""))))
	assert.Zero(t, n.counter("longhaul_containerlogs_malformed"))
}

func TestPartialEntriesAreJoinedPerStream(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	n.start()
	w.write("stdout", "P", "a")
	w.write("stderr", "P", "x")
	w.write("stdout", "P", "b")
	time.Sleep(30 * time.Millisecond)
	w.write("stderr", "F", "y")
	w.write("stdout", "F", "c")
	w.write("stdout", "F", "")
	n.expect("abc", "xy", "")
	first := n.sink.records()[1]
	assert.Equal(t, "abc", first.body)
	assert.Equal(t, time.Date(2026, 11, 23, 10, 0, 0, 1234567, time.UTC), first.record.Timestamp().AsTime(), "the time of the first entry")
	assert.Zero(t, n.counter("longhaul_containerlogs_truncated_lines"))
}

func TestRefusedBatchIsRetriedAndReadingWaits(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 10
	n.sink.setRefuse(func(plog.Logs) error { return errRefused })
	want := newWriter(t, n.log("api")).lines("api", 0, 1000)
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 50 }, 10*time.Second, time.Millisecond)
	assert.Empty(t, n.sink.records())
	assert.Zero(t, n.counter("longhaul_containerlogs_lines"))
	assert.Len(t, n.logs.FilterMessageSnippet("refuses container log lines").All(), 1, "said once")
	n.sink.setRefuse(nil)
	n.expect(want...)
	n.counts("longhaul_containerlogs_lines", int64(1000))
}

func TestPermanentErrorDropsTheBatchAndCountsIt(t *testing.T) {
	n := newNode(t)
	n.sink.setRefuse(func(plog.Logs) error { return consumererror.NewPermanent(errRefused) })
	w := newWriter(t, n.log("api"))
	w.lines("bad", 0, 7)
	n.start()
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_dropped_lines") == 7 }, 10*time.Second, time.Millisecond)
	n.sink.setRefuse(nil)
	n.expect(w.lines("good", 0, 3)...)
	n.stop()
	n.start()
	n.expect("good line 0", "good line 1", "good line 2")
}

func TestMalformedLinesAreKept(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	w.line("good")
	w.raw("\x00\x00garbage\n\n2026-11-23T10:00:00Z stdnone F x\n")
	w.line("good again")
	n.start()
	n.expect("good", "\x00\x00garbage", "", "2026-11-23T10:00:00Z stdnone F x", "good again")
	n.counts("longhaul_containerlogs_malformed", int64(3))
	for _, got := range n.sink.records() {
		if strings.Contains(got.body, "garbage") {
			assert.Equal(t, got.record.ObservedTimestamp(), got.record.Timestamp())
			assert.Zero(t, got.record.Attributes().Len())
		}
	}
}

func TestInvalidUTF8IsReplacedAndCarriageReturnKept(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	w.line("caf\xe9 \xff\xfe!")
	w.line("windows\r")
	n.start()
	n.expect("caf\uFFFD \uFFFD!", "windows\r")
	n.counts("longhaul_containerlogs_invalid_utf8", int64(1))
}

func TestJSONLinesCarrySeverityAndTraceContext(t *testing.T) {
	n := newNode(t)
	body := `{"level":"warn","msg":"slow","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}`
	newWriter(t, n.log("api")).line(body)
	n.start()
	n.expect(body)
	got := n.sink.records()[0].record
	assert.Equal(t, plog.SeverityNumberWarn, got.SeverityNumber())
	assert.Equal(t, "warn", got.SeverityText())
	assert.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", got.TraceID().String())
	assert.Equal(t, "00f067aa0ba902b7", got.SpanID().String())
}

func TestRestartGoesOnMidFile(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	want := w.lines("api", 0, 300)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, w.lines("api", 300, 300)...)
	n.start()
	n.expect(want...)
}

func TestStartAtEndSkipsOnlyWhatWasThereAtTheFirstStart(t *testing.T) {
	n := newNode(t)
	n.config.StartAt = startAtEnd
	old := newWriter(t, n.log("old"))
	old.lines("old", 0, 50)
	old.raw("2026-11-23T11:00:00Z stdout F half")
	n.start()
	old.raw(" written\n")
	want := append(old.lines("more", 0, 5), "half written")
	want = append(want, newWriter(t, n.log("later")).lines("later", 0, 5)...)
	n.expect(want...)
	n.stop()
	want = append(want, newWriter(t, n.log("meanwhile")).lines("meanwhile", 0, 5)...)
	n.start()
	n.expect(want...)
}

func TestFilePathIsSetOnResourcesOfContainersIfAsked(t *testing.T) {
	n := newNode(t)
	n.config.IncludeFilePath = true
	w := newWriter(t, n.log("api"))
	w.lines("old", 0, 3)
	linked := filepath.Join(filepath.Dir(n.pods), "containers", "till_shop_api.log")
	require.NoError(t, os.Mkdir(filepath.Dir(linked), 0o755))
	other := newWriter(t, n.log("other"))
	other.line("linked")
	require.NoError(t, os.Symlink(other.path, linked))
	n.config.Include = []string{w.path, linked}
	n.start()
	require.Eventually(t, func() bool { return len(n.sink.records()) == 4 }, 30*time.Second, time.Millisecond)
	n.stop()
	w.line("rotated")
	require.NoError(t, os.Rename(w.path, w.path+".20261123-100000"))
	w.reopen()
	w.line("new")
	n.start()
	n.expect("old line 0", "old line 1", "old line 2", "linked", "rotated", "new")
	for _, got := range n.sink.records() {
		want := w.path
		if got.body == "linked" {
			want = linked
		}
		assert.Equal(t, want, got.attributes["log.file.path"], got.body)
		assert.Equal(t, "till", got.attributes["k8s.pod.name"], got.body)
	}
}
