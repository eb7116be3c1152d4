package podmetadataprocessor

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/longhaul/longhaul/internal/kubelet/kubelettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type attributes = map[string]any

// bench is a running logs processor.
type bench struct {
	kubelet *kubelettest.Kubelet
	logs    processor.Logs
	sink    *consumertest.LogsSink
	reader  *sdkmetric.ManualReader
}

func newBench(t *testing.T, configure func(*Config)) *bench {
	t.Helper()
	b := &bench{kubelet: kubelettest.New(t), sink: &consumertest.LogsSink{}, reader: sdkmetric.NewManualReader()}
	config := createDefaultConfig().(*Config)
	config.Kubelet.URL, config.Kubelet.CAFile, config.Kubelet.TokenFile = b.kubelet.URL, b.kubelet.CAFile, b.kubelet.TokenFile
	if configure != nil {
		configure(config)
	}
	set := processortest.NewNopSettings(componentType)
	set.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader))
	var err error
	b.logs, err = NewFactory().CreateLogs(t.Context(), set, config, b.sink)
	require.NoError(t, err)
	require.NoError(t, b.logs.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, b.logs.Shutdown(context.Background())) })
	return b
}

// process sends a resource through, from an address, and returns what became of
// its attributes.
func (b *bench) process(t *testing.T, from string, in attributes) attributes {
	t.Helper()
	logs := plog.NewLogs()
	resource := logs.ResourceLogs().AppendEmpty()
	require.NoError(t, resource.Resource().Attributes().FromRaw(in))
	resource.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("a line")
	ctx := t.Context()
	if from != "" {
		ctx = client.NewContext(ctx, client.Info{Addr: &net.TCPAddr{IP: net.ParseIP(from), Port: 40312}})
	}
	b.sink.Reset()
	require.NoError(t, b.logs.ConsumeLogs(ctx, logs))
	return b.sink.AllLogs()[0].ResourceLogs().At(0).Resource().Attributes().AsRaw()
}

var checkout = attributes{
	"k8s.namespace.name": "shop", "k8s.pod.name": "checkout-7d4b9c6f5d-x2x9p", "k8s.pod.uid": "8f2b6a0e-1c1d-4d8e-9a52-0d8f7a5b1c01",
	"k8s.container.name": "app", "k8s.container.restart_count": int64(1),
}

func with(base attributes, more ...any) attributes {
	all := attributes{}
	for name, value := range base {
		all[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		if more[i+1] == nil {
			delete(all, more[i].(string))
		} else {
			all[more[i].(string)] = more[i+1]
		}
	}
	return all
}

// What the containerlogs receiver knows from a path gets everything else.
func TestContainerLogsAreNamed(t *testing.T) {
	b := newBench(t, nil)
	want := with(checkout,
		"k8s.pod.ip", "10.42.0.17", "k8s.node.name", "node-a", "host.ip", []any{"192.168.10.21"},
		"k8s.deployment.name", "checkout", "k8s.replicaset.name", "checkout-7d4b9c6f5d",
		"container.id", strings.Repeat("a1", 32),
		"container.image.name", "registry.example.com:5000/shop/checkout", "container.image.tag", "2.14.0",
		"service.name", "checkout", "service.namespace", "shop", "service.version", "2.14.0",
		"service.instance.id", "shop.checkout-7d4b9c6f5d-x2x9p.app")
	assert.Equal(t, want, b.process(t, "", checkout))
	assert.Equal(t, want, b.process(t, "", with(checkout, "k8s.pod.name", nil, "k8s.namespace.name", nil)), "the UID suffices")

	// The run before, one that is too long ago, and one the kubelet has not told yet.
	want["k8s.container.restart_count"], want["container.id"] = int64(0), strings.Repeat("a0", 32)
	assert.Equal(t, want, b.process(t, "", with(checkout, "k8s.container.restart_count", int64(0))))
	want["k8s.container.restart_count"] = int64(5)
	assert.Equal(t, with(want, "container.id", nil), b.process(t, "", with(checkout, "k8s.container.restart_count", int64(5))))
}

func TestEveryKindOfWorkloadIsNamed(t *testing.T) {
	b := newBench(t, nil)
	for pod, want := range map[string]attributes{
		"shop/postgres-0":                    {"k8s.statefulset.name": "postgres", "k8s.container.name": "postgres", "service.name": "postgres", "container.image.tag": "17", "k8s.container.restart_count": int64(0)},
		"kube-flannel/kube-flannel-ds-9kq4w": {"k8s.daemonset.name": "kube-flannel-ds", "service.name": "kube-flannel-ds"},
		"shop/report-29399040-7hb4d":         {"k8s.job.name": "report-29399040", "k8s.cronjob.name": "report", "service.name": "report", "container.image.tag": "latest"},
		"shop/import-20251124-q8zt2":         {"k8s.job.name": "import-20251124", "service.name": "import-20251124"},
		"shop/legacy":                        {"service.name": "till", "service.version": "9", "deployment.environment.name": "production"},
	} {
		namespace, name, _ := strings.Cut(pod, "/")
		got := b.process(t, "", attributes{"k8s.namespace.name": namespace, "k8s.pod.name": name})
		for attribute, value := range want {
			assert.Equal(t, value, got[attribute], "%s: %s", pod, attribute)
		}
		if namespace == "kube-flannel" {
			assert.NotContains(t, got, "k8s.pod.ip", "the node's address is not the pod's")
		}
	}
	// Of a pod with several containers a resource that names none gets none.
	got := b.process(t, "", attributes{"k8s.namespace.name": "shop", "k8s.pod.name": "checkout-7d4b9c6f5d-x2x9p"})
	for _, name := range []string{"k8s.container.name", "container.id", "container.image.name", "k8s.container.restart_count", "service.instance.id"} {
		assert.NotContains(t, got, name)
	}
	got = b.process(t, "", with(checkout, "k8s.container.name", nil, "k8s.container.restart_count", nil, "container.id", strings.Repeat("b1", 32)))
	assert.Equal(t, "proxy", got["k8s.container.name"])
	got = b.process(t, "", with(checkout, "k8s.container.name", "migrate", "k8s.container.restart_count", int64(0)))
	assert.Equal(t, strings.Repeat("c1", 32), got["container.id"], "an init container")
}

func TestOTLPSendersAreFoundByAddress(t *testing.T) {
	b := newBench(t, nil)
	assert.Equal(t, "postgres-0", b.process(t, "10.42.0.18", attributes{})["k8s.pod.name"])
	assert.Equal(t, "postgres-0", b.process(t, "::ffff:10.42.0.18", attributes{})["k8s.pod.name"])
	assert.Equal(t, "checkout", b.process(t, "fd00:42::17", attributes{"service.name": "unknown_service:java"})["service.name"])
	// The resource's own word counts more than where it came from.
	assert.Equal(t, "postgres-0", b.process(t, "10.42.0.17", attributes{"k8s.pod.ip": "10.42.0.18"})["k8s.pod.name"])
	assert.Equal(t, "postgres-0", b.process(t, "10.42.0.17", attributes{"k8s.namespace.name": "shop", "k8s.pod.name": "postgres-0"})["k8s.pod.name"])
	forwarded := attributes{"k8s.pod.name": "from-elsewhere"}
	assert.Equal(t, forwarded, b.process(t, "10.42.0.18", forwarded), "a pod of that name is not at that address")
	// The node, somebody outside, the machine itself.
	for _, from := range []string{"192.168.10.21", "203.0.113.9", "127.0.0.1"} {
		assert.Empty(t, b.process(t, from, attributes{}))
	}
	assert.EqualValues(t, 1, b.metric(t, "longhaul_podmetadata_unknown_resources"), "the forwarded one")
}

func TestOwnAttributesAreKept(t *testing.T) {
	own := with(checkout, "service.name", "till", "k8s.deployment.name", "mine", "host.ip", "mine", "service.version", int64(7), "container.id", "mine")
	b := newBench(t, nil)
	got := b.process(t, "", own)
	for name, value := range own {
		assert.Equal(t, value, got[name], name)
	}
	assert.Equal(t, "node-a", got["k8s.node.name"])

	b = newBench(t, func(c *Config) { c.Overwrite = true })
	got = b.process(t, "", own)
	assert.Equal(t, "checkout", got["service.name"])
	assert.Equal(t, "checkout", got["k8s.deployment.name"])
	assert.Equal(t, []any{"192.168.10.21"}, got["host.ip"])
	assert.Equal(t, strings.Repeat("a1", 32), got["container.id"])
}

func TestLabelsAndAnnotationsAreChosen(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Attributes = []string{attributeDeployment}
		c.Service.Enabled = false
		c.Labels = []Rule{
			{Key: "team"}, {Key: "absent"},
			{Key: "app.kubernetes.io/part-of", Attribute: "app.group"},
			{KeyRegex: `app\.kubernetes\.io/(n.*)`, Attribute: "app.$1"},
			{KeyRegex: `ea`}, // would match within team
		}
		c.Annotations = []Rule{{KeyRegex: `example\.com/.*`}}
	})
	assert.Equal(t, with(checkout,
		"k8s.deployment.name", "checkout", "k8s.pod.label.team", "payments", "app.group", "webshop", "app.name", "checkout",
		"k8s.pod.annotation.example.com/owner", "payments@example.com"), b.process(t, "", checkout))
}

func TestAnExpressionThatMatchesMuchIsBounded(t *testing.T) {
	labels := map[string]string{}
	for i := range 3 * maxRuleAttributes {
		labels[strings.Repeat("x", i+1)] = "value"
	}
	r, err := compileRules([]Rule{{KeyRegex: ".*"}}, labelPrefix)
	require.NoError(t, err)
	added := 0
	apply(r, labels, func(string, string) { added++ })
	assert.Equal(t, maxRuleAttributes, added)
}

func TestUnknownPodsPassAndAreCounted(t *testing.T) {
	b := newBench(t, nil)
	unknown := attributes{"k8s.pod.uid": "nobody"}
	assert.Equal(t, unknown, b.process(t, "", unknown))
	assert.Equal(t, attributes{"a": "b"}, b.process(t, "", attributes{"a": "b"}))
	assert.NotEqual(t, checkout, b.process(t, "", checkout))
	assert.EqualValues(t, 1, b.metric(t, "longhaul_podmetadata_unknown_resources"))
	assert.EqualValues(t, 1, b.metric(t, "longhaul_podmetadata_resources"))
	assert.EqualValues(t, 9, b.metric(t, "longhaul_podmetadata_pods"))
}

func TestWhatTheKubeletRefusesHoldsNothingUp(t *testing.T) {
	b := newBench(t, nil)
	b.kubelet.Refuse(http.StatusForbidden)
	require.Eventually(t, func() bool { return b.kubelet.Requests("/pods") > 0 }, 30*time.Second, 5*time.Millisecond)
	for range 1000 {
		b.process(t, "", attributes{"k8s.pod.uid": "nobody"})
	}
}

func TestWithoutAKubeletNothingIsTouched(t *testing.T) {
	b := newBench(t, func(c *Config) { *c = *createDefaultConfig().(*Config) })
	assert.Equal(t, checkout, b.process(t, "10.42.0.18", checkout))
	assert.False(t, b.logs.Capabilities().MutatesData)
	assert.Zero(t, b.kubelet.Requests("/pods"))
}

// All three signals share one source, which asks once.
func TestMetricsAndTracesAreNamedFromTheSameSource(t *testing.T) {
	b := newBench(t, nil)
	config := createDefaultConfig().(*Config)
	config.Kubelet.URL, config.Kubelet.CAFile, config.Kubelet.TokenFile = b.kubelet.URL, b.kubelet.CAFile, b.kubelet.TokenFile
	set := processortest.NewNopSettings(componentType)

	metricsSink, tracesSink := &consumertest.MetricsSink{}, &consumertest.TracesSink{}
	metrics, err := NewFactory().CreateMetrics(t.Context(), set, config, metricsSink)
	require.NoError(t, err)
	traces, err := NewFactory().CreateTraces(t.Context(), set, config, tracesSink)
	require.NoError(t, err)
	require.NoError(t, metrics.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, traces.Start(t.Context(), componenttest.NewNopHost()))
	defer func() { require.NoError(t, metrics.Shutdown(context.Background())) }()
	defer func() { require.NoError(t, traces.Shutdown(context.Background())) }()

	md, td := pmetric.NewMetrics(), ptrace.NewTraces()
	require.NoError(t, md.ResourceMetrics().AppendEmpty().Resource().Attributes().FromRaw(checkout))
	require.NoError(t, td.ResourceSpans().AppendEmpty().Resource().Attributes().FromRaw(checkout))
	require.NoError(t, metrics.ConsumeMetrics(t.Context(), md))
	require.NoError(t, traces.ConsumeTraces(t.Context(), td))
	want := b.process(t, "", checkout)
	assert.Equal(t, want, metricsSink.AllMetrics()[0].ResourceMetrics().At(0).Resource().Attributes().AsRaw())
	assert.Equal(t, want, tracesSink.AllTraces()[0].ResourceSpans().At(0).Resource().Attributes().AsRaw())
	require.Eventually(t, func() bool { // no request that this source did not make
		return b.metric(t, "longhaul_podmetadata_refreshes") == int64(b.kubelet.Requests("/pods"))
	}, 30*time.Second, 5*time.Millisecond)
}

func (b *bench) metric(t *testing.T, name string) (sum int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, b.reader.Collect(t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					sum += p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					sum += p.Value
				}
			}
		}
	}
	return sum
}

func BenchmarkResource(b *testing.B) {
	k := kubelettest.New(b)
	config := createDefaultConfig().(*Config)
	config.Kubelet.URL, config.Kubelet.CAFile, config.Kubelet.TokenFile = k.URL, k.CAFile, k.TokenFile
	p, err := newProcessor(processortest.NewNopSettings(componentType), config, "logs")
	require.NoError(b, err)
	require.NoError(b, p.start(b.Context(), nil))
	defer func() { _ = p.shutdown(context.Background()) }()
	logs := plog.NewLogs()
	resource := logs.ResourceLogs().AppendEmpty().Resource()
	require.NoError(b, resource.Attributes().FromRaw(checkout))
	p.name(b.Context(), resource)
	b.ReportAllocs()
	for b.Loop() {
		resource.Attributes().RemoveIf(func(name string, _ pcommon.Value) bool { _, own := checkout[name]; return !own })
		p.name(b.Context(), resource)
	}
}
