package containerlogsreceiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
)

// recognised looks at a rotated file that was empty when it was found: only now
// it is to be seen whether it is a copy, and when its text begins.
func (r *reader) recognised(ctx context.Context, f *file) error {
	if !r.awaited(f) { // nobody takes over what it has inherited
		for s := range f.pending {
			if !f.pending[s].moved {
				if err := r.flushPending(ctx, f, stream(s), false); err != nil {
					return err
				}
			}
		}
	}
	before := f.disinherit()
	for _, other := range r.files {
		if other.after == f {
			other.after = before
		}
		for s := range other.pending {
			if other.pending[s].origin == f {
				other.pending[s].origin = f.pending[s].origin
			}
		}
	}
	f.pending = [2]pending{}
	if err := r.resumeCopy(f); err != nil {
		r.trouble(f.path, err)
	}
	if f.begin == beginLiveCopy {
		r.forget(f)
		return nil
	}
	r.files = slices.Delete(r.files, slices.Index(r.files, f), slices.Index(r.files, f)+1)
	next := r.atPath[f.path]
	if next == nil {
		next = r.leftAt(f.path)
	}
	if next == nil {
		r.files = append(r.files, f)
	} else {
		r.place(f, next)
	}
	return nil
}

// truncated begins a file anew that was cut off or overwritten. If it was
// copied before (copytruncate), the unread rest is read from the copy.
func (r *reader) truncated(ctx context.Context, f *file) error {
	// The batch so far speaks of the text that was there before.
	if err := r.cut(ctx); err != nil {
		return err
	}
	if info, err := f.handle.Stat(); err == nil {
		f.observe(info, time.Now())
	}
	modified := f.modified
	// A sibling may be a copy of what was there before, or of what is there now;
	// so what is there now must be known before they are listed.
	f.was, f.begun = f.print, false
	var err error
	if f.print, _, err = takeFingerprint(f.handle, fingerprint{}, f.size, &r.head); err != nil {
		r.trouble(f.path, err)
	}
	r.scan(f, f.compared, true)
	r.logger.Info("container log was truncated; reading it from its beginning", zap.String("path", f.path),
		zap.Int64("offset", f.offset), zap.Int64("size", f.size), zap.Bool("copy_found", f.copied))
	// What is pending goes on in a copy, or comes from the file before one, unless
	// there is none.
	lost := f.offset > 0 && !f.copied
	for s := range f.pending {
		if lost && !f.pending[s].moved {
			if err := r.flushPending(ctx, f, stream(s), false); err != nil {
				return err
			}
		}
	}
	f.offset, f.scanned, f.format, f.long = 0, 0, formatUnknown, longLine{}
	f.large, f.fresh, f.compared = false, true, modified
	if f.was = (fingerprint{}); lost {
		f.pending = [2]pending{}
	}
	f.copied, f.changed = false, true // meanwhile it may have been truncated again
	return nil
}

// resumeCopy goes on in the copy of a file from where that file was read to:
// the same beginning at the same path under another inode. The original is open
// (and was truncated, or the copy is not needed yet), or known from before the
// start.
func (r *reader) resumeCopy(f *file) error {
	for _, original := range r.files {
		if original == f || original.path != f.path {
			continue
		}
		print, truncated := original.print, original.was.length > 0
		// Whatever is known of the original, it may hold that text now.
		if f.print.length > 0 && r.beginsAs(original, f.print) &&
			(truncated || original.size >= original.offset || !r.beginsAs(f, print)) {
			f.begin = beginLiveCopy
			return nil
		}
		if truncated {
			print = original.was
		}
		if original.copied || print.length == 0 || !r.beginsAs(f, print) {
			continue
		}
		if original.offset > f.size { // the copy has nothing that is unread
			f.begin = beginLiveCopy
			return nil
		}
		f.begin, f.offset, f.scanned, f.format = beginCopy, original.offset, original.offset, original.format
		f.pending, original.pending = original.pending, [2]pending{}
		original.copied, original.begun = true, false
		return nil
	}
	var furthest *position
	for _, known := range append(r.delivery.positions.at(f.path), r.done[f.path]...) {
		print, open := known.fingerprint(), r.byID[known.id()]
		if print.length > 0 && known.Offset <= f.size && (furthest == nil || known.isBehind(furthest)) &&
			r.beginsAs(f, print) && (open == nil || !r.beginsAs(open, print)) {
			furthest = &known
		}
	}
	if furthest == nil {
		return nil
	}
	f.begin, f.offset, f.scanned = beginCopy, furthest.Offset, furthest.Offset
	return r.replay(f, furthest)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (r *reader) beginsAs(f *file, print fingerprint) bool {
	_, same, err := takeFingerprint(f.handle, print, 0, &r.head)
	return err == nil && same
}

// replay puts the unfinished records together again that were pending when the
// position was saved. If they do not come out as they were, all is read again
// from where they began: rather twice than not at all.
func (r *reader) replay(f *file, saved *position) error {
	if saved.Partial == nil {
		return nil
	}
	// A line that waits to get into a batch may lie in the scratch space.
	inUse := r.scratch
	r.scratch = nil
	defer func() { r.scratch = inUse }()
	begin := f.offset
	for s, from := range saved.Partial {
		if from >= 0 {
			begin = min(begin, from)
		}
		if from >= 0 && saved.Carried != nil && saved.Carried[s] != 0 {
			c := carryOf(saved.Carried[s])
			f.pending[s] = pending{active: true, from: -1, open: c.open, trace: c.trace}
		}
	}
	whole := f.offset-begin <= 2*r.maxReplayBytes()
	if whole {
		text := make([]byte, f.offset-begin)
		if _, err := f.handle.ReadAt(text, begin); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		whole = r.replayText(f, text, begin, saved.Partial)
	}
	if !whole {
		for s := range f.pending {
			r.dropPending(f, stream(s))
		}
		f.offset, f.scanned = begin, begin
	}
	return nil
}

// replayText takes the entries of text that are part of pending records; false
// when one of them ends a record.
func (r *reader) replayText(f *file, text []byte, at int64, partial *[2]int64) bool {
	for len(text) > 0 {
		line, rest, found := bytes.Cut(text, newline)
		if !found {
			break
		}
		if e, ok := r.parse(f, line); ok && partial[e.stream] >= 0 && at >= partial[e.stream] {
			p := &f.pending[e.stream]
			trace, joins := r.joins(p, e.content)
			if p.active && !joins || !e.partial && trace == noTrace {
				return false
			}
			r.keep(f, &e, at, trace, false)
		}
		at += int64(len(line)) + 1
		text = rest
	}
	return true
}

// finished is what a file was when it had been read to its end: its size on disk
// and when it was written to.
type finished struct{ size, modified int64 }

// maxFinished bounds the memory of which files were read to their end.
const maxFinished = 4096

// settle ends what will not go on by itself: unfinished records that no entry
// was added to for partialIdle, and files that left their path and stayed at
// their end for drainGrace.
func (r *reader) settle(ctx context.Context) error {
	now := time.Now()
	r.observed = now.UnixNano()
	for _, f := range slices.Clone(r.files) {
		if !f.settled() || f.after != nil || f.leaving && r.awaited(f) {
			continue
		}
		for s := range f.pending {
			p := &f.pending[s]
			wait := r.config.Multiline.Wait
			if p.open {
				wait = r.timing.partialIdle
			}
			if p.active && !p.moved && now.Sub(p.since) >= wait {
				if err := r.flushPending(ctx, f, stream(s), false); err != nil {
					return err
				}
			}
		}
		if f.leaving && !f.failed && !f.handedOver() && (f.gzip && !f.unfinished() || now.Sub(f.quietAt) >= r.timing.drainGrace) {
			if err := r.finish(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaited says that a file is still to inherit what is unfinished in f.
func (r *reader) awaited(f *file) bool {
	return slices.ContainsFunc(r.files, func(other *file) bool { return other.after == f })
}

// finish closes a file at its end. A last line without newline is handed on as
// a piece.
func (r *reader) finish(ctx context.Context, f *file) error {
	tail := make([]byte, f.size-f.offset)
	n, err := f.handle.ReadAt(tail, f.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		r.trouble(f.path, err)
	}
	if n > 0 {
		e, ok := r.parse(f, tail[:n])
		if !ok {
			e = entry{stream: noStream, content: tail[:n]}
		} else if f.pending[e.stream].moved {
			// belongs behind what the next file went on with
		} else if err := r.flushPending(ctx, f, e.stream, false); err != nil {
			return err
		}
		if f.long.active {
			e = entry{time: f.long.time, stream: f.long.stream, content: tail[:n]}
		}
		if err := r.pieces(ctx, f, e.time, e.stream, e.content); err != nil {
			return err
		}
		f.offset += int64(n)
	}
	for s := range f.pending {
		if !f.pending[s].moved {
			if err := r.flushPending(ctx, f, stream(s), false); err != nil {
				return err
			}
		}
	}
	r.forget(f)
	r.touch(f)
	r.noteFinished(f)
	return nil
}

func (r *reader) noteFinished(f *file) {
	if len(r.finished) >= maxFinished {
		clear(r.finished)
	}
	size := f.size
	if f.gzip {
		size = f.stored
	}
	r.finished[f.id] = finished{size, f.modified.UnixNano()}
	list := append(r.done[f.path], f.position())
	r.done[f.path] = list[max(0, len(list)-keepClosed):]
}

// forgetMissing forgets the files of directories that are gone.
func (r *reader) forgetMissing() {
	for path := range r.scans {
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			delete(r.scans, path)
			r.delivery.positions.foundAll(path)
		}
	}
	for path := range r.done {
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			delete(r.done, path)
		}
	}
}

// forget closes a file.
func (r *reader) forget(f *file) {
	_ = f.handle.Close()
	f.handle = nil
	if r.byID[f.id] == f {
		delete(r.byID, f.id)
	}
	if at := slices.Index(r.files, f); at >= 0 {
		r.files = slices.Delete(r.files, at, at+1)
	}
}
