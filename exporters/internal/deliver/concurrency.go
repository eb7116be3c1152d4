package deliver

import (
	"errors"
	"fmt"
)

// ConcurrencyConfig bounds how many requests a backend has in its hands. Between
// the bounds the number follows what the backend bears: see limit.
type ConcurrencyConfig struct {
	// Min is how many requests of one tenant may be under way however badly the
	// backend does. Default 1.
	Min int `mapstructure:"min"`
	// Max is how many requests of one tenant may be under way when the backend
	// does well. Default 16.
	Max int `mapstructure:"max"`
	// Total is how many requests of all tenants together may be under way when
	// the backend does well. Default 0: four times max. It matters only with
	// several tenants.
	Total int `mapstructure:"total"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// DefaultConcurrencyConfig returns the defaults.
func DefaultConcurrencyConfig() ConcurrencyConfig {
	return ConcurrencyConfig{Min: 1, Max: 16}
}

// Validate reports every bad key.
func (c *ConcurrencyConfig) Validate() error {
	var errs []error
	if c.Min < 1 {
		errs = append(errs, fmt.Errorf("min: must be at least 1, is %d", c.Min))
	}
	if c.Max < c.Min {
		errs = append(errs, fmt.Errorf("max: must be at least min (%d), is %d", c.Min, c.Max))
	}
	if c.Total != 0 && c.Total < c.Max {
		errs = append(errs, fmt.Errorf("total: must be 0 (four times max) or at least max (%d), is %d", c.Max, c.Total))
	}
	return errors.Join(errs...)
}

func (c *ConcurrencyConfig) total() int {
	if c.Total == 0 {
		return 4 * c.Max
	}
	return c.Total
}
