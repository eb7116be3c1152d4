package lokiexporter

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
)

// NewFactory returns the factory of the loki exporter.
func NewFactory() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("loki"),
		createDefaultConfig,
		exporter.WithLogs(createLogs, component.StabilityLevelBeta),
	)
}

func createLogs(_ context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
	return newExporter(cfg.(*Config), set)
}
