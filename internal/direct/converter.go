package direct

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/pipeline"
)

// ConfigKey is where a receiver is told of the exporters it can hand requests to: a
// map from signal to exporter, which the converter writes and nobody else.
const ConfigKey = "direct"

// Exporters are what ConfigKey holds: the one exporter of a signal's pipeline that has
// nothing between it and the receiver.
type Exporters map[string]component.ID

// NewConverterFactory returns what finds the pipelines of a configuration in which
// nothing stands between a receiver of the given type and one exporter.
func NewConverterFactory(receiver component.Type) confmap.ConverterFactory {
	return confmap.NewConverterFactory(func(confmap.ConverterSettings) confmap.Converter { return converter{receiver} })
}

type converter struct{ receiver component.Type }

// layout is the part of a configuration that says what is connected with what. What
// is wrong with it is reported by the collector, which reads it after this.
type layout struct {
	Receivers  map[string]any       `mapstructure:"receivers"`
	Connectors map[component.ID]any `mapstructure:"connectors"`
	Service    struct {
		Pipelines map[pipeline.ID]connected `mapstructure:"pipelines"`
	} `mapstructure:"service"`
}

type connected struct {
	Receivers  []component.ID `mapstructure:"receivers"`
	Processors []component.ID `mapstructure:"processors"`
	Exporters  []component.ID `mapstructure:"exporters"`
}

func (c converter) Convert(_ context.Context, conf *confmap.Conf) error {
	var all layout
	if err := conf.Unmarshal(&all, confmap.WithIgnoreUnused()); err != nil {
		return nil //nolint:nilerr // the collector's own reading says it better
	}
	for name, settings := range all.Receivers {
		switch settings.(type) {
		case nil, map[string]any:
		default: // what is wrong stays to be seen
			continue
		}
		var id component.ID
		if id.UnmarshalText([]byte(name)) != nil || id.Type() != c.receiver {
			continue
		}
		conf.Delete("receivers" + confmap.KeyDelimiter + name + confmap.KeyDelimiter + ConfigKey) // of one that was printed and changed
		direct := all.direct(id)
		if len(direct) == 0 {
			continue
		}
		more := confmap.NewFromStringMap(map[string]any{"receivers": map[string]any{name: map[string]any{ConfigKey: direct}}})
		if err := conf.Merge(more); err != nil {
			return fmt.Errorf("receivers::%s::%s: %w", name, ConfigKey, err)
		}
	}
	return nil
}

// direct returns the exporters, by signal, between which and a receiver is nothing.
func (l *layout) direct(receiver component.ID) map[string]any {
	pipelines := make(map[string][]connected)
	for id, p := range l.Service.Pipelines {
		if slices.Contains(p.Receivers, receiver) {
			signal := id.Signal().String()
			pipelines[signal] = append(pipelines[signal], p)
		}
	}
	direct := make(map[string]any)
	for signal, all := range pipelines {
		if len(all) != 1 || len(all[0].Processors) > 0 || len(all[0].Exporters) != 1 {
			continue
		}
		exporter := all[0].Exporters[0]
		if _, connects := l.Connectors[exporter]; !connects {
			direct[signal] = exporter.String()
		}
	}
	return direct
}
