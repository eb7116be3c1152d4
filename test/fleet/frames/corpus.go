package frames

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// CorpusDir holds the recordings, below the root of the checkout.
const CorpusDir = "test/e2e/testdata"

// maxRequest bounds a recorded trace request.
const maxRequest = 16 << 20

// corpus is what frames are made of: recordings of real logs, scrapes and traces.
type corpus struct {
	logs   []software
	pages  []page
	traces []ptrace.Traces
}

// software is one program's log lines.
type software struct {
	name  string
	lines []string
}

// page is one scrape of an exporter, in Prometheus's text format.
type page struct {
	job  string
	text []byte
}

func loadCorpus(dir string) (c corpus, err error) {
	unpack, err := zstd.NewReader(nil)
	if err != nil {
		return c, err
	}
	defer unpack.Close()
	read := func(pattern string, take func(name string, content []byte) error) error {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("%s: no such files: run this in the root of the checkout", filepath.Join(dir, pattern))
		}
		if err != nil {
			return err
		}
		slices.Sort(files)
		for _, file := range files {
			packed, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			content, err := unpack.DecodeAll(packed, nil)
			if err == nil {
				err = take(filepath.Base(file), content)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	}
	err = errors.Join(
		read("logs/*.log.zst", func(name string, content []byte) error {
			s := software{name: strings.ToLower(strings.TrimSuffix(name, "_2k.log.zst"))}
			for line := range strings.Lines(string(content)) {
				s.lines = append(s.lines, strings.TrimRight(line, "\r\n"))
			}
			c.logs = append(c.logs, s)
			return nil
		}),
		read("metrics/*.000.prom.zst", func(name string, content []byte) error {
			c.pages = append(c.pages, page{strings.TrimSuffix(name, ".000.prom.zst"), content})
			return nil
		}),
		read("traces/*.otlp.zst", func(_ string, content []byte) (err error) {
			c.traces, err = splitTraces(content)
			return err
		}))
	return c, err
}

// splitTraces reads OTLP requests, each preceded by its length.
func splitTraces(content []byte) (all []ptrace.Traces, err error) {
	rest := bytes.NewReader(content)
	for rest.Len() > 0 {
		var size uint32
		if err := binary.Read(rest, binary.LittleEndian, &size); err != nil {
			return nil, err
		}
		if size > maxRequest {
			return nil, fmt.Errorf("a request of %d bytes", size)
		}
		raw := make([]byte, size)
		if _, err := io.ReadFull(rest, raw); err != nil {
			return nil, err
		}
		request := ptraceotlp.NewExportRequest()
		if err := request.UnmarshalProto(raw); err != nil {
			return nil, err
		}
		all = append(all, request.Traces())
	}
	return all, nil
}
