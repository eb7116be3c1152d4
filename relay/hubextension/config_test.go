package hubextension

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
)

func loadConfig(t *testing.T, id string) *Config {
	t.Helper()
	file, err := confmaptest.LoadConf("testdata/config.yaml")
	require.NoError(t, err)
	var parsed component.ID
	require.NoError(t, parsed.UnmarshalText([]byte(id)))
	section, err := file.Sub(parsed.String())
	require.NoError(t, err)
	config := NewFactory().CreateDefaultConfig().(*Config)
	require.NoError(t, section.Unmarshal(config))
	return config
}

func TestConfig(t *testing.T) {
	require.Equal(t, createDefaultConfig(), loadConfig(t, "hub"))
	require.NoError(t, loadConfig(t, "hub").Validate())

	all := loadConfig(t, "hub/all")
	require.NoError(t, all.Validate())
	require.Equal(t, &Config{
		ServerName: "hub-a",
		Listen:     "127.0.0.1:4333",
		StoreDir:   "/srv/hub",
		MaxBytes:   50 * bytesize.GiB, SyncInterval: "always",
		TLS: TLSConfig{
			CertFile: "/etc/longhaul/hub.crt", KeyFile: "/etc/longhaul/hub.key", ClientCAFile: "/etc/longhaul/edges.pem",
		},
		Websocket: WebsocketConfig{
			Listen: "0.0.0.0:8443",
			TLS:    TLSConfig{CertFile: "/etc/longhaul/hub.crt", KeyFile: "/etc/longhaul/hub.key"},
		},
		ConfigFile: "/etc/longhaul/nats.conf",
	}, all)
}

func TestConfigReportsEveryProblemByItsKey(t *testing.T) {
	err := loadConfig(t, "hub/nonsense").Validate()
	for _, problem := range []string{
		"server_name: must not be empty",
		`listen: "4222" is not an address`,
		"store_dir: must be an absolute path",
		"max_bytes: must be at least 64MiB, not 1MiB",
		`sync_interval: "often" is neither a duration`,
		"tls: cert_file and key_file belong together",
		"tls::client_ca_file: checking client certificates needs",
		`websocket::listen: "127.0.0.1:port": the port must be a number`,
		"websocket::tls: cert_file and key_file belong together",
	} {
		require.ErrorContains(t, err, problem)
	}
}

func TestTheSyncPolicyIsTheServersAndTheKeyGoesBeforeTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nats.conf")
	require.NoError(t, os.WriteFile(file, []byte("jetstream: {sync_interval: 30s}"), 0o600))
	for _, test := range []struct {
		file, key string
		interval  time.Duration
		always    bool
	}{
		{"", "", 0, false}, // the server's own default
		{"", "10s", 10 * time.Second, false},
		{"", "always", 0, true},
		{file, "", 30 * time.Second, false},
		{file, "5s", 5 * time.Second, false},
		{file, "always", 0, true},
	} {
		config := testConfig(t)
		config.ConfigFile, config.SyncInterval = test.file, test.key
		require.NoError(t, config.Validate())
		options, err := config.serverOptions()
		require.NoError(t, err)
		require.Equal(t, test.always, options.SyncAlways, test)
		require.Equal(t, test.interval, options.SyncInterval, test)
	}
	for _, nonsense := range []string{"0s", "-1s", "5", "Always"} {
		config := testConfig(t)
		config.SyncInterval = nonsense
		require.ErrorContains(t, config.Validate(), "sync_interval")
	}
}
