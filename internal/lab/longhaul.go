package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// RelayOptions configures a longhaul-relay. Zero ports are chosen.
type RelayOptions struct {
	Binary string
	Dir    string // hub's store and log
	// ConfigFile replaces the embedded default configuration; Overlay is a file
	// laid over whichever is used.
	ConfigFile, Overlay string
	// Where to deliver. Empty values leave the defaults.
	LokiURL, PrometheusURL, JaegerOTLP string
	NATSPort, HealthPort, MetricsPort  int
	OTLPGRPC, OTLPHTTP                 int
	// Env adds to and overrides the environment made from the above.
	Env map[string]string
}

// Relay is a longhaul-relay with its embedded hub.
type Relay struct {
	*Process
	NATSAddr   string // 127.0.0.1:port of the embedded hub
	NATSURL    string // nats://127.0.0.1:port
	HealthURL  string
	MetricsURL string // self-telemetry, for ReadMetrics
	OTLPGRPC   string // 127.0.0.1:port
	OTLPHTTP   string // http://127.0.0.1:port
	DataDir    string
}

// NewRelay prepares a relay; Start starts it.
func NewRelay(o RelayOptions) (*Relay, error) {
	if err := choosePorts("longhaul-relay", &o.NATSPort, &o.HealthPort, &o.MetricsPort, &o.OTLPGRPC, &o.OTLPHTTP); err != nil {
		return nil, err
	}
	r := &Relay{
		NATSAddr:   loopback(o.NATSPort),
		NATSURL:    "nats://" + loopback(o.NATSPort),
		HealthURL:  "http://" + loopback(o.HealthPort) + "/",
		MetricsURL: "http://" + loopback(o.MetricsPort) + "/metrics",
		OTLPGRPC:   loopback(o.OTLPGRPC),
		OTLPHTTP:   "http://" + loopback(o.OTLPHTTP),
		DataDir:    filepath.Join(o.Dir, "hub"),
	}
	env := map[string]string{
		"LONGHAUL_NATS_LISTEN":    r.NATSAddr,
		"LONGHAUL_DATA_DIR":       r.DataDir,
		"LONGHAUL_LOKI_URL":       o.LokiURL,
		"LONGHAUL_PROMETHEUS_URL": o.PrometheusURL,
		"LONGHAUL_JAEGER_OTLP":    o.JaegerOTLP,
		"LONGHAUL_OTLP_GRPC":      r.OTLPGRPC,
		"LONGHAUL_OTLP_HTTP":      loopback(o.OTLPHTTP),
		"LONGHAUL_HEALTH":         loopback(o.HealthPort),
		"LONGHAUL_METRICS_HOST":   "127.0.0.1",
		"LONGHAUL_METRICS_PORT":   strconv.Itoa(o.MetricsPort),
	}
	maps.Copy(env, o.Env)
	if err := os.MkdirAll(r.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("longhaul-relay: %w", err)
	}
	r.Process = NewProcess(Spec{
		Name:    "longhaul-relay",
		Binary:  o.Binary,
		Args:    configArgs(o.ConfigFile, o.Overlay),
		Env:     environment(env),
		LogFile: filepath.Join(o.Dir, "relay.log"),
		Ready:   httpReady(r.HealthURL),
	})
	return r, nil
}

// CollectorOptions configures a longhaul-collector. Zero ports are chosen.
type CollectorOptions struct {
	Binary  string
	Dir     string // spool, pod logs, scrape files and log
	Cluster string
	Node    string
	NATSURL string
	// ConfigFile replaces the embedded default configuration; Overlay is a file
	// laid over whichever is used.
	ConfigFile, Overlay     string
	OTLPGRPC, OTLPHTTP      int
	HealthPort, MetricsPort int
	// Env adds to and overrides the environment made from the above.
	Env map[string]string
}

// Collector is a longhaul-collector with its spool.
type Collector struct {
	*Process
	OTLPGRPC   string // 127.0.0.1:port
	OTLPHTTP   string // http://127.0.0.1:port
	HealthURL  string
	MetricsURL string // self-telemetry, for ReadMetrics
	SpoolDir   string
	PodLogsDir string // CRI logs: <namespace>_<pod>_<uid>/<container>/<n>.log
	ScrapeDir  string // file_sd files: *.yaml
}

// NewCollector prepares a collector and its directories; Start starts it.
func NewCollector(o CollectorOptions) (*Collector, error) {
	if err := choosePorts("longhaul-collector", &o.OTLPGRPC, &o.OTLPHTTP, &o.HealthPort, &o.MetricsPort); err != nil {
		return nil, err
	}
	c := &Collector{
		OTLPGRPC:   loopback(o.OTLPGRPC),
		OTLPHTTP:   "http://" + loopback(o.OTLPHTTP),
		HealthURL:  "http://" + loopback(o.HealthPort) + "/",
		MetricsURL: "http://" + loopback(o.MetricsPort) + "/metrics",
		SpoolDir:   filepath.Join(o.Dir, "spool"),
		PodLogsDir: filepath.Join(o.Dir, "pods"),
		ScrapeDir:  filepath.Join(o.Dir, "scrape"),
	}
	env := map[string]string{
		"LONGHAUL_CLUSTER":      o.Cluster,
		"LONGHAUL_NODE":         o.Node,
		"LONGHAUL_NATS_URL":     o.NATSURL,
		"LONGHAUL_SPOOL_DIR":    c.SpoolDir,
		"LONGHAUL_POD_LOGS_DIR": c.PodLogsDir,
		"LONGHAUL_SCRAPE_FILES": filepath.Join(c.ScrapeDir, "*.yaml"),
		"LONGHAUL_OTLP_GRPC":    c.OTLPGRPC,
		"LONGHAUL_OTLP_HTTP":    loopback(o.OTLPHTTP),
		"LONGHAUL_HEALTH":       loopback(o.HealthPort),
		"LONGHAUL_METRICS_HOST": "127.0.0.1",
		"LONGHAUL_METRICS_PORT": strconv.Itoa(o.MetricsPort),
	}
	maps.Copy(env, o.Env)
	for _, dir := range []string{c.SpoolDir, c.PodLogsDir, c.ScrapeDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("longhaul-collector: %w", err)
		}
	}
	c.Process = NewProcess(Spec{
		Name:    "longhaul-collector",
		Binary:  o.Binary,
		Args:    configArgs(o.ConfigFile, o.Overlay),
		Env:     environment(env),
		LogFile: filepath.Join(o.Dir, "collector.log"),
		Ready:   httpReady(c.HealthURL),
	})
	return c, nil
}

func configArgs(file, overlay string) []string {
	switch {
	case overlay == "" && file == "":
		return nil
	case overlay == "":
		return []string{"--config", file}
	case file == "":
		file = "longhaul:default"
	}
	return []string{"--config", file, "--config", overlay}
}

// environment leaves out empty values, so that they mean the default.
func environment(m map[string]string) []string {
	var env []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != "" {
			env = append(env, k+"="+m[k])
		}
	}
	return env
}
