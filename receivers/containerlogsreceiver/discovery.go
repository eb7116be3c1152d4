package containerlogsreceiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// missingGap is how often positions are looked through for files that are gone.
const missingGap = 10 * time.Minute

// clockGrain is more than file times lag behind the clock: file systems take
// them from the kernel's last tick.
const clockGrain = time.Second

// maxTroubled bounds the memory of which trouble was told.
const maxTroubled = 1000

// discover finds new files, notices the ones that left their path, and looks
// at the size of all. firstStart says that start_at applies.
func (r *reader) discover(firstStart bool) {
	now := time.Now()
	r.round++
	r.watched = r.watchDirectories()
	opened, troubles := r.opened, r.troubles
	if len(r.troubled) > maxTroubled {
		clear(r.troubled)
	}
	for _, path := range r.match() {
		r.look(path, firstStart, now)
	}
	for path, f := range r.atPath {
		if f.round != r.round {
			r.leave(path, f)
		}
	}
	r.observeAll(now)
	if r.opened != opened { // what new files link to is watched from the next look on
		r.watched = false
		r.lookSoon()
	}
	if r.troubles != troubles { // what could not be read gives no sign when it can be
		r.watched = false
	}
	if now.Sub(r.swept) > missingGap {
		r.delivery.positions.noteMissing(now)
		r.forgetMissing()
		r.swept = now
	}
	if r.skippedFiles > 0 {
		r.logger.Warn("first start: old lines of container logs are not read (start_at)",
			zap.String("start_at", r.config.StartAt), zap.Int("files", r.skippedFiles), zap.Int64("bytes", r.skippedBytes))
		r.telemetry.skipped.Add(context.Background(), r.skippedBytes)
		r.skippedFiles, r.skippedBytes = 0, 0
	}
	r.lastLook = now
	if r.watcher != nil {
		r.watcher.slowDown(min(watchShare*time.Since(now), maxWatchGap, r.config.PollInterval))
	}
}

// match lists the paths of the patterns, each once, in order.
func (r *reader) match() []string {
	var paths []string
	for _, pattern := range r.config.Include {
		found, err := filepath.Glob(pattern)
		if err != nil { // Validate has seen to it
			r.trouble(pattern, err)
		}
		if len(found) == 0 {
			r.checkBase(pattern)
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return slices.DeleteFunc(slices.Compact(paths), r.excluded)
}

func (r *reader) excluded(path string) bool {
	return slices.ContainsFunc(r.config.Exclude, func(pattern string) bool {
		matches, _ := filepath.Match(pattern, path)
		return matches
	})
}

// checkBase tells when the directory above a pattern that matches nothing
// cannot be read, which Glob keeps to itself.
func (r *reader) checkBase(pattern string) {
	base := pattern
	for strings.ContainsAny(base, `*?[\`) {
		base = filepath.Dir(base)
	}
	directory, err := os.Open(base)
	if err != nil {
		r.trouble(base, err)
		return
	}
	delete(r.troubled, base)
	_ = directory.Close()
}

// look compares what is at a path with what was.
func (r *reader) look(path string, firstStart bool, now time.Time) {
	current := r.atPath[path]
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		r.trouble(path, err)
		if current != nil {
			current.round = r.round
		}
		return
	case !info.Mode().IsRegular():
		return
	}
	id, _ := idOf(info)
	if current != nil && current.id == id {
		current.round = r.round
		current.observe(info, now)
		return
	}
	if other := r.byID[id]; other != nil {
		if current == nil && other.leaving && other.path == path { // it came back
			other.leaving, other.round, r.atPath[path] = false, r.round, other
		}
		return // else a second name of an open file
	}
	since := r.lastLook.Add(-clockGrain)
	if current != nil {
		since = current.compared
		r.leave(path, current)
	} else if left := r.leftAt(path); left != nil {
		since = left.compared
	} else if noted, ok := r.delivery.positions.lastModified(path); ok {
		since = noted
	}
	if !r.selected(path) {
		return
	}
	f, err := r.open(path, path, firstStart, now)
	if err != nil {
		return
	}
	f.round = r.round
	r.atPath[path] = f
	r.opened++
	f.after = r.leftAt(path)
	f.chain, f.since = !firstStart, since
	if firstStart && f.young {
		f.chain, f.since = true, now.Add(-r.config.RecentAge)
	}
	r.files = append(r.files, f)
}

// leave notes that a file is no longer at its path: renamed or deleted. It is
// read to its end.
func (r *reader) leave(path string, f *file) {
	delete(r.atPath, path)
	f.leaving, f.quietAt = true, time.Now()
	r.observe(f)
}

// observe looks at the size of a file that may not be looked at again soon.
func (r *reader) observe(f *file) {
	if f.handle == nil || f.givenUp {
		return
	}
	if info, err := f.handle.Stat(); err == nil {
		f.observe(info, time.Now())
	}
}

// leftAt returns the file that left a path last and is still open.
func (r *reader) leftAt(path string) *file {
	for _, f := range slices.Backward(r.files) {
		if f.leaving && f.path == path {
			return f
		}
	}
	return nil
}

// errIsOpen says that a path came to stand for a file that is open already.
var errIsOpen = errors.New("the file is open")

// open begins or goes on with a file found at location, whose lines belong to
// path. An error, which the operator has been told of if it is of interest, means
// that it could not be opened; the next discovery tries again.
func (r *reader) open(location, path string, firstStart bool, now time.Time) (*file, error) {
	handle, err := openLog(location)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.trouble(location, err)
		}
		return nil, err
	}
	f := &file{handle: handle, path: path, source: sourceOf(path, os.Readlink), quietAt: now}
	f.source.path, f.source.showPath = path, r.config.IncludeFilePath
	if f.gzip = isGzip(location); f.gzip {
		f.size = unknownSize
	}
	info, err := handle.Stat()
	if err == nil {
		f.id, f.links = idOf(info)
		f.observe(info, now)
		err = r.resume(f, location, firstStart)
	}
	if err != nil {
		_ = handle.Close()
		r.trouble(location, err)
		return nil, err
	}
	if r.byID[f.id] != nil { // renamed between stat and open
		_ = handle.Close()
		return nil, errIsOpen
	}
	delete(r.troubled, location)
	r.byID[f.id] = f
	return f, nil
}

// resume finds where to begin: the saved position if the file is the one it
// was taken of, else the beginning, or, at the first start, as configured.
func (r *reader) resume(f *file, location string, firstStart bool) error {
	saved, known := r.delivery.positions.find(f.id, f.path)
	now, same, err := takeFingerprint(f.handle, saved.fingerprint(), f.size, &r.head)
	if err != nil {
		return fmt.Errorf("read beginning: %w", err)
	}
	f.print, f.compared, f.changed = now, f.modified, false
	f.fresh = true
	switch {
	case known && same && saved.FingerprintBytes > 0 && saved.Offset <= f.size:
		r.delivery.positions.claim(saved, f.id)
		f.begin, f.fresh = beginSaved, false
		if f.gzip && saved.Closed {
			f.size = saved.Offset
		}
		f.offset, f.scanned = saved.Offset, saved.Offset
		return r.replay(f, &saved)
	case location != f.path:
		return r.resumeCopy(f)
	case firstStart:
		return r.firstOffset(f, time.Now())
	}
	return nil
}
