package containerlogsreceiver

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/bytesize"
)

// Config is the configuration of the containerlogs receiver.
type Config struct {
	// Include are the glob patterns of the files to read.
	Include []string `mapstructure:"include"`
	// Exclude are glob patterns of files not to read; a pattern is matched
	// against the whole path.
	Exclude []string `mapstructure:"exclude"`
	// IncludeContainers and ExcludeContainers choose among what Include finds, by
	// glob patterns namespace/pod/container such as "shop/*/*" or
	// "*/*/istio-proxy". Without IncludeContainers all are read. Files outside the
	// layout of Kubernetes are not chosen from.
	IncludeContainers []string `mapstructure:"include_containers"`
	ExcludeContainers []string `mapstructure:"exclude_containers"`
	// StartAt says where to begin in files that exist at the very first start
	// (when there is no position file): "recent", "beginning" or "end". A file
	// that appears later is always read from its beginning.
	StartAt string `mapstructure:"start_at"`
	// RecentAge and RecentBytes are what "recent" means: a file whose first line is
	// no older than RecentAge is read from its beginning, together with the rotated
	// files beside it that were written to since; of any other the last RecentBytes.
	RecentAge   time.Duration `mapstructure:"recent_age"`
	RecentBytes bytesize.Size `mapstructure:"recent_bytes"`
	// PositionFile keeps how far each file has been read. Required.
	PositionFile string `mapstructure:"position_file"`
	// PollInterval is how often files are looked for and looked at.
	PollInterval time.Duration `mapstructure:"poll_interval"`
	// MaxLineBytes bounds one record; a longer line is split.
	MaxLineBytes bytesize.Size `mapstructure:"max_line_bytes"`
	// Multiline joins the lines of stack traces.
	Multiline MultilineConfig `mapstructure:"multiline"`
	// RateLimit bounds what one container may write. Off by default.
	RateLimit RateLimitConfig `mapstructure:"rate_limit"`
	// IncludeFilePath sets log.file.path on the resources of containers too; files
	// outside the layout of Kubernetes always have it.
	IncludeFilePath bool `mapstructure:"include_file_path"`
	// Batch bounds what is handed on in one call.
	Batch BatchConfig `mapstructure:"batch"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// MultilineConfig says how the lines of a stack trace become one record. Traces
// of the JVM, .NET, JavaScript, Python and Go are known.
type MultilineConfig struct {
	// Enabled switches joining on.
	Enabled bool `mapstructure:"enabled"`
	// Wait is how long a trace waits for its next line.
	Wait time.Duration `mapstructure:"wait"`
	// MaxBytes bounds one joined record; a longer trace is split.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
}

// RateLimitConfig bounds the lines of each container (namespace/pod/container), or
// of each file outside the layout of Kubernetes, by the times its lines bear. A
// joined stack trace counts as one line, and so does each piece of a split one.
type RateLimitConfig struct {
	// LinesPerSecond is what a container may write in the long run; 0 switches
	// the limit off.
	LinesPerSecond int `mapstructure:"lines_per_second"`
	// Burst is how many lines it may write at once after it was quiet; 0 means
	// ten seconds' worth.
	Burst int `mapstructure:"burst"`
	// Policy says what becomes of lines above the limit: "drop" leaves all of them
	// out, "sample" keeps one in SampleOneIn.
	Policy string `mapstructure:"policy"`
	// SampleOneIn is how many lines above the limit one is kept of.
	SampleOneIn int `mapstructure:"sample_one_in"`
}

func (c *RateLimitConfig) burst() int {
	if c.Burst > 0 {
		return c.Burst
	}
	return 10 * c.LinesPerSecond
}

func (c *RateLimitConfig) validate(report func(format string, args ...any)) {
	if c.LinesPerSecond < 0 || c.LinesPerSecond > maxLinesPerSecond {
		report("rate_limit::lines_per_second: %d is not between 0 (no limit) and %d", c.LinesPerSecond, maxLinesPerSecond)
	}
	if c.Burst < 0 || c.Burst > 10*maxLinesPerSecond {
		report("rate_limit::burst: %d is not between 0 (ten times lines_per_second) and %d", c.Burst, 10*maxLinesPerSecond)
	}
	if c.Policy != policyDrop && c.Policy != policySample {
		report("rate_limit::policy: %q is not one of drop, sample", c.Policy)
	}
	if c.SampleOneIn < 2 || c.SampleOneIn > maxLinesPerSecond {
		report("rate_limit::sample_one_in: %d is not between 2 and %d", c.SampleOneIn, maxLinesPerSecond)
	}
}

// BatchConfig bounds one batch; a batch is cut when either limit is reached or
// when there is nothing more to read.
type BatchConfig struct {
	// MaxLines is the most lines in a batch.
	MaxLines int `mapstructure:"max_lines"`
	// MaxBytes is the most bytes of log text in a batch; a single longer line
	// makes a batch of its own.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
}

const (
	startAtRecent    = "recent"
	startAtBeginning = "beginning"
	startAtEnd       = "end"

	policyDrop   = "drop"
	policySample = "sample"

	maxLinesPerSecond = 1_000_000

	// minLineBytes is what a container runtime writes at most in one piece.
	minLineBytes = 16 * bytesize.KiB
	maxLineBytes = 16 * bytesize.MiB
	maxBatchSize = 64 * bytesize.MiB
)

func createDefaultConfig() component.Config {
	return &Config{
		Include:      []string{"/var/log/pods/*/*/*.log"},
		StartAt:      startAtRecent,
		RecentAge:    10 * time.Minute,
		RecentBytes:  256 * bytesize.KiB,
		PollInterval: 500 * time.Millisecond,
		MaxLineBytes: bytesize.MiB,
		Multiline:    MultilineConfig{Enabled: true, Wait: time.Second, MaxBytes: 256 * bytesize.KiB},
		RateLimit:    RateLimitConfig{Policy: policyDrop, SampleOneIn: 10},
		Batch:        BatchConfig{MaxLines: 4096, MaxBytes: 512 * bytesize.KiB},
	}
}

// Validate reports every problem of the configuration by its key.
func (c *Config) Validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(c.Include) == 0 {
		report("include: at least one pattern is needed, such as /var/log/pods/*/*/*.log")
	}
	for key, patterns := range map[string][]string{"include": c.Include, "exclude": c.Exclude} {
		for i, pattern := range patterns {
			if _, err := filepath.Match(pattern, ""); err != nil || pattern == "" {
				report("%s[%d]: %q is not a glob pattern", key, i, pattern)
			} else if !filepath.IsAbs(pattern) {
				report("%s[%d]: %q must be an absolute path", key, i, pattern)
			}
		}
	}
	for key, patterns := range map[string][]string{"include_containers": c.IncludeContainers, "exclude_containers": c.ExcludeContainers} {
		for i, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil || strings.Count(pattern, "/") != 2 {
				report("%s[%d]: %q is not a glob pattern namespace/pod/container, such as shop/*/*", key, i, pattern)
			}
		}
	}
	if c.StartAt != startAtRecent && c.StartAt != startAtBeginning && c.StartAt != startAtEnd {
		report("start_at: %q is not one of recent, beginning, end", c.StartAt)
	}
	if c.RecentAge < 0 {
		report("recent_age: %s is negative", c.RecentAge)
	}
	if c.RecentBytes < 0 {
		report("recent_bytes: %s is negative", c.RecentBytes)
	}
	switch {
	case c.PositionFile == "":
		report("position_file: required; name a file in a directory that survives a restart, such as /var/lib/longhaul/spool/positions.json")
	case !filepath.IsAbs(c.PositionFile):
		report("position_file: %q must be an absolute path", c.PositionFile)
	}
	if c.PollInterval < 10*time.Millisecond || c.PollInterval > time.Minute {
		report("poll_interval: %s is not between 10ms and 1m", c.PollInterval)
	}
	if c.MaxLineBytes < minLineBytes || c.MaxLineBytes > maxLineBytes {
		report("max_line_bytes: %s is not between %s and %s", c.MaxLineBytes, minLineBytes, maxLineBytes)
	}
	if c.Multiline.Wait < 10*time.Millisecond || c.Multiline.Wait > time.Minute {
		report("multiline::wait: %s is not between 10ms and 1m", c.Multiline.Wait)
	}
	if c.Multiline.MaxBytes < minLineBytes || c.Multiline.MaxBytes > maxLineBytes {
		report("multiline::max_bytes: %s is not between %s and %s", c.Multiline.MaxBytes, minLineBytes, maxLineBytes)
	}
	c.RateLimit.validate(report)
	if c.Batch.MaxLines < 1 || c.Batch.MaxLines > 1_000_000 {
		report("batch::max_lines: %d is not between 1 and 1000000", c.Batch.MaxLines)
	}
	if c.Batch.MaxBytes < 1 || c.Batch.MaxBytes > maxBatchSize {
		report("batch::max_bytes: %s is not between 1 and %s", c.Batch.MaxBytes, maxBatchSize)
	}
	return errors.Join(problems...)
}
