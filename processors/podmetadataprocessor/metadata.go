package podmetadataprocessor

import "go.opentelemetry.io/collector/component"

// ScopeName is the instrumentation scope of the processor's own metrics.
const ScopeName = "github.com/longhaul/longhaul/processors/podmetadataprocessor"

// componentType is the name of the processor in a configuration.
var componentType = component.MustNewType("podmetadata")

const stability = component.StabilityLevelAlpha

// Attribute names of the OpenTelemetry semantic conventions.
const (
	attributeNamespace    = "k8s.namespace.name"
	attributePod          = "k8s.pod.name"
	attributePodUID       = "k8s.pod.uid"
	attributePodIP        = "k8s.pod.ip"
	attributeNode         = "k8s.node.name"
	attributeDeployment   = "k8s.deployment.name"
	attributeReplicaSet   = "k8s.replicaset.name"
	attributeStatefulSet  = "k8s.statefulset.name"
	attributeDaemonSet    = "k8s.daemonset.name"
	attributeJob          = "k8s.job.name"
	attributeCronJob      = "k8s.cronjob.name"
	attributeContainer    = "k8s.container.name"
	attributeRestartCount = "k8s.container.restart_count"
	attributeContainerID  = "container.id"
	attributeImageName    = "container.image.name"
	attributeImageTag     = "container.image.tag"
	attributeHostIP       = "host.ip"

	attributeServiceName      = "service.name"
	attributeServiceNamespace = "service.namespace"
	attributeServiceVersion   = "service.version"
	attributeServiceInstance  = "service.instance.id"

	// prefixes of attributes made of labels and annotations without a name of
	// their own
	labelPrefix      = "k8s.pod.label."
	annotationPrefix = "k8s.pod.annotation."
)

// unknownService begins the service.name of an SDK that was not told one.
const unknownService = "unknown_service"

// knownAttributes are those that `attributes` may list.
var knownAttributes = []string{
	attributeNamespace, attributePod, attributePodUID, attributePodIP, attributeNode,
	attributeDeployment, attributeReplicaSet, attributeStatefulSet, attributeDaemonSet, attributeJob, attributeCronJob,
	attributeContainer, attributeRestartCount, attributeContainerID, attributeImageName, attributeImageTag, attributeHostIP,
}
