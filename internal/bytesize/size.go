// Package bytesize gives configuration keys a size type that reads and prints
// as people write it: 512, 256KiB, 1MiB, 2GiB. Units are binary (KiB = 1024);
// decimal KB, MB and GB are accepted and mean powers of 1000.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int64

// Binary units.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// units is searched in order, so that a longer suffix wins over its own tail.
var units = []struct {
	suffix string
	size   Size
}{
	{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB}, {"TiB", TiB},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	// Kubernetes quantities, because the same value stands in manifests.
	{"Ki", KiB}, {"Mi", MiB}, {"Gi", GiB}, {"Ti", TiB},
	{"B", 1},
}

// Parse reads a size such as "1.5GiB", "64 MiB" or "4096". It returns an error
// for anything negative, not a number, or too large for an int64.
func Parse(text string) (Size, error) {
	number, unit := strings.TrimSpace(text), Size(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(number, u.suffix); found {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		if whole < 0 || whole > math.MaxInt64/int64(unit) {
			return 0, fmt.Errorf("size %q is out of range", text)
		}
		return Size(whole) * unit, nil
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(value) {
		return 0, fmt.Errorf("size %q is not a number with an optional unit (KiB, MiB, GiB, TiB)", text)
	}
	bytes := value * float64(unit)
	if bytes < 0 || bytes >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is out of range", text)
	}
	return Size(bytes), nil
}

// UnmarshalText implements encoding.TextUnmarshaler, which the collector's
// configuration decoder calls for strings.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String prints the size exactly, in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		suffix string
		size   Size
	}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
