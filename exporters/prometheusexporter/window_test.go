package prometheusexporter

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// observed starts an exporter and returns what it logs.
func observed(t *testing.T, endpoint string, change func(*Config)) (running, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	return startLogging(t, endpoint, zap.New(core), change), logs
}

func (r running) window(t *testing.T) (float64, bool) {
	t.Helper()
	m, err := r.telemetry.GetMetric("longhaul_prometheus_out_of_order_window")
	if err != nil {
		return 0, false
	}
	return m.Data.(metricdata.Gauge[float64]).DataPoints[0].Value, true
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, time.Minute, 10*time.Millisecond)
}

func TestARealPrometheussWindowIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		window time.Duration
		warns  int
	}{
		"none":        {"", 0, 1},
		"too short":   {"storage: {tsdb: {out_of_order_time_window: 1h30m}}\n", 90 * time.Minute, 1},
		"long enough": {lateData, 72 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prometheus := startPrometheus(t, c.config)
			exp, logs := observed(t, prometheus.writeURL(), nil)
			eventually(t, func() bool {
				window, known := exp.window(t)
				return known && window == c.window.Seconds()
			})
			eventually(t, func() bool { return logs.Len() > 0 })
			warnings := logs.FilterLevelExact(zapcore.WarnLevel).All()
			require.Len(t, warnings, c.warns)
			for _, warning := range warnings {
				require.Contains(t, warning.Message, "Set storage.tsdb.out_of_order_time_window")
				require.Equal(t, "3d", warning.ContextMap()["expected_outage"])
			}
		})
	}
}

func TestTheWindowIsCheckedAgainWhenTheServerWasAway(t *testing.T) {
	var down atomic.Bool
	var asked atomic.Int64
	var window atomic.Value
	window.Store("1h")
	down.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/api/v1/status/config":
			asked.Add(1)
			fmt.Fprintf(w, `{"data":{"yaml":"storage:\n  tsdb:\n    out_of_order_time_window: %s\n"}}`, window.Load())
		default:
			w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1")
		}
	}))
	defer server.Close()
	exp, logs := observed(t, server.URL+writePath, quick)
	consume := func() error { return exp.ConsumeMetrics(context.Background(), gaugesOf(1)) }
	require.Error(t, consume(), "a server that is away holds nothing up")
	down.Store(false)
	require.NoError(t, consume())
	eventually(t, func() bool { return logs.FilterLevelExact(zapcore.WarnLevel).Len() == 1 })
	n := asked.Load()
	require.NoError(t, consume())
	require.Equal(t, n, asked.Load(), "not with every call")

	down.Store(true)
	require.Error(t, consume())
	window.Store("5d") // corrected, and restarted
	down.Store(false)
	require.NoError(t, consume())
	eventually(t, func() bool {
		value, _ := exp.window(t)
		return value == (120 * time.Hour).Seconds()
	})
	eventually(t, func() bool { return logs.FilterMessageSnippet("takes samples as old").Len() == 1 })
	require.Equal(t, 1, logs.FilterLevelExact(zapcore.WarnLevel).Len())
}

func TestAServerThatDoesNotTellItsWindowIsSaidOnce(t *testing.T) {
	server := serveWrites(t, func(write, http.ResponseWriter) {})
	exp, logs := observed(t, server.URL+"/api/v1/push", quick)
	eventually(t, func() bool { return logs.FilterMessageSnippet("is not known").Len() == 1 })
	exp.Metrics.(*prometheusExporter).window.noticed(context.Canceled)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(1)))
	_, known := exp.window(t)
	require.False(t, known)
	require.Equal(t, 1, logs.Len())

	_, silent := observed(t, server.URL, func(cfg *Config) { quick(cfg); cfg.ExpectedOutage = 0 })
	require.Zero(t, silent.Len())
}

// VictoriaMetrics answers the same path with what it scrapes.
func TestAConfigurationThatIsNotPrometheussIsNoWindowOfZero(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/status/config" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"yaml":"scrape_configs: []"}}`)
	}))
	defer server.Close()
	_, logs := observed(t, server.URL+writePath, quick)
	eventually(t, func() bool { return logs.FilterMessageSnippet("is not known").Len() == 1 })
	require.Zero(t, logs.FilterLevelExact(zapcore.WarnLevel).Len())
}

func TestConfigurationsOfOtherServersAreNotTaken(t *testing.T) {
	for _, body := range []string{"", "<html>", "{}", `{"data":{"yaml":": :"}}`, `{"data":{"yaml":"storage: {tsdb: {out_of_order_time_window: soon}}"}}`} {
		_, err := parseWindow([]byte(body))
		require.ErrorIs(t, err, errUntold, body)
	}
	window, err := parseWindow([]byte(`{"data":{"yaml":"global: {}"}}`))
	require.NoError(t, err)
	require.Zero(t, window, "Prometheus's default")
}
