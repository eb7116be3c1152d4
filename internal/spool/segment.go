package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// openActive returns the lane's last segment, open for appending, with room for
// length bytes; it begins a new one where there is none.
func (s *Spool) openActive(l *lane, length int64) (*segment, error) {
	s.mu.Lock()
	seg := l.lastSegment()
	fits := seg != nil && !seg.sealed && (seg.size == 0 || seg.size+length <= s.opts.SegmentBytes)
	s.mu.Unlock()
	if seg != nil && l.active != nil && gone(l.active) {
		// Someone deleted the file under us. What it held is lost; the next
		// frames must not follow it.
		s.closeActive(l)
		s.sealSegment(seg)
		s.repair(l, seg)
		fits = false
	}
	if fits && l.active != nil && s.tooLongOpen(l) {
		fits = false
	}
	if fits && l.active != nil {
		return seg, nil
	}
	if fits {
		s.closeActive(l)
		f, err := s.opts.fs.OpenFile(seg.path, os.O_RDWR)
		if err == nil {
			l.active, l.began = f, s.opts.now()
			return seg, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open segment %s: %w", seg.path, err)
		}
		s.sealSegment(seg)
		s.repair(l, seg)
	}
	s.finishActive(l)
	return s.beginSegment(l)
}

// gone reports whether the open file has lost its name.
func gone(f file) bool {
	unlinked, ok := f.(interface{ Unlinked() bool })
	return ok && unlinked.Unlinked()
}

func (s *Spool) sealSegment(seg *segment) {
	s.mu.Lock()
	seg.sealed = true
	s.mu.Unlock()
}

// beginSegment makes the file for the next number and opens it. If the last
// segment bears that number and holds nothing good it is replaced in one step,
// so that there is never no file that tells the next number.
func (s *Spool) beginSegment(l *lane) (*segment, error) {
	fsys := s.opts.fs
	s.mu.Lock()
	seg := newSegment(l.dir, l.next)
	last := l.lastSegment()
	replace := last != nil && last.first == seg.first
	s.mu.Unlock()

	path := seg.path
	if replace {
		path += newSuffix
	}
	f, err := fsys.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) { // the directory was deleted
		if err = fsys.MkdirAll(l.dir); err == nil {
			err = fsys.SyncDir(s.opts.Dir)
		}
		if err == nil {
			err = s.restoreDirectory()
		}
		if err == nil {
			f, err = fsys.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("begin segment %s: %w", path, err)
	}
	if replace {
		if err := fsys.Rename(path, seg.path); err != nil {
			f.Close()
			fsys.Remove(path)
			return nil, fmt.Errorf("begin segment %s: %w", seg.path, err)
		}
	}
	l.active, l.activeNew = f, true
	l.began = s.opts.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.appended = l.began
	if replace {
		s.bytes -= last.size
		last.removed = true
		l.segments[len(l.segments)-1] = seg
	} else {
		l.segments = append(l.segments, seg)
	}
	return seg, nil
}

// newSuffix marks a segment file that is about to replace an empty one.
const newSuffix = ".new"

func (s *Spool) closeActive(l *lane) {
	if l.active != nil {
		l.active.Close() // synced already, or given up
		l.active = nil
	}
	l.activeNew, l.unsynced = false, false
}

// finishActive closes the segment the lane appends to because nothing more comes
// into it, and leaves an index of it for the next Open.
func (s *Spool) finishActive(l *lane) {
	if s.opts.Fsync == FsyncInterval {
		s.syncLane(l)
	}
	s.closeActive(l)
	s.mu.Lock()
	seg := l.lastSegment()
	whole := seg != nil && !seg.sealed && len(seg.holes) == 0 && seg.all.frames > 0
	s.mu.Unlock()
	if whole {
		s.writeIndex(l, seg)
	}
}

// restoreDirectory puts back what stands beside the lanes after someone deleted
// the spool's directory while it was in use.
func (s *Spool) restoreDirectory() error {
	fsys := s.opts.fs
	f, err := fsys.OpenFile(filepath.Join(s.opts.Dir, identityName), os.O_RDONLY)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if lock, err := fsys.Lock(filepath.Join(s.opts.Dir, lockName)); err == nil {
		s.lock.Close()
		s.lock = lock
	}
	id := s.identity
	if err := writeIdentity(fsys, s.opts.Dir, &id); err != nil {
		return err
	}
	s.identity = id
	s.opts.Logger.Warn("the spool's directory was deleted while it was in use: what it held is lost and counted; it is made again", "dir", s.opts.Dir)
	return s.saveRegistry()
}

// undoWrite takes back a write that failed, on a full disk for instance. The
// segment goes on only if that worked.
func (s *Spool) undoWrite(l *lane, seg *segment, size int64) {
	l.buffer = l.buffer[:0]
	if err := l.active.Truncate(size); err != nil {
		s.abandon(l, seg, size)
	}
}

// abandon ends a segment whose fsync failed: what the kernel still holds of it
// can no longer be trusted, and another fsync would lie. What was durable
// before stays readable. The failed frames behind it never are: in this
// process because reading ends at size, after a restart because the next
// segment's name says where this one ends. Should the process die before there
// is a next segment, they come back as ordinary frames nobody was promised, and
// their numbers are not used again.
func (s *Spool) abandon(l *lane, seg *segment, size int64) {
	l.buffer = l.buffer[:0]
	l.active.Truncate(size)
	s.closeActive(l)
	s.sealSegment(seg)
}
