package containerlogsreceiver

import (
	"context"
	"time"
	"unicode/utf8"
)

// line takes a physical line (without its newline) at f.offset; length counts
// the newline.
func (r *reader) line(ctx context.Context, f *file, text []byte, length int) error {
	if f.long.active && len(text) > 0 {
		if err := r.pieces(ctx, f, f.long.time, f.long.stream, text); err != nil {
			return err
		}
	}
	if f.long.active {
		f.long.active = false
		f.offset += int64(length)
		return nil
	}
	e, ok := r.parse(f, text)
	var err error
	switch {
	case !ok:
		err = r.whole(ctx, f, record{stream: noStream}, text)
	case f.pending[e.stream].moved: // written after the next file went on
		err = r.pieces(ctx, f, e.time, e.stream, e.content)
	default:
		err = r.entry(ctx, f, &e)
	}
	if err != nil {
		return err
	}
	f.offset += int64(length)
	return nil
}

// parse takes a line apart by the format of the file, which its first line
// that parses decides: a json-file line begins with a brace, a CRI line never.
func (r *reader) parse(f *file, text []byte) (e entry, ok bool) {
	asJSON := f.format == formatJSONFile
	if f.format == formatUnknown {
		asJSON = len(text) > 0 && text[0] == '{'
	}
	if asJSON {
		e, r.scratch, ok = parseJSONFile(text, r.scratch)
	} else {
		e, ok = parseCRI(text)
	}
	if ok && f.format == formatUnknown {
		f.format = formatCRI
		if asJSON {
			f.format = formatJSONFile
		}
	}
	return e, ok
}

// entry takes an entry of a file: a line or a part of one, which may belong to
// a stack trace.
func (r *reader) entry(ctx context.Context, f *file, e *entry) error {
	p := &f.pending[e.stream]
	trace, joins := r.joins(p, e.content)
	last := !e.partial && trace == noTrace // of its record
	split := false
	switch {
	case p.active && !joins: // the trace ended before
		if err := r.flushPending(ctx, f, e.stream, false); err != nil {
			return err
		}
	case p.active && r.overflows(f, p, len(e.content), last):
		if err := r.flushPending(ctx, f, e.stream, true); err != nil {
			return err
		}
		split = true
	}
	switch {
	case len(e.content) > int(r.config.MaxLineBytes), !last && r.pendingBytes+len(e.content) > maxPendingBytes:
		return r.pieces(ctx, f, e.time, e.stream, e.content)
	case !last:
		r.keep(f, e, f.offset, trace, split)
		return nil
	case !p.active:
		return r.emit(ctx, f, record{time: e.time, stream: e.stream, split: split}, e.content, nil)
	}
	if err := r.emit(ctx, f, record{time: p.time, stream: e.stream, split: p.split}, p.text, e.content); err != nil {
		return err
	}
	r.dropPending(f, e.stream)
	return nil
}

// joins says whether an entry goes on with the record that is pending, and to
// what trace it belongs, if to one.
func (r *reader) joins(p *pending, content []byte) (trace, bool) {
	if p.active && p.open {
		return p.trace, true
	}
	if !r.config.Multiline.Enabled {
		return noTrace, false
	}
	if p.active {
		if next := p.trace.next(content); next != noTrace {
			return next, true
		}
	}
	return beginsTrace(content), false
}

// overflows says that a pending record must be handed on before more of it is
// taken: it would be too long, or a restart would have to read too far back.
func (r *reader) overflows(f *file, p *pending, more int, last bool) bool {
	limit := int(r.config.MaxLineBytes)
	if p.trace != noTrace {
		limit = min(limit, int(r.config.Multiline.MaxBytes))
	}
	return len(p.text)+more > limit ||
		!last && (r.pendingBytes+more > maxPendingBytes || p.from >= 0 && f.offset-p.from > r.maxReplayBytes())
}

// keep appends an entry to the pending record of its stream: to its last line if
// that has not ended, else as a new line of its trace.
func (r *reader) keep(f *file, e *entry, at int64, trace trace, split bool) {
	p := &f.pending[e.stream]
	before := len(p.text)
	switch {
	case !p.active:
		p.active, p.from, p.time, p.split = true, at, e.time, split
	case p.from < 0: // it began in the file before
		p.from, p.inherited = at, carry{p.trace, p.open}
	}
	if p.begun && !p.open {
		p.text = append(p.text, '\n')
	}
	p.text = append(p.text, e.content...)
	p.begun, p.open, p.trace = true, e.partial, trace
	p.since = time.Now()
	r.pendingBytes += len(p.text) - before
}

// flushPending hands on a record whose end has not come; split says that it is
// only a piece of one.
func (r *reader) flushPending(ctx context.Context, f *file, s stream, split bool) error {
	p := &f.pending[s]
	if !p.active {
		return nil
	}
	if err := r.emit(ctx, f, record{time: p.time, stream: s, split: split || p.split || p.open}, p.text, nil); err != nil {
		return err
	}
	r.dropPending(f, s)
	return nil
}

// dropPending forgets a record that is in the batch now, also in the file it
// began in.
func (r *reader) dropPending(f *file, s stream) {
	p := &f.pending[s]
	r.pendingBytes -= len(p.text)
	for before := p.origin; before != nil; {
		next := before.pending[s].origin
		before.pending[s] = pending{}
		r.touch(before)
		before = next
	}
	*p = pending{}
}

// whole hands on a record that is one entry, in pieces if it is too long.
func (r *reader) whole(ctx context.Context, f *file, rec record, content []byte) error {
	if len(content) > int(r.config.MaxLineBytes) {
		return r.pieces(ctx, f, rec.time, rec.stream, content)
	}
	return r.emit(ctx, f, rec, content, nil)
}

// pieces hands on content as records of at most max_line_bytes, all marked as
// split.
func (r *reader) pieces(ctx context.Context, f *file, at int64, s stream, content []byte) error {
	for first := true; first || len(content) > 0; first = false {
		n := wholeRunes(content, int(r.config.MaxLineBytes))
		if err := r.emit(ctx, f, record{time: at, stream: s, split: true}, content[:n], nil); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// longPiece takes what fills the large buffer without a newline: the beginning
// or the middle of a line longer than that. A json-file line cannot be taken
// apart without its end and is handed on raw.
func (r *reader) longPiece(ctx context.Context, f *file, text []byte) error {
	text = text[:wholeRunes(text, len(text))]
	content := text
	if !f.long.active {
		f.long = longLine{active: true, stream: noStream}
		if f.format != formatJSONFile {
			if e, ok := parseCRI(text); ok {
				f.format = formatCRI
				f.long.time, f.long.stream, content = e.time, e.stream, e.content
				if err := r.flushPending(ctx, f, e.stream, false); err != nil {
					return err
				}
			}
		}
	}
	if err := r.pieces(ctx, f, f.long.time, f.long.stream, content); err != nil {
		return err
	}
	f.offset += int64(len(text))
	return nil
}

// wholeRunes returns how many bytes of text, at most limit, do not end within
// a UTF-8 sequence.
func wholeRunes(text []byte, limit int) int {
	if len(text) < limit {
		return len(text)
	}
	for n := limit; n > 0 && n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n-1]) {
			if utf8.FullRune(text[n-1 : limit]) {
				return limit
			}
			return n - 1
		}
	}
	return limit
}
