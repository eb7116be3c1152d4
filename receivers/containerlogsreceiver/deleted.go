package containerlogsreceiver

import (
	"context"
	"io"
	"os"

	"go.uber.org/zap"
)

// maxDeletedBytes bounds the unread text of deleted files that are held open: as
// long as they are, their disk space is not free, and while the pipeline refuses
// a shouting container deletes one after the other.
const maxDeletedBytes = 1 << 30

// givenUp takes the place of the handle of a file that was closed unread.
type givenUp struct{}

func (givenUp) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (givenUp) Close() error                      { return nil }
func (givenUp) Stat() (info os.FileInfo, _ error) { return info, os.ErrClosed }

// boundDeleted gives up the oldest deleted files while more than limit unread
// bytes of such files are held, except the one that is being read.
func (r *reader) boundDeleted(limit int64) {
	held := int64(0)
	for _, f := range r.files {
		if f.deleted() {
			held += f.size - f.offset
		}
	}
	for _, f := range r.files {
		if held <= limit {
			return
		}
		if !f.deleted() || f == r.reading {
			continue
		}
		unread := f.size - f.offset
		held -= unread
		r.logger.Error("a container log was deleted before it could be read, and too many such are held open; what was unread is lost",
			zap.String("path", f.path), zap.Int64("lost_bytes", unread), zap.Int64("limit_bytes", limit))
		r.telemetry.abandoned.Add(context.Background(), unread)
		_ = f.handle.Close()
		delete(r.byID, f.id) // its inode is free
		f.handle, f.givenUp = givenUp{}, true
		f.size, f.scanned, f.changed, f.chain = f.offset, f.offset, false, false
	}
}

// deleted says that only this process still has the file, and not all of it read.
func (f *file) deleted() bool {
	return f.leaving && f.links == 0 && !f.gzip && !f.givenUp && f.size > f.offset
}
