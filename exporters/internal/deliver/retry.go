package deliver

import (
	"errors"
	"fmt"
	"time"
)

// RetryConfig bounds how long one delivery is tried before its caller is told
// to come again. It is not how long data is kept: the caller never gives up.
type RetryConfig struct {
	// InitialInterval is the pause after the first failed attempt; each further
	// one is half as long again, with jitter. Default 500ms.
	InitialInterval time.Duration `mapstructure:"initial_interval"`
	// MaxInterval is the longest pause between attempts, unless the backend asks
	// for a longer one. Default 5s.
	MaxInterval time.Duration `mapstructure:"max_interval"`
	// MaxElapsedTime is the time after which the data is handed back to the
	// caller as not delivered. 0 means one attempt only. Default 30s.
	MaxElapsedTime time.Duration `mapstructure:"max_elapsed_time"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// DefaultRetryConfig returns the defaults.
func DefaultRetryConfig() RetryConfig {
	return RetryConfig{
		InitialInterval: 500 * time.Millisecond,
		MaxInterval:     5 * time.Second,
		MaxElapsedTime:  30 * time.Second,
	}
}

// Validate reports every bad key.
func (c *RetryConfig) Validate() error {
	var errs []error
	if c.InitialInterval <= 0 {
		errs = append(errs, fmt.Errorf("initial_interval: must be greater than 0, is %s", c.InitialInterval))
	}
	if c.MaxInterval < c.InitialInterval {
		errs = append(errs, fmt.Errorf("max_interval: must be at least initial_interval (%s), is %s", c.InitialInterval, c.MaxInterval))
	}
	if c.MaxElapsedTime < 0 {
		errs = append(errs, fmt.Errorf("max_elapsed_time: must not be negative, is %s", c.MaxElapsedTime))
	}
	return errors.Join(errs...)
}
