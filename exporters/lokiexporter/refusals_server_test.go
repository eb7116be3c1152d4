package lokiexporter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// What a real Loki refuses, and that it is counted exactly.

// mixed is a call with a stream for each reason of the distributor to refuse
// something, and one for nothing.
func mixed(now time.Time) plog.Logs {
	logs := plog.NewLogs()
	add := func(service string, ages ...time.Duration) plog.ScopeLogs {
		scope := addLogs(logs, map[string]any{"k8s.cluster.name": "c", "service.name": service})
		for i, age := range ages {
			addRecord(scope, now.Add(-age), fmt.Sprint(service, " ", i))
		}
		return scope
	}
	add("good", 0, time.Second, 2*time.Second)
	add("old", 0, 200*time.Hour, 300*time.Hour+time.Second, 300*time.Hour)
	add("new", time.Second, -time.Hour, -2*time.Hour)
	long := add("long", 0)
	addRecord(long, now, strings.Repeat("x", 20<<10))
	many := addRecord(add("many", 0), now, "many")
	for i := range 20 {
		many.Attributes().PutInt(fmt.Sprint("a", i), int64(i))
	}
	huge := addRecord(add("huge", 0), now, "huge")
	huge.Attributes().PutStr("huge", strings.Repeat("x", 20<<10))
	add(strings.Repeat("l", 200), 0, time.Second)
	return logs
}

var mixedRefusals = map[string]int64{
	"greater_than_max_sample_age": 3, "too_far_in_future": 2, "line_too_long": 1,
	"structured_metadata_too_many": 1, "structured_metadata_too_large": 1, "label_value_too_long": 2,
}

const mixedTaken = 3 + 1 + 1 + 1 + 1 + 1

const strictLimits = `
  shard_streams: {time_sharding_enabled: false}
  max_line_size: 16KB
  max_structured_metadata_entries_count: 15
  max_structured_metadata_size: 16KB
  max_label_value_length: 150
`

func TestAMixedRequestIsCountedByReason(t *testing.T) {
	t.Parallel()
	loki := startLoki(t, strictLimits)
	exp := start(t, loki.url, nil)
	now := time.Now()
	require.NoError(t, exp.ConsumeLogs(context.Background(), mixed(now)))
	require.Equal(t, mixedRefusals, exp.rejected(t))
	require.Equal(t, int64(mixedTaken), exp.sent(t))
	require.Len(t, loki.query(t, `{cluster="c"}`, now.Add(-400*time.Hour), now.Add(3*time.Hour)), mixedTaken)
}

func TestTenantsOfARealLokiFailApart(t *testing.T) {
	t.Parallel()
	loki := startMultiTenantLoki(t, "  shard_streams: {time_sharding_enabled: false}\n", `
overrides:
  small:
    max_global_streams_per_user: 1
  blocked:
    block_ingestion_until: 2100-01-01T00:00:00Z
  sharding:
    shard_streams: {time_sharding_enabled: true}
  slow:
    ingestion_rate_mb: 0.001
    ingestion_burst_size_mb: 0.00001
`)
	exp := start(t, loki.url, func(cfg *Config) {
		quick(cfg)
		cfg.Tenant.FromAttribute = "tenant"
		cfg.Tenant.Default = "rest"
	})
	now := time.Now()
	logs := plog.NewLogs()
	for _, tenant := range []string{"good", "small", "blocked", "sharding", "slow", ""} {
		for i := range 3 {
			scope := addLogs(logs, map[string]any{"tenant": tenant, "service.name": fmt.Sprint("s", i), "k8s.cluster.name": "c"})
			addRecord(scope, now, fmt.Sprint("line ", i))
			addRecord(scope, now.Add(-5*time.Hour), fmt.Sprint("late ", i))
			addRecord(scope, now.Add(-500*time.Hour), fmt.Sprint("too late ", i))
		}
	}
	var failed consumererror.Logs
	err := exp.ConsumeLogs(context.Background(), logs)
	require.True(t, errors.As(err, &failed), "%v", err)
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	resources := make(map[string]int)
	for _, r := range failed.Data().ResourceLogs().All() {
		resources[attributeText(r.Resource().Attributes(), "tenant")]++
	}
	require.Equal(t, map[string]int{"small": 3, "blocked": 3, "slow": 3}, resources)

	// Another attempt with what was given back changes nothing of what is known.
	rejected, sent := exp.rejected(t), exp.sent(t)
	require.ErrorIs(t, exp.ConsumeLogs(context.Background(), failed.Data()), deliver.ErrUnavailable)
	require.Equal(t, rejected, exp.rejected(t))
	require.Equal(t, sent, exp.sent(t))

	stored := 0
	for tenant, want := range map[string]int{"good": 6, "sharding": 6, "rest": 6, "small": 1, "blocked": 0, "slow": 0} {
		entries := loki.of(tenant).query(t, `{cluster="c"}`, now.Add(-600*time.Hour), now.Add(time.Minute))
		require.Len(t, entries, want, tenant)
		stored += len(entries)
		for _, e := range entries {
			require.Equal(t, strings.HasPrefix(e.line, "late"), e.labels["backfill"] != "", "%s: %s", tenant, e.line)
		}
	}
	require.Equal(t, int64(stored), sent)
	require.Equal(t, map[string]int64{"greater_than_max_sample_age": 4 * 3}, rejected)
}

func TestAStreamOverItsRateDoesNotLoseInSilence(t *testing.T) {
	t.Parallel()
	loki := startLoki(t, "  shard_streams: {enabled: false}\n  per_stream_rate_limit: 20KB\n  per_stream_rate_limit_burst: 20KB\n")
	exp := start(t, loki.url, func(cfg *Config) { quick(cfg); cfg.Retry.MaxElapsedTime = 30 * time.Second })
	now := time.Now()
	logs := plog.NewLogs()
	for i := range 4 {
		scope := addLogs(logs, map[string]any{"k8s.cluster.name": "c", "service.name": fmt.Sprint("s", i)})
		for k := range 15 { // twice the burst of a stream
			addRecord(scope, now.Add(time.Duration(k)), fmt.Sprint(i, k, strings.Repeat("x", 2<<10)))
		}
	}
	// Each call stores what Loki's rate lets through; nothing else is counted.
	for attempt := 0; ; attempt++ {
		err := exp.ConsumeLogs(context.Background(), logs)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, deliver.ErrUnavailable)
		require.ErrorContains(t, err, "stream rate limit")
		require.Less(t, attempt, 5)
		var failed consumererror.Logs
		if errors.As(err, &failed) {
			logs = failed.Data()
		}
	}
	require.Empty(t, exp.rejected(t))
	require.Equal(t, int64(60), exp.sent(t))
	require.Len(t, loki.query(t, `{cluster="c"}`, now.Add(-time.Minute), now.Add(time.Minute)), 60)
}
