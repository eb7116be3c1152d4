package lokiexporter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const lokiVersion = "v3.7.8"

// lokiServer is a real Loki on loopback.
type lokiServer struct {
	url    string
	log    string
	tenant string // that queries ask for
}

// of returns the same server, as a tenant sees it.
func (s *lokiServer) of(tenant string) *lokiServer {
	one := *s
	one.tenant = tenant
	return &one
}

// lokiBinary finds the server that the backends' build leaves in the cache.
func lokiBinary(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		require.NoError(t, err)
		cache = filepath.Join(home, ".cache")
	}
	path := filepath.Join(cache, "longhaul", "backends", "loki-"+lokiVersion, "loki")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no Loki server to test against: build it with `make backends` (%v)", err)
	}
	return path
}

// startLoki runs a monolithic Loki without tenants; limits is added to its
// limits_config.
func startLoki(t *testing.T, limits string) *lokiServer {
	t.Helper()
	return startAnyLoki(t, limits, "")
}

// startMultiTenantLoki runs a Loki that asks for a tenant. overrides is its
// runtime configuration.
func startMultiTenantLoki(t *testing.T, limits, overrides string) *lokiServer {
	t.Helper()
	return startAnyLoki(t, limits, overrides)
}

func startAnyLoki(t *testing.T, limits, overrides string) *lokiServer {
	t.Helper()
	binary := lokiBinary(t)
	dir := t.TempDir()
	httpPort, grpcPort := freePort(t), freePort(t)
	runtime := ""
	if overrides != "" {
		file := filepath.Join(dir, "overrides.yaml")
		require.NoError(t, os.WriteFile(file, []byte(overrides), 0o600))
		runtime = "runtime_config: {file: " + file + "}"
	}
	config := fmt.Sprintf(`
auth_enabled: %t
server:
  http_listen_address: 127.0.0.1
  http_listen_port: %d
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: %d
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: %s
  replication_factor: 1
  ring: {kvstore: {store: inmemory}, instance_addr: 127.0.0.1}
  storage: {filesystem: {chunks_directory: %s/chunks, rules_directory: %s/rules}}
schema_config:
  configs:
    - {from: "2020-01-01", store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}
ingester:
  lifecycler: {min_ready_duration: 0s}
  query_store_max_look_back_period: -1
querier:
  query_ingesters_within: 0s
query_range:
  parallelise_shardable_queries: false
# Loki is not ready before its parts have found each other, and they look only
# every 10 s.
frontend: {scheduler_dns_lookup_period: 500ms}
frontend_worker: {dns_lookup_duration: 500ms}
analytics: {reporting_enabled: false}
limits_config:
  max_query_length: 0
  query_timeout: 30s
  max_entries_limit_per_query: 50000
%s
%s
`, overrides != "", httpPort, grpcPort, dir, dir, dir, limits, runtime)
	file := filepath.Join(dir, "loki.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	logFile, err := os.Create(filepath.Join(dir, "loki.log"))
	require.NoError(t, err)
	command := exec.Command(binary, "-config.file="+file)
	command.Stdout, command.Stderr = logFile, logFile
	command.Dir = dir
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		logFile.Close()
	})
	server := &lokiServer{url: fmt.Sprintf("http://127.0.0.1:%d", httpPort), log: logFile.Name()}
	require.Eventually(t, func() bool {
		resp, err := http.Get(server.url + "/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 3*time.Minute, 100*time.Millisecond, "Loki does not become ready; its log: %s", tail(server.log))
	return server
}

func tail(file string) string {
	text, _ := os.ReadFile(file)
	return string(text[max(0, len(text)-2000):])
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// found is an entry as a query returns it.
type found struct {
	at       int64 // unix nanoseconds
	line     string
	labels   map[string]string
	metadata map[string]string
}

// query returns all entries of a selector between two times.
func (s *lokiServer) query(t *testing.T, query string, from, to time.Time) []found {
	t.Helper()
	values := url.Values{
		"query":     {query},
		"start":     {strconv.FormatInt(from.UnixNano(), 10)},
		"end":       {strconv.FormatInt(to.UnixNano(), 10)},
		"limit":     {"50000"},
		"direction": {"forward"},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/loki/api/v1/query_range?"+values.Encode(), nil)
	require.NoError(t, err)
	// Labels, structured metadata and parsed fields apart.
	if s.tenant != "" {
		req.Header.Set("X-Scope-OrgID", s.tenant)
	}
	req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	var answer struct {
		Data struct {
			Result []struct {
				Stream map[string]string   `json:"stream"`
				Values [][]json.RawMessage `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	var entries []found
	for _, result := range answer.Data.Result {
		for _, value := range result.Values {
			entry := found{labels: result.Stream}
			var at string
			require.NoError(t, json.Unmarshal(value[0], &at))
			entry.at, err = strconv.ParseInt(at, 10, 64)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(value[1], &entry.line))
			if len(value) > 2 {
				var extra struct {
					StructuredMetadata map[string]string `json:"structuredMetadata"`
				}
				require.NoError(t, json.Unmarshal(value[2], &extra))
				entry.metadata = extra.StructuredMetadata
			}
			entries = append(entries, entry)
		}
	}
	return entries
}

// withTimeSharding is the setting that lets Loki take hours-old entries.
var withTimeSharding = strings.TrimLeft(`
  shard_streams: {enabled: true, time_sharding_enabled: true}
`, "\n")
