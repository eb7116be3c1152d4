package distribution

import (
	"runtime/debug"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

// Part is a component and the Go module (or package of ours) it comes from,
// which the "components" command prints with its version.
type Part[F component.Factory] struct {
	Factory F
	Module  string
}

// Components lists everything a configuration of the distribution can name.
type Components struct {
	Receivers  []Part[receiver.Factory]
	Processors []Part[processor.Factory]
	Connectors []Part[connector.Factory]
	Exporters  []Part[exporter.Factory]
	Extensions []Part[extension.Factory]
}

// factories is what otelcol asks for: the same lists by component type.
func (c Components) factories() (otelcol.Factories, error) {
	versions := moduleVersions()
	f := otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
	var err error
	if f.Receivers, f.ReceiverModules, err = byType(c.Receivers, versions); err != nil {
		return f, err
	}
	if f.Processors, f.ProcessorModules, err = byType(c.Processors, versions); err != nil {
		return f, err
	}
	if f.Connectors, f.ConnectorModules, err = byType(c.Connectors, versions); err != nil {
		return f, err
	}
	if f.Exporters, f.ExporterModules, err = byType(c.Exporters, versions); err != nil {
		return f, err
	}
	f.Extensions, f.ExtensionModules, err = byType(c.Extensions, versions)
	return f, err
}

func byType[F component.Factory](parts []Part[F], versions map[string]string) (map[component.Type]F, map[component.Type]string, error) {
	factories := make([]F, 0, len(parts))
	modules := make(map[component.Type]string, len(parts))
	for _, p := range parts {
		factories = append(factories, p.Factory)
		modules[p.Factory.Type()] = p.Module
		if version := versions[p.Module]; version != "" {
			modules[p.Factory.Type()] += " " + version
		}
	}
	m, err := otelcol.MakeFactoryMap(factories...)
	return m, modules, err
}

func moduleVersions() map[string]string {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			versions[module.Path] = module.Version
		}
	}
	return versions
}
