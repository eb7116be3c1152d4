package lokiexporter

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

	"github.com/longhaul/longhaul/internal/direct"
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

func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// fleetPieces makes what the relay takes of container logs in one delivery: a frame of
// each node, with 50 lines of 8 containers.
func fleetPieces(t testing.TB, first, nodes int, newest time.Time) (pieces []direct.Piece) {
	const lines, containers = 50, 8
	corpus := corpusLines(t)
	for i := first; i < first+nodes; i++ {
		logs := plog.NewLogs()
		for c := range containers {
			resource := logs.ResourceLogs().AppendEmpty()
			name := fmt.Sprintf("app-%d", c)
			require.NoError(t, resource.Resource().Attributes().FromRaw(map[string]any{
				"k8s.namespace.name": "shop", "k8s.pod.name": name + "-7d9f8b6c5d-x2x9z", "k8s.pod.uid": fmt.Sprintf("0b5e4c1e-9d3a-4f5e-8a77-%012d", i*containers+c),
				"k8s.container.name": name, "k8s.container.restart_count": 0, "k8s.deployment.name": name, "service.name": name, "service.version": "1.17.3",
			}))
			records := resource.ScopeLogs().AppendEmpty().LogRecords()
			text := corpus[(i+c)%len(corpus)]
			for k := c; k < lines; k += containers {
				record := records.AppendEmpty()
				at := newest.Add(-time.Duration(lines-k)*20*time.Millisecond + time.Duration(i)*time.Microsecond)
				record.SetTimestamp(pcommon.NewTimestampFromTime(at))
				record.SetObservedTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Millisecond)))
				record.Body().SetStr(text[(i*lines+k)%len(text)])
				record.Attributes().PutStr("log.iostream", "stdout")
				if k%5 != 0 {
					record.SetSeverityNumber(plog.SeverityNumberInfo)
					record.SetSeverityText("INFO")
				}
			}
		}
		request, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
		require.NoError(t, err)
		pieces = append(pieces, direct.Piece{OTLP: request, Cluster: fmt.Sprintf("store-%04d", i/3), Node: fmt.Sprintf("store-%04d-node-%d", i/3, i%3)})
	}
	return pieces
}

// Benchmarks deliver a fleet of this size in turns: as many nodes as bring each stream
// less than Loki's limit for one.
const (
	fleetCalls = 8
	fleetNodes = 400 // a call
)

// benchmarkFleet reports what a call costs for each of its records. A collector that
// runs all the time reuses its memory: the first round does not count.
func benchmarkFleet(b *testing.B, consume func(call int) error) {
	for i := range fleetCalls {
		require.NoError(b, consume(i))
	}
	const records = fleetNodes * 50
	n := 0
	var mallocs, bytes uint64
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	mallocs, bytes = memory.Mallocs, memory.TotalAlloc
	b.ResetTimer()
	before := cpuSeconds()
	for b.Loop() {
		if err := consume(n % fleetCalls); err != nil {
			b.Fatal(err)
		}
		n++
	}
	all := records * float64(n)
	b.ReportMetric((cpuSeconds()-before)*1e9/all, "cpu-ns/record")
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.Mallocs-mallocs)/all, "allocs/record")
	b.ReportMetric(float64(memory.TotalAlloc-bytes)/all, "B/record")
}

// BenchmarkTranslate is from the bytes of frames to the bodies of push requests.
func BenchmarkTranslate(b *testing.B) {
	cfg := createDefaultConfig().(*Config)
	translator := &translator{tenant: &cfg.Tenant, labels: newStreamLabels(cfg), maxLineSize: int(cfg.MaxLineSize), now: time.Now}
	var calls [fleetCalls][]input
	for i := range calls {
		list := fleetPieces(b, i*fleetNodes, fleetNodes, time.Now())
		for k := range list {
			calls[i] = append(calls[i], input{list[k].OTLP, &list[k]})
		}
	}
	tenant := &tenantState{guard: newGuard(cfg.Cardinality.bounds(translator.labels.rules), time.Hour, time.Now, func(int, bool, int) {})}
	open := func(string) *share {
		return &share{tenant: tenant, batch: batches.Get().(*batch), late: latePolicy{before: time.Now().Add(-time.Hour).UnixNano()}}
	}
	benchmarkFleet(b, func(call int) error {
		shares, err := translator.translate(calls[call], open)
		if err != nil {
			return err
		}
		d := delivery{batch: shares[0].batch}
		plan := planner{maxBytes: int(cfg.MaxRequestSize), now: time.Now(), recent: &tenant.recent, rate: defaultStreamRate}
		for _, r := range plan.pack(plan.split(d.batch)) {
			d.encode(r)
		}
		d.batch.release()
		return nil
	})
}

// BenchmarkConsume sends to a server in the same process that reads and counts; its
// share of the CPU is in the figures.
func BenchmarkConsume(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint = server.URL
	exp, err := NewFactory().CreateLogs(context.Background(), exportertest.NewNopSettings(component.MustNewType("loki")), cfg)
	require.NoError(b, err)
	require.NoError(b, exp.Start(context.Background(), componenttest.NewNopHost()))
	defer func() { require.NoError(b, exp.Shutdown(context.Background())) }()
	var calls [fleetCalls][]direct.Piece
	for i := range calls {
		calls[i] = fleetPieces(b, i*fleetNodes, fleetNodes, time.Now())
	}
	b.Run("requests", func(b *testing.B) {
		benchmarkFleet(b, func(call int) error {
			return exp.(direct.Consumer).ConsumeOTLP(context.Background(), calls[call])
		})
	})
	// What the way by pdata costs: objects are made of the requests, and origins
	// written into them, before the exporter has them.
	b.Run("pdata", func(b *testing.B) {
		benchmarkFleet(b, func(call int) error {
			all := plog.NewLogs()
			for i := range calls[call] {
				one, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(calls[call][i].OTLP)
				if err != nil {
					return err
				}
				for _, r := range one.ResourceLogs().All() {
					r.Resource().Attributes().PutStr(direct.ClusterAttribute, calls[call][i].Cluster)
					r.Resource().Attributes().PutStr(direct.NodeAttribute, calls[call][i].Node)
				}
				one.ResourceLogs().MoveAndAppendTo(all.ResourceLogs())
			}
			return exp.ConsumeLogs(context.Background(), all)
		})
	})
}
