package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/longhaul/longhaul/internal/frame"
)

// Record is a frame read from the spool.
type Record struct {
	Number uint64
	Header frame.Header
	Bytes  []byte // the whole frame, checked; the caller may keep it
}

// reader is a lane's place for reading on: the open file and the offset of the
// next frame. Its mutex is taken before Spool.mu.
type reader struct {
	mu     sync.Mutex
	seg    *segment
	f      file
	number uint64 // the frame at offset bears this number or a higher one
	offset int64
}

// readGuess is read when the caller gives no size to go by.
const readGuess = 64 << 10

// maxAttempts bounds how often one Read starts over because of damage, or
// because what it was about to read has been deleted.
const maxAttempts = 20

// maxFailing is how often a disk may refuse to read a segment before the
// unreadable parts count as damage and are stepped over.
const maxFailing = 3

// Read returns durable, unconfirmed frames of the lane in order, from number
// from on or from the floor if that is higher: as many as stand together in a
// segment and fit into maxBytes, but at least one if there is one. Frames found
// damaged are skipped, moved aside and counted as lost. Reading on from where
// the last Read ended costs one read of the file.
func (s *Spool) Read(id frame.Lane, from uint64, maxBytes int) ([]Record, error) {
	s.mu.Lock()
	l := s.lanes[id]
	if l == nil || s.closed {
		defer s.mu.Unlock()
		return nil, s.noLane(id)
	}
	s.mu.Unlock()
	defer l.reader.releaseRemoved(s)
	l.reader.mu.Lock()
	defer l.reader.mu.Unlock()
	for attempt := 1; ; attempt++ {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		from = max(from, l.confirmed+1)
		seg := l.segmentFrom(from)
		if seg == nil {
			backlog := l.class != frame.Live
			s.mu.Unlock()
			if backlog {
				l.reader.close() // many lanes must not mean many open files
			}
			return nil, nil
		}
		v := s.viewOf(l, seg)
		s.mu.Unlock()

		records, err := l.reader.read(s.opts.fs, &v, from, maxBytes)
		if err == nil {
			s.mu.Lock()
			seg.failing = 0
			s.mu.Unlock()
			return records, nil
		}
		l.reader.close()
		if attempt == maxAttempts || !s.afterFailedRead(l, seg, err) {
			return nil, fmt.Errorf("read segment %s: %w", v.path, err)
		}
	}
}

// afterFailedRead reports whether reading again makes sense: the segment is
// gone for a good reason, or its damage has been dealt with.
func (s *Spool) afterFailedRead(l *lane, seg *segment, err error) bool {
	s.mu.Lock()
	if seg.removed {
		s.mu.Unlock()
		return true
	}
	if !errors.Is(err, errDamaged) && !errors.Is(err, fs.ErrNotExist) {
		seg.failing++
		if seg.failing < maxFailing {
			s.mu.Unlock()
			return false
		}
		seg.failing = 0
	}
	s.mu.Unlock()
	l.confirmMu.Lock()
	defer l.confirmMu.Unlock()
	return s.repairLocked(l, seg)
}

func (r *reader) read(fsys fileSystem, v *view, from uint64, maxBytes int) ([]Record, error) {
	if r.seg != v.seg || r.f == nil {
		r.close()
		f, err := fsys.OpenFile(v.path, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		r.seg, r.f, r.number = v.seg, f, 0
	}
	if from != r.number {
		_, offset, err := v.find(r.f, from)
		if err != nil {
			return nil, err
		}
		r.offset = offset
	}
	start, end := v.past(r.offset)
	if maxBytes <= 0 {
		maxBytes = readGuess
	}
	buf := make([]byte, min(int64(max(maxBytes, frame.MaxHeader)), end-start))
	if err := readAt(r.f, buf, start); err != nil {
		return nil, err
	}
	if _, n, _ := frame.ParseHeader(buf); n > len(buf) {
		// The first frame alone is larger than what was asked for.
		if start+int64(n) > end {
			return nil, errDamaged
		}
		buf = make([]byte, n)
		if err := readAt(r.f, buf, start); err != nil {
			return nil, err
		}
	}
	return r.split(v, buf, from, start, maxBytes)
}

// split cuts buf, which stands at start, into the frames it holds.
func (r *reader) split(v *view, buf []byte, from uint64, start int64, maxBytes int) ([]Record, error) {
	var records []Record
	for at := 0; at < len(buf); {
		h, _, n, err := frame.Parse(buf[at:])
		if errors.Is(err, frame.ErrVersion) {
			err = nil
		}
		if err == nil && (!v.expect.matches(&h) || h.Number < from) {
			err = errDamaged
		}
		if err != nil {
			if len(records) > 0 {
				break // cut by the size, or damaged: the next Read will tell
			}
			return nil, errDamaged
		}
		if len(records) > 0 && at+n > maxBytes {
			break
		}
		records = append(records, Record{Number: h.Number, Header: h, Bytes: buf[at : at+n : at+n]})
		at += n
		from = h.Number + 1
		r.number, r.offset = from, start+int64(at)
	}
	return records, nil
}

func readAt(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		return errDamaged // the file is shorter than it was
	}
	return err
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.seg, r.number = nil, nil, 0
}

// releaseRemoved closes the file of a segment that has left its lane, because
// its disk space is free only then. If a Read is under way it does that itself
// when it ends.
func (r *reader) releaseRemoved(s *Spool) {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	s.mu.Lock()
	removed := r.seg != nil && r.seg.removed
	s.mu.Unlock()
	if removed {
		r.close()
	}
}
