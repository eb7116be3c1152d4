// Command longhaul-relay is the centre of longhaul: an OpenTelemetry Collector
// that drains the hub into Loki, Prometheus and Jaeger, and confirms to the
// edges what these accepted. Unless LONGHAUL_NATS_URL names a NATS server of
// your own, it is the hub too.
//
// Without --config it runs the configuration in config/, embedded.
package main

import (
	"embed"
	"os"

	"go.opentelemetry.io/collector/confmap"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/distribution"
	"github.com/longhaul/longhaul/receivers/natsreceiver"
)

//go:embed config/*.yaml
var configs embed.FS

func main() {
	os.Exit(distribution.Program{
		Name:        "longhaul-relay",
		Description: "longhaul-relay hands what the edges ship to Loki, Prometheus and Jaeger, and confirms it to them.",
		Components:  components(),
		Defaults:    defaults,
		Converters:  []confmap.ConverterFactory{direct.NewConverterFactory(natsreceiver.Type)},

		MemoryLimitBytes: memoryLimitBytes,
		GCPercent:        gcPercent,
	}.Main())
}

// A relay's garbage is what it has just delivered: nearly all that was allocated is
// dead at the next collection, so collections that are further apart cost memory and
// no time. On items a CPU second: 50 % more of logs and 30 % more of metrics than at
// Go's 100 %. The limit keeps that within what a relay may take (the nats receiver
// raises it with its own memory_limit).
const (
	memoryLimitBytes = 448 << 20
	gcPercent        = 300
)

// defaults lays the embedded or the external hub over the common part.
func defaults() ([][]byte, error) {
	hub := "config/embedded-hub.yaml"
	if os.Getenv("LONGHAUL_NATS_URL") != "" {
		hub = "config/external-hub.yaml"
	}
	var layers [][]byte
	for _, name := range []string{"config/relay.yaml", hub} {
		layer, err := configs.ReadFile(name)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return layers, nil
}
