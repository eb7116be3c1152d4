package podmetadataprocessor

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync/atomic"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap/exp/zapslog"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// podProcessor serves one signal.
type podProcessor struct {
	config  *Config
	set     processor.Settings
	rules   rules
	source  *kubelet.Source // from start to shutdown
	made    atomic.Pointer[madeAttributes]
	found   metric.Int64Counter
	unknown metric.Int64Counter
	signal  metric.MeasurementOption
}

func newProcessor(set processor.Settings, config *Config, signal string) (*podProcessor, error) {
	p := &podProcessor{
		config: config,
		set:    set,
		signal: metric.WithAttributeSet(attribute.NewSet(attribute.String("signal", signal))),
	}
	var problems [3]error
	p.rules, problems[0] = newRules(config)
	meter := set.MeterProvider.Meter(ScopeName)
	p.found, problems[1] = meter.Int64Counter("longhaul_podmetadata_resources", metric.WithUnit("{resource}"),
		metric.WithDescription("Resources whose pod was found, and named."))
	p.unknown, problems[2] = meter.Int64Counter("longhaul_podmetadata_unknown_resources", metric.WithUnit("{resource}"),
		metric.WithDescription("Resources that name a pod the kubelet does not know; passed on as they are."))
	return p, errors.Join(problems[:]...)
}

func (p *podProcessor) start(context.Context, component.Host) error {
	// No stack traces: what goes wrong goes wrong outside.
	handler := zapslog.NewHandler(p.set.Logger.Core(), zapslog.AddStacktraceAt(slog.Level(math.MaxInt)))
	source, err := kubelet.Open(p.config.Kubelet, slog.New(handler))
	if err != nil {
		return err
	}
	p.source = source
	return source.Observe(p.set.MeterProvider.Meter(ScopeName))
}

func (p *podProcessor) shutdown(context.Context) error {
	if p.source != nil {
		p.source.Close()
		p.source = nil
	}
	return nil
}

func (p *podProcessor) logs(ctx context.Context, logs plog.Logs) (plog.Logs, error) {
	if p.config.Kubelet.URL != "" {
		for _, resource := range logs.ResourceLogs().All() {
			p.name(ctx, resource.Resource())
		}
	}
	return logs, nil
}

func (p *podProcessor) metrics(ctx context.Context, metrics pmetric.Metrics) (pmetric.Metrics, error) {
	if p.config.Kubelet.URL != "" {
		for _, resource := range metrics.ResourceMetrics().All() {
			p.name(ctx, resource.Resource())
		}
	}
	return metrics, nil
}

func (p *podProcessor) traces(ctx context.Context, traces ptrace.Traces) (ptrace.Traces, error) {
	if p.config.Kubelet.URL != "" {
		for _, resource := range traces.ResourceSpans().All() {
			p.name(ctx, resource.Resource())
		}
	}
	return traces, nil
}

// name adds what is known of the resource's pod.
func (p *podProcessor) name(ctx context.Context, resource pcommon.Resource) {
	attributes := resource.Attributes()
	pod, named := findPod(ctx, p.source, attributes)
	if pod == nil {
		if named {
			p.unknown.Add(ctx, 1, p.signal)
		}
		return
	}
	p.found.Add(ctx, 1, p.signal)
	container := containerOf(pod, attributes)
	for _, a := range p.attributesOf(pod, container) {
		p.put(attributes, a.name, a.value)
	}
	if container != nil {
		p.putRun(attributes, container)
	}
	if p.rules.has(attributeHostIP) && pod.HostIP != "" {
		if _, exists := attributes.Get(attributeHostIP); !exists || p.config.Overwrite {
			attributes.PutEmptySlice(attributeHostIP).AppendEmpty().SetStr(pod.HostIP)
		}
	}
}

// put writes a value, unless the resource has one of its own.
func (p *podProcessor) put(attributes pcommon.Map, name, value string) {
	if !p.config.Overwrite {
		if own, exists := attributes.Get(name); exists && !(name == attributeServiceName && isUnknownService(own)) {
			return
		}
	}
	attributes.PutStr(name, value)
}

// putRun adds what changes with each restart of a container. A resource that
// names its restart gets the id of that run, or none.
func (p *podProcessor) putRun(attributes pcommon.Map, container *kubelet.Container) {
	restarts := container.RestartCount
	own, exists := attributes.Get(attributeRestartCount)
	if exists && own.Type() == pcommon.ValueTypeInt {
		if restarts = own.Int(); !container.Started || restarts > container.RestartCount {
			p.source.Stale()
		}
	}
	if !container.Started {
		return
	}
	if p.rules.has(attributeRestartCount) && (!exists || p.config.Overwrite) {
		attributes.PutInt(attributeRestartCount, restarts)
	}
	if id := container.IDAt(restarts); id != "" && p.rules.has(attributeContainerID) {
		p.put(attributes, attributeContainerID, id)
	}
}
