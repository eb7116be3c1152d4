package containerlogsreceiver

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
)

func load(t *testing.T, key string) *Config {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	section, err := conf.Sub(key)
	require.NoError(t, err)
	config := createDefaultConfig().(*Config)
	require.NoError(t, section.Unmarshal(config))
	return config
}

func TestConfig(t *testing.T) {
	require.NoError(t, componenttest.CheckConfigStruct(createDefaultConfig()))

	minimal := createDefaultConfig().(*Config)
	minimal.PositionFile = "/var/lib/longhaul/spool/positions.json"
	assert.Equal(t, minimal, load(t, "containerlogs"))
	assert.NoError(t, minimal.Validate())

	all := load(t, "containerlogs/all")
	assert.NoError(t, all.Validate())
	assert.Equal(t, &Config{
		Include:           []string{"/var/log/pods/*/*/*.log", "/srv/logs/*.log"},
		Exclude:           []string{"/var/log/pods/kube-system_*/*/*.log"},
		IncludeContainers: []string{"shop/*/*", "*/*/api"},
		ExcludeContainers: []string{"*/*/istio-proxy"},
		StartAt:           "end",
		RecentAge:         time.Minute, RecentBytes: bytesize.MiB,
		PositionFile:    "/var/lib/longhaul/spool/positions-all.json",
		PollInterval:    250 * time.Millisecond,
		MaxLineBytes:    256 * bytesize.KiB,
		Multiline:       MultilineConfig{Wait: 2 * time.Second, MaxBytes: 64 * bytesize.KiB},
		RateLimit:       RateLimitConfig{LinesPerSecond: 200, Burst: 1000, Policy: "sample", SampleOneIn: 50},
		IncludeFilePath: true,
		Batch:           BatchConfig{MaxLines: 1000, MaxBytes: 128 * bytesize.KiB},
	}, all)
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	err := load(t, "containerlogs/bad").Validate()
	require.Error(t, err)
	for _, key := range []string{
		"include[0]", "include[1]", "exclude[0]", "include_containers[0]", "exclude_containers[0]", "start_at", "recent_age", "position_file",
		"poll_interval", "max_line_bytes", "multiline::wait", "multiline::max_bytes",
		"rate_limit::lines_per_second", "rate_limit::burst", "rate_limit::policy", "rate_limit::sample_one_in", "batch::max_lines", "batch::max_bytes",
	} {
		assert.ErrorContains(t, err, key+": ")
	}
	none := load(t, "containerlogs")
	none.Include, none.PositionFile = nil, "relative.json"
	assert.ErrorContains(t, none.Validate(), "include: ")
	assert.ErrorContains(t, none.Validate(), "position_file: ")
}
