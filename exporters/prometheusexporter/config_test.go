package prometheusexporter

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
)

func load(t *testing.T, name string) *Config {
	t.Helper()
	all, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	var id component.ID
	require.NoError(t, id.UnmarshalText([]byte(name)))
	one, err := all.Sub(id.String())
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	require.NoError(t, one.Unmarshal(cfg))
	return cfg
}

func TestConfigIsRead(t *testing.T) {
	cfg := load(t, "prometheus/all")
	require.NoError(t, confmap.Validate(cfg))
	require.Equal(t, "https://mimir.example/api/v1/push", cfg.Endpoint)
	require.Equal(t, Protocol2, cfg.Protocol, "without quotes, as YAML reads a number")
	require.Equal(t, 5*time.Second, cfg.Timeout)
	require.Equal(t, 512*bytesize.KiB, cfg.MaxRequestSize)
	require.Equal(t, 10*time.Second, cfg.Retry.MaxElapsedTime)
	require.Equal(t, map[string]string{
		"k8s.cluster.name": "cluster", "k8s.node.name": "", "k8s.namespace.name": "namespace",
		"k8s.pod.name": "pod", "k8s.container.name": "container", "host.name": "host",
	}, cfg.ResourceLabels, "added to the defaults; an empty label takes one away")
	require.Equal(t, "k8s.cluster.name", cfg.Tenant.FromAttribute)
	require.Equal(t, "restaurants", cfg.Tenant.Default)
	require.Equal(t, "X-Scope-OrgID", cfg.Tenant.Header)
	require.Equal(t, 1000, cfg.Delta.MaxSeries)
	require.Equal(t, time.Hour, cfg.Delta.MaxAge)
	require.Equal(t, 24*time.Hour, cfg.ExpectedOutage)
	require.Equal(t, 4, cfg.Concurrency.Max)
	one := load(t, "prometheus/one")
	require.Equal(t, Protocol1, one.Protocol)
	require.Equal(t, "restaurants", one.Tenant.Default, "the short form")
}

func TestDefaultConfigIsValid(t *testing.T) {
	cfg := load(t, "prometheus")
	require.NoError(t, confmap.Validate(cfg))
	require.Equal(t, createDefaultConfig(), component.Config(cfg))
	require.NoError(t, componenttest.CheckConfigStruct(cfg))
}

// The relay's built-in configuration adds the path to LONGHAUL_PROMETHEUS_URL.
func TestPathOfRemoteWriteOnlyOnce(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint += writePath
	require.ErrorContains(t, confmap.Validate(cfg), "endpoint: ")
	require.ErrorContains(t, confmap.Validate(cfg), "LONGHAUL_PROMETHEUS_URL")
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	err := confmap.Validate(load(t, "prometheus/nonsense"))
	for _, key := range []string{
		"endpoint:", "timeout:", "compression:", "protocol:", "resource_labels::a:", "resource_labels::k8s.cluster.name:",
		"resource_labels::c:", "max_request_size:", "initial_interval:", "max_interval:", "max_elapsed_time:",
		"tenant: default:", "headers::", "delta: max_series:", "max_age:", "expected_outage:", "concurrency: min:",
	} {
		require.ErrorContains(t, err, key)
	}
}
