//go:build unix

package containerlogsreceiver

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fingerprintMaxBytes is how much of the beginning of a file tells it from
// another one that got the same inode: several CRI lines with their times.
const fingerprintMaxBytes = 1024

// fileID is what the file system knows a file by.
type fileID struct{ device, inode uint64 }

func idOf(info fs.FileInfo) (id fileID, links uint64) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(stat.Dev), uint64(stat.Ino)}, uint64(stat.Nlink)
	}
	return fileID{}, 1
}

// fingerprint is a hash of the first length bytes of a file.
type fingerprint struct {
	length int
	hash   uint64
}

// takeFingerprint hashes the beginning of a file, at most limit bytes. It also
// says whether the file still begins with what known was taken from.
func takeFingerprint(file io.ReaderAt, known fingerprint, limit int64, buffer *[fingerprintMaxBytes]byte) (now fingerprint, same bool, err error) {
	want := max(int64(known.length), min(limit, fingerprintMaxBytes))
	n, err := file.ReadAt(buffer[:want], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return known, false, err
	}
	now = fingerprint{length: n, hash: hashOf(buffer[:n])}
	return now, n >= known.length && hashOf(buffer[:known.length]) == known.hash, nil
}

// hashOf joins two checksums that processors compute: it is taken of every file
// at every read.
func hashOf(text []byte) uint64 {
	return uint64(crc32.ChecksumIEEE(text))<<32 | uint64(crc32.Checksum(text, castagnoli))
}

// errInUse says that another receiver works with the same position file.
var errInUse = errors.New("position file is in use by another receiver; give each its own position_file")

// lockPositionFile makes sure that one receiver owns a position file. The lock
// goes with the process.
func lockPositionFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create directory of position file: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of position file: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, errInUse)
		}
		return nil, fmt.Errorf("lock position file %s: %w", path, err)
	}
	return lock, nil
}
