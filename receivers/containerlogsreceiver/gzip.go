package containerlogsreceiver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// handle is an open log file.
type handle interface {
	io.ReaderAt
	io.Closer
	Stat() (os.FileInfo, error)
}

const (
	gzipSuffix = ".gz"
	// unknownSize is the size of a compressed file until its end was reached:
	// what its trailer says is not reliable.
	unknownSize = math.MaxInt64
)

// errGzipDamaged says that a compressed log cannot be read further.
var errGzipDamaged = errors.New("compressed log is damaged")

// gzipFile reads a compressed rotated log as if it were not compressed: its
// offsets are those of the text. Reading must go forward; going back starts
// decompressing again. Until it is read it costs the first bytes of its text.
type gzipFile struct {
	*os.File
	head   []byte       // of the text, for its fingerprint
	reader *gzip.Reader // nil until read
	window []byte       // text before the place of the reader
	end    int64        // where window ends in the text
	err    error        // why there is nothing after window
}

func openGzip(file *os.File) (*gzipFile, error) {
	g := &gzipFile{File: file}
	if err := g.rewind(); err != nil {
		return nil, err
	}
	head := make([]byte, fingerprintMaxBytes)
	n, err := io.ReadFull(g.reader, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: %w", errGzipDamaged, err)
	}
	g.head, g.reader = head[:n:n], nil
	return g, nil
}

func (g *gzipFile) rewind() error {
	if _, err := g.Seek(0, io.SeekStart); err != nil {
		return err
	}
	reader, err := gzip.NewReader(bufio.NewReaderSize(g.File, 64<<10))
	if err != nil {
		return fmt.Errorf("%w: %w", errGzipDamaged, err)
	}
	g.reader, g.window, g.end, g.err = reader, g.window[:0], 0, nil
	return nil
}

// ReadAt reads text at an offset in the decompressed text.
func (g *gzipFile) ReadAt(p []byte, at int64) (int, error) {
	if all := len(g.head) < fingerprintMaxBytes; all || at+int64(len(p)) <= int64(len(g.head)) {
		n := copy(p, g.head[min(at, int64(len(g.head))):])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	}
	if begin := g.end - int64(len(g.window)); g.reader == nil || at < begin {
		if err := g.rewind(); err != nil {
			return 0, err
		}
	}
	if at >= g.end {
		n, err := io.CopyN(io.Discard, g.reader, at-g.end)
		g.window, g.end = g.window[:0], g.end+n
		if err != nil {
			return 0, g.wrap(err)
		}
	} else { // forget what lies before
		rest := copy(g.window, g.window[int64(len(g.window))-(g.end-at):])
		g.window = g.window[:rest]
	}
	if have := len(g.window); have < len(p) && g.err == nil {
		if cap(g.window) < len(p) {
			g.window = append(make([]byte, 0, len(p)), g.window...)
		}
		g.window = g.window[:len(p)]
		for have < len(p) && g.err == nil {
			var n int
			n, g.err = g.reader.Read(g.window[have:len(p)])
			have += n
			g.end += int64(n)
		}
		g.window = g.window[:have]
	}
	n := copy(p, g.window)
	if n == len(p) {
		return n, nil
	}
	return n, g.wrap(g.err)
}

func (g *gzipFile) wrap(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("%w: %w", errGzipDamaged, err)
}

// statedSize is what the trailer of the file says its text measures: right
// modulo 4 GiB if the file was compressed in one go.
func (g *gzipFile) statedSize() uint32 {
	info, err := g.Stat()
	if err != nil || info.Size() < 4 {
		return 0
	}
	var trailer [4]byte
	if _, err := g.File.ReadAt(trailer[:], info.Size()-4); err != nil {
		return 0
	}
	return uint32(trailer[0]) | uint32(trailer[1])<<8 | uint32(trailer[2])<<16 | uint32(trailer[3])<<24
}

func isGzip(path string) bool { return strings.HasSuffix(path, gzipSuffix) }

// openLog opens a log file for reading, a compressed one by its name.
func openLog(path string) (handle, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !isGzip(path) {
		return file, nil
	}
	compressed, err := openGzip(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return compressed, nil
}
