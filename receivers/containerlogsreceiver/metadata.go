package containerlogsreceiver

import "go.opentelemetry.io/collector/component"

// ScopeName is the instrumentation scope of the records and of the receiver's
// own metrics.
const ScopeName = "github.com/longhaul/longhaul/receivers/containerlogsreceiver"

// componentType is the name of the receiver in a configuration.
var componentType = component.MustNewType("containerlogs")

const stability = component.StabilityLevelAlpha

// Attribute names of the OpenTelemetry semantic conventions.
const (
	attributeNamespace    = "k8s.namespace.name"
	attributePod          = "k8s.pod.name"
	attributePodUID       = "k8s.pod.uid"
	attributeContainer    = "k8s.container.name"
	attributeRestartCount = "k8s.container.restart_count"
	attributeFilePath     = "log.file.path"
	attributeStream       = "log.iostream"
)

// attributeSplit marks every piece of a line that was longer than
// max_line_bytes or whose end never came.
const attributeSplit = "longhaul.line.split"

// attributeLimited marks the records that tell of lines rate_limit left out, and
// says how many.
const attributeLimited = "longhaul.lines.limited"
