package orderapp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

// criPartBytes is where containerd splits a line into partial entries.
const criPartBytes = 16 << 10

// criFile writes the log of one container as a container runtime does:
//
//	2026-01-02T03:04:05.678901234Z stdout F line
//
// with long lines split into parts tagged P, the last one F. At rotateBytes
// the file is renamed to 0.log.<time> and a new 0.log begins; the oldest of
// more than keep renamed files is removed, as the kubelet does.
type criFile struct {
	mu          sync.Mutex
	dir         string
	f           *os.File
	size        int64
	rotateBytes int64
	keep        int
	rotations   int
	last        time.Time
	buf         bytes.Buffer
}

func openCRIFile(dir string, rotateBytes int64, keep int) (*criFile, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	c := &criFile{dir: dir, rotateBytes: rotateBytes, keep: keep}
	return c, c.open()
}

func (c *criFile) open() error {
	f, err := os.OpenFile(filepath.Join(c.dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.f, c.size = f, st.Size()
	return nil
}

// write appends one line (without newline) and returns its time, which is
// unique within the file.
func (c *criFile) write(line []byte) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size >= c.rotateBytes {
		if err := c.rotate(); err != nil {
			return time.Time{}, err
		}
	}
	now := time.Now().UTC()
	if !now.After(c.last) {
		now = c.last.Add(time.Nanosecond)
	}
	c.last = now
	stamp := now.Format("2006-01-02T15:04:05.000000000Z")
	c.buf.Reset()
	for rest := line; ; {
		part, tag := rest, "F"
		if len(rest) > criPartBytes {
			part, tag = rest[:criPartBytes], "P"
		}
		rest = rest[len(part):]
		fmt.Fprintf(&c.buf, "%s stdout %s ", stamp, tag)
		c.buf.Write(part)
		c.buf.WriteByte('\n')
		if tag == "F" {
			break
		}
	}
	n, err := c.f.Write(c.buf.Bytes())
	c.size += int64(n)
	if err != nil {
		return time.Time{}, fmt.Errorf("write log line: %w", err)
	}
	return now, nil
}

func (c *criFile) rotate() error {
	if err := c.f.Close(); err != nil {
		return fmt.Errorf("close log file: %w", err)
	}
	path := filepath.Join(c.dir, "0.log")
	c.rotations++
	// The counter keeps two rotations within a second apart.
	to := fmt.Sprintf("%s.%s-%03d", path, time.Now().UTC().Format("20060102-150405"), c.rotations)
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("rotate log file: %w", err)
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	sort.Strings(old)
	for len(old) > c.keep {
		if err := os.Remove(old[0]); err != nil {
			return fmt.Errorf("remove old log file: %w", err)
		}
		old = old[1:]
	}
	return c.open()
}

func (c *criFile) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.f.Close()
}
