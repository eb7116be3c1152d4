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
	case e.partial:
		err = r.partial(ctx, f, &e)
	default:
		err = r.full(ctx, f, &e)
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

// full ends a record: what is pending of its stream and this entry.
func (r *reader) full(ctx context.Context, f *file, e *entry) error {
	p := &f.pending[e.stream]
	if !p.active {
		return r.whole(ctx, f, record{time: e.time, stream: e.stream}, e.content)
	}
	if len(p.text)+len(e.content) > int(r.config.MaxLineBytes) {
		if err := r.flushPending(ctx, f, e.stream); err != nil {
			return err
		}
		return r.pieces(ctx, f, e.time, e.stream, e.content)
	}
	if err := r.emit(ctx, f, record{time: p.time, stream: e.stream}, p.text, e.content); err != nil {
		return err
	}
	r.dropPending(f, e.stream)
	return nil
}

// partial keeps an entry until the end of its record comes.
func (r *reader) partial(ctx context.Context, f *file, e *entry) error {
	p := &f.pending[e.stream]
	tooMuch := r.pendingBytes+len(e.content) > maxPendingBytes
	tooLong := len(p.text)+len(e.content) > int(r.config.MaxLineBytes)
	tooFar := p.from >= 0 && f.offset-p.from > r.maxReplayBytes()
	if p.active && (tooMuch || tooLong || tooFar) {
		if err := r.flushPending(ctx, f, e.stream); err != nil {
			return err
		}
	}
	if tooMuch || len(e.content) > int(r.config.MaxLineBytes) {
		return r.pieces(ctx, f, e.time, e.stream, e.content)
	}
	r.keep(f, e, f.offset)
	return nil
}

// keep appends an entry to the pending record of its stream.
func (r *reader) keep(f *file, e *entry, at int64) {
	p := &f.pending[e.stream]
	if !p.active {
		p.active, p.from, p.time = true, at, e.time
	} else if p.from < 0 {
		p.from = at
	}
	p.text = append(p.text, e.content...)
	p.since = time.Now()
	r.pendingBytes += len(e.content)
}

// flushPending hands on an unfinished record as a piece.
func (r *reader) flushPending(ctx context.Context, f *file, s stream) error {
	p := &f.pending[s]
	if !p.active {
		return nil
	}
	if err := r.emit(ctx, f, record{time: p.time, stream: s, split: true}, p.text, nil); err != nil {
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
				if err := r.flushPending(ctx, f, e.stream); err != nil {
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
