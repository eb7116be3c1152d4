package natsexporter

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/internal/spool"
)

// maxBatchBytes is how much OTLP goes into one frame, unless it is a single item. gRPC
// servers refuse messages of more than 4 MiB by default, and a relay adds to what it
// delivers where it comes from: a frame that cannot be divided must pass as it is.
const maxBatchBytes = 3 * bytesize.MiB

// maxFrameBytes is more than such a batch can ever take.
const maxFrameBytes = 32 * bytesize.MiB

// eagerDelay is what a batch of EagerItems still waits.
const eagerDelay = 50 * time.Millisecond

// minSpoolBytes is the smallest spool that can hold a few frames a signal.
const minSpoolBytes = 8 * bytesize.MiB

const (
	// minMaxAge keeps a wrong unit from emptying the spool.
	minMaxAge = time.Minute
	// minSealAfter is longer than a relay may take to answer a new connection.
	minSealAfter     = 10 * time.Second
	minFsyncInterval = 10 * time.Millisecond
)

// Config is the nats exporter's configuration.
type Config struct {
	// Cluster and Node name the origin. They go into NATS subjects: letters,
	// digits, '.', '_' and '-', at most 63.
	Cluster string `mapstructure:"cluster"`
	Node    string `mapstructure:"node"`
	// Connection says how to reach the hub.
	Connection hub.Connection `mapstructure:"connection"`
	Batch      BatchConfig    `mapstructure:"batch"`
	Spool      SpoolConfig    `mapstructure:"spool"`
	Ship       ShipConfig     `mapstructure:"ship"`
	// Recovery says what leaves first after an outage: "live_first", what is current,
	// and what was left behind beside it; "in_order", everything as it was written.
	Recovery shipper.Recovery `mapstructure:"recovery"`
}

// BatchConfig says when a batch becomes a frame: at whichever comes first.
type BatchConfig struct {
	// MaxItems is a number of log records, data points or spans.
	MaxItems int `mapstructure:"max_items"`
	// MaxBytes is uncompressed OTLP.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// Delay is counted from a batch's first item. It is also how long a caller waits
	// at most for its data to be written, on top of the fsync.
	Delay time.Duration `mapstructure:"delay"`
	// EagerItems are enough to compress well: a batch that has them waits for company
	// no longer than eagerDelay. An OpenTelemetry SDK exports 512 spans at a time and
	// waits for the answer: with a second's delay it would drop what is beyond 512
	// spans a second.
	EagerItems int `mapstructure:"eager_items"`
}

// SpoolConfig says where data is kept and how much.
type SpoolConfig struct {
	// Directory belongs to this exporter alone. It is made if it is missing.
	Directory string `mapstructure:"directory"`
	// MaxBytes bounds the spool.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// MaxAge is how long data is kept; 0: as long as there is room.
	MaxAge time.Duration `mapstructure:"max_age"`
	// MinFreeBytes is what shall stay free on the file system; with less the spool
	// does not grow. 0: a twentieth of the file system, at most 256MiB.
	MinFreeBytes bytesize.Size `mapstructure:"min_free_bytes"`
	// OnFull is "evict_oldest": old data is lost, and counted; or "block": new data is
	// refused, file readers wait and OTLP clients try again.
	OnFull spool.OnFull `mapstructure:"on_full"`
	// Shares are percent of the spool that a signal holds against the others.
	Shares SharesConfig `mapstructure:"shares"`
	// EvictOrder names the signals, the first to be evicted first.
	EvictOrder []string `mapstructure:"evict_order"`
	// Fsync is "always", "interval" or "never"; FsyncInterval belongs to "interval".
	Fsync         spool.Fsync   `mapstructure:"fsync"`
	FsyncInterval time.Duration `mapstructure:"fsync_interval"`
	// SegmentBytes is the size of one file. 0: chosen from MaxBytes.
	SegmentBytes bytesize.Size `mapstructure:"segment_bytes"`
}

// SharesConfig are percent; what they leave of 100 is whoever's needs it.
type SharesConfig struct {
	Logs    int `mapstructure:"logs"`
	Metrics int `mapstructure:"metrics"`
	Traces  int `mapstructure:"traces"`
}

// ShipConfig says how frames leave.
type ShipConfig struct {
	// WindowBytes may be on the way, per signal, without an acknowledgement of the hub.
	WindowBytes bytesize.Size `mapstructure:"window_bytes"`
	// PublishTimeout is how long an acknowledgement of the hub may take.
	PublishTimeout time.Duration `mapstructure:"publish_timeout"`
	// MaxFrameBytes is the largest message the hub takes (NATS max_payload, 1 MiB by
	// default, less 16 KiB for headers). A larger frame is split by items.
	MaxFrameBytes bytesize.Size `mapstructure:"max_frame_bytes"`
	// SealAfter is how long the hub must have taken nothing before what was left
	// behind makes way for what is current (live_first).
	SealAfter time.Duration `mapstructure:"seal_after"`
}

func defaultConfig() *Config {
	return &Config{
		Connection: hub.Connection{URLs: "nats://127.0.0.1:4222"},
		Batch:      BatchConfig{MaxItems: 8192, MaxBytes: bytesize.MiB, Delay: time.Second, EagerItems: 500},
		Spool: SpoolConfig{
			Directory: "/var/lib/longhaul/spool", MaxBytes: 2 * bytesize.GiB,
			OnFull: spool.EvictOldest, Fsync: spool.FsyncAlways, FsyncInterval: spool.DefaultFsyncInterval,
			Shares: defaultShares(), EvictOrder: defaultEvictOrder(),
		},
		Ship: ShipConfig{
			WindowBytes: 4 * bytesize.MiB, PublishTimeout: 30 * time.Second,
			MaxFrameBytes: bytesize.MiB - 16*bytesize.KiB, SealAfter: shipper.DefaultSealAfter,
		},
		Recovery: shipper.LiveFirst,
	}
}

func defaultShares() SharesConfig {
	shares := spool.DefaultShares()
	return SharesConfig{Logs: shares[frame.Logs], Metrics: shares[frame.Metrics], Traces: shares[frame.Traces]}
}

func defaultEvictOrder() (names []string) {
	for _, signal := range spool.DefaultEvictOrder() {
		names = append(names, signal.String())
	}
	return names
}

// bySignal are the shares as the spool takes them.
func (s SharesConfig) bySignal() map[frame.Signal]int {
	return map[frame.Signal]int{frame.Logs: s.Logs, frame.Metrics: s.Metrics, frame.Traces: s.Traces}
}

// evictOrder reads the signals' names.
func (s *SpoolConfig) evictOrder() (order []frame.Signal, err error) {
	for _, name := range s.EvictOrder {
		signal, err := frame.ParseSignal(name)
		if err != nil {
			return nil, err
		}
		order = append(order, signal)
	}
	sorted := slices.Clone(order)
	slices.Sort(sorted)
	if !slices.Equal(sorted, frame.Signals) {
		return nil, fmt.Errorf("must name logs, metrics and traces once each, not %v", s.EvictOrder)
	}
	return order, nil
}

// Validate reports every problem with its key.
func (c *Config) Validate() error {
	var problems []error
	report := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf(key+": "+format, args...))
	}
	for _, name := range []struct{ key, value, variable string }{
		{"cluster", c.Cluster, "LONGHAUL_CLUSTER"}, {"node", c.Node, "LONGHAUL_NODE"},
	} {
		if name.value == "" {
			report(name.key, "must be set: it names where this telemetry comes from (with the default configuration: set %s)", name.variable)
		} else if err := hub.ValidName(name.value); err != nil {
			report(name.key, "%w", err)
		}
	}
	if err := c.Connection.Check(); err != nil {
		report("connection", "%w", err)
	}
	if c.Batch.MaxItems < 1 {
		report("batch::max_items", "must be at least 1, not %d", c.Batch.MaxItems)
	}
	if c.Batch.MaxBytes < bytesize.KiB || c.Batch.MaxBytes > maxBatchBytes {
		report("batch::max_bytes", "must be between 1KiB and %s, not %s", maxBatchBytes, c.Batch.MaxBytes)
	}
	if c.Batch.Delay < 0 || c.Batch.Delay > time.Minute {
		report("batch::delay", "must be between 0s and 1m, not %s", c.Batch.Delay)
	}
	if c.Batch.EagerItems < 1 {
		report("batch::eager_items", "must be at least 1, not %d", c.Batch.EagerItems)
	}
	if !filepath.IsAbs(c.Spool.Directory) {
		report("spool::directory", "must be an absolute path, not %q", c.Spool.Directory)
	}
	c.Spool.check(report)
	if c.Ship.WindowBytes < 64*bytesize.KiB {
		report("ship::window_bytes", "must be at least 64KiB, not %s", c.Ship.WindowBytes)
	}
	if c.Ship.PublishTimeout < time.Second {
		report("ship::publish_timeout", "must be at least 1s, not %s", c.Ship.PublishTimeout)
	}
	if c.Ship.MaxFrameBytes < 16*bytesize.KiB || c.Ship.MaxFrameBytes > maxFrameBytes {
		report("ship::max_frame_bytes", "must be between 16KiB and %s, not %s", maxFrameBytes, c.Ship.MaxFrameBytes)
	}
	if c.Ship.SealAfter < minSealAfter {
		report("ship::seal_after", "must be at least %s, not %s", minSealAfter, c.Ship.SealAfter)
	}
	if c.Recovery != shipper.LiveFirst && c.Recovery != shipper.InOrder {
		report("recovery", "must be %s or %s, not %q", shipper.LiveFirst, shipper.InOrder, c.Recovery)
	}
	return errors.Join(problems...)
}

// check reports every problem of the spool's settings.
func (s *SpoolConfig) check(report func(key, format string, args ...any)) {
	if s.MaxBytes < minSpoolBytes {
		report("spool::max_bytes", "must be at least %s, not %s", minSpoolBytes, s.MaxBytes)
	}
	if s.SegmentBytes < 0 || s.SegmentBytes > s.MaxBytes/4 {
		report("spool::segment_bytes", "must be between 0 and a quarter of spool::max_bytes, not %s", s.SegmentBytes)
	}
	if s.MaxAge < 0 || s.MaxAge > 0 && s.MaxAge < minMaxAge {
		report("spool::max_age", "must be 0s, for as long as there is room, or at least %s, not %s", minMaxAge, s.MaxAge)
	}
	if s.MinFreeBytes < 0 {
		report("spool::min_free_bytes", "must not be negative, but is %s", s.MinFreeBytes)
	}
	if s.OnFull != spool.EvictOldest && s.OnFull != spool.Block {
		report("spool::on_full", "must be %s or %s, not %q", spool.EvictOldest, spool.Block, s.OnFull)
	}
	for _, share := range []struct {
		name    string
		percent int
	}{{"logs", s.Shares.Logs}, {"metrics", s.Shares.Metrics}, {"traces", s.Shares.Traces}} {
		if share.percent < 0 || share.percent > 100 {
			report("spool::shares::"+share.name, "must be between 0 and 100 percent, not %d", share.percent)
		}
	}
	if sum := s.Shares.Logs + s.Shares.Metrics + s.Shares.Traces; sum > 100 {
		report("spool::shares", "must not be more than 100 percent together, but are %d", sum)
	}
	if _, err := s.evictOrder(); err != nil {
		report("spool::evict_order", "%w", err)
	}
	if s.Fsync != spool.FsyncAlways && s.Fsync != spool.FsyncInterval && s.Fsync != spool.FsyncNever {
		report("spool::fsync", "must be %s, %s or %s, not %q", spool.FsyncAlways, spool.FsyncInterval, spool.FsyncNever, s.Fsync)
	}
	if s.FsyncInterval < minFsyncInterval || s.FsyncInterval > time.Minute {
		report("spool::fsync_interval", "must be between %s and 1m, not %s", minFsyncInterval, s.FsyncInterval)
	}
}
