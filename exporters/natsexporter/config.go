package natsexporter

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/hub"
)

// maxBatchBytes keeps a frame of incompressible data far below what the spool
// and the hub accept.
const maxBatchBytes = 16 * bytesize.MiB

// eagerDelay is what a batch of EagerItems still waits.
const eagerDelay = 50 * time.Millisecond

// minSpoolBytes is the smallest spool that can hold a few frames a signal.
const minSpoolBytes = 8 * bytesize.MiB

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
	// MaxBytes bounds the spool. Beyond it the oldest frames are evicted, and counted.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// SegmentBytes is the size of one file. 0: chosen from MaxBytes.
	SegmentBytes bytesize.Size `mapstructure:"segment_bytes"`
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
}

func defaultConfig() *Config {
	return &Config{
		Connection: hub.Connection{URLs: "nats://127.0.0.1:4222"},
		Batch:      BatchConfig{MaxItems: 8192, MaxBytes: bytesize.MiB, Delay: time.Second, EagerItems: 500},
		Spool:      SpoolConfig{Directory: "/var/lib/longhaul/spool", MaxBytes: 2 * bytesize.GiB},
		Ship: ShipConfig{
			WindowBytes: 4 * bytesize.MiB, PublishTimeout: 30 * time.Second,
			MaxFrameBytes: bytesize.MiB - 16*bytesize.KiB,
		},
	}
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
	if c.Spool.MaxBytes < minSpoolBytes {
		report("spool::max_bytes", "must be at least %s, not %s", minSpoolBytes, c.Spool.MaxBytes)
	}
	if c.Spool.SegmentBytes < 0 || c.Spool.SegmentBytes > c.Spool.MaxBytes/4 {
		report("spool::segment_bytes", "must be between 0 and a quarter of spool::max_bytes, not %s", c.Spool.SegmentBytes)
	}
	if c.Ship.WindowBytes < 64*bytesize.KiB {
		report("ship::window_bytes", "must be at least 64KiB, not %s", c.Ship.WindowBytes)
	}
	if c.Ship.PublishTimeout < time.Second {
		report("ship::publish_timeout", "must be at least 1s, not %s", c.Ship.PublishTimeout)
	}
	if c.Ship.MaxFrameBytes < 16*bytesize.KiB || c.Ship.MaxFrameBytes > 2*maxBatchBytes {
		report("ship::max_frame_bytes", "must be between 16KiB and %s, not %s", 2*maxBatchBytes, c.Ship.MaxFrameBytes)
	}
	return errors.Join(problems...)
}
