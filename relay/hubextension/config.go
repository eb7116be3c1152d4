package hubextension

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/bytesize"
)

// minStoreBytes is the least JetStream can hold longhaul's streams in.
const minStoreBytes = 64 * bytesize.MiB

// Config is the hub extension's configuration.
type Config struct {
	// ServerName is what clients and logs see.
	ServerName string `mapstructure:"server_name"`
	// Listen is the address edges connect to, host:port. Port 0 takes a free one.
	Listen string `mapstructure:"listen"`
	// StoreDir holds the streams. One hub at a time may use it.
	StoreDir string `mapstructure:"store_dir"`
	// MaxBytes bounds the streams on disk.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// SyncInterval is how often what is stored is fsynced: a duration, or "always"
	// for before each acknowledgement. Empty: as in ConfigFile, else NATS' two minutes.
	SyncInterval string `mapstructure:"sync_interval"`
	// TLS secures Listen; without a certificate the address is plain text.
	TLS TLSConfig `mapstructure:"tls"`
	// Websocket is a second address, for edges behind HTTP proxies.
	Websocket WebsocketConfig `mapstructure:"websocket"`
	// ConfigFile is a nats-server configuration file for everything else. Where
	// both say something, the keys here win.
	ConfigFile string `mapstructure:"config_file"`
}

// TLSConfig names PEM files.
type TLSConfig struct {
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
	// ClientCAFile makes client certificates obligatory and says who signs them.
	ClientCAFile string `mapstructure:"client_ca_file"`
}

// WebsocketConfig is the optional websocket listener.
type WebsocketConfig struct {
	// Listen is host:port; empty leaves it off.
	Listen string `mapstructure:"listen"`
	// TLS makes it wss://. Without it, put a proxy that ends TLS in front.
	TLS TLSConfig `mapstructure:"tls"`
}

func createDefaultConfig() component.Config {
	return &Config{
		ServerName: "longhaul-hub",
		Listen:     "0.0.0.0:4222",
		StoreDir:   "/var/lib/longhaul/hub",
		MaxBytes:   10 * bytesize.GiB,
	}
}

// Validate reports every problem with its key.
func (c *Config) Validate() error {
	var problems []error
	if c.ServerName == "" {
		problems = append(problems, errors.New("server_name: must not be empty"))
	}
	if _, _, err := splitAddress(c.Listen); err != nil {
		problems = append(problems, fmt.Errorf("listen: %w", err))
	}
	if !filepath.IsAbs(c.StoreDir) {
		problems = append(problems, fmt.Errorf("store_dir: must be an absolute path, not %q", c.StoreDir))
	}
	if c.MaxBytes < minStoreBytes {
		problems = append(problems, fmt.Errorf("max_bytes: must be at least %s, not %s", minStoreBytes, c.MaxBytes))
	}
	if _, _, err := c.sync(); err != nil {
		problems = append(problems, fmt.Errorf("sync_interval: %w", err))
	}
	problems = append(problems, c.TLS.problems("tls")...)
	if c.Websocket.Listen != "" {
		if _, _, err := splitAddress(c.Websocket.Listen); err != nil {
			problems = append(problems, fmt.Errorf("websocket::listen: %w", err))
		}
		problems = append(problems, c.Websocket.TLS.problems("websocket::tls")...)
	}
	return errors.Join(problems...)
}

// sync reads SyncInterval; 0 and false: as it is.
func (c *Config) sync() (interval time.Duration, always bool, err error) {
	switch c.SyncInterval {
	case "":
		return 0, false, nil
	case "always":
		return 0, true, nil
	}
	if interval, err = time.ParseDuration(c.SyncInterval); err != nil || interval <= 0 {
		return 0, false, fmt.Errorf("%q is neither a duration above 0, for example 10s, nor always", c.SyncInterval)
	}
	return interval, false, nil
}

func (c *TLSConfig) problems(key string) []error {
	var problems []error
	if (c.CertFile == "") != (c.KeyFile == "") {
		problems = append(problems, fmt.Errorf("%s: cert_file and key_file belong together; one of them is empty", key))
	}
	if c.ClientCAFile != "" && c.CertFile == "" {
		problems = append(problems, fmt.Errorf("%s::client_ca_file: checking client certificates needs cert_file and key_file too", key))
	}
	return problems
}

func (c *TLSConfig) enabled() bool { return c.CertFile != "" }

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not an address; write host:port, for example 0.0.0.0:4222", address)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: the port must be a number from 0 to 65535", address)
	}
	return host, port, nil
}
