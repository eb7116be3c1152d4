package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var criLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z (stdout|stderr) F (.*)$`)

func TestInputIsWhatItIsSaidToBe(t *testing.T) {
	c, err := readCorpus(filepath.Join("..", ".."))
	require.NoError(t, err)
	dir := t.TempDir()
	const lines, pods = 50_003, 10
	size, err := writeInput(t.Context(), c, dir, lines, pods, false)
	require.NoError(t, err)
	require.InDelta(t, 215, float64(size)/lines, 10, "bytes a line")

	files, err := filepath.Glob(filepath.Join(dir, "*_*_*", "app", "0.log"))
	require.NoError(t, err)
	require.Len(t, files, pods)
	total, inJSON := 0, 0
	for _, file := range files {
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		var last time.Time
		for scan := bufio.NewScanner(f); scan.Scan(); total++ {
			found := criLine.FindSubmatch(scan.Bytes())
			require.NotNil(t, found, "%q", scan.Bytes())
			at, err := time.Parse(time.RFC3339Nano, string(scan.Bytes()[:len(scan.Bytes())-len(found[3])-len(" stdout F ")]))
			require.NoError(t, err)
			require.True(t, at.After(last), "times go back in %s", file)
			last = at
			if json.Valid(found[3]) && found[3][0] == '{' {
				inJSON++
			}
		}
	}
	require.Equal(t, lines, total)
	require.InDelta(t, lines/2, inJSON, 5)
}

func TestVaryChangesLongNumbersOnly(t *testing.T) {
	p := &pod{random: 1}
	text := []byte("block blk_1234567890 of 12 took 345 ms at 7")
	varied := string(p.vary(text))
	require.Regexp(t, `^block blk_\d{10} of 12 took \d{3} ms at 7$`, varied)
	require.NotEqual(t, string(text), varied)
	require.NotEqual(t, varied, string(p.vary(text)))
}
