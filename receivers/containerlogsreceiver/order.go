package containerlogsreceiver

import (
	"os"
	"slices"
)

// place puts a rotated file into the order of reading, which is that in which the
// texts of a path begin; times of files do not tell it, since copying and
// compressing change them. Beside f there may be files that left the path.
func (r *reader) place(rotated, f *file) {
	// What was there when last looked at may have left, with more in it.
	if current := r.atPath[f.path]; current != nil && !r.isAtPath(current) {
		r.leave(f.path, current)
	}
	next := f
	if first, ok := r.beginning(rotated); ok {
		var last *file
		later := slices.IndexFunc(r.files, func(other *file) bool {
			if other.path != f.path {
				return false
			}
			r.observe(other)
			begins, ok := r.beginning(other)
			if ok && begins > first || !ok && (other == f || other == r.atPath[f.path]) {
				return true
			}
			last = other
			return false
		})
		switch {
		case later >= 0:
			next = r.files[later]
		case last != nil && r.atPath[f.path] != f: // f has left, and this came after it
			rotated.after = last
			r.files = slices.Insert(r.files, slices.Index(r.files, last)+1, rotated)
			return
		}
	}
	r.files = slices.Insert(r.files, slices.Index(r.files, next), rotated)
	if next.begun { // too late to come before it
		return
	}
	if next.after == nil && (next.offset == 0 || next.copied) {
		next.after = next.disinherit()
	}
	next.after, rotated.after = rotated, next.after
}

// beginning is the time of the first line of a file as it is now.
func (r *reader) beginning(f *file) (int64, bool) {
	if f.handle == nil || f.size == 0 {
		return 0, false
	}
	first, ok, err := r.firstTime(&file{handle: f.handle, size: f.size})
	return first.UnixNano(), ok && err == nil
}

// isAtPath says whether a file is what lies at its path.
func (r *reader) isAtPath(f *file) bool {
	info, err := os.Stat(f.path)
	if err != nil {
		return false
	}
	id, _ := idOf(info)
	return id == f.id
}

// inherit takes over unfinished records of the file that was at the path
// before, which has been read to its end: the runtime may write the end of a
// line after it reopened.
func (r *reader) inherit(f *file) {
	before := f.after
	f.after = nil
	if before.unfinished() {
		r.touch(before) // positions are noted in the order of reading
	}
	for s := range before.pending {
		from, to := &before.pending[s], &f.pending[s]
		if !from.active || from.moved {
			continue
		}
		own := to.begun
		if !to.active {
			*to = pending{active: true, from: -1, begun: from.begun, open: from.open, trace: from.trace}
		}
		if from.begun && own && !from.open {
			from.text = append(from.text, '\n')
			r.pendingBytes++
		}
		to.text = append(from.text, to.text...)
		to.begun = to.begun || from.begun
		to.time, to.since, to.split, to.origin = from.time, from.since, from.split, before
		from.text, from.moved = nil, true
	}
}

// disinherit gives back what a file has inherited that was not begun, for another
// one that was found to come between; it returns the file it is from, nil for none.
func (f *file) disinherit() (before *file) {
	for s := range f.pending {
		p := &f.pending[s]
		if p.origin == nil || p.from >= 0 || p.moved {
			continue
		}
		before = p.origin
		back := &before.pending[s]
		back.text, back.moved, back.since = p.text, false, p.since
		*p = pending{}
	}
	return before
}
