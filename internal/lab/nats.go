package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// NATSOptions configures a nats-server. Zero ports are chosen.
type NATSOptions struct {
	Binary string
	Dir    string // store, configuration and log
	Port   int    // of clients
	// MonitorPort serves what Traffic reads.
	MonitorPort int
}

// NATS is a nats-server with JetStream: a hub of its own.
type NATS struct {
	*Process
	Addr    string // 127.0.0.1:port
	URL     string // nats://127.0.0.1:port
	monitor string
}

const natsConfig = `listen: %s
http: %s
jetstream { store_dir: %q, max_file_store: 64G }
max_payload: 8MB
`

// NewNATS writes the server's configuration; Start starts it.
func NewNATS(o NATSOptions) (*NATS, error) {
	if err := choosePorts("nats-server", &o.Port, &o.MonitorPort); err != nil {
		return nil, err
	}
	n := &NATS{Addr: loopback(o.Port), URL: "nats://" + loopback(o.Port), monitor: loopback(o.MonitorPort)}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	config := filepath.Join(o.Dir, "nats.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, natsConfig, n.Addr, n.monitor, filepath.Join(o.Dir, "store")), 0o644); err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	n.Process = NewProcess(Spec{
		Name: "nats-server", Binary: o.Binary, Args: []string{"-c", config}, LogFile: filepath.Join(o.Dir, "nats.log"),
		Ready: func(ctx context.Context) error {
			if _, err := n.Traffic(ctx); err != nil {
				return err
			}
			conn, err := net.DialTimeout("tcp", n.Addr, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return n, nil
}

// NATSTraffic is what a server's connections have carried since it started, and what
// it keeps.
type NATSTraffic struct {
	InBytes     int64 `json:"in_bytes"`
	OutBytes    int64 `json:"out_bytes"`
	InMsgs      int64 `json:"in_msgs"`
	OutMsgs     int64 `json:"out_msgs"`
	Connections int   `json:"connections"`
	JetStream   struct {
		Stats struct {
			Stored int64 `json:"storage"` // bytes
		} `json:"stats"`
	} `json:"jetstream"`
}

// Traffic asks the server's monitor.
func (n *NATS) Traffic(ctx context.Context) (t NATSTraffic, err error) {
	body, err := get(ctx, "http://"+n.monitor+"/varz", nil, nil)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return t, fmt.Errorf("understand the monitor of nats-server: %w", err)
	}
	return t, nil
}
