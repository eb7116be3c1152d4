package main

import (
	"github.com/open-telemetry/opentelemetry-collector-contrib/connector/spanmetricsconnector"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/pprofextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/probabilisticsamplerprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/redactionprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/resourceprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/connector/forwardconnector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/debugexporter"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/zpagesextension"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"

	"github.com/longhaul/longhaul/exporters/lokiexporter"
	"github.com/longhaul/longhaul/exporters/otlpoutcome"
	"github.com/longhaul/longhaul/exporters/prometheusexporter"
	"github.com/longhaul/longhaul/internal/distribution"
	"github.com/longhaul/longhaul/receivers/natsreceiver"
	"github.com/longhaul/longhaul/receivers/prometheusreceiver"
	"github.com/longhaul/longhaul/relay/hubextension"
)

const (
	core    = "go.opentelemetry.io/collector"
	contrib = "github.com/open-telemetry/opentelemetry-collector-contrib"
	own     = "github.com/longhaul/longhaul"
)

// components lists everything a relay configuration can name. Processors that
// hold data back (tail_sampling, batch) are not among them: the relay confirms
// to the edges what its exporters accepted, and such a processor answers before
// they have it.
func components() distribution.Components {
	return distribution.Components{
		Receivers: []distribution.Part[receiver.Factory]{
			{Factory: natsreceiver.NewFactory(), Module: own + "/receivers/natsreceiver"},
			{Factory: otlpreceiver.NewFactory(), Module: core + "/receiver/otlpreceiver"},
			{Factory: prometheusreceiver.NewFactory(), Module: own + "/receivers/prometheusreceiver"},
		},
		Processors: []distribution.Part[processor.Factory]{
			{Factory: memorylimiterprocessor.NewFactory(), Module: core + "/processor/memorylimiterprocessor"},
			{Factory: resourceprocessor.NewFactory(), Module: contrib + "/processor/resourceprocessor"},
			{Factory: filterprocessor.NewFactory(), Module: contrib + "/processor/filterprocessor"},
			{Factory: transformprocessor.NewFactory(), Module: contrib + "/processor/transformprocessor"},
			{Factory: redactionprocessor.NewFactory(), Module: contrib + "/processor/redactionprocessor"},
			{Factory: probabilisticsamplerprocessor.NewFactory(), Module: contrib + "/processor/probabilisticsamplerprocessor"},
		},
		Connectors: []distribution.Part[connector.Factory]{
			{Factory: spanmetricsconnector.NewFactory(), Module: contrib + "/connector/spanmetricsconnector"},
			{Factory: forwardconnector.NewFactory(), Module: core + "/connector/forwardconnector"},
		},
		Exporters: []distribution.Part[exporter.Factory]{
			{Factory: lokiexporter.NewFactory(), Module: own + "/exporters/lokiexporter"},
			{Factory: prometheusexporter.NewFactory(), Module: own + "/exporters/prometheusexporter"},
			{Factory: otlpoutcome.NewFactory(otlpexporter.NewFactory()), Module: core + "/exporter/otlpexporter"},
			{Factory: otlpoutcome.NewFactory(otlphttpexporter.NewFactory()), Module: core + "/exporter/otlphttpexporter"},
			{Factory: debugexporter.NewFactory(), Module: core + "/exporter/debugexporter"},
		},
		Extensions: []distribution.Part[extension.Factory]{
			{Factory: healthcheckextension.NewFactory(), Module: contrib + "/extension/healthcheckextension"},
			{Factory: pprofextension.NewFactory(), Module: contrib + "/extension/pprofextension"},
			{Factory: zpagesextension.NewFactory(), Module: core + "/extension/zpagesextension"},
			{Factory: hubextension.NewFactory(), Module: own + "/relay/hubextension"},
		},
	}
}
