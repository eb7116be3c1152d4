package containerlogsreceiver

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"pgregory.net/rapid"
)

// compress does what the kubelet does to a rotated log: a new file beside it,
// whose time is that of the compression, and the old one deleted.
func compress(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".gz.tmp", gzipped(t, text), 0o644))
	require.NoError(t, os.Rename(path+".gz.tmp", path+".gz"))
	require.NoError(t, os.Remove(path))
}

func gzipped(t require.TestingT, text []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestCompressedRotatedFilesAreReadWhenTheyHoldUnreadLines(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("before", 0, 500)
	n.start()
	n.expect(want...)
	n.stop()
	for i := range 4 { // the first is half read, the others were never seen
		want = append(want, w.lines(fmt.Sprintf("stopped %d", i), 0, 3000)...)
		rotated := fmt.Sprintf("%s.20261124-10000%d", path, i)
		require.NoError(t, os.Rename(path, rotated))
		w.reopen()
		if i > 0 {
			compress(t, fmt.Sprintf("%s.20261124-10000%d", path, i-1))
		}
	}
	want = append(want, w.lines("after", 0, 100)...)
	n.start()
	n.expect(want...)
	n.stop()
	n.start() // known as read, compressed or not
	n.expect(want...)
	compress(t, path+".20261124-100003")
	want = append(want, w.lines("more", 0, 10)...)
	n.expect(want...)
	n.stop()
	n.start()
	n.expect(want...)
}

func TestFileCompressedWhileItIsReadComesOnce(t *testing.T) {
	n := newNode(t)
	n.config.Batch.MaxLines = 10
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("first", 0, 2000)
	hold := make(chan struct{})
	n.sink.setRefuse(func(plog.Logs) error { <-hold; return nil })
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 0 }, 20*time.Second, time.Millisecond)
	require.NoError(t, os.Rename(path, path+".20261124-100000"))
	w.reopen()
	want = append(want, w.lines("second", 0, 10)...)
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == 2 }, 20*time.Second, time.Millisecond)
	compress(t, path+".20261124-100000")
	close(hold)
	n.expect(want...)
	require.Eventually(t, func() bool { return n.counter("longhaul_containerlogs_files") == 1 }, 20*time.Second, time.Millisecond)
	n.stop()
	n.start()
	n.expect(want...)
}

func TestRestartInTheMiddleOfACompressedFileGoesOnThere(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("seen", 0, 1)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, w.lines("unread", 0, 5000)...)
	require.NoError(t, os.Rename(path, path+".20261124-100000"))
	w.reopen()
	compress(t, path+".20261124-100000")
	n.config.Batch.MaxLines = 100
	n.sink.setRefuse(func(logs plog.Logs) error {
		first := logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body().Str()
		var number int
		if _, err := fmt.Sscanf(first, "unread line %d", &number); err == nil && number >= 2000 {
			return errRefused
		}
		return nil
	})
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 25 }, 20*time.Second, time.Millisecond)
	n.stop()
	n.sink.setRefuse(nil)
	n.start()
	n.expect(want...)
}

// TestTimeOfCompressionHidesNoOlderFile: the kubelet compresses a rotated log at
// the next rotation, so its compressed form is newer than the one rotated then.
func TestTimeOfCompressionHidesNoOlderFile(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("seen", 0, 1)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, w.lines("first", 0, 1000)...)
	require.NoError(t, os.Rename(path, path+".20261124-100000"))
	w.reopen()
	unread := w.lines("second", 0, 1000)
	require.NoError(t, os.Rename(path, path+".20261124-100001"))
	w.reopen()
	compress(t, path+".20261124-100000")
	later := time.Now().Add(time.Minute)
	require.NoError(t, os.Chtimes(path+".20261124-100000.gz", later, later))
	n.config.Batch.MaxLines = 100
	n.sink.setRefuse(func(logs plog.Logs) error { // stop after the compressed file, before the plain one
		if body := logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body().Str(); strings.HasPrefix(body, "second") || body == "first line 900" {
			return errRefused
		}
		return nil
	})
	n.start()
	n.expect(want[:901]...)
	n.stop()
	n.sink.setRefuse(nil)
	n.start()
	n.expect(append(want, unread...)...)
}

func TestDamagedCompressedFileIsReadAsFarAsItGoesAndSaid(t *testing.T) {
	n := newNode(t)
	path := n.log("api")
	w := newWriter(t, path)
	want := w.lines("seen", 0, 1)
	n.start()
	n.expect(want...)
	n.stop()
	unread := w.lines("unread", 0, 5000)
	require.NoError(t, os.Rename(path, path+".20261124-100000"))
	w.reopen()
	compress(t, path+".20261124-100000")
	content, err := os.ReadFile(path + ".20261124-100000.gz")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".20261124-100000.gz", content[:len(content)/2], 0o644))
	after := w.lines("after", 0, 10)
	n.start()
	n.expectNoneMissing(append(append(want, unread[:1000]...), after...)...)
	require.NotEmpty(t, n.logs.FilterMessageSnippet("compressed container log is damaged").All())
	assert.NotZero(t, n.counter("longhaul_containerlogs_read_errors"))
}

func TestGzipFileReadsAsTheTextItHolds(t *testing.T) {
	directory := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Repeat(rapid.StringN(1, 50, 100).Draw(t, "text"), rapid.IntRange(0, 3000).Draw(t, "times")))
		path := filepath.Join(directory, "x.gz")
		require.NoError(t, os.WriteFile(path, gzipped(t, text), 0o600))
		g, err := openLog(path)
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Close()) }()
		require.Equal(t, uint32(len(text)), g.(*gzipFile).statedSize())
		for range rapid.IntRange(1, 8).Draw(t, "reads") {
			at := rapid.IntRange(0, len(text)).Draw(t, "at")
			p := make([]byte, rapid.IntRange(1, len(text)+2000).Draw(t, "length"))
			n, err := g.ReadAt(p, int64(at))
			want := text[at:min(len(text), at+len(p))]
			require.Equal(t, string(want), string(p[:n]))
			if n < len(p) {
				require.ErrorIs(t, err, io.EOF)
			} else {
				require.NoError(t, err)
			}
		}
	})
}

func FuzzGzipFile(f *testing.F) {
	f.Add(gzipped(f, []byte("2026-11-23T10:00:00Z stdout F hello\n")), int64(3))
	f.Add([]byte("\x1f\x8b\x08"), int64(0))
	f.Fuzz(func(t *testing.T, content []byte, at int64) {
		path := filepath.Join(t.TempDir(), "x.gz")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		g, err := openLog(path)
		if err != nil || at < 0 {
			return
		}
		defer func() { require.NoError(t, g.Close()) }()
		p := make([]byte, 2000)
		if n, err := g.ReadAt(p, at); n < len(p) && err == nil {
			t.Fatal("too little, and no reason")
		}
	})
}
