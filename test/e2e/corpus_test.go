package e2e

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// readCorpus unpacks a file of testdata.
func readCorpus(t *testing.T, path string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join("testdata", path))
	require.NoError(t, err)
	d, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer d.Close()
	b, err := d.DecodeAll(packed, nil)
	require.NoError(t, err, path)
	return b
}

// corpusLogs returns the lines of every log file by the file's name. The files
// have CRLF line ends: the carriage return belongs to the line, as it does for
// a container runtime, which splits at the line feed.
func corpusLogs(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("testdata/logs/*.log.zst")
	require.NoError(t, err)
	require.Len(t, files, 10)
	logs := make(map[string][]string)
	for _, file := range files {
		text := string(readCorpus(t, filepath.Join("logs", filepath.Base(file))))
		name := strings.ToLower(strings.TrimSuffix(filepath.Base(file), "_2k.log.zst"))
		logs[name] = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		require.Len(t, logs[name], 2000, name)
	}
	return logs
}

// corpusPages returns two scrapes of each exporter, by its name.
func corpusPages(t *testing.T) map[string][][]byte {
	t.Helper()
	pages := make(map[string][][]byte)
	for _, name := range []string{"node", "process", "redis-a"} {
		for _, n := range []string{"000", "001"} {
			pages[name] = append(pages[name], readCorpus(t, filepath.Join("metrics", name+"."+n+".prom.zst")))
		}
	}
	return pages
}

// corpusTraces returns the recorded OTLP requests: each is preceded by its
// length as a little-endian uint32.
func corpusTraces(t *testing.T) []ptraceotlp.ExportRequest {
	t.Helper()
	rest := bytes.NewReader(readCorpus(t, "traces/hotrod.otlp.zst"))
	var requests []ptraceotlp.ExportRequest
	for rest.Len() > 0 {
		var size uint32
		require.NoError(t, binary.Read(rest, binary.LittleEndian, &size))
		require.LessOrEqual(t, int(size), rest.Len())
		raw := make([]byte, size)
		_, err := rest.Read(raw)
		require.NoError(t, err)
		request := ptraceotlp.NewExportRequest()
		require.NoError(t, request.UnmarshalProto(raw))
		requests = append(requests, request)
	}
	return requests
}
