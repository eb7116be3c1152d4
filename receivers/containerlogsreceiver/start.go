package containerlogsreceiver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"
)

// firstOffset decides where to begin in a file that was there at the very first
// start, as start_at says. A node may hold gigabytes of old logs, which nobody
// has asked for and the link would carry for hours.
func (r *reader) firstOffset(f *file, now time.Time) error {
	if r.config.StartAt == startAtBeginning || f.gzip {
		return nil
	}
	keep := int64(0)
	if r.config.StartAt == startAtRecent {
		first, ok, err := r.firstTime(f)
		if err != nil {
			return fmt.Errorf("read first line: %w", err)
		}
		if ok && now.Sub(first) <= r.config.RecentAge {
			f.young = true
			return nil
		}
		keep = int64(r.config.RecentBytes)
	}
	if keep >= f.size && f.size > 0 {
		return nil
	}
	f.offset = lineStartBefore(f.handle, max(0, f.size-keep), r.buffer)
	f.scanned = f.offset
	if f.offset > 0 {
		r.skippedFiles++
		r.skippedBytes += f.offset
	}
	// Noted at once: after a kill this is no first start any more.
	r.delivery.positions.apply([]mark{{position: f.position()}})
	f.fresh = false
	return nil
}

// firstTime is the time of the first line of a file, which tells since when the
// container has been writing to it.
func (r *reader) firstTime(f *file) (time.Time, bool, error) {
	n, err := f.handle.ReadAt(r.buffer[:min(int64(len(r.buffer)), f.size)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return time.Time{}, false, err
	}
	line, _, _ := bytes.Cut(r.buffer[:n], newline)
	e, ok := r.parse(f, line)
	return time.Unix(0, e.time), ok, nil
}

// selected says whether the container a path belongs to is among the ones to be
// read.
func (r *reader) selected(at string) bool {
	include, exclude := r.config.IncludeContainers, r.config.ExcludeContainers
	if len(include) == 0 && len(exclude) == 0 {
		return true
	}
	s := sourceOf(at, os.Readlink)
	if s.namespace == "" {
		return true
	}
	name := s.namespace + "/" + s.pod + "/" + s.container
	matches := func(pattern string) bool {
		matched, _ := path.Match(pattern, name)
		return matched
	}
	return (len(include) == 0 || slices.ContainsFunc(include, matches)) && !slices.ContainsFunc(exclude, matches)
}
