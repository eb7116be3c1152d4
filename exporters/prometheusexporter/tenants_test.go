package prometheusexporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

func byCluster(cfg *Config) {
	quick(cfg)
	cfg.Tenant.FromAttribute = "k8s.cluster.name"
	cfg.Tenant.Default = "rest"
}

// clusters makes two nodes of each cluster, in turns.
func clusters(names ...string) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for node := range 2 {
		for _, name := range names {
			attributes := map[string]any{"k8s.node.name": fmt.Sprint("node-", node)}
			if name != "" {
				attributes["k8s.cluster.name"] = name
			}
			addGauge(addMetrics(md, attributes), "g", time.Now(), 1)
		}
	}
	return md
}

func TestARequestHoldsOneTenantsMetrics(t *testing.T) {
	server := serveWrites(t, func(write, http.ResponseWriter) {})
	for _, protocol := range []Protocol{Protocol2, Protocol1} {
		exp := start(t, server.URL, func(cfg *Config) { byCluster(cfg); cfg.Protocol = protocol })
		server.tenants = nil
		require.NoError(t, exp.ConsumeMetrics(context.Background(), clusters("a", "", "b")))
		slices.Sort(server.tenants)
		require.Equal(t, []string{"a", "b", "rest"}, server.tenants)
		require.Equal(t, int64(6), exp.sent(t))
	}
	fixed := start(t, server.URL, func(cfg *Config) { cfg.Tenant.Default = "all" })
	server.tenants = nil
	require.NoError(t, fixed.ConsumeMetrics(context.Background(), clusters("a", "b")))
	require.Equal(t, []string{"all"}, server.tenants)
}

func TestATenantThatIsRefusedComesBackAlone(t *testing.T) {
	refused := map[string]bool{"b": true}
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		if refused[in.tenant] {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	exp := start(t, server.URL, byCluster)
	md := clusters("a", "b", "c")
	err := exp.ConsumeMetrics(context.Background(), md)
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	require.ErrorContains(t, err, "tenant b: ")
	require.False(t, consumererror.IsPermanent(err))
	var partial consumererror.Metrics
	require.True(t, errors.As(err, &partial))
	rest := partial.Data()
	require.Equal(t, 2, rest.ResourceMetrics().Len())
	for _, resource := range rest.ResourceMetrics().All() {
		cluster, _ := resource.Resource().Attributes().Get("k8s.cluster.name")
		require.Equal(t, "b", cluster.Str())
		_, found := resource.Resource().Attributes().Get("k8s.node.name")
		require.True(t, found)
	}
	require.Equal(t, int64(4), exp.sent(t))
	require.Equal(t, 6, md.DataPointCount(), "the caller's metrics stay whole")

	err = exp.ConsumeMetrics(context.Background(), rest)
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	require.False(t, errors.As(err, &partial), "all of it is still to be sent")
	clear(refused)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), rest))
	require.Equal(t, int64(6), exp.sent(t))
}

func TestARefusalForGoodOfOneTenantIsNotAnError(t *testing.T) {
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		if in.tenant == "b" {
			clear(w.Header())
			http.Error(w, "no", http.StatusUnprocessableEntity)
		}
	})
	exp := start(t, server.URL, byCluster)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), clusters("a", "b")))
	require.Equal(t, int64(2), exp.sent(t))
	require.Equal(t, map[string]int64{"status_422": 2}, exp.rejected(t))
	err := exp.ConsumeMetrics(context.Background(), clusters("b"))
	require.True(t, consumererror.IsPermanent(err), "%v", err)
}

func TestAHangingTenantDoesNotHoldOthers(t *testing.T) {
	others := make(chan string, 2)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tenant := r.Header.Get("X-Scope-OrgID")
		if tenant == "b" {
			<-release
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "2")
		w.WriteHeader(http.StatusNoContent)
		others <- tenant
	}))
	defer server.Close()
	exp := start(t, server.URL, func(cfg *Config) {
		byCluster(cfg)
		cfg.Timeout, cfg.Retry.MaxElapsedTime = time.Minute, 0
	})
	result := make(chan error, 1)
	go func() { result <- exp.ConsumeMetrics(context.Background(), clusters("b", "a", "c")) }()
	require.ElementsMatch(t, []string{"a", "c"}, []string{<-others, <-others})
	close(release)
	require.Equal(t, 2, requirePartial(t, <-result).DataPointCount())
}

// requirePartial returns what an error says is still to be sent.
func requirePartial(t *testing.T, err error) pmetric.Metrics {
	t.Helper()
	var partial consumererror.Metrics
	require.True(t, errors.As(err, &partial), "%v", err)
	return partial.Data()
}
