package lokiexporter

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
)

func TestALabelWithTooManyValuesIsDemotedAndComesBack(t *testing.T) {
	now := noon
	var turns []string
	g := newGuard([]int{10, 0}, time.Hour, func() time.Time { return now }, func(rule int, down bool, values int) {
		turns = append(turns, fmt.Sprint(rule, " ", down, " ", values))
	})
	see := func(first, n int) (last labelSet) {
		for i := range n {
			last = g.see([]string{fmt.Sprint(first + i), fmt.Sprint(first + i)})
		}
		return last
	}
	require.Zero(t, see(0, 10))
	require.Zero(t, see(0, 10), "the same ones again")
	require.Zero(t, g.see([]string{"", "x"}), "no value is none")
	require.Equal(t, labelSet(1), see(10, 1), "the second label has no bound")
	require.Equal(t, labelSet(1), see(0, 1))
	require.Equal(t, []string{"0 true 11"}, turns)

	for range 8 { // it goes on like that: each generation has few, but two have many
		now = now.Add(31 * time.Minute)
		require.Equal(t, labelSet(1), see(int(now.Unix()), 6))
	}
	// Calm: at most half of the bound for a window.
	for range 3 {
		now = now.Add(30 * time.Minute)
		require.Equal(t, labelSet(1), see(0, 3))
	}
	for range 2 {
		now = now.Add(30 * time.Minute)
		see(0, 3)
	}
	require.Zero(t, see(0, 3))
	require.Equal(t, []string{"0 true 11", "0 false 3"}, turns)
	require.Equal(t, labelSet(1), see(100, 20), "and demoted again")
}

func TestValuesAreForgottenAfterTheWindow(t *testing.T) {
	now := noon
	g := newGuard([]int{10}, time.Hour, func() time.Time { return now }, func(int, bool, int) { t.Error("nothing changes") })
	for i := range 100 { // 8 of 10 values at a time
		require.Zero(t, g.see([]string{fmt.Sprint(i)}))
		now = now.Add(8 * time.Minute)
	}
}

func TestTheGuardsMemoryIsBounded(t *testing.T) {
	g := newGuard([]int{100}, time.Hour, time.Now, func(int, bool, int) {})
	for i := range 100_000 {
		g.see([]string{fmt.Sprint(i)})
	}
	require.LessOrEqual(t, len(g.labels[0].young)+len(g.labels[0].old), 202)
}

func TestADemotedLabelsValueIsKeptUnderItsName(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) })
		exp := start(t, server.URL, func(cfg *Config) {
			quick(cfg)
			cfg.Cardinality.MaxValues = 3
		})
		for i := range 5 {
			logs := plog.NewLogs()
			for _, attribute := range []string{"k8s.container.name", "k8s.namespace.name", "service.name", "k8s.cluster.name"} {
				scope := addLogs(logs, map[string]any{attribute: fmt.Sprint("v", i)})
				addRecord(scope, time.Now(), fmt.Sprint(attribute, i))
			}
			require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		}
		require.Equal(t, map[string]int64{"container": 1, "namespace": 1, "service_name": 1}, exp.counter(t, "longhaul_loki_labels_demoted", "label"),
			"the number of clusters has no bound")
		of := func(line string) (string, map[string]string) { return server.labels[line], server.metadata[line] }
		labels, metadata := of("k8s.namespace.name0")
		require.Equal(t, `{namespace="v0", service_name="unknown_service"}`, labels)
		require.Empty(t, metadata)
		labels, metadata = of("k8s.namespace.name4")
		require.Equal(t, `{service_name="unknown_service"}`, labels)
		require.Equal(t, map[string]string{"namespace": "v4"}, metadata)
		labels, metadata = of("k8s.container.name4")
		require.Equal(t, `{service_name="unknown_service"}`, labels, "which the container's name made as well")
		require.Equal(t, map[string]string{"container": "v4"}, metadata)
		labels, metadata = of("service.name4")
		require.Equal(t, `{service_name="unknown_service"}`, labels)
		require.Equal(t, map[string]string{"service_name": "v4"}, metadata)
		labels, metadata = of("k8s.cluster.name4")
		require.Equal(t, `{cluster="v4"}`, labels)
		require.Empty(t, metadata)
	})
}

func TestCardinalityConfigReportsEveryBadKey(t *testing.T) {
	good := createDefaultConfig().(*Config).Cardinality
	require.NoError(t, good.Validate())
	bad := CardinalityConfig{MaxValues: -1, Window: time.Second, Attributes: map[string]int{"a": -1}}
	for _, key := range []string{"max_values:", "window:", "attributes::a:"} {
		require.ErrorContains(t, bad.Validate(), key)
	}
}
