package orderapp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flakyCollector takes OTLP and refuses two of three requests.
type flakyCollector struct {
	ptraceotlp.UnimplementedGRPCServer
	calls   atomic.Int64
	refused atomic.Int64

	mu     sync.Mutex
	spans  map[string]int
	points int
}

func (c *flakyCollector) refuse() bool {
	if c.calls.Add(1)%3 == 0 {
		return false
	}
	c.refused.Add(1)
	return true
}

func (c *flakyCollector) Export(_ context.Context, req ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	if c.refuse() {
		return ptraceotlp.NewExportResponse(), status.Error(codes.Unavailable, "not now")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.Traces().ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				c.spans[s.TraceID().String()+"/"+s.SpanID().String()]++
			}
		}
	}
	return ptraceotlp.NewExportResponse(), nil
}

func (c *flakyCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || c.refuse() {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.points += req.Metrics().DataPointCount()
	for _, rm := range req.Metrics().ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Type() == pmetric.MetricTypeEmpty {
					c.points = -1 << 30
				}
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(nil)
}

func startFlakyCollector(t *testing.T) (c *flakyCollector, grpcAddr, httpAddr string) {
	c = &flakyCollector{spans: map[string]int{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gs := grpc.NewServer()
	ptraceotlp.RegisterGRPCServer(gs, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = gs.Serve(ln) }()
	hs := httptest.NewServer(c)
	t.Cleanup(func() { gs.Stop(); <-done; hs.Close() })
	return c, ln.Addr().String(), strings.TrimPrefix(hs.URL, "http://")
}

func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	return ln.Addr().String()
}

// TestEveryAcceptedItemIsInTheLedgerOnce runs the application against a
// collector that refuses most requests and holds the ledger against what the
// collector and the log files have.
func TestEveryAcceptedItemIsInTheLedgerOnce(t *testing.T) {
	col, grpcAddr, httpAddr := startFlakyCollector(t)
	dir := t.TempDir()
	cfg := Config{
		Run: "r1", Cluster: "store-0001", OTLPGRPC: grpcAddr, OTLPHTTP: httpAddr, PodLogsDir: filepath.Join(dir, "pods"),
		ControlAddr: freeAddr(t), LedgerPath: filepath.Join(dir, "ledger"), Rate: 40, MetricsInterval: 200 * time.Millisecond,
		RotateBytes: 16 << 10, RotateKeep: 1000, Logger: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(method, path string) (s Snapshot, err error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+cfg.ControlAddr+path, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return s, err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return s, fmt.Errorf("status %s", resp.Status)
		}
		return s, json.NewDecoder(resp.Body).Decode(&s)
	}
	require.Eventually(t, func() bool { s, err := get("GET", "/counts"); return err == nil && s.Orders >= 60 }, 30*time.Second, 50*time.Millisecond)
	final, err := get("POST", "/finish")
	require.NoError(t, err)
	require.False(t, final.Running)
	require.Equal(t, final.Logs.Made, final.Logs.Accepted)
	require.Equal(t, final.Traces.Made, final.Traces.Accepted)
	require.Equal(t, final.Metrics.Made, final.Metrics.Accepted)
	require.Positive(t, col.refused.Load(), "the collector must have refused something")
	require.Positive(t, final.Retries)

	again, err := get("POST", "/finish")
	require.NoError(t, err)
	require.Equal(t, final, again, "finish twice must not make new items")

	var logs, spans, points int
	services := map[string]int64{}
	types := map[PointType]bool{}
	require.NoError(t, ReadLedger(cfg.LedgerPath, func(e Entry) error {
		switch e.Kind {
		case KindLog:
			logs++
			services[e.Service]++
			require.Equal(t, services[e.Service], e.Seq)
		case KindSpan:
			spans++
			require.Equal(t, 1, col.spans[e.TraceID+"/"+e.SpanID])
		case KindPoint:
			points++
			types[e.Point.Type] = true
		}
		return nil
	}))
	require.EqualValues(t, final.Logs.Accepted, logs)
	require.EqualValues(t, final.Traces.Accepted, spans)
	require.EqualValues(t, final.Metrics.Accepted, points)
	require.Len(t, col.spans, spans)
	require.Equal(t, col.points, points)
	require.Len(t, services, len(Services))
	require.Len(t, types, 5, "all types of points are made: %v", types)

	read := readCRI(t, cfg.PodLogsDir)
	require.Len(t, read, logs)
	var long, split int
	for _, l := range read {
		if len(l.text) > criPartBytes {
			long++
		}
		split += l.parts - 1
		var head Line
		require.NoError(t, json.Unmarshal([]byte(l.text), &head))
		require.Equal(t, "r1", head.Run)
	}
	require.Positive(t, long)
	require.Positive(t, split)

	cancel()
	require.NoError(t, <-ended)
}

func TestValidateReportsEveryProblem(t *testing.T) {
	err := (&Config{RotateBytes: 1}).Validate()
	require.Error(t, err)
	for _, key := range []string{"run:", "cluster:", "otlp-grpc:", "otlp-http:", "pod-logs:", "control:", "rate:", "metrics-interval:", "rotate-bytes:", "rotate-keep:"} {
		require.ErrorContains(t, err, key)
	}
}
