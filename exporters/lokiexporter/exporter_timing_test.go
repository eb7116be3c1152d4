package lokiexporter

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// corpusLines returns the real log lines of the end-to-end tests.
func corpusLines(t testing.TB) [][]string {
	t.Helper()
	files, err := filepath.Glob("../../test/e2e/testdata/logs/*.log.zst")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	decoder, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer decoder.Close()
	var all [][]string
	for _, file := range files {
		packed, err := os.ReadFile(file)
		require.NoError(t, err)
		text, err := decoder.DecodeAll(packed, nil)
		require.NoError(t, err)
		all = append(all, strings.Split(strings.TrimSpace(string(text)), "\n"))
	}
	return all
}

// fleetLogs makes what the relay coalesces of container logs: each resource is
// a container with 50 lines.
func fleetLogs(t testing.TB, first, resources int, newest time.Time) plog.Logs {
	corpus := corpusLines(t)
	logs := plog.NewLogs()
	for i := first; i < first+resources; i++ {
		lines, cluster, node := corpus[i%len(corpus)], i/30, i/10%3
		resource := logs.ResourceLogs().AppendEmpty()
		name := fmt.Sprintf("app-%d", i%10)
		require.NoError(t, resource.Resource().Attributes().FromRaw(map[string]any{
			"k8s.cluster.name": fmt.Sprintf("store-%04d", cluster), "k8s.node.name": fmt.Sprintf("store-%04d-node-%d", cluster, node),
			"k8s.namespace.name": "shop", "k8s.pod.name": name + "-7d9f8b6c5d-x2x9z", "k8s.pod.uid": fmt.Sprintf("0b5e4c1e-9d3a-4f5e-8a77-%012d", i),
			"k8s.container.name": name, "k8s.container.restart_count": 0, "k8s.deployment.name": name, "service.name": name,
			"service.version": "1.17.3", "k8s.pod.label.app.kubernetes.io/name": name, "log.file.path": "/var/log/pods/shop_" + name + "/0.log",
		}))
		records := resource.ScopeLogs().AppendEmpty().LogRecords()
		for k := range 50 {
			record := records.AppendEmpty()
			at := newest.Add(-time.Duration(50-k)*20*time.Millisecond + time.Duration(i)*time.Microsecond)
			record.SetTimestamp(pcommon.NewTimestampFromTime(at))
			record.SetObservedTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Millisecond)))
			record.Body().SetStr(lines[(i*50+k)%len(lines)])
			record.Attributes().PutStr("log.iostream", "stdout")
			if k%5 != 0 {
				record.SetSeverityNumber(plog.SeverityNumberInfo)
				record.SetSeverityText("INFO")
			}
		}
	}
	return logs
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// BenchmarkConsumeLogs sends to a server in the same process that reads and
// counts; its share of the CPU is in the figures.
func BenchmarkConsumeLogs(b *testing.B) {
	var bytes atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		bytes.Add(n)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint = server.URL
	exp, err := NewFactory().CreateLogs(context.Background(), exportertest.NewNopSettings(component.MustNewType("loki")), cfg)
	require.NoError(b, err)
	require.NoError(b, exp.Start(context.Background(), componenttest.NewNopHost()))
	defer func() { require.NoError(b, exp.Shutdown(context.Background())) }()
	// As many streams as bring each of them less than Loki's limit for one.
	const calls, resources = 12, 300
	var fleet [calls]plog.Logs
	for i := range fleet {
		fleet[i] = fleetLogs(b, i*resources, resources, time.Now())
		require.NoError(b, exp.ConsumeLogs(context.Background(), fleet[i]))
	}
	bytes.Store(0)
	records, n := float64(fleet[0].LogRecordCount()), 0
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuSeconds()
	for b.Loop() {
		if err := exp.ConsumeLogs(context.Background(), fleet[n%calls]); err != nil {
			b.Fatal(err)
		}
		n++
	}
	cpu := cpuSeconds() - before
	b.ReportMetric(records*float64(n)/cpu, "records/cpu-s")
	b.ReportMetric(float64(bytes.Load())/records/float64(n), "B/record")
}
