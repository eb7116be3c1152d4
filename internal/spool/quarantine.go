package spool

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxQuarantineShare is the part of MaxBytes that broken data may take; what
// comes beyond is counted and logged, not kept.
const maxQuarantineShare = 8

// quarantine copies damaged bytes of a segment to a file of their own, for
// people to look at, under a name that says where they were. It does its best:
// the spool goes on without.
func (s *Spool) quarantine(l *lane, segmentPath string, f io.ReaderAt, damage extent) {
	name := fmt.Sprintf("%s-%s-%d-%d.bin", laneDirName(l.id), strings.TrimSuffix(filepath.Base(segmentPath), segmentSuffix), damage.from, damage.to)
	err := s.copyToQuarantine(name, f, damage)
	if err != nil {
		s.opts.Logger.Warn("damaged bytes of a segment could not be kept for inspection", "segment", segmentPath, "from", damage.from, "to", damage.to, "error", err)
	}
}

func (s *Spool) copyToQuarantine(name string, f io.ReaderAt, damage extent) (err error) {
	fsys, dir := s.opts.fs, filepath.Join(s.opts.Dir, quarantineName)
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	used := damage.to - damage.from
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == name {
			return nil // kept by an earlier start
		}
		if info, err := entry.Info(); err == nil {
			used += info.Size()
		}
	}
	if limit := s.opts.MaxBytes / maxQuarantineShare; used > limit {
		return fmt.Errorf("quarantine would exceed %d bytes: look at what is there and delete it", limit)
	}
	path := filepath.Join(dir, name)
	out, err := fsys.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			fsys.Remove(path)
		}
	}()
	buffer := make([]byte, 64<<10)
	for at := damage.from; at < damage.to; {
		n, err := f.ReadAt(buffer[:min(int64(len(buffer)), damage.to-at)], at)
		if n > 0 {
			if _, err := out.WriteAt(buffer[:n], at-damage.from); err != nil {
				return err
			}
			at += int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && n == 0 {
			at += 4096 // leaves a hole for what the disk will not give
		}
	}
	return nil
}

// quarantineFile moves a whole file away, under a name not taken yet.
func (s *Spool) quarantineFile(path string) {
	fsys, dir := s.opts.fs, filepath.Join(s.opts.Dir, quarantineName)
	err := fsys.MkdirAll(dir)
	if err == nil {
		var entries []os.DirEntry
		if entries, err = fsys.ReadDir(dir); err == nil {
			taken := make(map[string]bool, len(entries))
			for _, entry := range entries {
				taken[entry.Name()] = true
			}
			name := filepath.Base(path)
			for i := 1; taken[name]; i++ {
				name = fmt.Sprintf("%s.%d", filepath.Base(path), i)
			}
			err = fsys.Rename(path, filepath.Join(dir, name))
		}
	}
	if err != nil {
		s.opts.Logger.Warn("a damaged file could not be moved to quarantine", "file", path, "error", err)
	}
}
