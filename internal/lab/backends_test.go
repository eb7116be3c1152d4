package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend returns the binary of a backend, built if need be, which takes
// minutes the first time.
func backend(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the real backends; run without -short")
	}
	b := Builder{Progress: func(e Event) {
		if e.Stage != Ready {
			fmt.Fprintln(os.Stderr, e)
		}
	}}
	path, err := b.Binary(t.Context(), name)
	require.NoError(t, err)
	return path
}

func post(t *testing.T, url, contentType string, header http.Header, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Less(t, resp.StatusCode, 300, "%s: %s", resp.Status, answer)
}

func start(t *testing.T, p *Process) {
	t.Helper()
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
}

func TestLokiTakesLateEntriesAndGivesThemBackByPages(t *testing.T) {
	loki, err := NewLoki(LokiOptions{Binary: backend(t, "loki"), Dir: t.TempDir()})
	require.NoError(t, err)
	start(t, loki.Process)

	// 24 h late and live entries of one stream, more than two pages of them,
	// several to a timestamp.
	const entries = 2*lokiPageEntries + 5
	now := time.Now()
	late := now.Add(-24 * time.Hour).UnixNano()
	var values []string
	for i := range entries {
		values = append(values, fmt.Sprintf(`["%d","line %d\r"]`, late+int64(i/3), i))
	}
	push := func(values []string) {
		body := `{"streams":[{"stream":{"cluster":"store-0001"},"values":[` + strings.Join(values, ",") + `]}]}`
		post(t, loki.URL+"/loki/api/v1/push", "application/json", nil, []byte(body))
	}
	push([]string{fmt.Sprintf(`["%d","live",{"node":"a"}]`, now.UnixNano())})
	for len(values) > 0 {
		n := min(5000, len(values))
		push(values[:n])
		values = values[n:]
	}

	found, err := loki.Entries(t.Context(), `{cluster="store-0001"}`, now.Add(-48*time.Hour), now.Add(time.Minute))
	require.NoError(t, err)
	require.Len(t, found, entries+1)
	seen := make(map[string]int)
	for _, e := range found {
		seen[e.Line]++
	}
	for i := range entries {
		require.Equal(t, 1, seen[fmt.Sprintf("line %d\r", i)])
	}
	last := found[entries]
	require.Equal(t, LogEntry{Labels: map[string]string{"cluster": "store-0001"}, Metadata: map[string]string{"node": "a"}, Time: now.UnixNano(), Line: "live"}, last)
	clusters, err := loki.LabelValues(t.Context(), "cluster", now.Add(-48*time.Hour), now.Add(time.Minute))
	require.NoError(t, err)
	require.Equal(t, []string{"store-0001"}, clusters)
	count, err := loki.Metric(t.Context(), `sum(count_over_time({cluster="store-0001"}[5m]))`, now.Add(time.Second))
	require.NoError(t, err)
	require.Len(t, count, 1)
	require.Equal(t, 1.0, count[0].Samples[0].Value)
}

func TestPrometheusTakesOutOfOrderSamplesAndGivesThemBackRaw(t *testing.T) {
	prometheus, err := NewPrometheus(PrometheusOptions{Binary: backend(t, "prometheus"), Dir: t.TempDir()})
	require.NoError(t, err)
	start(t, prometheus.Process)

	now := time.Now()
	write := func(at time.Time, value float64) {
		r := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:    []prompb.Label{{Name: "__name__", Value: "orders"}, {Name: "cluster", Value: "store-0001"}},
			Samples:   []prompb.Sample{{Timestamp: at.UnixMilli(), Value: value}},
			Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "abc"}}, Value: value, Timestamp: at.UnixMilli()}},
		}}}
		b, err := r.Marshal()
		require.NoError(t, err)
		post(t, prometheus.URL+"/api/v1/write", "application/x-protobuf", http.Header{"Content-Encoding": {"snappy"}}, snappy.Encode(nil, b))
	}
	old := now.Add(-70 * time.Hour)
	write(now, 2.5)
	write(old, 1.25)

	raw, err := prometheus.RawSamples(t.Context(), `orders`, old.Add(-time.Second), now.Add(time.Second))
	require.NoError(t, err)
	require.Len(t, raw, 1)
	require.Equal(t, map[string]string{"__name__": "orders", "cluster": "store-0001"}, raw[0].Labels)
	require.Equal(t, []Sample{{old.UnixMilli(), 1.25}, {now.UnixMilli(), 2.5}}, raw[0].Samples)
	sets, err := prometheus.SeriesLabels(t.Context(), `{cluster="store-0001"}`, old, now)
	require.NoError(t, err)
	require.Len(t, sets, 1)
	exemplars, err := prometheus.Exemplars(t.Context(), `orders`, now.Add(-time.Minute), now.Add(time.Minute))
	require.NoError(t, err)
	require.Len(t, exemplars, 1)
	require.Equal(t, "abc", exemplars[0].Labels["trace_id"])
	scalar, err := prometheus.Query(t.Context(), `scalar(orders)`, now.Add(time.Second))
	require.NoError(t, err)
	require.Equal(t, 2.5, scalar[0].Samples[0].Value)
}

func TestJaegerGivesBackEverySpanAsStored(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
			jaeger, err := NewJaeger(JaegerOptions{Binary: backend(t, "jaeger"), Dir: t.TempDir(), Durable: durable})
			require.NoError(t, err)
			start(t, jaeger.Process)
			at := time.Now().Add(-30 * 24 * time.Hour)
			if durable {
				at = time.Now().Add(-time.Hour)
			}
			send := func(service, trace, span string) {
				body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
					"resource": map[string]any{"attributes": []any{map[string]any{"key": "service.name", "value": map[string]any{"stringValue": service}}}},
					"scopeSpans": []any{map[string]any{"spans": []any{map[string]any{
						"traceId": trace, "spanId": span, "name": "GET /", "kind": 2,
						"startTimeUnixNano": fmt.Sprint(at.UnixNano()), "endTimeUnixNano": fmt.Sprint(at.UnixNano() + 1e6),
					}}}},
				}}})
				require.NoError(t, err)
				post(t, jaeger.OTLPHTTP+"/v1/traces", "application/json", nil, body)
			}
			const one, two = "0102030405060708090a0b0c0d0e0f10", "0102030405060708090a0b0c0d0e0f11"
			send("front", one, "0000000000000001")
			send("back", one, "0000000000000002")
			send("back", two, "0000000000000003")
			if !durable { // badger overwrites by key
				send("back", two, "0000000000000003")
			}

			spans, err := jaeger.AllSpans(t.Context(), at.Add(-time.Hour), at.Add(time.Hour))
			require.NoError(t, err)
			count := make(map[string]int)
			for _, s := range spans {
				count[s.TraceID+"/"+s.SpanID+" "+s.Service]++
			}
			want := map[string]int{one + "/0000000000000001 front": 1, one + "/0000000000000002 back": 1, two + "/0000000000000003 back": 2}
			if durable {
				want[two+"/0000000000000003 back"] = 1
			}
			require.Equal(t, want, count)

			if durable {
				require.NoError(t, jaeger.Stop())
				require.NoError(t, jaeger.Start(t.Context()))
			}
			trace, err := jaeger.Trace(t.Context(), one)
			require.NoError(t, err)
			require.Len(t, trace, 2)
		})
	}
}

func TestReadyErrorShowsTheTailOfTheLog(t *testing.T) {
	dir := t.TempDir()
	loki, err := NewLoki(LokiOptions{Binary: backend(t, "loki"), Dir: dir})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "loki.yaml"), []byte("nonsense: true\n"), 0o644))
	err = loki.Start(context.Background())
	require.ErrorIs(t, err, ErrExited)
	require.ErrorContains(t, err, "nonsense")
	require.False(t, loki.Running())
}
