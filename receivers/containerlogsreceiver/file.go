package containerlogsreceiver

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// format is how the lines of a file are written; found from its first line
// that parses.
type format uint8

const (
	formatUnknown format = iota
	formatCRI
	formatJSONFile
)

// file is an open log file and how far it has been read. Only the reader
// touches it.
type file struct {
	handle handle
	path   string // where it was found
	source source
	id     fileID
	print  fingerprint
	was    fingerprint // what print was before the file was truncated, until that is dealt with
	format format

	offset   int64 // lines before it are in a batch or in pending
	scanned  int64 // looked at up to here; what follows offset is a line without end
	size     int64 // when last seen; of the text, unknownSize until the end of a compressed file
	stored   int64 // size on disk
	modified time.Time
	links    uint64
	compared time.Time // modified, when the fingerprint was last found right
	changed  bool      // size or time moved since the fingerprint was compared

	pending [2]pending // unfinished records of stdout and stderr
	long    longLine
	large   bool // the next line needs the large buffer

	limiter  *limiter  // of its container; nil until it is needed
	after    *file     // the file that was at this path before; read first
	begin    begin     // why offset was what it was when the file was opened
	copied   bool      // truncated, and a copy goes on where this one was
	chain    bool      // rotated files beside it are to be looked for first
	since    time.Time // and ones never seen count if written to since then
	failed   bool      // the last read failed; tried again after the next look
	begun    bool      // some of it was read since it was opened or truncated
	rotated  bool      // found beside its path
	leaving  bool      // no longer at its path: closed at its end
	gzip     bool      // compressed: never changes
	givenUp  bool      // deleted and closed unread
	fresh    bool      // its text is not the one its inode had before; the next mark says so
	young    bool      // at the first start, its first line was recent
	quietAt  time.Time // when it last grew
	round    uint64    // of discovery, when it was last seen at its path
	batch    uint64    // number of the batch that holds lines of it
	sourceAt int32     // and its source there
	touched  bool      // the batch must carry its position
}

// begin says where reading of a file began.
type begin uint8

const (
	beginStart    begin = iota // at its first line, or by start_at
	beginSaved                 // where its saved position is
	beginCopy                  // where the file was read to that it is a copy of
	beginLiveCopy              // nowhere: the file it is a copy of still has the lines
)

// pending is a record whose end has not come: the entries so far. Either its
// last line has not ended (open), or more lines of a stack trace may follow, or
// both.
type pending struct {
	active    bool
	open      bool  // the last line goes on
	begun     bool  // text holds a line, which may be empty
	split     bool  // what came before was handed on as a piece
	trace     trace // what the lines so far are a trace of
	moved     bool  // the next file has the text; kept until the record is in a batch
	from      int64 // offset of its first line in this file; -1 when all are before
	inherited carry // what it was when it came from the file before
	origin    *file // the file before this one, when the record began there
	time      int64
	text      []byte
	since     time.Time // when it last grew
}

// carry is what must be known of a pending record to go on with it in the next
// file.
type carry struct {
	trace trace
	open  bool
}

// longLine is a physical line longer than any buffer, handed on in pieces.
type longLine struct {
	active bool
	time   int64
	stream stream
}

// number is how a position tells of it: 0 for none.
func (c carry) number() int {
	n := int(c.trace) << 1
	if c.open {
		n++
	}
	return n
}

func carryOf(number int) carry { return carry{trace: trace(number >> 1), open: number&1 == 1} }

// settled says that every complete line has been read, and that the file has not
// changed since, were it only to become shorter.
func (f *file) settled() bool { return f.scanned >= f.size && !f.changed }

// unfinished says that a record waits for its end.
func (f *file) unfinished() bool { return f.pending[stdout].active || f.pending[stderr].active }

// handedOver says that the next file has a record that began here and has not
// ended. Until then the file is kept open: what appears beside it, such as its
// compressed form, is known by it.
func (f *file) handedOver() bool {
	return f.pending[stdout].active && f.pending[stdout].moved || f.pending[stderr].active && f.pending[stderr].moved
}

// observe notes what stat said.
func (f *file) observe(info os.FileInfo, now time.Time) {
	_, f.links = idOf(info)
	f.stored = info.Size()
	if f.gzip {
		f.modified = info.ModTime()
		return
	}
	if info.Size() != f.size || !info.ModTime().Equal(f.modified) {
		f.size, f.modified, f.changed = info.Size(), info.ModTime(), true
		f.quietAt = now
	}
}

// gone says that the file was deleted together with the directory it lay in,
// so that nothing of it will ever be seen again. A file that was deleted alone
// may come back compressed.
func (f *file) gone() bool {
	if f.handle != nil || f.links > 0 {
		return false
	}
	_, err := os.Stat(filepath.Dir(f.path))
	return errors.Is(err, fs.ErrNotExist)
}

// position is what the position file should say about the file now.
func (f *file) position() position {
	p := position{
		Path: f.path, Device: f.id.device, Inode: f.id.inode,
		Fingerprint: hexNumber(f.print.hash), FingerprintBytes: f.print.length,
		Offset: f.offset, Modified: f.compared.UnixNano(), Closed: f.handle == nil,
		Compressed: f.gzip,
	}
	if f.unfinished() {
		p.Partial = &[2]int64{-1, -1}
		for s := range f.pending {
			if f.pending[s].active {
				p.Partial[s] = f.pending[s].from
				if c := f.pending[s].inherited; c != (carry{}) {
					if p.Carried == nil {
						p.Carried = &[2]int{}
					}
					p.Carried[s] = c.number()
				}
			}
		}
	}
	return p
}

// lineStartBefore finds the beginning of the line that end is in, so that a
// line half written at the first start is read whole.
func lineStartBefore(file io.ReaderAt, end int64, buffer []byte) int64 {
	begin := max(0, end-int64(len(buffer)))
	n, _ := file.ReadAt(buffer[:end-begin], begin)
	for i := n; i > 0; i-- {
		if buffer[i-1] == '\n' {
			return begin + int64(i)
		}
	}
	if begin == 0 {
		return 0
	}
	return end
}
