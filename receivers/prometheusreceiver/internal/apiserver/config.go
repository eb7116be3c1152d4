// Copyright The OpenTelemetry Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"time"

	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/confignet"
)

const (
	defaultEndpoint       = "127.0.0.1:9090"
	defaultReadTimeout    = 10 * time.Minute
	defaultMaxConnections = 512
)

type Config struct {
	Enabled        bool                    `mapstructure:"enabled"`
	MaxConnections int                     `mapstructure:"max_connections"`
	ServerConfig   confighttp.ServerConfig `mapstructure:"server_config"`
}

// DefaultConfig returns the default configuration for the Prometheus API server.
func DefaultConfig() Config {
	serverConfig := confighttp.NewDefaultServerConfig()
	serverConfig.NetAddr.Transport = confignet.TransportTypeTCP
	serverConfig.NetAddr.Endpoint = defaultEndpoint
	serverConfig.ReadTimeout = defaultReadTimeout

	return Config{
		MaxConnections: defaultMaxConnections,
		ServerConfig:   serverConfig,
	}
}

func (cfg *Config) Validate() error {
	// longhaul: the API server and the Prometheus web packages behind it are left out.
	if cfg.Enabled {
		return errors.New("api_server::enabled: the Prometheus API server is not part of this build")
	}
	return cfg.ServerConfig.NetAddr.Validate()
}
