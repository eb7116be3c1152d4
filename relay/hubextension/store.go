package hubextension

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// errStoreInUse is returned when another process holds the store directory.
var errStoreInUse = errors.New("another hub uses this directory; two hubs would destroy each other's streams")

// lockStore makes the store directory, checks that it can be written, and
// holds it for this process: the server itself would let two in.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("store_dir: %s cannot be made; name a directory this process may write to: %w", dir, err)
	}
	path := filepath.Join(dir, "LOCK")
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("store_dir: %s cannot be written; name a directory this process may write to: %w", dir, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errStoreInUse
		}
		return nil, fmt.Errorf("store_dir: %s: %w", dir, err)
	}
	return lock, nil
}
