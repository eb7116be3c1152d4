package containerlogsreceiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// node is a directory laid out as /var/log/pods, a position file, and a
// receiver that reads the one and writes the other.
type node struct {
	t        *testing.T
	pods     string
	config   *Config
	timing   timing
	sink     *sink
	logs     *observer.ObservedLogs
	meter    *componenttest.Telemetry
	receiver *containerLogs
	readDir  func(directory string) ([]os.DirEntry, error) // nil: os.ReadDir
}

func newNode(t *testing.T) *node {
	directory := t.TempDir()
	n := &node{t: t, pods: filepath.Join(directory, "pods"), config: createDefaultConfig().(*Config), sink: &sink{}}
	n.config.Include = []string{filepath.Join(n.pods, "*/*/*.log")}
	n.config.StartAt = startAtBeginning
	n.config.PositionFile = filepath.Join(directory, "positions.json")
	n.config.PollInterval = 10 * time.Millisecond
	n.timing = timing{
		saveGap: time.Millisecond, partialIdle: time.Minute, drainGrace: 50 * time.Millisecond, scanWait: 30 * time.Second,
		limitedGap: 10 * time.Second, limitedQuiet: time.Second, lastNotices: 30 * time.Second,
		shutdownGrace: 10 * time.Second, maxDeleted: maxDeletedBytes, retryInitial: time.Millisecond, retryMax: 20 * time.Millisecond,
	}
	require.NoError(t, os.MkdirAll(n.pods, 0o755))
	return n
}

func (n *node) start() {
	n.t.Helper()
	require.NoError(n.t, n.config.Validate())
	core, logs := observer.New(zap.DebugLevel)
	n.logs = logs
	n.meter = componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(componentType)
	set.TelemetrySettings = n.meter.NewTelemetrySettings()
	set.Logger = zap.New(core)
	var err error
	n.receiver, err = newReceiver(set, n.config, n.sink)
	require.NoError(n.t, err)
	n.receiver.timing = n.timing
	n.receiver.readDir = n.readDir
	require.NoError(n.t, n.receiver.Start(context.Background(), componenttest.NewNopHost()))
	running := n.receiver
	n.t.Cleanup(func() { _ = running.Shutdown(context.Background()) })
}

func (n *node) stop() {
	n.t.Helper()
	require.NoError(n.t, n.receiver.Shutdown(context.Background()))
	require.NoError(n.t, n.meter.Shutdown(context.Background()))
}

// log is the path of the log file of a container of pod shop/till.
func (n *node) log(container string) string {
	path := filepath.Join(n.pods, "shop_till_0f3c", container, "0.log")
	require.NoError(n.t, os.MkdirAll(filepath.Dir(path), 0o755))
	return path
}

// counter reads one of the receiver's own metrics.
func (n *node) counter(name string) int64 {
	metric, err := n.meter.GetMetric(name)
	if err != nil {
		return 0
	}
	return sumOf(n.t, metric)
}

// counts waits until a counter has a value. A batch is counted once the sink has
// taken it: its records may be seen a moment before.
func (n *node) counts(name string, want int64) {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.counter(name) == want }, 30*time.Second, time.Millisecond, name)
}

// expect waits until exactly the bodies arrived, in any order, each once.
func (n *node) expect(bodies ...string) {
	n.t.Helper()
	want := map[string]int{}
	for _, body := range bodies {
		want[body]++
	}
	n.expectCounts(want, len(bodies))
}

// expectNoneMissing waits until every line has arrived, and lets lines come twice.
func (n *node) expectNoneMissing(bodies ...string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		got := map[string]bool{}
		for _, r := range n.sink.records() {
			got[r.body] = true
		}
		for _, body := range bodies {
			if !got[body] {
				return false
			}
		}
		return true
	}, 20*time.Second, 5*time.Millisecond, "lines are missing")
}

func (n *node) expectCounts(want map[string]int, total int) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for len(n.sink.records()) < total && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(30 * time.Millisecond) // what comes too much comes now
	got := map[string]int{}
	for _, r := range n.sink.records() {
		got[r.body]++
	}
	var wrong []string
	for body, count := range want {
		if got[body] != count {
			wrong = append(wrong, fmt.Sprintf("%.80q arrived %d times, want %d", body, got[body], count))
		}
	}
	for body, count := range got {
		if want[body] == 0 {
			wrong = append(wrong, fmt.Sprintf("%.80q arrived %d times, want none", body, count))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		n.t.Errorf("%d wrong, such as\n%s", len(wrong), strings.Join(wrong[:min(10, len(wrong))], "\n"))
		for _, entry := range n.logs.All() {
			n.t.Log(entry.Level, entry.Message, entry.ContextMap())
		}
		n.t.FailNow()
	}
}

// received is a record as the sink got it.
type received struct {
	body       string
	record     plog.LogRecord
	attributes map[string]any // of the resource
}

// sink is the next consumer: it keeps what it accepts.
type sink struct {
	mu     sync.Mutex
	got    []received
	calls  int
	refuse func(plog.Logs) error // nil accepts; called without the lock
}

var errRefused = errors.New("the spool is full")

func (s *sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{MutatesData: true} }

func (s *sink) ConsumeLogs(_ context.Context, logs plog.Logs) error {
	s.mu.Lock()
	refuse := s.refuse
	s.calls++
	s.mu.Unlock()
	if refuse != nil {
		if err := refuse(logs); err != nil {
			// A consumer may have changed what it refuses.
			logs.ResourceLogs().RemoveIf(func(plog.ResourceLogs) bool { return true })
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				s.got = append(s.got, received{record.Body().Str(), record, resource.Resource().Attributes().AsRaw()})
			}
		}
	}
	return nil
}

func (s *sink) setRefuse(refuse func(plog.Logs) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

func (s *sink) records() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[:len(s.got):len(s.got)]
}

// asRead lists the records in the order they were read: two batches may arrive
// in either order.
func (s *sink) asRead() []received {
	records := slices.Clone(s.records())
	slices.SortStableFunc(records, func(a, b received) int {
		return cmp.Compare(a.record.ObservedTimestamp(), b.record.ObservedTimestamp())
	})
	return records
}

func (s *sink) attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// writer appends to a log file as a container runtime does.
type writer struct {
	t     *testing.T
	path  string
	file  *os.File
	clock time.Time
}

func newWriter(t *testing.T, path string) *writer {
	w := &writer{t: t, path: path, clock: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	w.reopen()
	t.Cleanup(func() { _ = w.file.Close() })
	return w
}

// reopen opens the path anew, as after a rotation.
func (w *writer) reopen() {
	w.t.Helper()
	if w.file != nil {
		require.NoError(w.t, w.file.Close())
	}
	var err error
	w.file, err = os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	require.NoError(w.t, err)
}

func (w *writer) raw(text string) {
	w.t.Helper()
	_, err := w.file.WriteString(text)
	require.NoError(w.t, err)
}

// write appends a CRI line; tag is F or P.
func (w *writer) write(stream, tag, content string) {
	w.t.Helper()
	w.clock = w.clock.Add(1234567 * time.Nanosecond)
	w.raw(w.clock.Format("2006-01-02T15:04:05.000000000Z07:00") + " " + stream + " " + tag + " " + content + "\n")
}

func (w *writer) line(content string) {
	w.t.Helper()
	w.write("stdout", "F", content)
}

// lines writes count numbered lines and returns their bodies.
func (w *writer) lines(name string, from, count int) (bodies []string) {
	w.t.Helper()
	for i := from; i < from+count; i++ {
		body := fmt.Sprintf("%s line %d", name, i)
		w.line(body)
		bodies = append(bodies, body)
	}
	return bodies
}
