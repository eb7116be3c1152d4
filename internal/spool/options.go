package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Defaults and bounds.
const (
	DefaultMaxBytes     = 2 << 30
	DefaultSegmentBytes = 16 << 20 // large enough that deleting is rare, small enough that evicting loses little
	MaxCommitDelay      = 200 * time.Millisecond

	minMaxBytes = 64 << 10
)

// Options says where a spool is and how large it may become.
type Options struct {
	// Dir is made if missing. One process at a time may have it open.
	Dir string
	// MaxBytes bounds the segment files; 0 means DefaultMaxBytes. When new
	// data would exceed it the oldest segments are evicted and their items
	// counted as lost.
	MaxBytes int64
	// SegmentBytes is the size at which a new segment file begins; 0 means
	// DefaultSegmentBytes or an eighth of MaxBytes, whichever is less.
	SegmentBytes int64
	// CommitDelay is how long an Append may wait for others to share its
	// fsync, up to MaxCommitDelay. With 0 those that arrive during one fsync
	// share the next, which batches under load and waits for nothing otherwise.
	CommitDelay time.Duration
	// Logger gets what an operator should know; nil means slog.Default.
	Logger *slog.Logger

	fs  fileSystem
	now func() time.Time
}

func (o *Options) setDefaults() error {
	var problems []error
	if o.Dir == "" {
		problems = append(problems, errors.New("directory: must be set"))
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxBytes < minMaxBytes {
		problems = append(problems, fmt.Errorf("max_bytes: %d is less than the least that works, %d", o.MaxBytes, minMaxBytes))
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(DefaultSegmentBytes, o.MaxBytes/8)
	}
	if o.SegmentBytes < 0 || o.SegmentBytes > o.MaxBytes {
		problems = append(problems, fmt.Errorf("segment bytes: %d must be between 1 and max_bytes", o.SegmentBytes))
	}
	if o.CommitDelay < 0 || o.CommitDelay > MaxCommitDelay {
		problems = append(problems, fmt.Errorf("commit delay: %s must be between 0 and %s", o.CommitDelay, MaxCommitDelay))
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.fs == nil {
		o.fs = osFS{}
	}
	if o.now == nil {
		o.now = time.Now
	}
	return errors.Join(problems...)
}
