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
	"strings"
	"time"

	"go.uber.org/zap"
)

// sibling is a file beside a log file that carries its name and a suffix:
// 0.log.20260102-150405 of the kubelet, x-json.log.1 of Docker, either of them
// also compressed.
type sibling struct {
	path     string
	suffix   string // without .gz
	id       fileID
	size     int64 // on disk
	modified time.Time
}

// rotatedSiblings lists the rotated files of a path, oldest first. What lies
// there both plain and compressed is listed plain: it is being compressed.
func rotatedSiblings(path string) []sibling {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	directory, name := filepath.Split(path)
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil
	}
	var found []sibling
	for _, entry := range entries { // in the order of their names
		suffix, ok := strings.CutPrefix(entry.Name(), name+".")
		if !ok || strings.HasSuffix(suffix, ".tmp") {
			continue
		}
		suffix = strings.TrimSuffix(suffix, gzipSuffix)
		if len(found) > 0 && found[len(found)-1].suffix == suffix {
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		id, _ := idOf(info)
		found = append(found, sibling{directory + entry.Name(), suffix, id, info.Size(), info.ModTime()})
	}
	byTime := func(a, b sibling) int { return a.modified.Compare(b.modified) }
	if !slices.ContainsFunc(found, func(s sibling) bool { return !isDated(s.suffix) }) {
		// The kubelet's names say when; a file it compressed is as new as that.
		byTime = func(a, b sibling) int { return strings.Compare(a.suffix, b.suffix) }
	}
	slices.SortStableFunc(found, byTime)
	return found
}

// isDated says that a suffix is the kubelet's: 20060102-150405.
func isDated(suffix string) bool {
	return len(suffix) == len("20060102-150405") && suffix[8] == '-'
}

// maxListings bounds how often a directory that keeps changing is listed.
const maxListings = 10

// openSiblings opens the rotated files beside f that hold unread lines, and puts
// them into the order of reading: those with a saved position, copies of a file
// that was truncated, and, if strangers is set, ones never seen that were written
// to since then. It lists until two listings agree: logs may be renamed in a row,
// or compressed, while they are listed.
func (r *reader) openSiblings(f *file, since time.Time, strangers bool) (opened bool) {
	var before []sibling
	passed := map[fileID]bool{}
	for range maxListings {
		siblings := rotatedSiblings(f.path)
		if slices.EqualFunc(siblings, before, func(a, b sibling) bool { return a.path == b.path && a.id == b.id }) {
			break
		}
		opened = r.openListed(f, siblings, since, strangers, passed) || opened
		before = siblings
	}
	return opened
}

func (r *reader) openListed(f *file, siblings []sibling, since time.Time, strangers bool, passed map[fileID]bool) (opened bool) {
	for _, s := range siblings {
		if read, known := r.finished[s.id]; r.byID[s.id] != nil || passed[s.id] || known && read == (finished{s.size, s.modified.UnixNano()}) {
			continue
		}
		rotated := r.open(s.path, f.path, false, time.Now())
		if rotated == nil || rotated.id != s.id { // renamed or compressed meanwhile
			if rotated != nil {
				r.forget(rotated)
			}
			continue
		}
		passed[s.id] = true
		known := rotated.begin == beginSaved || rotated.begin == beginCopy
		if g, ok := rotated.handle.(*gzipFile); ok && known && g.statedSize() == uint32(rotated.offset) {
			rotated.size = rotated.offset
		}
		switch {
		case known && rotated.settled() && !rotated.unfinished():
			r.forget(rotated)
			// Its position must not make older siblings look as if they were read.
			rotated.compared = earlier(rotated.compared, r.unreadSince(f.path, since))
			r.touch(rotated)
			r.noteFinished(rotated)
			continue
		case rotated.begin == beginLiveCopy, !known && (!strangers || s.modified.Before(since)):
			r.forget(rotated)
			continue
		case !known && rotated.print.length > 0:
			r.noteFound(rotated)
		}
		rotated.leaving, rotated.rotated = true, true
		r.place(rotated, f)
		opened = true
		r.logger.Info("reading rotated container log", zap.String("path", s.path), zap.Int64("offset", rotated.offset))
	}
	return opened
}

// noteFound notes that nothing of a file has been read yet: if what comes after
// it counts as read before it does, a kill must not make it look too old. Nor must
// this make an older one look so.
func (r *reader) noteFound(f *file) {
	found := f.position()
	found.Modified = 0
	r.delivery.positions.apply([]mark{{position: found, fresh: f.fresh}})
	f.fresh = false
}

// unreadSince is the time that no unread text of a path is older than.
func (r *reader) unreadSince(path string, since time.Time) time.Time {
	for _, f := range r.files {
		if f.path == path && !f.settled() {
			since = earlier(since, f.compared)
		}
	}
	return since
}

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
	r.openSiblings(f, f.compared, true)
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
