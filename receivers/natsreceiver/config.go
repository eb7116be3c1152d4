package natsreceiver

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

// Config is the nats receiver's configuration.
type Config struct {
	Connection ConnectionConfig `mapstructure:"connection"`
	// Streams are made and updated by the receiver.
	Streams hub.Streams `mapstructure:"streams"`
	// Destination names this receiver's pipelines among those that read one hub: each
	// destination is delivered everything, independently of the others. Letters,
	// digits, '_' and '-', 32 at most.
	Destination string `mapstructure:"destination"`
	// Start says where a destination that is new on this hub begins: "held" (with what
	// the hub still holds) or "now".
	Start string `mapstructure:"start"`
	// DropDestinations are removed from the hub: until then it keeps for them all that
	// they have not been delivered.
	DropDestinations []string      `mapstructure:"drop_destinations"`
	Deliver          DeliverConfig `mapstructure:"deliver"`
	// MemoryLimit bounds the frames in the relay's hands and what is decoded of them,
	// for all destinations of one connection together; the largest that is given counts.
	MemoryLimit bytesize.Size `mapstructure:"memory_limit"`
	// ConfirmInterval is the least time between two confirmations to one origin while
	// data flows. Until it hears one, an edge keeps what was delivered.
	ConfirmInterval time.Duration `mapstructure:"confirm_interval"`
	// Direct names the exporters to which nothing stands between, by signal. It is
	// found in the pipelines (internal/direct), whatever a configuration file says.
	Direct direct.Exporters `mapstructure:"direct"`
}

// ConnectionConfig reaches the hub by URL, or in this process.
type ConnectionConfig struct {
	hub.Connection `mapstructure:",squash"`
	// Extension names the hub extension of this process. When set, URLs and TLS are
	// not used.
	Extension *component.ID `mapstructure:"extension"`
}

// DeliverConfig bounds what an exporter gets at once.
type DeliverConfig struct {
	// Workers deliver one signal's origins in parallel.
	Workers int `mapstructure:"workers"`
	// MaxItems and MaxBytes (of frames) close a delivery that merges several frames,
	// and so does MaxDelay after its first frame came.
	MaxItems int           `mapstructure:"max_items"`
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	MaxDelay time.Duration `mapstructure:"max_delay"`
}

func defaultConfig() *Config {
	return &Config{
		Streams:         hub.Streams{MaxBytes: 10 * bytesize.GiB, Replicas: 1, Partitions: hub.DefaultPartitions},
		Destination:     hub.DefaultDestination,
		Start:           lease.StartHeld,
		MemoryLimit:     256 * bytesize.MiB,
		ConfirmInterval: 2 * time.Second,
		Deliver:         DeliverConfig{Workers: 4, MaxItems: 20_000, MaxBytes: 2 * bytesize.MiB, MaxDelay: 200 * time.Millisecond},
	}
}

// Validate reports every problem with its key. The connection and the streams
// are validated by the collector as parts of the configuration.
func (c *Config) Validate() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if err := hub.ValidDestination(c.Destination); err != nil {
		problem("destination: %w", err)
	}
	if c.Start != lease.StartHeld && c.Start != lease.StartNow {
		problem("start: must be %s or %s, not %q", lease.StartHeld, lease.StartNow, c.Start)
	}
	for _, name := range c.DropDestinations {
		if err := hub.ValidDestination(name); err != nil {
			problem("drop_destinations: %w", err)
		} else if name == c.Destination {
			problem("drop_destinations: %s is this receiver's own destination", name)
		}
	}
	if c.Deliver.Workers < 1 || c.Deliver.Workers > 1024 {
		problem("deliver::workers: must be between 1 and 1024, not %d", c.Deliver.Workers)
	}
	if c.Deliver.MaxItems < 1 {
		problem("deliver::max_items: must be at least 1, not %d", c.Deliver.MaxItems)
	}
	if c.Deliver.MaxBytes < bytesize.KiB {
		problem("deliver::max_bytes: must be at least 1KiB, not %s", c.Deliver.MaxBytes)
	}
	if c.Deliver.MaxDelay < 0 || c.Deliver.MaxDelay > 10*time.Second {
		problem("deliver::max_delay: must be between 0s and 10s, not %s", c.Deliver.MaxDelay)
	}
	if c.MemoryLimit < 16*bytesize.MiB {
		problem("memory_limit: must be at least 16MiB, not %s", c.MemoryLimit)
	}
	if c.ConfirmInterval < 100*time.Millisecond || c.ConfirmInterval > time.Minute {
		problem("confirm_interval: must be between 100ms and 1m, not %s", c.ConfirmInterval)
	}
	return errors.Join(problems...)
}

// Validate needs URLs only where no extension is named.
func (c *ConnectionConfig) Validate() error {
	if c.Extension != nil {
		return nil
	}
	return c.Check()
}
