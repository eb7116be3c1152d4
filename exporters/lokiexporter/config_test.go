package lokiexporter

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
	cfg := load(t, "loki/all")
	require.NoError(t, confmap.Validate(cfg))
	url, err := cfg.pushURL()
	require.NoError(t, err)
	require.Equal(t, "https://loki.example:3100/tenants/loki/api/v1/push", url)
	require.Equal(t, "restaurants", cfg.Tenant.Default)
	require.Equal(t, 5*time.Second, cfg.Timeout)
	require.Equal(t, 64*bytesize.KiB, cfg.MaxLineSize)
	require.Equal(t, 512*bytesize.KiB, cfg.MaxRequestSize)
	require.Equal(t, 10*time.Second, cfg.Retry.MaxElapsedTime)
	require.Equal(t, map[string]string{
		"k8s.cluster.name": "cluster", "k8s.namespace.name": "namespace", "k8s.container.name": "container",
		"service.name": "", "host.name": "host",
	}, cfg.Labels, "added to the defaults; an empty label takes one away")
}

func TestPoliciesAreRead(t *testing.T) {
	cfg := load(t, "loki/all")
	require.Equal(t, 500, cfg.Cardinality.MaxValues)
	require.Equal(t, 30*time.Minute, cfg.Cardinality.Window)
	require.Equal(t, map[string]int{"k8s.cluster.name": 0, "host.name": 50}, cfg.Cardinality.Attributes)
	require.Equal(t, lateLabel, cfg.LateData.Mode)
	require.Equal(t, "late", cfg.LateData.Label)
	require.Equal(t, 72*time.Hour, cfg.LateData.OldestExpected)
	require.Equal(t, 8, cfg.Concurrency.Max)
	cfg = load(t, "loki/tenants")
	require.NoError(t, confmap.Validate(cfg))
	require.Equal(t, "k8s.cluster.name", cfg.Tenant.FromAttribute)
	require.Equal(t, "others", cfg.Tenant.Default)
	require.Equal(t, "X-Scope-OrgID", cfg.Tenant.Header)
}

func TestALabelIsMadeOnce(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Labels["x"] = "backfill"
	require.ErrorContains(t, cfg.Validate(), "labels::x: label \"backfill\" is already made from late_data::label")
	cfg = createDefaultConfig().(*Config)
	cfg.LevelLabel = "backfill"
	require.ErrorContains(t, cfg.Validate(), "level_label:")
}

func TestDefaultConfigIsValid(t *testing.T) {
	cfg := load(t, "loki")
	require.NoError(t, confmap.Validate(cfg))
	require.Equal(t, createDefaultConfig(), component.Config(cfg))
	require.NoError(t, componenttest.CheckConfigStruct(cfg))
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	err := confmap.Validate(load(t, "loki/nonsense"))
	for _, key := range []string{
		"endpoint:", "timeout:", "compression:", "tenant: default:", "labels::a:", "labels::k8s.cluster.name:", "level_label:",
		"cardinality: max_values:", "window:", "late_data: mode:", "label:", "concurrency: max:",
		"max_line_size:", "max_request_size:", "initial_interval:", "max_interval:", "max_elapsed_time:",
	} {
		require.ErrorContains(t, err, key)
	}
}

func TestUnknownKeysAreRefused(t *testing.T) {
	cfg := createDefaultConfig()
	err := confmap.NewFromStringMap(map[string]any{"endpont": "x"}).Unmarshal(cfg)
	require.ErrorContains(t, err, "endpont")
}

func TestPushPathIsAddedOnce(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://loki:3100":                  "http://loki:3100/loki/api/v1/push",
		"http://loki:3100/":                 "http://loki:3100/loki/api/v1/push",
		"http://gate/prod":                  "http://gate/prod/loki/api/v1/push",
		"http://loki:3100/loki/api/v1/push": "http://loki:3100/loki/api/v1/push",
		"https://loki/?a=b":                 "https://loki/loki/api/v1/push?a=b",
	} {
		url, err := (&Config{ClientConfig: clientTo(endpoint)}).pushURL()
		require.NoError(t, err)
		require.Equal(t, want, url)
	}
	for _, endpoint := range []string{"", "loki:3100", "ftp://loki", "http://"} {
		_, err := (&Config{ClientConfig: clientTo(endpoint)}).pushURL()
		require.Error(t, err, endpoint)
	}
}
