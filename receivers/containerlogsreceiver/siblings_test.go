package containerlogsreceiver

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// numbered is a log that is rotated as Docker does it: every rotated log gets the
// next number.
type numbered struct {
	*writer
	rotated []string // suffixes, newest first
}

// rotate renames all logs and opens a new one; compressed says that the one renamed
// before is compressed first.
func (l *numbered) rotate(compressed bool) {
	if compressed && len(l.rotated) > 0 && !strings.HasSuffix(l.rotated[0], gzipSuffix) {
		compress(l.t, l.path+l.rotated[0])
		l.rotated[0] += gzipSuffix
	}
	l.shift()
	l.leave()
	l.reopen()
}

// shift gives every rotated log the next number.
func (l *numbered) shift() {
	for i, old := range slices.Backward(l.rotated) {
		l.rotated[i] = fmt.Sprintf(".%d", i+2)
		if strings.HasSuffix(old, gzipSuffix) {
			l.rotated[i] += gzipSuffix
		}
		require.NoError(l.t, os.Rename(l.path+old, l.path+l.rotated[i]))
	}
}

// leave renames the log at its path.
func (l *numbered) leave() {
	l.rotated = slices.Insert(l.rotated, 0, ".1")
	require.NoError(l.t, os.Rename(l.path, l.path+".1"))
}

// rotatedWhileStopped is a node with the log of a container (linked: a symbolic link
// to one elsewhere) whose receiver is stopped: the log it had read
// partly was renamed and compressed, the next was written and renamed, and a third
// lies at the path.
func rotatedWhileStopped(t *testing.T, linked bool) (n *node, l *numbered, want []string) {
	n = newNode(t)
	n.config.Batch.MaxLines = 1_000_000
	path := n.log("api")
	if linked {
		link := path
		path = filepath.Join(t.TempDir(), "json.log")
		require.NoError(t, os.Symlink(path, link))
	}
	l = &numbered{writer: newWriter(t, path)}
	want = l.lines("partly read", 0, 20)
	n.start()
	n.expect(want...)
	n.stop()
	want = append(want, l.lines("partly read", 20, 20)...)
	l.rotate(false)
	want = append(want, l.lines("renamed", 0, 40)...)
	l.rotate(true)
	return n, l, append(want, l.lines("at its path", 0, 10)...)
}

// known is a directory entry that was asked what it stands for in time.
type known struct {
	os.DirEntry
	info fs.FileInfo
	err  error
}

func (k known) Info() (fs.FileInfo, error) { return k.info, k.err }

// askedAll lists a directory and asks for every entry what it stands for.
func askedAll(directory string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(directory)
	for i, entry := range entries {
		info, err := entry.Info()
		entries[i] = known{entry, info, err}
	}
	return entries, err
}

// TestLogsRenamedWhileTheyAreListedAreRead renames all logs at every place between
// the listing of a directory and the opening of what it lists: once, several times,
// and more often than it is listed at one look.
func TestLogsRenamedWhileTheyAreListedAreRead(t *testing.T) {
	lists := map[string]func(string) ([]os.DirEntry, error){
		"after the names were read": os.ReadDir, "before the files are opened": askedAll,
	}
	for place, list := range lists {
		for _, compressed := range []bool{false, true} {
			for _, at := range [][2]int{{1, 1}, {2, 2}, {1, 2}, {2, 3}, {1, 3}, {1, maxListings + 5}} {
				t.Run(fmt.Sprintf("%s/compressed=%v/in listings %d to %d", place, compressed, at[0], at[1]), func(t *testing.T) {
					n, l, want := rotatedWhileStopped(t, false)
					listings, generation := 0, 0
					var mu sync.Mutex
					n.readDir = func(directory string) ([]os.DirEntry, error) {
						mu.Lock()
						defer mu.Unlock()
						entries, err := list(directory)
						if listings++; listings >= at[0] && listings <= at[1] {
							generation++
							l.rotate(compressed)
							want = append(want, l.lines(fmt.Sprint("generation ", generation), 0, 3)...)
						}
						return entries, err
					}
					n.start()
					require.Eventually(t, func() bool {
						mu.Lock()
						defer mu.Unlock()
						return listings > at[1]
					}, 30*time.Second, time.Millisecond)
					n.expect(want...)
					for i, got := range n.sink.asRead() {
						require.Equal(t, want[i], got.body)
					}
				})
			}
		}
	}
}

// TestNoNameThatWasReadIsThereAnyMore lets a rotation get half done after the names
// of a directory were read: what was there is there under none of them, which must
// not look like a directory with nothing in it. The rest comes when the log at the
// path was read. In the second case even the log has left its path, and so the end of
// the symbolic link to it.
func TestNoNameThatWasReadIsThereAnyMore(t *testing.T) {
	for _, linked := range []bool{false, true} {
		t.Run(fmt.Sprintf("linked=%v", linked), func(t *testing.T) {
			n, l, want := rotatedWhileStopped(t, linked)
			var once sync.Once
			n.readDir = func(directory string) ([]os.DirEntry, error) {
				entries, err := os.ReadDir(directory)
				once.Do(func() {
					l.shift()
					if linked {
						l.leave()
					}
				})
				return entries, err
			}
			n.start()
			n.expectNoneMissing("at its path line 9")
			if !linked {
				l.leave()
			}
			l.reopen()
			n.expect(append(want, l.lines("last", 0, 3)...)...)
		})
	}
}

// TestLogsRenamedInALoopAreRead lets real renames race with the start.
func TestLogsRenamedInALoopAreRead(t *testing.T) {
	for round := range 40 {
		n, l, want := rotatedWhileStopped(t, false)
		var started atomic.Bool
		var churn sync.WaitGroup
		churn.Go(func() {
			for i := 0; i < 6 || i < 60 && !started.Load(); i++ {
				want = append(want, l.lines(fmt.Sprint("generation ", i), 0, 2)...)
				l.rotate(round%2 == 0)
			}
		})
		n.start()
		started.Store(true)
		churn.Wait()
		want = append(want, l.lines("last", 0, 2)...)
		n.expect(want...)
		n.stop()
	}
}

// TestLogThatCannotBeFoundYetIsReadOnceItIs lets a listed log never be what its name
// stands for when it is opened. Its successor is read after a while; when the log
// is found it is read too, also after a kill.
func TestLogThatCannotBeFoundYetIsReadOnceItIs(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			n, l, want := rotatedWhileStopped(t, false)
			n.timing.scanWait = 50 * time.Millisecond
			aside := filepath.Join(n.pods, "aside")
			var mu sync.Mutex
			hides := true
			comesBack := func() {
				if _, err := os.Stat(aside); err == nil {
					require.NoError(t, os.Rename(aside, l.path+".1"))
				}
			}
			n.readDir = func(directory string) ([]os.DirEntry, error) {
				mu.Lock()
				defer mu.Unlock()
				comesBack()
				entries, err := askedAll(directory)
				if hides {
					require.NoError(t, os.Rename(l.path+".1", aside))
				}
				return entries, err
			}
			n.start()
			var visible []string
			for _, body := range want {
				if !strings.HasPrefix(body, "renamed") {
					visible = append(visible, body)
				}
			}
			n.expect(visible...)
			if killed {
				s := &schedule{node: n}
				require.Eventually(t, func() bool {
					table, _, err := loadPositions(n.config.PositionFile)
					return err == nil && len(table.unfound) == 1
				}, 30*time.Second, time.Millisecond)
				s.kill()
				n.start()
			}
			mu.Lock()
			hides = false
			comesBack()
			mu.Unlock()
			n.expect(want...)
			n.stop()
			table, _, err := loadPositions(n.config.PositionFile)
			require.NoError(t, err)
			require.Empty(t, table.unfound)
		})
	}
}
