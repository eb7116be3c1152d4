package containerlogsreceiver

import (
	"context"
	"errors"
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

// siblings lists the rotated files of a log, oldest first. What lies there both
// plain and compressed is listed plain: it is being compressed. steady is false
// when a name that was read was gone when it was asked what it stands for, or the
// directory could not be read: a file may be missing under every name.
func (r *reader) siblings(path string) (found []sibling, steady bool) {
	directory, name := filepath.Split(path)
	entries, err := r.readDir(directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.trouble(directory, err)
		return nil, false
	}
	steady = true
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
		if err != nil {
			steady = false
			continue
		}
		if !info.Mode().IsRegular() {
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
	return found, steady
}

// isDated says that a suffix is the kubelet's: 20060102-150405.
func isDated(suffix string) bool {
	return len(suffix) == len("20060102-150405") && suffix[8] == '-'
}

// linkTarget is the path that symbolic links lead to, which itself may be missing:
// a log was renamed, and its successor is not there yet.
func linkTarget(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	for range maxLinks {
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

const (
	// maxLinks bounds how many links a path may lead over, as Linux does.
	maxLinks = 40
	// maxListings bounds how often a directory that keeps changing is listed at
	// one look.
	maxListings = 20
)

// scan is a search for rotated files with unread lines beside a path that has not
// come to an end. Until it has, it is gone on with at every look, and nothing that
// was read meanwhile makes a file look too old for it, also after a kill.
type scan struct {
	since     time.Time           // strangers count if written to since then
	strangers bool                // files never seen count
	passed    map[fileID]finished // looked into since this was asked for
	began     time.Time
	moving    bool // names moved throughout the last look
}

// mayWait says that the logs of a path should not be read before the scan has come
// to an end.
func (r *reader) mayWait(path string) bool {
	s := r.scans[path]
	return s != nil && s.moving && time.Since(s.began) < r.timing.scanWait
}

// scan opens the rotated files beside f that hold unread lines, and puts them into
// the order of reading: those with a saved position, copies of a file that was
// truncated, and, if strangers is set, ones never seen that were written to since
// then.
//
// Names may move while this goes on: each rotated log to the next number, or to a
// compressed form. A listing misses a file only if it was renamed meanwhile, and a
// name may stand for another file by the time it is opened. So the search has come
// to an end when two listings in a row agree in names and files, every file that
// had to be looked into was opened and was the one listed, and the directory's time
// of change is after all that what it was before the first of the two. Otherwise it
// is listed again, at most maxListings times, and then again at the next look.
func (r *reader) scan(f *file, since time.Time, strangers bool) (opened bool) {
	return r.search(f, r.scanOf(f.path, since, strangers))
}

func (r *reader) search(f *file, s *scan) (opened bool) {
	var before []sibling
	var stamp time.Time
	compares := false // with before
	s.moving = true
	readable := true
	for range maxListings {
		previous := stamp
		target := linkTarget(f.path)
		stamp = changedAt(target)
		listed, steady := r.siblings(target)
		some, moved, failed := r.openListed(f, listed, s)
		opened, readable = opened || some, !failed
		same := slices.EqualFunc(listed, before, func(a, b sibling) bool { return a.path == b.path && a.id == b.id })
		if compares && same && steady && !moved && changedAt(target).Equal(previous) {
			s.moving = false
			break
		}
		before, compares = listed, steady
	}
	if s.moving || !readable {
		r.delivery.positions.noteUnfound(f.path, s.since)
		return opened
	}
	delete(r.scans, f.path)
	r.delivery.positions.foundAll(f.path)
	return opened
}

// scanOf is the scan of a path: a new one, or the one that has not come to an end,
// also before the start, with what is asked for now.
func (r *reader) scanOf(path string, since time.Time, strangers bool) *scan {
	s := r.scans[path]
	if s == nil {
		s = &scan{since: since, began: time.Now()}
		if noted, ok := r.delivery.positions.unfoundSince(path); ok {
			s.since, s.strangers = earlier(s.since, noted), true
		}
		r.scans[path] = s
	}
	if strangers {
		if s.strangers {
			since = earlier(since, s.since)
		}
		s.since, s.strangers = since, true
	}
	s.passed = map[fileID]finished{}
	return s
}

// goOn goes on with the scans that have not come to an end, once after each look.
func (r *reader) goOn(ctx context.Context) error {
	if !r.looked {
		return nil
	}
	r.looked = false
	for path, s := range r.scans {
		f := r.atPath[path]
		if f == nil {
			f = r.leftAt(path)
		}
		if f == nil || f.chain {
			continue
		}
		if err := r.cutOf(ctx, path); err != nil {
			return err
		}
		r.search(f, s)
	}
	return nil
}

// changedAt is when the directory a path is in last changed; the zero time if there
// is none.
func changedAt(path string) time.Time {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// openListed opens those of the siblings listed that hold unread lines. moved says
// that a name no longer stood for the file that was listed, failed that a file could
// not be opened for another reason.
func (r *reader) openListed(f *file, siblings []sibling, s *scan) (opened, moved, failed bool) {
	for _, listed := range siblings {
		now := finished{listed.size, listed.modified.UnixNano()}
		if r.byID[listed.id] != nil || r.finished[listed.id] == now || s.passed[listed.id] == now {
			continue
		}
		rotated, err := r.open(listed.path, f.path, false, time.Now())
		switch {
		case err == nil && rotated.id != listed.id:
			r.forget(rotated)
			moved = true
			continue
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errIsOpen):
			moved = true
			continue
		case errors.Is(err, errGzipDamaged): // has been told, and will not get better
			continue
		case err != nil:
			_, noted := r.delivery.positions.find(listed.id, f.path)
			failed = failed || noted || s.strangers && !listed.modified.Before(s.since)
			continue
		}
		s.passed[listed.id] = now
		opened = r.take(rotated, f, &listed, s) || opened
	}
	return opened, moved, failed
}

// take puts a sibling that was opened into the order of reading if it holds unread
// lines, else it closes it.
func (r *reader) take(rotated, f *file, listed *sibling, s *scan) bool {
	known := rotated.begin == beginSaved || rotated.begin == beginCopy
	if g, ok := rotated.handle.(*gzipFile); ok && known && g.statedSize() == uint32(rotated.offset) {
		rotated.size = rotated.offset
	}
	switch {
	case known && rotated.settled() && !rotated.unfinished():
		r.forget(rotated)
		// Its position must not make older siblings look as if they were read.
		rotated.compared = earlier(rotated.compared, r.unreadSince(f.path, s.since))
		r.touch(rotated)
		r.noteFinished(rotated)
		return false
	case rotated.begin == beginLiveCopy, !known && (!s.strangers || listed.modified.Before(s.since)):
		r.forget(rotated)
		return false
	case !known && rotated.print.length > 0:
		r.noteFound(rotated)
	}
	rotated.leaving, rotated.rotated = true, true
	r.place(rotated, f)
	r.logger.Info("reading rotated container log", zap.String("path", listed.path), zap.Int64("offset", rotated.offset))
	return true
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
