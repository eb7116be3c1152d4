package direct

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
)

func TestOnlyWhatHasNothingBetweenIsDirect(t *testing.T) {
	for name, test := range map[string]struct {
		yaml string
		want map[string]any
	}{
		"nothing between": {
			`{receivers: {nats: {destination: a}}, exporters: {loki/x: , prometheus: }, service: {pipelines: {logs: {receivers: [nats], exporters: [loki/x]}, metrics/y: {receivers: [otlp, nats], exporters: [prometheus]}}}}`,
			map[string]any{"logs": "loki/x", "metrics": "prometheus"},
		},
		"no settings of its own": {
			`{receivers: {nats: }, service: {pipelines: {logs: {receivers: [nats], exporters: [loki]}}}}`,
			map[string]any{"logs": "loki"},
		},
		"a processor": {
			`{receivers: {nats: }, service: {pipelines: {logs: {receivers: [nats], processors: [filter], exporters: [loki]}}}}`, nil,
		},
		"two exporters": {
			`{receivers: {nats: }, service: {pipelines: {logs: {receivers: [nats], exporters: [loki, debug]}}}}`, nil,
		},
		"two pipelines": {
			`{receivers: {nats: }, service: {pipelines: {logs: {receivers: [nats], exporters: [loki]}, logs/more: {receivers: [nats], processors: [filter], exporters: [loki]}}}}`, nil,
		},
		"a connector": {
			`{receivers: {nats: }, connectors: {spanmetrics: }, service: {pipelines: {traces: {receivers: [nats], exporters: [spanmetrics]}, metrics: {receivers: [spanmetrics], exporters: [prometheus]}}}}`, nil,
		},
		"printed, and a processor put in": {
			`{receivers: {nats: {direct: {logs: loki, traces: otlp}}}, service: {pipelines: {logs: {receivers: [nats], processors: [filter], exporters: [loki]}}}}`, nil,
		},
		"no map": {
			`{receivers: {nats: text}, service: {pipelines: {logs: {receivers: [nats], exporters: [loki]}}}}`, nil,
		},
		"another receiver": {
			`{receivers: {otlp: }, service: {pipelines: {logs: {receivers: [otlp], exporters: [loki]}}}}`, nil,
		},
		"no pipelines":     {`{receivers: {nats: }}`, nil},
		"no configuration": {`{service: {pipelines: [a]}, receivers: {nats: }}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			retrieved, err := confmap.NewRetrievedFromYAML([]byte(test.yaml))
			require.NoError(t, err)
			conf, err := retrieved.AsConf()
			require.NoError(t, err)
			converter := NewConverterFactory(component.MustNewType("nats")).Create(confmap.ConverterSettings{})
			require.NoError(t, converter.Convert(t.Context(), conf))
			var got map[string]any
			if direct := conf.Get("receivers::nats::direct"); direct != nil {
				got = direct.(map[string]any)
			}
			if name == "no map" {
				require.Equal(t, "text", conf.Get("receivers::nats"), "the collector shall see what is wrong with it")
			}
			require.Equal(t, test.want, got)
			if strings.Contains(test.yaml, "destination: a") {
				require.Equal(t, "a", conf.Get("receivers::nats::destination"), "the rest is as it was")
			}
		})
	}
}
