package natsreceiver

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/hub"
)

// Config is the nats receiver's configuration.
type Config struct {
	Connection ConnectionConfig `mapstructure:"connection"`
	// Streams are made and updated by the receiver.
	Streams hub.Streams   `mapstructure:"streams"`
	Deliver DeliverConfig `mapstructure:"deliver"`
	// ConfirmInterval is the least time between two confirmations to one origin while
	// data flows. Until it hears one, an edge keeps what was delivered.
	ConfirmInterval time.Duration `mapstructure:"confirm_interval"`
}

// ConnectionConfig reaches the hub by URL, or in this process.
type ConnectionConfig struct {
	hub.Connection `mapstructure:",squash"`
	// Extension names the hub extension of this process. When set, URLs and TLS are
	// not used.
	Extension *component.ID `mapstructure:"extension"`
}

// DeliverConfig bounds what is in memory and what an exporter gets at once.
type DeliverConfig struct {
	// Workers deliver one signal's origins in parallel.
	Workers int `mapstructure:"workers"`
	// MaxItems and MaxBytes (of frames) close a delivery that merges several frames.
	MaxItems int           `mapstructure:"max_items"`
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// BufferBytes bounds the frames in memory, per signal.
	BufferBytes bytesize.Size `mapstructure:"buffer_bytes"`
}

func defaultConfig() *Config {
	return &Config{
		Streams:         hub.Streams{MaxBytes: 10 * bytesize.GiB, Replicas: 1, Partitions: hub.DefaultPartitions},
		ConfirmInterval: 2 * time.Second,
		Deliver:         DeliverConfig{Workers: 4, MaxItems: 20_000, MaxBytes: 2 * bytesize.MiB, BufferBytes: 32 * bytesize.MiB},
	}
}

// Validate reports every problem with its key. The connection and the streams
// are validated by the collector as parts of the configuration.
func (c *Config) Validate() error {
	var problems []error
	if c.Deliver.Workers < 1 || c.Deliver.Workers > 1024 {
		problems = append(problems, fmt.Errorf("deliver::workers: must be between 1 and 1024, not %d", c.Deliver.Workers))
	}
	if c.Deliver.MaxItems < 1 {
		problems = append(problems, fmt.Errorf("deliver::max_items: must be at least 1, not %d", c.Deliver.MaxItems))
	}
	if c.Deliver.MaxBytes < bytesize.KiB {
		problems = append(problems, fmt.Errorf("deliver::max_bytes: must be at least 1KiB, not %s", c.Deliver.MaxBytes))
	}
	if c.Deliver.BufferBytes < c.Deliver.MaxBytes {
		problems = append(problems, fmt.Errorf("deliver::buffer_bytes: must be at least deliver::max_bytes (%s), not %s", c.Deliver.MaxBytes, c.Deliver.BufferBytes))
	}
	if c.ConfirmInterval < 100*time.Millisecond || c.ConfirmInterval > time.Minute {
		problems = append(problems, fmt.Errorf("confirm_interval: must be between 100ms and 1m, not %s", c.ConfirmInterval))
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
