package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// hub is a nats-server with JetStream.
type hub struct {
	*lab.Process
	addr, monitor   string
	down, relayDown bool // on purpose
	profilePort     int
}

const hubConfig = `listen: %s
http: %s
jetstream { store_dir: %q, max_file_store: 64G }
max_payload: 8MB
`

func newHub(bin, dir string) (*hub, error) {
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = lab.FreePort(); err != nil {
			return nil, err
		}
	}
	h := &hub{addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), monitor: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	dir = filepath.Join(dir, "hub")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, hubConfig, h.addr, h.monitor, filepath.Join(dir, "store")), 0o644); err != nil {
		return nil, err
	}
	h.Process = lab.NewProcess(lab.Spec{
		Name: "nats-server", Binary: filepath.Join(bin, "nats-server"), Args: []string{"-c", config},
		LogFile: filepath.Join(dir, "nats.log"),
		Ready: func(ctx context.Context) error {
			_, err := h.traffic(ctx)
			if err != nil {
				return err
			}
			conn, err := net.DialTimeout("tcp", h.addr, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return h, nil
}

// traffic is what the hub's connections have carried since it started, and what it
// keeps.
type traffic struct {
	InBytes     int64 `json:"in_bytes"`
	OutBytes    int64 `json:"out_bytes"`
	InMsgs      int64 `json:"in_msgs"`
	OutMsgs     int64 `json:"out_msgs"`
	Connections int   `json:"connections"`
	JetStream   struct {
		Stats struct {
			Store int64 `json:"storage"`
		} `json:"stats"`
	} `json:"jetstream"`
}

func (h *hub) traffic(ctx context.Context) (t traffic, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.monitor+"/varz", nil)
	if err != nil {
		return t, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return t, fmt.Errorf("monitor of the hub: %w", err)
	}
	return t, nil
}
