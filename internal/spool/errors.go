package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Errors callers decide on. Test with errors.Is.
var (
	// ErrClosed means the spool has been closed.
	ErrClosed = errors.New("spool is closed")
	// ErrTooLarge means the frame can never be taken, however empty the spool
	// is. Report its items with Lose.
	ErrTooLarge = errors.New("too large for the spool")
	// ErrUnknownLane means the spool has no such lane.
	ErrUnknownLane = errors.New("no such lane in the spool")
	// ErrInUse means another process holds the spool directory.
	ErrInUse = errors.New("spool directory is in use")
	// ErrFull means there is no room and nothing may be deleted for it. Trying
	// again later is right.
	ErrFull = errors.New("spool is full")
	// ErrManyLanes means a signal has as many sealed lanes as it may have.
	ErrManyLanes = errors.New("no more lanes may be sealed")
)

// explainOpen says what a failure to open means and what to do about it.
func explainOpen(dir string, err error) error {
	switch {
	case errors.Is(err, ErrInUse), errors.Is(err, ErrNotOwner):
		return err
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("spool directory %s: it, or a part of its path, is a file: telemetry cannot be kept there: name a directory, or move the file away (%w)", dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("spool directory %s: its file system is read-only: telemetry cannot be kept there: mount it writable, or name a directory on a writable volume (%w)", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("spool directory %s: this process may not write there: telemetry cannot be kept: give the directory to the user it runs as, %s, or name another (%w)", dir, whoami(), err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("spool directory %s: the disk is full and nothing in the spool could be freed: telemetry cannot be kept: make room on that volume (%w)", dir, err)
	default:
		return fmt.Errorf("spool directory %s: it cannot be used, so telemetry cannot be kept: check the volume and the path (%w)", dir, err)
	}
}

// explainAppend says what a failure to write means. Nothing of it has been
// acknowledged.
func explainAppend(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("spool %s: disk full: the data was not taken and may be sent again: make room, or lower the spool's max_bytes below what the volume has (%w)", dir, err)
	case errors.Is(err, ErrFull):
		return fmt.Errorf("spool %s: the data was not taken and may be sent again: %w", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("spool %s: this process, %s, may no longer write there: the data was not taken and may be sent again: give the directory back to it (%w)", dir, whoami(), err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("spool %s: file system has become read-only: the data was not taken and may be sent again: check the disk and mount it writable (%w)", dir, err)
	default:
		return fmt.Errorf("spool %s: the data was not made durable and may be sent again (%w)", dir, err)
	}
}
