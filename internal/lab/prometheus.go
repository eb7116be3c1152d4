package lab

import (
	"fmt"
	"path/filepath"
	"text/template"
)

// PrometheusOptions configures a Prometheus. A zero port is chosen.
type PrometheusOptions struct {
	Binary string
	Dir    string
	Port   int
	// RuleFiles are loaded as they are (recording and alerting rules).
	RuleFiles []string
}

// Prometheus scrapes nothing and takes remote write, samples out of order up to
// 72 hours old, exemplars and native histograms.
type Prometheus struct {
	*Process
	URL string // http://127.0.0.1:port
}

// NewPrometheus writes Prometheus's configuration; Start starts it.
func NewPrometheus(o PrometheusOptions) (*Prometheus, error) {
	if err := choosePorts("prometheus", &o.Port); err != nil {
		return nil, err
	}
	config := filepath.Join(o.Dir, "prometheus.yaml")
	if err := writeConfig(config, prometheusConfig, o); err != nil {
		return nil, fmt.Errorf("configure prometheus: %w", err)
	}
	p := &Prometheus{URL: "http://" + loopback(o.Port)}
	p.Process = NewProcess(Spec{
		Name:   "prometheus",
		Binary: o.Binary,
		Args: []string{
			"--config.file=" + config,
			"--storage.tsdb.path=" + filepath.Join(o.Dir, "data"),
			"--web.listen-address=" + loopback(o.Port),
			"--web.enable-remote-write-receiver",
			"--enable-feature=exemplar-storage,metadata-wal-records",
			"--query.max-samples=200000000",
			"--log.level=warn",
		},
		LogFile: filepath.Join(o.Dir, "prometheus.log"),
		Ready:   httpReady(p.URL + "/-/ready"),
	})
	return p, nil
}

var prometheusConfig = template.Must(template.New("prometheus").Parse(`global:
  evaluation_interval: 15s
storage:
  tsdb:
    # The longest outage an edge is expected to bridge.
    out_of_order_time_window: 72h
  exemplars:
    max_exemplars: 100000
{{with .RuleFiles}}rule_files:
{{range .}}  - {{printf "%q" .}}
{{end}}{{end}}`))
