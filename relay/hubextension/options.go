package hubextension

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayloadBytes is what a frame may weigh. NATS's default of 1 MiB would
	// refuse a frame of many large log lines.
	maxPayloadBytes = 8 << 20
	// maxMemoryBytes bounds memory streams; longhaul has none.
	maxMemoryBytes = 64 << 20
	// tlsTimeoutSeconds for a handshake over a bad link; NATS's default is 2.
	tlsTimeoutSeconds = 15
	// randomPort is the server's word for "take a free one".
	randomPort = server.RANDOM_PORT
)

// serverOptions are the file's settings with the extension's laid over them.
func (c *Config) serverOptions() (*server.Options, error) {
	options := &server.Options{}
	if c.ConfigFile != "" {
		var err error
		if options, err = server.ProcessConfigFile(c.ConfigFile); err != nil {
			return nil, fmt.Errorf("config_file: %w", err)
		}
	}

	host, port, err := listenAddress(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	options.Host, options.Port = host, port
	options.ServerName = c.ServerName
	options.JetStream = true
	options.StoreDir = c.StoreDir
	options.JetStreamMaxStore = int64(c.MaxBytes)
	options.DisableJetStreamBanner = true
	// The process belongs to the collector: it handles signals and logs.
	options.NoSigs, options.NoLog = true, true
	if options.MaxPayload == 0 {
		options.MaxPayload = maxPayloadBytes
	}
	if options.JetStreamMaxMemory == 0 {
		options.JetStreamMaxMemory = maxMemoryBytes
	}
	interval, always, err := c.sync()
	if err != nil {
		return nil, fmt.Errorf("sync_interval: %w", err)
	}
	if interval > 0 || always {
		options.SyncInterval, options.SyncAlways = interval, always
	}
	if c.TLS.enabled() {
		config, err := c.TLS.load()
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		options.TLS, options.TLSConfig = true, config
		options.TLSVerify = c.TLS.ClientCAFile != ""
		options.TLSTimeout = tlsTimeoutSeconds
	}
	if c.Websocket.Listen != "" {
		if err := c.Websocket.apply(&options.Websocket); err != nil {
			return nil, err
		}
	}
	return options, nil
}

func (c *WebsocketConfig) apply(options *server.WebsocketOpts) error {
	host, port, err := listenAddress(c.Listen)
	if err != nil {
		return fmt.Errorf("websocket::listen: %w", err)
	}
	options.Host, options.Port = host, port
	options.Compression = true
	options.NoTLS = !c.TLS.enabled()
	if c.TLS.enabled() {
		if options.TLSConfig, err = c.TLS.load(); err != nil {
			return fmt.Errorf("websocket::tls: %w", err)
		}
	}
	return nil
}

func listenAddress(address string) (string, int, error) {
	host, port, err := splitAddress(address)
	if port == 0 {
		port = randomPort
	}
	return host, port, err
}
