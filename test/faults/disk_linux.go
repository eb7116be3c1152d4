package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// smallDisk says why there can be no file system of our own here, if so.
func smallDisk() string {
	if os.Geteuid() != 0 {
		return "mounting a small file system needs root"
	}
	return ""
}

func mountSmallDisk(dir, size string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		return fmt.Errorf("%w: mount a tmpfs of %s: %w", errSkip, size, err)
	}
	return nil
}

func unmountSmallDisk(dir string) { _ = unix.Unmount(dir, unix.MNT_DETACH) }

func isDiskFull(err error) bool { return errors.Is(err, unix.ENOSPC) }
