package main

import (
	"github.com/open-telemetry/opentelemetry-collector-contrib/connector/spanmetricsconnector"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/pprofextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/probabilisticsamplerprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/redactionprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/resourceprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/hostmetricsreceiver"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/connector/forwardconnector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/debugexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/zpagesextension"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"

	"github.com/longhaul/longhaul/exporters/natsexporter"
	"github.com/longhaul/longhaul/internal/distribution"
	"github.com/longhaul/longhaul/processors/podmetadataprocessor"
	"github.com/longhaul/longhaul/receivers/containerlogsreceiver"
	"github.com/longhaul/longhaul/receivers/prometheusreceiver"
)

const (
	core    = "go.opentelemetry.io/collector"
	contrib = "github.com/open-telemetry/opentelemetry-collector-contrib"
	own     = "github.com/longhaul/longhaul"
)

// components lists everything a collector configuration can name. A component
// costs binary size on every node: test/imports and `make size` watch over it.
func components() distribution.Components {
	return distribution.Components{
		Receivers: []distribution.Part[receiver.Factory]{
			{Factory: otlpreceiver.NewFactory(), Module: core + "/receiver/otlpreceiver"},
			{Factory: prometheusreceiver.NewFactory(), Module: own + "/receivers/prometheusreceiver"},
			{Factory: hostmetricsreceiver.NewFactory(), Module: contrib + "/receiver/hostmetricsreceiver"},
			{Factory: containerlogsreceiver.NewFactory(), Module: own + "/receivers/containerlogsreceiver"},
		},
		Processors: []distribution.Part[processor.Factory]{
			{Factory: memorylimiterprocessor.NewFactory(), Module: core + "/processor/memorylimiterprocessor"},
			{Factory: podmetadataprocessor.NewFactory(), Module: own + "/processors/podmetadataprocessor"},
			{Factory: resourceprocessor.NewFactory(), Module: contrib + "/processor/resourceprocessor"},
			{Factory: filterprocessor.NewFactory(), Module: contrib + "/processor/filterprocessor"},
			{Factory: transformprocessor.NewFactory(), Module: contrib + "/processor/transformprocessor"},
			{Factory: redactionprocessor.NewFactory(), Module: contrib + "/processor/redactionprocessor"},
			{Factory: probabilisticsamplerprocessor.NewFactory(), Module: contrib + "/processor/probabilisticsamplerprocessor"},
			{Factory: tailsamplingprocessor.NewFactory(), Module: contrib + "/processor/tailsamplingprocessor"},
		},
		Connectors: []distribution.Part[connector.Factory]{
			{Factory: spanmetricsconnector.NewFactory(), Module: contrib + "/connector/spanmetricsconnector"},
			{Factory: forwardconnector.NewFactory(), Module: core + "/connector/forwardconnector"},
		},
		Exporters: []distribution.Part[exporter.Factory]{
			{Factory: debugexporter.NewFactory(), Module: core + "/exporter/debugexporter"},
			{Factory: natsexporter.NewFactory(), Module: own + "/exporters/natsexporter"},
		},
		Extensions: []distribution.Part[extension.Factory]{
			{Factory: healthcheckextension.NewFactory(), Module: contrib + "/extension/healthcheckextension"},
			{Factory: pprofextension.NewFactory(), Module: contrib + "/extension/pprofextension"},
			{Factory: zpagesextension.NewFactory(), Module: core + "/extension/zpagesextension"},
		},
	}
}
