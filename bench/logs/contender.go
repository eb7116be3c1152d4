package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/longhaul/longhaul/internal/lab"
)

// contender is a collector and what it delivers to.
type contender struct {
	name      string
	collector *lab.Process
	podsDir   string
	// durable and delivered count lines since the start.
	durable, delivered func(context.Context) (int64, error)
	link               *lab.Link // what the collector sends passes it
	before             *lab.Process
	after              func() error // stops what is not a process
}

// start starts what the collector delivers to, then the collector.
func (c *contender) start(ctx context.Context) error {
	if c.before != nil {
		if err := c.before.Start(ctx); err != nil {
			return err
		}
	}
	return c.collector.Start(ctx)
}

func (c *contender) stop() error {
	err := c.collector.Stop()
	if c.before != nil {
		err = errors.Join(err, c.before.Stop())
	}
	c.link.Close()
	if c.after != nil {
		err = errors.Join(err, c.after())
	}
	return err
}

// sentBytes returns what the collector has sent so far.
func (c *contender) sentBytes() int64 {
	up, _ := c.link.Bytes()
	return up
}

// counter reads one metric of a process.
func counter(url, name string, labels ...string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		m, err := lab.ReadMetrics(ctx, url)
		if err != nil {
			return 0, err
		}
		return int64(m.Sum(name, labels...)), nil
	}
}

const acceptedRecords = "otelcol_receiver_accepted_log_records_total"

// relayOverlay: nothing is stored, everything is accepted.
const relayOverlay = `exporters:
  debug:
    verbosity: basic
service:
  pipelines:
    logs: {exporters: [debug]}
    metrics: {exporters: [debug]}
    traces: {exporters: [debug]}
`

const profileOverlay = `extensions:
  pprof:
    endpoint: 127.0.0.1:%d
    save_to_file: %s
service:
  extensions: [health_check, pprof]
`

// ours is longhaul-collector with its built-in configuration, and longhaul-relay
// with its own hub.
func (w *world) ours(dir string) (*contender, error) {
	overlay := filepath.Join(dir, "relay.yaml")
	if err := os.WriteFile(overlay, []byte(relayOverlay), 0o644); err != nil {
		return nil, err
	}
	relay, err := lab.NewRelay(lab.RelayOptions{Binary: filepath.Join(w.bin, "longhaul-relay"), Dir: dir, Overlay: overlay})
	if err != nil {
		return nil, err
	}
	link, err := lab.NewLink(relay.NATSAddr)
	if err != nil {
		return nil, err
	}
	o := lab.CollectorOptions{
		Binary: filepath.Join(w.bin, "longhaul-collector"), Dir: dir,
		Cluster: "bench", Node: "node-a", NATSURL: "nats://" + link.Addr(),
	}
	if w.profile != "" {
		if o.Overlay, err = w.writeProfileOverlay(dir); err != nil {
			return nil, err
		}
	}
	collector, err := lab.NewCollector(o)
	if err != nil {
		return nil, err
	}
	return &contender{
		name: "longhaul-collector", collector: collector.Process, podsDir: collector.PodLogsDir, link: link, before: relay.Process,
		durable:   counter(collector.MetricsURL, acceptedRecords, "receiver", "containerlogs"),
		delivered: counter(relay.MetricsURL, "longhaul_relay_items_delivered_total", "signal", "logs"),
	}, nil
}

func (w *world) writeProfileOverlay(dir string) (string, error) {
	profile, err := filepath.Abs(w.profile)
	if err != nil {
		return "", err
	}
	port, err := lab.FreePort()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "profile.yaml")
	return path, os.WriteFile(path, fmt.Appendf(nil, profileOverlay, port, profile), 0o644)
}

// peer is the OpenTelemetry Collector with bench/peer/otelcol/config.yaml.
func (w *world) peer(dir string) (*contender, error) {
	s, err := newSink()
	if err != nil {
		return nil, err
	}
	link, err := lab.NewLink(s.addr)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	port, err := lab.FreePort()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	pods := filepath.Join(dir, "pods")
	if err := os.MkdirAll(pods, 0o755); err != nil {
		return nil, errors.Join(err, s.close())
	}
	durable := counter(fmt.Sprintf("http://127.0.0.1:%d/metrics", port), acceptedRecords, "receiver", "filelog")
	process := lab.NewProcess(lab.Spec{
		Name:   "otelcol",
		Binary: w.peerBinary,
		Args:   []string{"--config", filepath.Join(w.checkout, peerModule, "config.yaml")},
		Env: []string{
			"PEER_LOGS=" + pods, "PEER_SINK=http://" + link.Addr(), "PEER_STORAGE=" + filepath.Join(dir, "storage"),
			fmt.Sprintf("PEER_METRICS_PORT=%d", port),
		},
		LogFile: filepath.Join(dir, "otelcol.log"),
		Ready:   func(ctx context.Context) error { _, err := durable(ctx); return err },
	})
	return &contender{
		name: "otelcol", collector: process, podsDir: pods, link: link, after: s.close,
		durable:   durable,
		delivered: func(context.Context) (int64, error) { return s.records.Load(), nil },
	}, nil
}

// peerModule is where the peer is built, peerVersion the module that names its version.
const (
	peerModule  = "bench/peer/otelcol"
	peerVersion = "/filelogreceiver"
)
