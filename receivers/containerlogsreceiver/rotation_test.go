package containerlogsreceiver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
)

// copyTruncate does what logrotate's copytruncate does.
func copyTruncate(t *testing.T, path, copied string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, text, 0o644))
	require.NoError(t, os.Truncate(path, 0))
}

func TestRenameRotationLosesNothing(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	n.start()
	var want []string
	for i := range 8 {
		want = append(want, w.lines(fmt.Sprintf("generation %d", i), 0, 200)...)
		require.NoError(t, os.Rename(path, fmt.Sprintf("%s.2026112%d", path, i)))
		want = append(want, w.lines(fmt.Sprintf("after rename %d", i), 0, 50)...)
		w.reopen()
		want = append(want, w.lines(fmt.Sprintf("after reopen %d", i), 0, 50)...)
		time.Sleep(time.Duration(i*3) * time.Millisecond)
	}
	n.expect(want...)
}

func TestLinesOfOneFileKeepTheirOrderAcrossRotation(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 1_000_000 // what one look finds is one batch
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("api", 0, 100)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, w.lines("api", 100, 100)...)
	require.NoError(t, os.Rename(path, path+".1"))
	w.reopen()
	want = append(want, w.lines("api", 200, 100)...)
	n.start()
	n.expect(want...)
	for i, got := range n.sink.asRead() {
		require.Equal(t, want[i], got.body)
	}
}

func TestSeveralRotationsWhileStoppedLoseNothing(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	require.NoError(t, os.WriteFile(path+".20250101", []byte("read by nobody, and older than anything seen\n"), 0o644))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path+".20250101", old, old))
	want := w.lines("before", 0, 100)
	n.start()
	n.expect(want...)
	n.stop()
	for i := range 4 {
		want = append(want, w.lines(fmt.Sprintf("stopped %d", i), 0, 100)...)
		require.NoError(t, os.Rename(path, fmt.Sprintf("%s.2026112%d", path, i)))
		w.reopen()
	}
	want = append(want, w.lines("after", 0, 100)...)
	n.start()
	n.expect(want...)
	n.stop()
	n.start()
	n.expect(want...)
}

func TestCopyTruncateReadsTheRestFromTheCopy(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	n.start()
	var want []string
	for i := range 6 {
		want = append(want, w.lines(fmt.Sprintf("copy %d", i), 0, 300)...)
		copyTruncate(t, path, fmt.Sprintf("%s.%d", path, i))
		if i%2 == 0 { // the new text may be shorter or longer than the old
			want = append(want, w.lines(fmt.Sprintf("long %d", i), 0, 600)...)
		}
		n.expectNoneMissing(want...) // a copy that appears while the log is being read may repeat lines
	}
}

func TestCopyTruncateWhileStoppedReadsTheRestFromTheCopy(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("before", 0, 200)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, w.lines("unread", 0, 200)...)
	copyTruncate(t, path, path+".1")
	want = append(want, w.lines("new", 0, 10)...)
	n.start()
	n.expect(want...)
	n.stop()
	n.start()
	n.expect(want...)
}

func TestTruncatedFileWithoutCopyIsReadFromItsBeginning(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("old", 0, 100)
	n.start()
	n.expect(want...)
	require.NoError(t, os.Truncate(path, 0))
	// The same length to the byte: only the fingerprint tells.
	want = append(want, w.lines("new", 0, 100)...)
	n.expect(want...)
}

func TestRecreatedFileIsReadFromItsBeginning(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("first", 0, 100)
	n.start()
	n.expect(want...)
	require.NoError(t, os.Remove(path))
	want = append(want, w.lines("deleted but open", 0, 20)...)
	w.reopen()
	want = append(want, w.lines("second", 0, 200)...)
	n.expect(want...)
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == 1 }, 10*time.Second, time.Millisecond,
		"the deleted file is closed at its end")
}

func TestReusedInodeIsNotTakenForTheOldFile(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("first", 0, 100)
	n.start()
	n.expect(want...)
	n.stop()
	// Overwriting in place is inode reuse at its most certain.
	require.NoError(t, os.Truncate(path, 0))
	want = append(want, w.lines("second", 0, 300)...)
	n.start()
	n.expect(want...)
}

func TestChangedDeviceNumberIsStillTheSameFile(t *testing.T) {
	n := newNode(t)
	want := newWriter(t, n.log("api")).lines("api", 0, 100)
	n.start()
	n.expect(want...)
	n.stop()
	table, first, err := loadPositions(n.config.PositionFile)
	require.NoError(t, err)
	require.False(t, first)
	for id, entry := range table.table {
		delete(table.table, id)
		entry.Device += 7
		table.table[entry.id()] = entry
	}
	require.NoError(t, table.save())
	n.start()
	n.expect(want...)
	n.stop()
	table, _, err = loadPositions(n.config.PositionFile)
	require.NoError(t, err)
	assert.Len(t, table.table, 1, "known by its new device number alone")
}

func TestPartialEntriesAreJoinedAcrossRotation(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	n.start()
	w.write("stdout", "P", "a")
	w.write("stderr", "F", "between")
	require.NoError(t, os.Rename(path, path+".1"))
	w.reopen()
	w.write("stdout", "P", "b")
	require.NoError(t, os.Rename(path, path+".2"))
	w.reopen()
	w.write("stdout", "F", "c")
	n.expect("between", "abc")
	n.stop()
	n.start()
	n.expect("between", "abc")
}

func TestPartialEntriesAreJoinedAcrossRestart(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	n.start()
	w.line("whole")
	w.write("stdout", "P", "a")
	w.write("stderr", "F", "between")
	n.expect("whole", "between")
	n.stop()
	w.write("stdout", "P", "b")
	n.start()
	w.write("stderr", "F", "between too")
	n.expect("whole", "between", "between too")
	n.stop()
	require.NoError(t, os.Rename(path, path+".1"))
	w.reopen()
	w.write("stdout", "F", "c")
	n.start()
	n.expect("whole", "between", "between too", "abc")
	n.stop()
	n.start()
	n.expect("whole", "between", "between too", "abc")
}

func TestUnfinishedRecordIsHandedOnInTheEnd(t *testing.T) {
	n := newNode(t)
	n.timing.partialIdle = 20 * time.Millisecond
	n.timing.drainGrace = 20 * time.Millisecond
	path := n.log("api")
	w := newWriter(t, path)
	n.start()
	w.write("stdout", "P", "the last words")
	n.expect("the last words")
	w.raw("2026-11-23T11:00:00Z stderr F torn")
	n.expect("the last words")
	require.NoError(t, os.Remove(path))
	n.expect("the last words", "torn")
	for _, got := range n.sink.records() {
		split, _ := got.record.Attributes().Get("longhaul.line.split")
		assert.True(t, split.Bool())
	}
	n.counts("longhaul_containerlogs_truncated_lines", int64(2))
}

func TestFilesThatRotateWhileThePipelineRefusesAreHeldOpen(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 10
	n.sink.setRefuse(func(plog.Logs) error { return errRefused })
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("generation 0", 0, 200)
	n.start()
	for i := 1; i < 5; i++ {
		rotated := fmt.Sprintf("%s.%d", path, i)
		require.NoError(t, os.Rename(path, rotated))
		w.reopen()
		want = append(want, w.lines(fmt.Sprintf("generation %d", i), 0, 200)...)
		require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == int64(i+1) }, 10*time.Second, time.Millisecond)
		require.NoError(t, os.Remove(rotated))
	}
	n.sink.setRefuse(nil)
	n.expect(want...)
}

func TestDeletedFilesHeldOpenAreBoundedAndTheLossIsSaid(t *testing.T) {
	n := newNode(t)
	n.timing.maxDeleted = 50_000
	n.config.Batch.MaxLines = 10
	n.sink.setRefuse(func(plog.Logs) error { return errRefused })
	path := n.log("api")
	w := newWriter(t, path)
	first := w.lines("generation 0", 0, 500)
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 0 }, 20*time.Second, time.Millisecond)
	for i := 1; i < 6; i++ { // about 30 kB each
		rotated := fmt.Sprintf("%s.%d", path, i)
		require.NoError(t, os.Rename(path, rotated))
		w.reopen()
		w.lines(fmt.Sprintf("generation %d", i), 0, 500)
		require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == int64(i+1) }, 20*time.Second, time.Millisecond)
		require.NoError(t, os.Remove(rotated))
	}
	last := w.lines("last", 0, 10)
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_abandoned_bytes") > 50_000 }, 20*time.Second, time.Millisecond)
	n.sink.setRefuse(nil)
	n.expectNoneMissing(append(first, last...)...)
	require.NotEmpty(t, n.logs.FilterMessageSnippet("what was unread is lost").All())
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == 1 }, 20*time.Second, time.Millisecond)
}

func TestSymbolicLinksAreFollowed(t *testing.T) {
	n := newNode(t)
	data := filepath.Join(filepath.Dir(n.pods), "docker")
	require.NoError(t, os.Mkdir(data, 0o755))
	target := filepath.Join(data, "4f2-json.log")
	w := newWriter(t, target)
	w.raw(`{"log":"one\n","stream":"stdout","time":"2026-11-23T10:00:00Z"}` + "\n")
	link := n.log("api")
	require.NoError(t, os.Symlink(target, link))
	containers := filepath.Join(filepath.Dir(n.pods), "containers")
	require.NoError(t, os.Mkdir(containers, 0o755))
	require.NoError(t, os.Symlink(link, filepath.Join(containers, "till_shop_api-4f2.log")))
	n.config.Include = []string{filepath.Join(containers, "*.log")}
	n.start()
	n.expect("one")
	assert.Equal(t, "api", n.sink.records()[0].attributes["k8s.container.name"])
	require.NoError(t, os.Rename(target, target+".1"))
	w.raw(`{"log":"two\n","stream":"stdout","time":"2026-11-23T10:00:00Z"}` + "\n")
	w.reopen()
	w.raw(`{"log":"three\n","stream":"stdout","time":"2026-11-23T10:00:00Z"}` + "\n")
	n.expect("one", "two", "three")
}

func TestFileThatCannotBeReadIsSaidOnceCountedAndTriedAgain(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	require.NoError(t, os.Symlink(path, path)) // a loop: not even root can open it
	n.start()
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_read_errors") > 5 }, 10*time.Second, time.Millisecond)
	assert.Len(t, n.logs.FilterMessageSnippet("cannot read container log").All(), 1)
	require.NoError(t, os.Remove(path))
	n.expect(newWriter(t, path).lines("api", 0, 5)...)
}

func TestFirstLineIsFoundWithoutReadingTheWholeFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	_, err = io.WriteString(file, "one\ntwo\nthree")
	require.NoError(t, err)
	for end, want := range map[int64]int64{0: 0, 2: 0, 4: 4, 8: 8, 13: 8} {
		assert.Equal(t, want, lineStartBefore(file, end, make([]byte, 64)), "end %d", end)
	}
	assert.Equal(t, int64(13), lineStartBefore(file, 13, make([]byte, 3)), "no line start within reach")
}
