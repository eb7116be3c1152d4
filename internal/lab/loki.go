package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// LokiOptions configures a Loki. Zero ports are chosen.
type LokiOptions struct {
	Binary   string
	Dir      string // data, configuration and log
	Port     int    // HTTP
	GRPCPort int
}

// Loki is a monolithic Loki on the file system, with the settings late data
// needs: time sharding takes entries of any age up to a week into a stream that
// already has newer ones, and queries find them at once.
type Loki struct {
	*Process
	URL string // http://127.0.0.1:port
}

// NewLoki writes Loki's configuration; Start starts it.
func NewLoki(o LokiOptions) (*Loki, error) {
	if err := choosePorts("loki", &o.Port, &o.GRPCPort); err != nil {
		return nil, err
	}
	config := filepath.Join(o.Dir, "loki.yaml")
	if err := writeConfig(config, lokiConfig, o); err != nil {
		return nil, fmt.Errorf("configure loki: %w", err)
	}
	l := &Loki{URL: "http://" + loopback(o.Port)}
	l.Process = NewProcess(Spec{
		Name:    "loki",
		Binary:  o.Binary,
		Args:    []string{"-config.file=" + config},
		LogFile: filepath.Join(o.Dir, "loki.log"),
		Ready:   httpReady(l.URL + "/ready"),
	})
	return l, nil
}

var lokiConfig = template.Must(template.New("loki").Parse(`auth_enabled: false
server:
  http_listen_address: 127.0.0.1
  http_listen_port: {{.Port}}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: {{.GRPCPort}}
  grpc_server_max_recv_msg_size: 104857600
  grpc_server_max_send_msg_size: 104857600
  log_level: warn
common:
  instance_addr: 127.0.0.1
  path_prefix: {{printf "%q" .Dir}}
  replication_factor: 1
  ring:
    kvstore: {store: inmemory}
  storage:
    filesystem:
      chunks_directory: {{printf "%q" (print .Dir "/chunks")}}
      rules_directory: {{printf "%q" (print .Dir "/rules")}}
schema_config:
  configs:
    - {from: 2024-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}
ingester:
  lifecycler: {min_ready_duration: 0s}
  # Equal entries are stored once as long as the block of the first is not full:
  # with the default, 256 KiB, tests that count would depend on when it is.
  chunk_block_size: 1572864
  # Late entries land in shards of their own hour: look for them in the
  # ingester whatever their age.
  query_store_max_look_back_period: -1
querier:
  query_ingesters_within: 0s
limits_config:
  shard_streams: {time_sharding_enabled: true}
  allow_structured_metadata: true
  volume_enabled: true
  ingestion_rate_mb: 64
  ingestion_burst_size_mb: 128
  per_stream_rate_limit: 64MB
  per_stream_rate_limit_burst: 128MB
  max_entries_limit_per_query: 50000
  max_global_streams_per_user: 0
  discover_service_name: []
  discover_log_levels: false
query_range:
  cache_results: false
# Loki is not ready before its parts have found each other, and they look only
# every 10 s.
frontend: {scheduler_dns_lookup_period: 500ms}
frontend_worker: {dns_lookup_duration: 500ms}
analytics: {reporting_enabled: false}
`))

// writeConfig fills a template into a file, making its directory.
func writeConfig(path string, t *template.Template, data any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := t.Execute(f, data); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
