package lokiexporter

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// running is a started exporter with its self-telemetry.
type running struct {
	exporter.Logs
	telemetry *componenttest.Telemetry
	way       way
}

func start(t *testing.T, endpoint string, change func(*Config)) running {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(component.MustNewType("loki"))
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint = endpoint
	if change != nil {
		change(cfg)
	}
	require.NoError(t, cfg.Validate())
	exp, err := NewFactory().CreateLogs(context.Background(), set, cfg)
	require.NoError(t, err)
	require.NoError(t, exp.Start(context.Background(), componenttest.NewNopHost()))
	select { // a busy machine must not decide whether Loki's settings are known
	case <-exp.(*lokiExporter).late.first:
	case <-time.After(time.Minute):
		t.Fatal("no attempt to read Loki's settings has ended")
	}
	t.Cleanup(func() {
		require.NoError(t, exp.Shutdown(context.Background()))
		require.NoError(t, telemetry.Shutdown(context.Background()))
	})
	return running{Logs: exp, telemetry: telemetry}
}

func addLogs(logs plog.Logs, attributes map[string]any) plog.ScopeLogs {
	resource := logs.ResourceLogs().AppendEmpty()
	_ = resource.Resource().Attributes().FromRaw(attributes)
	return resource.ScopeLogs().AppendEmpty()
}

func addRecord(scope plog.ScopeLogs, at time.Time, body string) plog.LogRecord {
	record := scope.LogRecords().AppendEmpty()
	record.SetTimestamp(pcommon.NewTimestampFromTime(at))
	record.Body().SetStr(body)
	return record
}

func TestEntriesReachLokiWithLabelsAndMetadata(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, withTimeSharding)
		exp := start(t, loki.url, nil)
		now := time.Now()

		logs := plog.NewLogs()
		scope := addLogs(logs, map[string]any{
			"k8s.cluster.name": "store-0001", "k8s.node.name": "node-a", "k8s.namespace.name": "orders",
			"k8s.container.name": "api", "k8s.pod.name": "api-7c9",
		})
		scope.Scope().SetName("orders/log")
		scope.Scope().SetVersion("1.2.3")
		for i := range 100 {
			record := addRecord(scope, now.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("line %d", i))
			record.SetSeverityNumber(plog.SeverityNumberInfo)
			record.SetTraceID(pcommon.TraceID{1, 2, 3})
			record.SetSpanID(pcommon.SpanID{4, 5})
			record.SetObservedTimestamp(pcommon.NewTimestampFromTime(now.Add(time.Hour)))
			require.NoError(t, record.Attributes().FromRaw(map[string]any{
				"http":        map[string]any{"method": "GET", "status": 200},
				"cluster":     "spoofed",
				"2nd-attempt": true,
				"list":        []any{"a", 1},
			}))
		}
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))

		entries := loki.query(t, `{cluster="store-0001"}`, now.Add(-time.Minute), now.Add(time.Minute))
		require.Len(t, entries, 100)
		for i, entry := range entries {
			require.Equal(t, fmt.Sprintf("line %d", i), entry.line)
			require.Equal(t, now.Add(time.Duration(i)*time.Millisecond).UnixNano(), entry.at)
			require.Equal(t, map[string]string{
				"cluster": "store-0001", "namespace": "orders", "container": "api", "service_name": "api", "level": "info",
			}, withoutKey(entry.labels, "__time_shard__"))
			require.Equal(t, map[string]string{
				"trace_id": "01020300000000000000000000000000", "span_id": "0405000000000000", "severity_number": "9",
				"observed_timestamp": fmt.Sprint(now.Add(time.Hour).UnixNano()),
				"http_method":        "GET", "http_status": "200", "cluster_2": "spoofed", "key_2nd_attempt": "true", "list": `["a",1]`,
				"scope_name": "orders/log", "scope_version": "1.2.3",
				"k8s_node_name": "node-a", "k8s_pod_name": "api-7c9", "detected_level": "info",
			}, entry.metadata)
		}
	})
}

// A collector that is killed reads lines again that it had handed on. They come in
// one call with the first ones or in another; Loki stores equal entries once.
func TestLinesThatAreReadAgainAreStoredOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, withTimeSharding)
		exp := start(t, loki.url, nil)
		now := time.Now()
		logs := plog.NewLogs()
		read := func(seen time.Time) {
			scope := addLogs(logs, map[string]any{"k8s.cluster.name": "store-0001", "k8s.container.name": "api"})
			scope.Scope().SetName(readScope)
			for i := range 100 {
				record := addRecord(scope, now.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("line %d", i))
				record.SetObservedTimestamp(pcommon.NewTimestampFromTime(seen))
			}
		}
		read(now.Add(time.Second))
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		read(now.Add(2 * time.Second))
		read(now.Add(3 * time.Second))
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		entries := loki.query(t, `{cluster="store-0001"}`, now.Add(-time.Minute), now.Add(time.Minute))
		require.Equal(t, 100, len(entries))
	})
}

func withoutKey(m map[string]string, key string) map[string]string {
	copied := make(map[string]string, len(m))
	for k, v := range m {
		if k != key {
			copied[k] = v
		}
	}
	return copied
}
