package prometheusexporter

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// running is a started exporter with its self-telemetry.
type running struct {
	exporter.Metrics
	telemetry    *componenttest.Telemetry
	fromRequests bool
}

func start(t testing.TB, endpoint string, change func(*Config)) running {
	t.Helper()
	return startLogging(t, endpoint, zap.NewNop(), change)
}

func startLogging(t testing.TB, endpoint string, logger *zap.Logger, change func(*Config)) running {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(component.MustNewType("prometheus"))
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	set.Logger = logger
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint = endpoint
	if change != nil {
		change(cfg)
	}
	require.NoError(t, cfg.Validate())
	exp, err := NewFactory().CreateMetrics(context.Background(), set, cfg)
	require.NoError(t, err)
	require.NoError(t, exp.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() {
		require.NoError(t, exp.Shutdown(context.Background()))
		require.NoError(t, telemetry.Shutdown(context.Background()))
	})
	return running{exp, telemetry, fromRequests(t)}
}

// counter returns a counter of the exporter by reason; "" holds the value
// without one.
func (r running) counter(t fataler, name string) map[string]int64 {
	t.Helper()
	values := make(map[string]int64)
	m, err := r.telemetry.GetMetric(name)
	if err != nil {
		return values // nothing counted yet
	}
	for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
		reason, _ := point.Attributes.Value("reason")
		values[reason.AsString()] += point.Value
	}
	return values
}

func addMetrics(md pmetric.Metrics, attributes map[string]any) pmetric.ScopeMetrics {
	resource := md.ResourceMetrics().AppendEmpty()
	_ = resource.Resource().Attributes().FromRaw(attributes)
	return resource.ScopeMetrics().AppendEmpty()
}

func addGauge(scope pmetric.ScopeMetrics, name string, at time.Time, value float64) pmetric.NumberDataPoint {
	m := scope.Metrics().AppendEmpty()
	m.SetName(name)
	point := m.SetEmptyGauge().DataPoints().AppendEmpty()
	point.SetTimestamp(pcommon.NewTimestampFromTime(at))
	point.SetDoubleValue(value)
	return point
}

func edge() map[string]any {
	return map[string]any{
		"k8s.cluster.name": "store-0001", "k8s.node.name": "node-a", "k8s.namespace.name": "orders", "k8s.pod.name": "api-7c9",
		"k8s.container.name": "api", "service.name": "api", "service.namespace": "shop", "service.instance.id": "api-7c9", "os.type": "linux",
	}
}

func TestInstrumentedMetricsGetTheLabelsOfTheirResource(t *testing.T) {
	prometheus := startPrometheus(t, lateData)
	exp := start(t, prometheus.writeURL(), nil)
	now := time.Now().Truncate(time.Millisecond)

	md := pmetric.NewMetrics()
	scope := addMetrics(md, edge())
	addGauge(scope, "queue.length", now, 3).Attributes().PutStr("http.route", "/orders")
	sum := scope.Metrics().AppendEmpty()
	sum.SetName("http.requests")
	sum.SetUnit("s")
	counter := sum.SetEmptySum()
	counter.SetIsMonotonic(true)
	counter.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	point := counter.DataPoints().AppendEmpty()
	point.SetTimestamp(pcommon.NewTimestampFromTime(now))
	point.SetStartTimestamp(pcommon.NewTimestampFromTime(now.Add(-time.Hour)))
	point.SetIntValue(42)
	point.Attributes().PutStr("node", "theirs")
	require.NoError(t, exp.ConsumeMetrics(context.Background(), md))

	stored := make(map[string]map[string]string)
	for _, s := range prometheus.read(t, now.Add(-time.Minute), now.Add(time.Minute), ".+") {
		require.Equal(t, now.UnixMilli(), s.Samples[0].Timestamp)
		stored[labelsOf(s)["__name__"]] = labelsOf(s, "__name__")
	}
	own := func(more ...string) map[string]string {
		labels := map[string]string{
			"job": "shop/api", "instance": "api-7c9", "cluster": "store-0001", "node": "node-a",
			"namespace": "orders", "pod": "api-7c9", "container": "api",
		}
		for i := 0; i < len(more); i += 2 {
			labels[more[i]] = more[i+1]
		}
		return labels
	}
	require.Equal(t, map[string]map[string]string{
		"queue_length":                own("http_route", "/orders"),
		"http_requests_seconds_total": own("exported_node", "theirs"),
		"target_info":                 own("os_type", "linux"),
	}, stored)
	require.Equal(t, map[string]int64{"": 3}, exp.counter(t, "longhaul_prometheus_samples_sent"))
}
