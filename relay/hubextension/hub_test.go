package hubextension

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/bytesize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig(t *testing.T) *Config {
	config := createDefaultConfig().(*Config)
	config.Listen = "127.0.0.1:0"
	config.StoreDir = filepath.Join(t.TempDir(), "hub")
	config.MaxBytes = 128 * bytesize.MiB
	return config
}

func startHub(t *testing.T, config *Config) *hub {
	t.Helper()
	h := newHub(config, zap.NewNop())
	require.NoError(t, config.Validate())
	require.NoError(t, h.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, h.stop()) })
	return h
}

func connect(t *testing.T, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestStreamsSurviveARestart(t *testing.T) {
	config := testConfig(t)
	first := newHub(config, zap.NewNop())
	require.NoError(t, first.Start(t.Context(), componenttest.NewNopHost()))
	nc, err := nats.Connect("", nats.InProcessServer(first))
	require.NoError(t, err)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEEP", Subjects: []string{"keep"}, MaxBytes: int64(64 * bytesize.MiB)})
	require.NoError(t, err)
	large := make([]byte, 7<<20) // above NATS's own limit of 1 MiB
	_, err = js.Publish(t.Context(), "keep", large)
	require.NoError(t, err)
	nc.Close()
	require.NoError(t, first.Shutdown(t.Context()))

	second := startHub(t, config)
	js, err = jetstream.New(connect(t, "", nats.InProcessServer(second)))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "KEEP")
	require.NoError(t, err)
	message, err := stream.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, message.Data, len(large))
}

func TestStreamsAreBoundedByMaxBytes(t *testing.T) {
	h := startHub(t, testConfig(t))
	js, err := jetstream.New(connect(t, "nats://"+h.server.Load().Addr().String()))
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LARGE", Subjects: []string{"x"}, MaxBytes: int64(129 * bytesize.MiB)})
	require.ErrorContains(t, err, "insufficient storage")
}

func TestWebsocketListener(t *testing.T) {
	config := testConfig(t)
	config.Websocket.Listen = freeAddress(t)
	startHub(t, config)
	nc := connect(t, "ws://"+config.Websocket.Listen)
	require.NoError(t, nc.Flush())
}

func TestSecondHubOnTheSameStoreIsRefused(t *testing.T) {
	config := testConfig(t)
	startHub(t, config)
	second := newHub(config, zap.NewNop())
	err := second.Start(t.Context(), componenttest.NewNopHost())
	require.ErrorIs(t, err, errStoreInUse)
	require.ErrorContains(t, err, config.StoreDir)
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, set := range map[string]func(*Config){
		"listen":    func(c *Config) { c.Listen = taken.Addr().String() },
		"websocket": func(c *Config) { c.Websocket.Listen = taken.Addr().String() },
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig(t)
			set(config)
			h := newHub(config, zap.NewNop())
			err := h.Start(t.Context(), componenttest.NewNopHost())
			require.ErrorContains(t, err, "address already in use")
			require.ErrorContains(t, err, taken.Addr().String())
			_, err = h.InProcessConn()
			require.ErrorIs(t, err, errNotRunning)
			// The store is free again for the next try.
			lock, err := lockStore(config.StoreDir)
			require.NoError(t, err)
			require.NoError(t, lock.Close())
		})
	}
}

func TestUnusableStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	config := testConfig(t)
	config.StoreDir = filepath.Join(file, "hub")
	err := newHub(config, zap.NewNop()).Start(t.Context(), componenttest.NewNopHost())
	require.ErrorContains(t, err, "store_dir: ")
	require.ErrorContains(t, err, file)
}

func TestServerConfigurationFileAddsAccounts(t *testing.T) {
	config := testConfig(t)
	config.ConfigFile = filepath.Join(t.TempDir(), "nats.conf")
	require.NoError(t, os.WriteFile(config.ConfigFile, []byte(`
port: 1
max_payload: 2MB
accounts { EDGE { jetstream: enabled, users: [ { user: edge, password: secret } ] } }
`), 0o600))
	h := startHub(t, config)
	address := h.server.Load().Addr().String()
	require.NotContains(t, address, ":1\n", "the extension's own address wins")

	_, err := nats.Connect("nats://"+address, nats.Timeout(5*time.Second))
	require.ErrorIs(t, err, nats.ErrAuthorization)
	nc := connect(t, "nats://"+address, nats.UserInfo("edge", "secret"))
	require.EqualValues(t, 2<<20, nc.MaxPayload(), "what the extension has no key for comes from the file")
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.AccountInfo(t.Context())
	require.NoError(t, err)
}

func TestBrokenServerConfigurationFile(t *testing.T) {
	config := testConfig(t)
	config.ConfigFile = filepath.Join(t.TempDir(), "nats.conf")
	require.NoError(t, os.WriteFile(config.ConfigFile, []byte("accounts {"), 0o600))
	err := newHub(config, zap.NewNop()).Start(t.Context(), componenttest.NewNopHost())
	require.ErrorContains(t, err, "config_file: ")
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}
