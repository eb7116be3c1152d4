package prometheusexporter

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
)

// NewFactory returns the factory of the prometheus exporter.
func NewFactory() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("prometheus"),
		createDefaultConfig,
		exporter.WithMetrics(createMetrics, component.StabilityLevelBeta),
	)
}

func createMetrics(_ context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
	return newExporter(cfg.(*Config), set)
}
