package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
)

// corpus are the lines of test/e2e/testdata/logs, by software.
type corpus struct {
	names []string
	lines [][][]byte
}

func readCorpus(checkout string) (corpus, error) {
	var c corpus
	files, err := filepath.Glob(filepath.Join(checkout, "test", "e2e", "testdata", "logs", "*.log.zst"))
	if err != nil {
		return c, err
	}
	if len(files) == 0 {
		return c, errors.New("there is no corpus: test/e2e/testdata/logs has no *.log.zst")
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		return c, err
	}
	defer d.Close()
	for _, file := range files {
		packed, err := os.ReadFile(file)
		if err != nil {
			return c, err
		}
		text, err := d.DecodeAll(packed, nil)
		if err != nil {
			return c, fmt.Errorf("unpack %s: %w", file, err)
		}
		text = bytes.ReplaceAll(bytes.TrimSpace(text), []byte("\r\n"), []byte("\n"))
		c.names = append(c.names, strings.ToLower(strings.TrimSuffix(filepath.Base(file), "_2k.log.zst")))
		c.lines = append(c.lines, bytes.Split(text, []byte("\n")))
	}
	return c, nil
}

// pod makes the lines of one container: those of one file of the corpus, over
// and over. From the second time on every number of three or more digits is
// another one, so that a compressor does not find whole lines again.
type pod struct {
	name   string
	lines  [][]byte
	json   bool // the program prints JSON objects, the corpus' line is its message
	next   int
	random uint64
	line   []byte // scratch
}

func (c corpus) pod(i int, plain bool) *pod {
	n := i % len(c.lines)
	return &pod{name: c.names[n], lines: c.lines[n], json: !plain && i%2 == 1, random: uint64(i)*2 + 1}
}

// stderrEvery lines one goes to standard error.
const stderrEvery = 20

// append adds the next line as containerd writes it.
func (p *pod) append(b []byte, at time.Time) []byte {
	at = at.UTC()
	b = at.AppendFormat(b, time.RFC3339Nano)
	if p.next%stderrEvery == stderrEvery-1 {
		b = append(b, " stderr F "...)
	} else {
		b = append(b, " stdout F "...)
	}
	text := p.lines[p.next%len(p.lines)]
	if p.next >= len(p.lines) {
		text = p.vary(text)
	}
	if p.json {
		b = append(b, `{"time":"`...)
		b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z")
		b = append(b, `","level":"info","service":"`...)
		b = append(b, p.name...)
		b = append(b, `","thread":"worker-`...)
		b = append(b, '0'+byte(p.next%8), '"')
		b = append(b, `,"msg":"`...)
		b = appendEscaped(b, text)
		b = append(b, `"}`...)
	} else {
		b = append(b, text...)
	}
	p.next++
	return append(b, '\n')
}

func (p *pod) vary(text []byte) []byte {
	p.line = append(p.line[:0], text...)
	for i := 0; i < len(p.line); i++ {
		end := i
		for end < len(p.line) && p.line[end] >= '0' && p.line[end] <= '9' {
			end++
		}
		if end-i >= 3 {
			for ; i < end; i++ {
				p.random = p.random*6364136223846793005 + 1442695040888963407
				p.line[i] = '0' + byte((p.random>>32)*10>>32)
			}
		}
		i = max(i, end)
	}
	return p.line
}

// appendEscaped escapes what the corpus has of what JSON asks to.
func appendEscaped(b, text []byte) []byte {
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return b
}

// podDirectory is where the kubelet puts the logs of a pod.
func podDirectory(kind string, i int) string {
	return fmt.Sprintf("bench_%s-%03d_%08d-0000-4000-8000-000000000000", kind, i, i)
}

// lineStep is the time between two lines of a pod in the files of burst.
const lineStep = 200 * time.Microsecond

// writeInput writes the files of burst below dir and returns their size.
func writeInput(ctx context.Context, c corpus, dir string, lines, pods int, plain bool) (size int64, err error) {
	for i := range pods {
		count := lines / pods
		if i < lines%pods {
			count++
		}
		n, err := writePod(ctx, c.pod(i, plain), filepath.Join(dir, podDirectory("burst", i), "app"), count)
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

func writePod(ctx context.Context, p *pod, dir string, count int) (size int64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	f, err := os.Create(filepath.Join(dir, "0.log"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 1<<20)
	at := time.Now().Add(-time.Duration(count) * lineStep)
	var line []byte
	for i := range count {
		if i%100_000 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		p.random = p.random*6364136223846793005 + 1442695040888963407
		line = p.append(line[:0], at.Add(time.Duration(i)*lineStep+time.Duration(p.random>>48)))
		size += int64(len(line))
		if _, err := out.Write(line); err != nil {
			return 0, err
		}
	}
	return size, out.Flush()
}

// dripTick is how often drip writes: to every file in turn, a few at a time.
const dripTick = 10 * time.Millisecond

// writeDrip writes rate lines per second to each of the files for so many
// seconds; written counts them.
func writeDrip(ctx context.Context, c corpus, dir string, o options, written *atomic.Int64) (size int64, err error) {
	logs := make([]*os.File, o.files)
	pods := make([]*pod, o.files)
	for i := range logs {
		logDir := filepath.Join(dir, podDirectory("drip", i), "app")
		if err := os.MkdirAll(logDir, 0o755); err != nil {
			return 0, err
		}
		if logs[i], err = os.Create(filepath.Join(logDir, "0.log")); err != nil {
			return 0, err
		}
		defer logs[i].Close()
		pods[i] = c.pod(i, o.plain)
	}
	total := o.files * o.rate * o.seconds
	tick := time.NewTicker(dripTick)
	defer tick.Stop()
	start := time.Now()
	var line []byte
	for n := 0; n < total; {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * float64(o.files*o.rate))
		for ; n < min(due, total); n++ {
			line = pods[n%o.files].append(line[:0], time.Now())
			size += int64(len(line))
			if _, err := logs[n%o.files].Write(line); err != nil {
				return 0, err
			}
			written.Add(1)
		}
	}
	return size, nil
}

// appendToAll adds one line to each file that writeDrip made.
func appendToAll(c corpus, dir string, o options) error {
	for i := range o.files {
		f, err := os.OpenFile(filepath.Join(dir, podDirectory("drip", i), "app", "0.log"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(c.pod(i, o.plain).append(nil, time.Now()))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
