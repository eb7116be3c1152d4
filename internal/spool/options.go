package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Defaults and bounds.
const (
	DefaultMaxBytes      = 2 << 30
	DefaultSegmentBytes  = 16 << 20 // large enough that deleting is rare, small enough that evicting loses little
	DefaultFsyncInterval = time.Second
	MaxCommitDelay       = 200 * time.Millisecond
	// MaxSealedLanes bounds the backlog lanes of a signal: a link that comes and
	// goes all day must not leave thousands of directories.
	MaxSealedLanes = 64

	// maxDefaultFree bounds what MinFreeBytes is by default: on a large disk a
	// twentieth is more than anybody needs to put things right.
	maxDefaultFree = 256 << 20

	minMaxBytes     = 64 << 10
	minSegmentBytes = 256 << 10 // of a default chosen for a small disk
)

// OnFull says what happens to new data when there is no room for it.
type OnFull string

const (
	// EvictOldest takes new data and deletes old; what is lost is counted.
	EvictOldest OnFull = "evict_oldest"
	// Block keeps old data and refuses new, with ErrFull.
	Block OnFull = "block"
)

// Fsync says when what is written is made durable.
type Fsync string

const (
	// FsyncAlways: Append returns after an fsync. A power cut loses nothing acknowledged.
	FsyncAlways Fsync = "always"
	// FsyncInterval: an fsync every FsyncInterval. A power cut loses what was
	// acknowledged since, uncounted; a kill of the process loses nothing.
	FsyncInterval Fsync = "interval"
	// FsyncNever: the kernel writes when it likes, within half a minute usually.
	// A power cut loses what it had not written, uncounted; a kill loses nothing.
	FsyncNever Fsync = "never"
)

// Options says where a spool is and how large it may become.
type Options struct {
	// Dir is made if missing. One process at a time may have it open.
	Dir string
	// Owner names whose spool it is; opened with another it is refused. Empty:
	// nobody's.
	Owner string
	// MaxBytes bounds the segment files; 0 means DefaultMaxBytes.
	MaxBytes int64
	// MaxAge is how long a frame is kept; 0 means without bound. Older ones are
	// evicted, segment by segment. See limits.go for what a wrong clock can do.
	MaxAge time.Duration
	// MinFreeBytes is what shall stay free on the file system: with less the spool
	// grows no further. 0 means a twentieth of the file system, at most 256 MiB;
	// below 0 nothing is kept free.
	MinFreeBytes int64
	// Shares guarantees a part of the spool to a signal, in percent; nil means
	// DefaultShares. A signal within its share loses nothing to make room for another.
	Shares map[frame.Signal]int
	// EvictOrder lists the signals, the first to be evicted first; nil means
	// traces, logs, metrics.
	EvictOrder []frame.Signal
	// OnFull is EvictOldest if empty.
	OnFull OnFull
	// SegmentBytes is the size at which a new segment file begins; 0 means
	// DefaultSegmentBytes or, if less, an eighth of MaxBytes, or a 32nd of the file
	// system.
	SegmentBytes int64
	// Fsync is FsyncAlways if empty, FsyncInterval 0 DefaultFsyncInterval.
	Fsync         Fsync
	FsyncInterval time.Duration
	// CommitDelay is how long an Append may wait for others to share its
	// fsync, up to MaxCommitDelay. With 0 those that arrive during one fsync
	// share the next, which batches under load and waits for nothing otherwise.
	CommitDelay time.Duration
	// Logger gets what an operator should know; nil means slog.Default.
	Logger *slog.Logger

	fs   fileSystem
	now  func() time.Time
	boot func() string // identifies the time since the machine was started
}

// DefaultShares leave a tenth to whoever needs it.
func DefaultShares() map[frame.Signal]int {
	return map[frame.Signal]int{frame.Logs: 50, frame.Metrics: 25, frame.Traces: 15}
}

// DefaultEvictOrder begins with traces, the least missed, and ends with metrics,
// which take the least space.
func DefaultEvictOrder() []frame.Signal {
	return []frame.Signal{frame.Traces, frame.Logs, frame.Metrics}
}

func (o *Options) setDefaults() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if o.Dir == "" {
		problems = append(problems, errors.New("directory: must be set"))
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxBytes < minMaxBytes {
		report("max_bytes: %d is less than the least that works, %d", o.MaxBytes, minMaxBytes)
	}
	if o.MaxAge < 0 {
		report("max_age: %s must not be negative", o.MaxAge)
	}
	if o.SegmentBytes < 0 || o.SegmentBytes > o.MaxBytes {
		report("segment bytes: %d must be between 1 and max_bytes", o.SegmentBytes)
	}
	if o.CommitDelay < 0 || o.CommitDelay > MaxCommitDelay {
		report("commit delay: %s must be between 0 and %s", o.CommitDelay, MaxCommitDelay)
	}
	if o.OnFull == "" {
		o.OnFull = EvictOldest
	}
	if o.OnFull != EvictOldest && o.OnFull != Block {
		report("on_full: %q must be %s or %s", o.OnFull, EvictOldest, Block)
	}
	if o.Fsync == "" {
		o.Fsync = FsyncAlways
	}
	if !slices.Contains([]Fsync{FsyncAlways, FsyncInterval, FsyncNever}, o.Fsync) {
		report("fsync: %q must be %s, %s or %s", o.Fsync, FsyncAlways, FsyncInterval, FsyncNever)
	}
	if o.FsyncInterval == 0 {
		o.FsyncInterval = DefaultFsyncInterval
	}
	if o.FsyncInterval < 0 {
		report("fsync interval: %s must not be negative", o.FsyncInterval)
	}
	problems = append(problems, o.setOrder()...)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.fs == nil {
		o.fs = osFS{}
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.boot == nil {
		o.boot = bootID
	}
	return errors.Join(problems...)
}

// setOrder fills in and checks shares and the order of eviction.
func (o *Options) setOrder() (problems []error) {
	if o.Shares == nil {
		o.Shares = DefaultShares()
	}
	total := 0
	for signal, percent := range o.Shares {
		if percent < 0 || percent > 100 {
			problems = append(problems, fmt.Errorf("share of %s: %d must be between 0 and 100 percent", signal, percent))
		}
		total += percent
	}
	if total > 100 {
		problems = append(problems, fmt.Errorf("shares: together they make %d percent, more than 100", total))
	}
	if o.EvictOrder == nil {
		o.EvictOrder = DefaultEvictOrder()
	}
	sorted := slices.Clone(o.EvictOrder)
	slices.Sort(sorted)
	if !slices.Equal(sorted, frame.Signals) {
		problems = append(problems, fmt.Errorf("eviction order %v: must name each signal once", o.EvictOrder))
	}
	return problems
}

// suit chooses what depends on the file system, which has total bytes; 0 if
// that is unknown.
func (o *Options) suit(total int64) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(DefaultSegmentBytes, o.MaxBytes/8)
		if total > 0 {
			o.SegmentBytes = min(o.SegmentBytes, max(total/32, minSegmentBytes))
		}
	}
	if o.MinFreeBytes == 0 && total > 0 {
		o.MinFreeBytes = min(total/20, maxDefaultFree)
	}
}
