package lokiexporter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

func TestEntriesOfAStretchAreNeverFarApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := latePolicy{length: rapid.SampledFrom([]time.Duration{time.Hour, 30 * time.Minute, 45 * time.Minute, time.Minute}).Draw(t, "length")}
		a := rapid.Int64Range(-1e18, 4e18).Draw(t, "a")
		b := a + rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "later")
		start := p.stretch(a)
		require.NotZero(t, start)
		require.LessOrEqual(t, start, max(a, 1))
		require.GreaterOrEqual(t, p.stretch(b), start)
		if p.stretch(b) == start {
			require.Less(t, b-a, int64(p.length))
			require.Equal(t, stretchText(start), stretchText(p.stretch(b)))
		}
	})
	require.Equal(t, "2026-11-23T11", stretchText(latePolicy{length: time.Hour}.stretch(noon.UnixNano()-1)))
	require.Equal(t, "2026-11-23T11:30", stretchText(latePolicy{length: 30 * time.Minute}.stretch(noon.UnixNano()-1)))
}

// settingsServer shows a configuration of Loki and takes all pushes.
func settingsServer(t *testing.T, config, overrides *atomic.Value) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := ""
		switch r.URL.Path {
		case "/prefix/config":
			text, _ = config.Load().(string)
		case "/prefix/config/tenant/v1/limits":
			text, _ = overrides.Load().(string)
		default:
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if text == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(server.Close)
	return server
}

func settings(sharding bool, maxAge string) string {
	return fmt.Sprintf(`
ingester:
  max_chunk_age: 2h0m0s
limits_config:
  reject_old_samples: true
  reject_old_samples_max_age: %s
  creation_grace_period: 10m
  per_stream_rate_limit: 3MB
  per_stream_rate_limit_burst: 15MB
  shard_streams:
    time_sharding_enabled: %t
    time_sharding_ignore_recent: 40m0s
`, maxAge, sharding)
}

// probed starts an exporter whose log is kept.
func probed(t *testing.T, endpoint string, change func(*Config)) (*lokiExporter, *componenttest.Telemetry, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(component.MustNewType("loki"))
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint = endpoint
	if change != nil {
		change(cfg)
	}
	require.NoError(t, cfg.Validate())
	exp, err := newExporter(cfg, set)
	require.NoError(t, err)
	require.NoError(t, exp.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() {
		require.NoError(t, exp.Shutdown(context.Background()))
		require.NoError(t, telemetry.Shutdown(context.Background()))
	})
	select {
	case <-exp.late.first:
	case <-time.After(30 * time.Second):
		t.Fatal("the settings are not read")
	}
	return exp, telemetry, logs
}

func gauge[N int64 | float64](t *testing.T, telemetry *componenttest.Telemetry, name string) (value N) {
	t.Helper()
	m, err := telemetry.GetMetric(name)
	require.NoError(t, err)
	switch points := m.Data.(type) {
	case metricdata.Gauge[int64]:
		return N(points.DataPoints[0].Value)
	case metricdata.Gauge[float64]:
		return N(points.DataPoints[0].Value)
	}
	t.Fatalf("%s is not a gauge", name)
	return 0
}

func TestWhatLokiAcceptsIsReadAndTold(t *testing.T) {
	for name, c := range map[string]struct {
		config, mode string
		message      string
		level        zapcore.Level
		advice       []any
		label        bool
		sharding     int64
	}{
		"as it should be":    {settings(true, "1w"), lateAuto, "Loki takes late entries: it shards streams by time", zapcore.InfoLevel, nil, false, 1},
		"no time sharding":   {settings(false, "1w"), lateAuto, "Loki does not shard streams by time; entries older than 30m0s get the label backfill", zapcore.WarnLevel, []any{"limits_config.shard_streams.time_sharding_enabled: true"}, true, 0},
		"too young":          {settings(true, "3d"), lateAuto, "It refuses entries older than 72h0m0s, but spools may send them up to 168h0m0s late", zapcore.WarnLevel, []any{"limits_config.reject_old_samples_max_age: 168h"}, false, 1},
		"both":               {settings(false, "1d"), lateAuto, "older than 24h0m0s", zapcore.WarnLevel, []any{"limits_config.shard_streams.time_sharding_enabled: true", "limits_config.reject_old_samples_max_age: 168h"}, true, 0},
		"native, but is not": {settings(false, "1w"), lateNative, "late_data::mode is native: it will refuse", zapcore.WarnLevel, []any{"limits_config.shard_streams.time_sharding_enabled: true"}, false, 0},
		"label nevertheless": {settings(true, "1w"), lateLabel, "Loki takes late entries", zapcore.InfoLevel, nil, true, 1},
		"not shown":          {"", lateAuto, "is not known, because its settings cannot be read", zapcore.InfoLevel, nil, true, -1},
		"something else":     {"<html>login</html>", lateAuto, "is not known", zapcore.InfoLevel, nil, true, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var config, overrides atomic.Value
			config.Store(c.config)
			server := settingsServer(t, &config, &overrides)
			exp, telemetry, logs := probed(t, server.URL+"/prefix", func(cfg *Config) { cfg.LateData.Mode = c.mode })
			require.Len(t, logs.All(), 1)
			require.Contains(t, logs.All()[0].Message, c.message)
			require.Equal(t, c.level, logs.All()[0].Level)
			advice, _ := logs.All()[0].ContextMap()["change_in_loki"].([]any)
			require.Equal(t, c.advice, advice)
			require.Equal(t, c.label, exp.late.policy(noon, false).label)
			require.Equal(t, c.sharding, gauge[int64](t, telemetry, "longhaul_loki_time_sharding"))
		})
	}
}

func TestATenantsOwnSettingsCount(t *testing.T) {
	var config, own atomic.Value
	config.Store(settings(false, "1w"))
	own.Store("reject_old_samples_max_age: 2d\nshard_streams:\n  time_sharding_enabled: true\n  time_sharding_ignore_recent: 2400000000000\n")
	server := settingsServer(t, &config, &own)
	exp, telemetry, _ := probed(t, server.URL+"/prefix", nil)
	require.False(t, exp.late.policy(noon, false).label)
	require.Equal(t, noon.Add(-41*time.Minute).UnixNano(), exp.late.policy(noon, false).before)
	require.True(t, exp.late.policy(noon, true).label, "Loki did refuse what it should take")
	require.True(t, exp.late.policy(noon, true).risky)
	require.Equal(t, (48 * time.Hour).Seconds(), gauge[float64](t, telemetry, "longhaul_loki_oldest_accepted"))
}

func TestShortChunksMakeShortStretches(t *testing.T) {
	var config, overrides atomic.Value
	config.Store(strings.Replace(settings(false, "1w"), "2h0m0s", "1h", 1))
	server := settingsServer(t, &config, &overrides)
	exp, _, _ := probed(t, server.URL+"/prefix", nil)
	p := exp.late.policy(noon, false)
	require.Equal(t, 30*time.Minute, p.length)
	require.Equal(t, noon.Add(-15*time.Minute).UnixNano(), p.before, "with 10 minutes of a fast clock, and 5 in hand")
}

func TestSettingsAreReadAgainAfterARefusal(t *testing.T) {
	var config, overrides atomic.Value
	config.Store(settings(true, "1w"))
	server := settingsServer(t, &config, &overrides)
	exp, _, logs := probed(t, server.URL+"/prefix", nil)
	config.Store(settings(false, "1w"))
	exp.late.doubt()
	require.Eventually(t, func() bool { return exp.late.policy(noon, false).label }, 30*time.Second, time.Millisecond)
	require.Equal(t, 2, logs.Len())
	config.Store("") // not to be read for a moment: what was read stands
	exp.late.doubt()
	config.Store(settings(true, "1w"))
	exp.late.doubt()
	require.Eventually(t, func() bool { return !exp.late.policy(noon, false).label }, 30*time.Second, time.Millisecond)
}

func TestLateDataConfigReportsEveryBadKey(t *testing.T) {
	good := createDefaultConfig().(*Config).LateData
	require.NoError(t, good.Validate())
	bad := LateDataConfig{Mode: "x", Label: "__x", OldestExpected: -1}
	for _, key := range []string{"mode:", "label:", "oldest_expected:"} {
		require.ErrorContains(t, bad.Validate(), key)
	}
}

// backlogs makes calls with hours of backlog of a cluster's nodes, in pieces of
// random length, shuffled with live entries: as the relay gets them when nodes
// come back one after the other.
func backlogs(now time.Time, hours int) (calls []plog.Logs, lines []string) {
	random := rand.New(rand.NewPCG(1, 2))
	type piece struct {
		node  string
		lane  string
		times []time.Time
	}
	var pieces []piece
	for node := range 3 {
		at := now.Add(-time.Duration(hours) * time.Hour).Add(time.Duration(node) * time.Second)
		for at.Before(now.Add(-10 * time.Minute)) {
			p := piece{node: fmt.Sprint("node-", node), lane: "backlog"}
			for range 1 + random.IntN(30) {
				p.times = append(p.times, at)
				at = at.Add(time.Duration(1+random.IntN(60)) * time.Second)
			}
			pieces = append(pieces, p)
		}
		for i := range 20 {
			pieces = append(pieces, piece{node: fmt.Sprint("node-", node), times: []time.Time{now.Add(time.Duration(i) * time.Second)}})
		}
	}
	random.Shuffle(len(pieces), func(i, k int) { pieces[i], pieces[k] = pieces[k], pieces[i] })
	for len(pieces) > 0 {
		logs := plog.NewLogs()
		n := min(len(pieces), 1+random.IntN(6))
		for _, p := range pieces[:n] {
			attributes := map[string]any{"k8s.cluster.name": "store", "k8s.node.name": p.node, "service.name": "s"}
			if p.lane != "" {
				attributes[laneAttribute] = p.lane
			}
			scope := addLogs(logs, attributes)
			for _, at := range p.times {
				line := p.node + " " + at.Format(time.RFC3339Nano)
				addRecord(scope, at, line)
				lines = append(lines, line)
			}
		}
		pieces, calls = pieces[n:], append(calls, logs)
	}
	slices.Sort(lines)
	return calls, lines
}

func TestABacklogOfManyNodesLandsWhole(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]string{
		"without time sharding": "  shard_streams: {time_sharding_enabled: false}\n",
		"with time sharding":    withTimeSharding,
	} {
		eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
			t.Parallel()
			loki := startLoki(t, limits)
			exp := start(t, loki.url, nil)
			now := time.Now()
			calls, lines := backlogs(now, 6)
			for _, logs := range calls {
				require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
			}
			require.Empty(t, exp.rejected(t))
			require.Equal(t, int64(len(lines)), exp.sent(t))

			var got []string
			hours := make(map[string]bool)
			for _, e := range loki.query(t, `{cluster="store"}`, now.Add(-7*time.Hour), now.Add(5*time.Minute)) {
				got = append(got, e.line)
				hours[e.labels["backfill"]] = true
				require.NotContains(t, e.metadata, "longhaul_lane")
			}
			slices.Sort(got)
			require.Equal(t, lines, got)
			if name == "with time sharding" {
				require.Equal(t, map[string]bool{"": true}, hours)
			} else {
				require.True(t, hours[""])
				require.GreaterOrEqual(t, len(hours), 6)
				require.LessOrEqual(t, len(hours), 8)
			}
		})
	}
}

// Without the label, or time sharding, the same backlog loses most of itself:
// the proof that the test above proves something.
func TestWithoutALabelThatBacklogIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, "  shard_streams: {time_sharding_enabled: false}\n")
		exp := start(t, loki.url, func(cfg *Config) { cfg.LateData.Mode = lateNative })
		now := time.Now()
		calls, lines := backlogs(now, 6)
		for _, logs := range calls {
			_ = exp.ConsumeLogs(context.Background(), logs)
		}
		refused := exp.rejected(t)["too_far_behind"]
		require.Greater(t, refused, int64(len(lines)/2))
		found := loki.query(t, `{cluster="store"}`, now.Add(-7*time.Hour), now.Add(5*time.Minute))
		require.Len(t, found, len(lines)-int(refused), "each is counted exactly")
		require.Equal(t, int64(len(found)), exp.sent(t))
	})
}
