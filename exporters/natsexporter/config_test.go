package natsexporter

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
	for _, name := range []string{"nats", "nats/all"} {
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
	for _, key := range []string{"cluster:", "node:", "urls:", "batch::max_items", "batch::max_bytes", "batch::delay", "batch::eager_items", "spool::directory", "spool::max_bytes", "spool::segment_bytes", "spool::max_age", "spool::on_full", "spool::shares::logs", "spool::shares:", "spool::evict_order", "spool::fsync:", "spool::fsync_interval", "ship::seal_after", "recovery:", "ship::window_bytes", "ship::publish_timeout", "ship::max_frame_bytes"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%q is not named in: %v", key, err)
		}
	}
}
