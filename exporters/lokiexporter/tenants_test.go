package lokiexporter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// tenantServer keeps what it takes by tenant. refuse may answer in its place.
type tenantServer struct {
	*httptest.Server
	mu     sync.Mutex
	taken  map[string][]string // lines by tenant
	refuse func(tenant string, streams []push.Stream, w http.ResponseWriter, r *http.Request) bool
}

func serveTenants(t *testing.T, refuse func(string, []push.Stream, http.ResponseWriter, *http.Request) bool) *tenantServer {
	t.Helper()
	s := &tenantServer{taken: make(map[string][]string), refuse: refuse}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}
		compressed, _ := io.ReadAll(r.Body)
		raw, err := snappy.Decode(nil, compressed)
		if err != nil {
			panic(err)
		}
		var message push.PushRequest
		if err := message.Unmarshal(raw); err != nil {
			panic(err)
		}
		tenant := r.Header.Get("X-Scope-OrgID")
		if s.refuse(tenant, message.Streams, w, r) {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, stream := range message.Streams {
			for _, e := range stream.Entries {
				s.taken[tenant] = append(s.taken[tenant], e.Line)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s
}

// linesByTenant returns what was taken, sorted.
func (s *tenantServer) lines(tenant string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := slices.Clone(s.taken[tenant])
	slices.Sort(lines)
	return lines
}

func byCluster(cfg *Config) {
	quick(cfg)
	cfg.Tenant.FromAttribute = "k8s.cluster.name"
	cfg.Tenant.Default = "rest"
}

// clusterLogs makes two resources, of two nodes, for each cluster.
func clusterLogs(clusters ...string) plog.Logs {
	logs := plog.NewLogs()
	for node := range 2 {
		for _, cluster := range clusters {
			name := fmt.Sprintf("%s-n%d", cluster, node)
			scope := addLogs(logs, map[string]any{"k8s.cluster.name": cluster, "k8s.node.name": name})
			addRecord(scope, time.Now(), name+" a")
			addRecord(scope, time.Now(), name+" b")
		}
	}
	return logs
}

func nodesOf(logs plog.Logs) (nodes []string) {
	for _, r := range logs.ResourceLogs().All() {
		nodes = append(nodes, attributeText(r.Resource().Attributes(), "k8s.node.name"))
	}
	return nodes
}

func failedLogs(t *testing.T, err error) plog.Logs {
	t.Helper()
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	require.False(t, consumererror.IsPermanent(err))
	var partial consumererror.Logs
	require.True(t, errors.As(err, &partial), "%v", err)
	return partial.Data()
}

func TestOneTenantsTroubleIsItsOwn(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusForbidden, http.StatusInternalServerError} {
			down := true
			server := serveTenants(t, func(tenant string, _ []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
				if down && tenant == "b" {
					w.WriteHeader(status)
					return true
				}
				return false
			})
			exp := start(t, server.URL, byCluster)
			failed := failedLogs(t, exp.ConsumeLogs(context.Background(), clusterLogs("a", "b", "c")))
			require.Equal(t, []string{"b-n0", "b-n1"}, nodesOf(failed))
			require.Equal(t, []string{"a-n0 a", "a-n0 b", "a-n1 a", "a-n1 b"}, server.lines("a"))
			require.Equal(t, []string{"c-n0 a", "c-n0 b", "c-n1 a", "c-n1 b"}, server.lines("c"))
			require.Empty(t, server.lines("b"))
			require.Equal(t, int64(8), exp.sent(t))

			down = false
			require.NoError(t, exp.ConsumeLogs(context.Background(), failed))
			require.Equal(t, []string{"b-n0 a", "b-n0 b", "b-n1 a", "b-n1 b"}, server.lines("b"))
			require.Equal(t, int64(12), exp.sent(t))
		}
	})
}

func TestAHangingTenantHoldsNoOtherUp(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		release := make(chan struct{})
		server := serveTenants(t, func(tenant string, _ []push.Stream, _ http.ResponseWriter, r *http.Request) bool {
			if tenant != "b" {
				return false
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return true
		})
		t.Cleanup(func() { close(release) })
		exp := start(t, server.URL, func(cfg *Config) { byCluster(cfg); cfg.Timeout = 5 * time.Second })
		failed := failedLogs(t, exp.ConsumeLogs(context.Background(), clusterLogs("a", "b", "c")))
		require.Equal(t, []string{"b-n0", "b-n1"}, nodesOf(failed))
		require.Len(t, server.lines("a"), 4)
		require.Len(t, server.lines("c"), 4)
	})
}

func TestAllTenantsInTroubleIsAPlainError(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serveTenants(t, func(_ string, _ []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		exp := start(t, server.URL, byCluster)
		err := exp.ConsumeLogs(context.Background(), clusterLogs("a", "b"))
		require.ErrorIs(t, err, deliver.ErrUnavailable)
		var partial consumererror.Logs
		require.False(t, errors.As(err, &partial), "%v", err)
	})
}

func TestResourcesWithoutATenantHaveTheDefault(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serveTenants(t, func(string, []push.Stream, http.ResponseWriter, *http.Request) bool { return false })
		exp := start(t, server.URL, byCluster)
		logs := clusterLogs("a", "not/a tenant")
		addRecord(addLogs(logs, map[string]any{"service.name": "longhaul"}), time.Now(), "own")
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		require.Len(t, server.lines("a"), 4)
		require.Equal(t, []string{"not/a tenant-n0 a", "not/a tenant-n0 b", "not/a tenant-n1 a", "not/a tenant-n1 b", "own"}, server.lines("rest"))
	})
}

func TestTenantsRefusedForGoodAreCountedOnceWhileAnotherIsRetried(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		down := true
		server := serveTenants(t, func(tenant string, streams []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
			switch {
			case tenant == "b" && down:
				w.WriteHeader(http.StatusServiceUnavailable)
			case tenant == "a":
				http.Error(w, "no", http.StatusBadRequest)
			default:
				return false
			}
			return true
		})
		exp := start(t, server.URL, byCluster)
		failed := failedLogs(t, exp.ConsumeLogs(context.Background(), clusterLogs("a", "b")))
		require.Equal(t, map[string]int64{"other": 4}, exp.rejected(t))
		require.Equal(t, []string{"b-n0", "b-n1"}, nodesOf(failed))
		down = false
		require.NoError(t, exp.ConsumeLogs(context.Background(), failed))
		require.Equal(t, map[string]int64{"other": 4}, exp.rejected(t))
		require.Equal(t, int64(4), exp.sent(t))
	})
}

func TestWhatFailedMayComeAgainInAnyGrouping(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		const limit = "maximum active stream limit exceeded when trying to create stream {x}, user: 'b'"
		down := true
		server := serveTenants(t, func(_ string, streams []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
			for _, s := range streams {
				for _, e := range s.Entries {
					if down && e.Line == "late" {
						http.Error(w, limit, http.StatusTooManyRequests)
						return true
					}
				}
			}
			return false
		})
		exp := start(t, server.URL, quick)
		at := time.Now()
		make1 := func(nodes ...string) plog.Logs {
			logs := plog.NewLogs()
			for _, node := range nodes {
				scope := addLogs(logs, map[string]any{"k8s.cluster.name": "c", "k8s.node.name": node})
				addRecord(scope, at, node+" info").SetSeverityNumber(plog.SeverityNumberInfo)
				if node != "n3" {
					addRecord(scope, at, "late").SetSeverityNumber(plog.SeverityNumberWarn)
				}
			}
			return logs
		}
		failed := failedLogs(t, exp.ConsumeLogs(context.Background(), make1("n1", "n2", "n3")))
		require.Equal(t, []string{"n1", "n2"}, nodesOf(failed), "one stream is over its tenant's limit, the other is not")
		require.Equal(t, []string{"n1 info", "n2 info", "n3 info"}, server.lines(""))
		require.Equal(t, int64(3), exp.sent(t))

		require.ErrorIs(t, exp.ConsumeLogs(context.Background(), make1("n2")), deliver.ErrUnavailable)
		down = false
		require.NoError(t, exp.ConsumeLogs(context.Background(), make1("n2")))
		require.NoError(t, exp.ConsumeLogs(context.Background(), make1("n1")))
		require.Equal(t, []string{"late", "late", "n1 info", "n2 info", "n3 info"}, server.lines(""), "each once")
		require.Equal(t, int64(5), exp.sent(t))
	})
}

func TestABlockedTenantKeepsItsData(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		blocked := true
		server := serveTenants(t, func(tenant string, _ []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
			if blocked && tenant == "b" {
				w.WriteHeader(statusBlocked)
				_, _ = io.WriteString(w, "ingestion blocked for user 'b' until '2026-12-01T00:00:00Z' with status code '260'")
			}
			return blocked && tenant == "b"
		})
		exp := start(t, server.URL, byCluster)
		err := exp.ConsumeLogs(context.Background(), clusterLogs("a", "b"))
		failed := failedLogs(t, err)
		require.ErrorContains(t, err, "ingestion blocked")
		require.Equal(t, []string{"b-n0", "b-n1"}, nodesOf(failed))
		blocked = false
		require.NoError(t, exp.ConsumeLogs(context.Background(), failed))
		require.Len(t, server.lines("b"), 4)
	})
}

func TestTenantsLongestUnusedAreForgotten(t *testing.T) {
	now := noon
	created := 0
	all := tenants{
		create: func(name string) *tenantState { created++; return &tenantState{name: name} },
		now:    func() time.Time { return now },
		byName: make(map[string]*tenantState),
	}
	for i := range maxTenants {
		all.of(fmt.Sprint(i))
		now = now.Add(time.Second)
	}
	kept := all.of("0") // used again
	all.of("one more")
	require.Len(t, all.byName, maxTenants-maxTenants/8+1)
	require.Same(t, kept, all.of("0"))
	before := created
	all.of("1")
	require.Equal(t, before+1, created)
}
