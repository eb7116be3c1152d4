package orderapp

import (
	"bufio"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type criLine struct {
	at    time.Time
	text  string
	parts int
}

// readCRI reads all container logs below dir, joining partial entries.
func readCRI(t *testing.T, dir string) []criLine {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "0.log*"))
	require.NoError(t, err)
	sort.Strings(files)
	var out []criLine
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		sc := bufio.NewScanner(f)
		sc.Buffer(nil, 1<<20)
		var cur criLine
		for sc.Scan() {
			p := strings.SplitN(sc.Text(), " ", 4)
			require.Len(t, p, 4)
			cur.at, err = time.Parse(time.RFC3339Nano, p[0])
			require.NoError(t, err)
			require.Equal(t, "stdout", p[1])
			cur.text += p[3]
			cur.parts++
			if p[2] == "F" {
				out, cur = append(out, cur), criLine{}
			}
		}
		require.NoError(t, sc.Err())
		require.Zero(t, cur.parts, "%s ends within a line", name)
		require.NoError(t, f.Close())
	}
	return out
}

func TestLinesAreKeptAcrossRotation(t *testing.T) {
	dir := t.TempDir()
	c, err := openCRIFile(filepath.Join(dir, "ns_pod_uid", "c"), 2048, 100)
	require.NoError(t, err)
	want := map[string]bool{}
	for i := range 200 {
		line := strings.Repeat("x", i) + "\t" + strings.Repeat("ü", i%7)
		if i == 50 {
			line = strings.Repeat("long", 3*criPartBytes/4) // exactly three parts
		}
		want[line] = true
		_, err := c.write([]byte(line))
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	require.Greater(t, c.rotations, 5)
	got := readCRI(t, dir)
	times := map[time.Time]bool{}
	for _, l := range got {
		require.True(t, want[l.text], "line %.40q was not written", l.text)
		delete(want, l.text)
		times[l.at] = true
	}
	require.Empty(t, want)
	require.Len(t, times, 200, "times are unique within a file")
}

func TestOldRotatedFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	c, err := openCRIFile(filepath.Join(dir, "ns_pod_uid", "c"), 100, 3)
	require.NoError(t, err)
	for range 50 {
		_, err := c.write([]byte(strings.Repeat("x", 100)))
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	files, err := os.ReadDir(filepath.Join(dir, "ns_pod_uid", "c"))
	require.NoError(t, err)
	require.Len(t, files, 4)
}
