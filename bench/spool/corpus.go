package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/frame"
)

// container is one source of lines: the corpus of one software.
type container struct {
	name  string
	lines []string // each is one line of JSON, without a line feed
	next  int
}

// loadCorpus reads every *.log.zst of dir. A line becomes what an application
// with a JSON logger writes.
func loadCorpus(dir string) ([]*container, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.log.zst"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no *.log.zst in %s: run this in the root of the checkout, or name the directory with --corpus", dir)
	}
	slices.Sort(files)
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	var containers []*container
	for _, file := range files {
		packed, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		text, err := decoder.DecodeAll(packed, nil)
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", file, err)
		}
		name, _, _ := strings.Cut(filepath.Base(file), "_")
		c := &container{name: strings.ToLower(name)}
		for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			wrapped, err := wrap(c.name, i, strings.TrimRight(line, "\r"))
			if err != nil {
				return nil, err
			}
			c.lines = append(c.lines, wrapped)
		}
		containers = append(containers, c)
	}
	return containers, nil
}

var logStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// wrap writes a line of the corpus as a JSON logger would.
func wrap(name string, n int, message string) (string, error) {
	b, err := json.Marshal(struct {
		Time    string `json:"time"`
		Level   string `json:"level"`
		Logger  string `json:"logger"`
		Thread  string `json:"thread"`
		Message string `json:"msg"`
	}{
		logStart.Add(time.Duration(n*n%7919) * time.Millisecond * 7).Format("2006-01-02T15:04:05.000Z07:00"),
		"info", name + ".main", fmt.Sprintf("w-%02d", n*31%16), message,
	})
	return string(b), err
}

// take returns the container's next line; after the last comes the first.
func (c *container) take() string {
	line := c.lines[c.next%len(c.lines)]
	c.next++
	return line
}

func meanBytes(containers []*container) float64 {
	lines, total := 0, 0
	for _, c := range containers {
		for _, line := range c.lines {
			lines++
			total += len(line)
		}
	}
	return float64(total) / float64(lines)
}

// podDir is the directory of a container's log below the pods' directory.
func (c *container) podDir() string {
	return filepath.Join(fmt.Sprintf("shop_%s-7d9f8b6c5d-x2x9z_0b5e4c1e-9d3a-4f5e-8a77-%012d", c.name, len(c.name)), c.name)
}

// batchItems and batchBytes are the nats exporter's defaults (batch::max_items, max_bytes).
const (
	batchItems = 8192
	batchBytes = 1 << 20
)

// packed is a payload with what its frame's header says of it.
type packed struct {
	header  frame.Header
	payload []byte
}

// pack makes a frame's worth of lines of all containers, as the collector makes
// it of container logs: batches are full.
func pack(containers []*container, at time.Time) (packed, error) {
	logs := plog.NewLogs()
	records := make([]plog.LogRecordSlice, len(containers))
	for i, c := range containers {
		resource := logs.ResourceLogs().AppendEmpty()
		attributes := resource.Resource().Attributes()
		attributes.PutStr("k8s.namespace.name", "shop")
		attributes.PutStr("k8s.pod.name", c.name+"-7d9f8b6c5d-x2x9z")
		attributes.PutStr("k8s.pod.uid", "0b5e4c1e-9d3a-4f5e-8a77-000000000000")
		attributes.PutStr("k8s.container.name", c.name)
		attributes.PutInt("k8s.container.restart_count", 0)
		records[i] = resource.ScopeLogs().AppendEmpty().LogRecords()
	}
	items, size := 0, 0
	for ; items < batchItems; items++ {
		line := containers[items%len(containers)].take()
		// Two times of 9 bytes, body, severity and stream with their tags and lengths.
		if size += len(line) + 65; size > batchBytes {
			break
		}
		record := records[items%len(containers)].AppendEmpty()
		stamp := pcommon.Timestamp(at.Add(time.Duration(items) * 200 * time.Microsecond).UnixNano())
		record.SetTimestamp(stamp)
		record.SetObservedTimestamp(stamp + 731_000)
		record.SetSeverityNumber(plog.SeverityNumberInfo)
		record.SetSeverityText("info")
		record.Attributes().PutStr("log.iostream", "stdout")
		record.Body().SetStr(line)
	}
	otlp, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	if err != nil {
		return packed{}, err
	}
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		return packed{}, err
	}
	payload, err := codec.Encode(nil, otlp)
	if err != nil {
		return packed{}, err
	}
	return packed{frame.Header{
		Codec: codec.ID(), Signal: frame.Logs, Class: frame.Live, Items: uint32(items),
		First: at.UnixNano(), Last: at.Add(time.Second).UnixNano(), Uncompressed: uint32(len(otlp)),
	}, payload}, nil
}
