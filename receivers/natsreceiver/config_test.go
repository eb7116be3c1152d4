package natsreceiver

import (
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
)

func load(t *testing.T, name string) *Config {
	t.Helper()
	all, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	part, err := all.Sub(name)
	if err != nil {
		t.Fatal(err)
	}
	config := defaultConfig()
	if err := part.Unmarshal(config); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestConfigurationsLoad(t *testing.T) {
	for _, name := range []string{"nats", "nats/external", "nats/archive"} {
		if err := confmap.Validate(load(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryProblemIsNamedByItsKey(t *testing.T) {
	err := confmap.Validate(load(t, "nats/wrong"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, key := range []string{"urls:", "max_bytes: 1MiB", "replicas:", "deliver::workers", "deliver::max_items", "deliver::max_bytes", "deliver::max_delay", "memory_limit", "confirm_interval", "destination:", "start:", "drop_destinations:"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%q is not named in: %v", key, err)
		}
	}
}
