package hubextension

import (
	"testing"

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
		MaxBytes:   50 * bytesize.GiB,
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
		"tls: cert_file and key_file belong together",
		"tls::client_ca_file: checking client certificates needs",
		`websocket::listen: "127.0.0.1:port": the port must be a number`,
		"websocket::tls: cert_file and key_file belong together",
	} {
		require.ErrorContains(t, err, problem)
	}
}
