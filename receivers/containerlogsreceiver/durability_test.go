package containerlogsreceiver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
)

// saved reads the position of the only file from the position file.
func (n *node) saved() position {
	n.t.Helper()
	table, _, err := loadPositions(n.config.PositionFile)
	require.NoError(n.t, err)
	for _, entry := range table.table {
		return entry
	}
	return position{}
}

func TestPositionIsSavedOnlyAfterTheLinesAreAccepted(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 10
	hold := make(chan struct{})
	n.sink.setRefuse(func(logs plog.Logs) error {
		first := logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body().Str()
		if first == "api line 0" {
			<-hold
		}
		return nil
	})
	w := newWriter(t, n.log("api"))
	want := w.lines("api", 0, 100)
	n.start()
	require.Eventually(t, func() bool { return len(n.sink.records()) >= 30 }, 10*time.Second, time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	assert.Zero(t, n.saved().Offset, "later batches were accepted, the first was not")
	close(hold)
	n.expect(want...)
	info, err := os.Stat(w.path)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return n.saved().Offset == info.Size() }, 10*time.Second, 5*time.Millisecond)
}

func TestOneBusyFileKeepsSeveralBatchesInFlight(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 10
	arrived, hold := make(chan struct{}, 100), make(chan struct{})
	n.sink.setRefuse(func(plog.Logs) error {
		arrived <- struct{}{}
		<-hold
		return nil
	})
	want := newWriter(t, n.log("api")).lines("api", 0, 100)
	n.start()
	for range maxInFlight {
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatal("a blocked call keeps the next batch waiting")
		}
	}
	close(hold)
	n.expect(want...)
}

func TestShoutingContainerDoesNotKeepOthersWaiting(t *testing.T) {
	n := newNode(t)
	loud := newWriter(t, n.log("a-loud"))
	var text strings.Builder
	for i := range 40_000 {
		fmt.Fprintf(&text, "2026-11-23T10:00:00Z stdout F loud %d %s\n", i, strings.Repeat("x", 100))
	}
	loud.raw(text.String())
	newWriter(t, n.log("quiet")).line("quiet")
	var behind atomic.Int64 // the loud line that comes before the quiet one in its batch
	n.sink.setRefuse(func(logs plog.Logs) error {
		last, quiet := int64(0), false
		for _, resource := range logs.ResourceLogs().All() {
			for _, record := range resource.ScopeLogs().At(0).LogRecords().All() {
				var number int64
				if _, err := fmt.Sscanf(record.Body().Str(), "loud %d", &number); err == nil {
					last = number
				}
				quiet = quiet || record.Body().Str() == "quiet"
			}
		}
		if quiet {
			behind.Store(last)
		}
		return nil
	})
	n.start()
	require.Eventually(t, func() bool { return len(n.sink.records()) == 40_001 }, 30*time.Second, time.Millisecond)
	assert.Less(t, behind.Load(), int64(10_000), "it comes with the first sweep, not after the loud file")
}

// A call lasts until its frame is durable: a batch for each file would take minutes.
func TestManyFilesAreReadIntoFewBatchesAfterARestart(t *testing.T) {
	n := newNode(t)
	n.config.PollInterval = time.Second // a batch may end with each
	var writers []*writer
	var want []string
	for i := range 200 {
		w := newWriter(t, n.log(fmt.Sprint("c", i)))
		w.line(fmt.Sprint("before ", i))
		writers, want = append(writers, w), append(want, fmt.Sprint("before ", i))
	}
	n.start()
	n.expect(want...)
	n.stop()
	before := n.sink.attempts()
	for i, w := range writers {
		w.line(fmt.Sprint("after ", i))
		want = append(want, fmt.Sprint("after ", i))
	}
	n.start()
	n.expect(want...)
	assert.Less(t, n.sink.attempts()-before, 40)
}

func TestKillBetweenDurableAndSaveRepeatsButLosesNothing(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	want := w.lines("api", 0, 100)
	n.start()
	n.expect(want...)
	n.stop()
	before, err := os.ReadFile(n.config.PositionFile)
	require.NoError(t, err)
	more := w.lines("api", 100, 50)
	n.start()
	n.expect(append(want, more...)...)
	n.stop()
	// The kill: the lines are durable, the position file is still the old one.
	require.NoError(t, os.WriteFile(n.config.PositionFile, before, 0o600))
	last := w.lines("api", 150, 10)
	n.start()
	counts := map[string]int{}
	for _, body := range append(append(want, more...), append(more, last...)...) {
		counts[body]++
	}
	n.expectCounts(counts, 210)
}

func TestCorruptPositionFileIsMovedAsideAndFilesAreReadAgain(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut off":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":      func([]byte) []byte { return nil },
		"flipped":    func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"zeros":      func(b []byte) []byte { return make([]byte, len(b)) },
		"of another": func([]byte) []byte { return []byte(`{"version":99,"files":[]}`) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.config.StartAt = startAtEnd // does not apply: rather twice than not at all
			n.start()
			want := newWriter(t, n.log("api")).lines("api", 0, 20)
			n.expect(want...)
			n.stop()
			content, err := os.ReadFile(n.config.PositionFile)
			require.NoError(t, err)
			damaged := damage(content)
			require.NoError(t, os.WriteFile(n.config.PositionFile, damaged, 0o600))
			n.start()
			n.expect(append(want, want...)...)
			assert.NotEmpty(t, n.logs.FilterMessageSnippet("position file is corrupt").All())
			aside, err := filepath.Glob(n.config.PositionFile + ".corrupt-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			kept, err := os.ReadFile(aside[0])
			require.NoError(t, err)
			assert.Equal(t, string(damaged), string(kept))
		})
	}
}

func TestPositionsThatCannotBeSavedStopNothingAndAreSaidOnce(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	n.start()
	temporary := n.config.PositionFile + ".tmp"
	require.NoError(t, os.Mkdir(temporary, 0o755)) // in the way, also of root
	var want []string
	for i := range 5 {
		want = append(want, w.lines("api", i*10, 10)...)
		n.expect(want...)
	}
	assert.Len(t, n.logs.FilterMessageSnippet("cannot save read positions").All(), 1)
	require.NoError(t, os.Remove(temporary))
	want = append(want, w.lines("api", 50, 10)...)
	n.expect(want...)
	n.stop()
	n.start()
	n.expect(want...)
}

func TestStartFailsClearlyWithoutUsablePositionFile(t *testing.T) {
	n := newNode(t)
	n.start()
	set := receivertest.NewNopSettings(componentType)
	second, err := newReceiver(set, n.config, n.sink)
	require.NoError(t, err)
	assert.ErrorIs(t, second.Start(context.Background(), componenttest.NewNopHost()), errInUse)
	require.NoError(t, second.Shutdown(context.Background()))

	blocked := *n.config
	blocked.PositionFile = filepath.Join(n.config.PositionFile, "in", "a", "file")
	third, err := newReceiver(set, &blocked, n.sink)
	require.NoError(t, err)
	assert.ErrorContains(t, third.Start(context.Background(), componenttest.NewNopHost()), "create directory of position file")
}

func TestShutdownWhileThePipelineRefusesLosesNothing(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 7
	n.sink.setRefuse(func(plog.Logs) error { return errRefused })
	want := newWriter(t, n.log("api")).lines("api", 0, 200)
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 10 }, 10*time.Second, time.Millisecond)
	n.stop()
	n.sink.setRefuse(nil)
	n.start()
	n.expect(want...)
}

func TestShutdownLetsACallInFlightEnd(t *testing.T) {
	n := newNode(t)
	arrived, hold := make(chan struct{}), make(chan struct{})
	n.sink.setRefuse(func(plog.Logs) error {
		close(arrived)
		<-hold
		return nil
	})
	want := newWriter(t, n.log("api")).lines("api", 0, 20)
	n.start()
	<-arrived
	time.AfterFunc(20*time.Millisecond, func() { close(hold) })
	n.stop()
	require.Len(t, n.sink.records(), 20)
	n.sink.setRefuse(nil)
	n.start()
	n.expect(want...)
}

// killedReceiver is the variable that makes the test binary a collector to be
// killed: it names the pods directory.
const killedReceiver = "CONTAINERLOGS_TEST_KILLED"

// fileSink is a durable exporter: a line it has accepted is in its file.
type fileSink struct{ file *os.File }

func (fileSink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (s fileSink) ConsumeLogs(_ context.Context, logs plog.Logs) error {
	var text strings.Builder
	text.WriteByte('\n') // a kill may have torn the last line of the call before
	for _, resource := range logs.ResourceLogs().All() {
		for _, record := range resource.ScopeLogs().At(0).LogRecords().All() {
			text.WriteString(record.Body().Str() + "\n")
		}
	}
	_, err := s.file.WriteString(text.String())
	return errors.Join(err, s.file.Sync())
}

func runUntilKilled(pods string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	out, err := os.OpenFile(filepath.Join(pods, "../out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(err)
	config := createDefaultConfig().(*Config)
	config.Include = []string{pods + "/*/*/*.log"}
	config.StartAt = startAtBeginning
	config.PositionFile = filepath.Join(pods, "../positions.json")
	config.PollInterval = 10 * time.Millisecond
	config.Batch.MaxLines = 100
	set := receivertest.NewNopSettings(componentType)
	set.Logger = zap.NewNop()
	r, err := newReceiver(set, config, fileSink{out})
	must(err)
	must(r.Start(context.Background(), componenttest.NewNopHost()))
	select {}
}

func TestKillNineAtAnyMomentLosesNoLine(t *testing.T) {
	pods := filepath.Join(t.TempDir(), "pods")
	n := &node{t: t, pods: pods}
	w := newWriter(t, n.log("api"))
	var want []string
	delivered := func() map[string]int {
		counts := map[string]int{}
		file, err := os.Open(filepath.Join(pods, "../out"))
		if err != nil {
			return counts
		}
		defer func() { require.NoError(t, file.Close()) }()
		for scan := bufio.NewScanner(file); scan.Scan(); {
			counts[scan.Text()]++
		}
		return counts
	}
	missing := func(counts map[string]int) (bodies []string) {
		for _, body := range want {
			if counts[body] == 0 {
				bodies = append(bodies, body)
			}
		}
		return bodies
	}
	for round := range 8 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), killedReceiver+"="+pods)
		command.Stderr = os.Stderr
		require.NoError(t, command.Start())
		for i := range 20 {
			want = append(want, w.lines(fmt.Sprintf("round %d %d", round, i), 0, 200)...)
			time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond)
			if i == 10 && round%2 == 0 {
				require.NoError(t, os.Rename(w.path, fmt.Sprintf("%s.%d", w.path, round)))
				w.reopen()
			}
		}
		if round == 7 {
			require.Eventually(t, func() bool { return len(missing(delivered())) == 0 }, 20*time.Second, 50*time.Millisecond,
				"lost: %.10q", missing(delivered()))
		}
		require.NoError(t, command.Process.Kill())
		_ = command.Wait()
	}
	counts := delivered()
	repeated := 0
	for _, body := range want {
		repeated += counts[body] - 1
	}
	t.Logf("%d lines, %d repeated over 8 kills, %d torn by a kill", len(want), repeated, len(counts)-len(want)-1)
}

func TestPositionFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions.json")
	table, first, err := loadPositions(path)
	require.NoError(t, err)
	require.True(t, first)
	entry := position{Path: "/p \xff\"", Device: 1 << 63, Inode: 7, Fingerprint: 1<<64 - 1, FingerprintBytes: 12, Offset: 1 << 60, Partial: &[2]int64{-1, 9}, Carried: &[2]int{0, 5}, Modified: 5, Closed: true, Compressed: true, Former: false}
	table.apply([]mark{{position: entry}})
	table.noteUnfound(entry.Path, time.Unix(0, 3))
	require.NoError(t, table.save())
	back, first, err := loadPositions(path)
	require.NoError(t, err)
	require.False(t, first)
	got := back.table[entry.id()]
	assert.NotZero(t, got.UnseenSince)
	got.UnseenSince = 0
	entry.Path = "/p \uFFFD\""
	since, noted := back.unfoundSince(entry.Path)
	assert.True(t, noted)
	assert.Equal(t, time.Unix(0, 3), since)
	got.Unfound, entry.Unfound = 3, 3 // as it is in the file
	want, err := json.Marshal(got)
	require.NoError(t, err)
	written, err := got.appendJSON(nil)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(written))
	assert.Equal(t, entry, got)
}

func TestPositionsForgetWhatIsLongGone(t *testing.T) {
	table := newPositions("")
	for i := range uint64(30) {
		table.apply([]mark{{position: position{Path: "/x", Inode: i, Modified: int64(i), Closed: true}}})
	}
	assert.Len(t, table.table, keepClosed)
	assert.Contains(t, table.table, fileID{0, 29})
	table.apply([]mark{{position: position{Path: "/y", Inode: 99, UnseenSince: 1}}, {position: position{Path: "/x", Inode: 29}, gone: true}})
	content, err := table.encode(time.Now())
	require.NoError(t, err)
	var file positionFile
	require.NoError(t, json.Unmarshal(content, &file))
	list, err := parsePositions(content)
	require.NoError(t, err)
	assert.Len(t, list, keepClosed-1)
}
