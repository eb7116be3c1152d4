package containerlogsreceiver

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDirectoryLevels(t *testing.T) {
	for pattern, want := range map[string][]string{
		"/var/log/pods/*/*/*.log":   {"/var/log/pods", "/var/log/pods/*", "/var/log/pods/*/*"},
		"/var/log/containers/*.log": {"/var/log/containers"},
		"/srv/app.log":              {"/srv"},
		"/srv/*/log/a.log":          {"/srv", "/srv/*", "/srv/*/log"},
	} {
		assert.Equal(t, want, directoryLevels(pattern), pattern)
	}
}

// watchOnly makes a node whose files would be found by chance only once in a
// minute, and skips the test where directories cannot be watched.
func watchOnly(t *testing.T) *node {
	n := newNode(t)
	n.config.PollInterval = time.Minute
	w, err := newWatcher("positions")
	if err != nil {
		t.Skip(err)
	}
	defer w.close()
	if err := w.watch(n.pods); err != nil {
		t.Skip(err)
	}
	return n
}

func TestWatchedDirectoriesTellOfNewPodsAndRotationsAtOnce(t *testing.T) {
	n := watchOnly(t)
	n.start()
	path := n.log("api")
	staged := filepath.Join(filepath.Dir(n.pods), "staged")
	var want []string
	// A file that moves in is complete when it is seen, so nothing waits for a poll.
	for i := range 5 {
		w := newWriter(t, staged)
		want = append(want, w.lines(fmt.Sprint("generation ", i), 0, 50)...)
		if i > 0 {
			require.NoError(t, os.Rename(path, fmt.Sprintf("%s.20261124-10000%d", path, i)))
		}
		require.NoError(t, os.Rename(staged, path))
		n.expect(want...)
	}
	assert.Empty(t, n.logs.FilterMessageSnippet("polled").All())
}

func TestWatchingFollowsSymbolicLinks(t *testing.T) {
	n := watchOnly(t)
	outside := filepath.Join(filepath.Dir(n.pods), "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	target := filepath.Join(outside, "x-json.log")
	first := newWriter(t, target)
	want := first.lines("first", 0, 5)
	require.NoError(t, os.Symlink(target, n.log("api")))
	n.start()
	n.expect(want...)
	staged := newWriter(t, filepath.Join(outside, "staged"))
	want = append(want, staged.lines("second", 0, 5)...)
	require.NoError(t, os.Rename(target, target+".1"))
	require.NoError(t, os.Rename(filepath.Join(outside, "staged"), target))
	n.expect(want...)
}

func TestDirectoriesThatCannotBeWatchedArePolled(t *testing.T) {
	n := newNode(t)
	require.NoError(t, os.Remove(n.pods)) // not there yet
	n.start()
	want := newWriter(t, n.log("api")).lines("api", 0, 50)
	n.expect(want...)
}
