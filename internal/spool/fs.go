package spool

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// fileSystem is what the spool asks of a disk. The tests put one under it that
// fails, fills up and loses its power.
type fileSystem interface {
	MkdirAll(dir string) error
	ReadDir(dir string) ([]fs.DirEntry, error)
	OpenFile(path string, flag int) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names created, renamed and removed in dir durable.
	SyncDir(dir string) error
	// Lock takes path for this process until closed, or fails with ErrInUse.
	Lock(path string) (io.Closer, error)
	// Space tells how much an unprivileged process may still write below dir, and
	// how large the file system is.
	Space(dir string) (free, total int64, err error)
}

// file is an open file of a fileSystem.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync returns once everything written is on the disk. After an error
	// nothing written since the last success can be relied on.
	Sync() error
	Stat() (fs.FileInfo, error)
	// Identity tells this file from every other on its file system, copies and
	// what comes after it included. It survives a rename. Empty: not known.
	Identity() string
}

// osFS is the real one.
type osFS struct{}

func (osFS) MkdirAll(dir string) error                 { return os.MkdirAll(dir, 0o750) }
func (osFS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (osFS) Rename(from, to string) error              { return os.Rename(from, to) }
func (osFS) Remove(path string) error                  { return os.Remove(path) }

// OpenFile opens regular files only. Without O_NONBLOCK a pipe in the place of one
// would keep the collector waiting for somebody to write to it.
func (osFS) OpenFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return osFile{f}, nil
}

// osFile is a file that knows whether it still has a name.
type osFile struct{ *os.File }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

func readFile(fsys fileSystem, path string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s measures %d bytes, more than %d", path, info.Size(), limit)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(len(b))), b); err != nil {
		return nil, err
	}
	return b, nil
}

// writeFileAtomic replaces path with b: readers see the old or the new content.
func writeFileAtomic(fsys fileSystem, path string, b []byte, durable bool) error {
	return writeFileKnowing(fsys, path, durable, func(string) ([]byte, error) { return b, nil })
}

// writeFileKnowing is writeFileAtomic with a content that may depend on the
// identity of the file it stands in.
func writeFileKnowing(fsys fileSystem, path string, durable bool, content func(identity string) ([]byte, error)) error {
	temporary := path + ".tmp"
	f, err := fsys.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return err
	}
	b, err := content(f.Identity())
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = fsys.Rename(temporary, path)
	}
	if err != nil {
		fsys.Remove(temporary)
	}
	return err
}
