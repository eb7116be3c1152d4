package hubextension

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
)

var componentType = component.MustNewType("hub")

// NewFactory creates the factory of the hub extension.
func NewFactory() extension.Factory {
	return extension.NewFactory(componentType, createDefaultConfig,
		func(_ context.Context, settings extension.Settings, config component.Config) (extension.Extension, error) {
			return newHub(config.(*Config), settings.Logger), nil
		}, component.StabilityLevelBeta)
}
