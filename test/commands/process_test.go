package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

func TestCollectorStartsWithoutHubAndStopsOnSignal(t *testing.T) {
	health, metrics := freePort(t), freePort(t)
	dir := t.TempDir()
	collector := start(t, "longhaul-collector", map[string]string{
		"LONGHAUL_CLUSTER":      "store-0001",
		"LONGHAUL_NODE":         "node-a",
		"LONGHAUL_NATS_URL":     "nats://127.0.0.1:" + freePort(t),
		"LONGHAUL_SPOOL_DIR":    filepath.Join(dir, "spool"),
		"LONGHAUL_POD_LOGS_DIR": filepath.Join(dir, "pods"),
		"LONGHAUL_SCRAPE_FILES": filepath.Join(dir, "scrape", "*.yaml"),
		"LONGHAUL_OTLP_GRPC":    "127.0.0.1:0",
		"LONGHAUL_OTLP_HTTP":    "127.0.0.1:0",
		"LONGHAUL_HEALTH":       "127.0.0.1:" + health,
		"LONGHAUL_METRICS_PORT": metrics,
	})
	collector.eventually("http://127.0.0.1:"+health, "available")
	// The names the dashboards and alerts use.
	collector.eventually("http://127.0.0.1:"+metrics+"/metrics", "\nlonghaul_spool_limit_bytes ")
	collector.eventually("http://127.0.0.1:"+metrics+"/metrics", "\nlonghaul_items_in_total{")
	collector.eventually("http://127.0.0.1:"+metrics+"/metrics", "\notelcol_process_memory_rss_bytes ")
	collector.stop()
}

func TestRelayIsAHubAndStopsOnSignal(t *testing.T) {
	listen, websocket, health := freePort(t), freePort(t), freePort(t)
	relay := start(t, "longhaul-relay", relayEnvironment(t, map[string]string{
		"LONGHAUL_NATS_LISTEN":           "127.0.0.1:" + listen,
		"LONGHAUL_NATS_WEBSOCKET_LISTEN": "127.0.0.1:" + websocket,
		"LONGHAUL_HEALTH":                "127.0.0.1:" + health,
	}))
	relay.eventually("http://127.0.0.1:"+health, "available")
	greeting := make([]byte, len("INFO "))
	conn, err := net.Dial("tcp", "127.0.0.1:"+listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "INFO " {
		t.Fatalf("the hub greets with %q, %v", greeting, err)
	}
	relay.stop()
}

func TestStartFailuresAreOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // after the parallel subtests
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		environment map[string]string
		want        string
	}{
		"port in use":           {map[string]string{"LONGHAUL_NATS_LISTEN": taken.Addr().String()}, "address already in use"},
		"websocket port in use": {map[string]string{"LONGHAUL_NATS_WEBSOCKET_LISTEN": taken.Addr().String()}, "address already in use"},
		"store below a file":    {map[string]string{"LONGHAUL_DATA_DIR": filepath.Join(file, "hub")}, file},
		"store not writable":    {map[string]string{"LONGHAUL_DATA_DIR": "/proc/longhaul"}, "/proc/longhaul"},
		"no such certificate":   {map[string]string{"LONGHAUL_NATS_TLS_CERT": file + ".crt", "LONGHAUL_NATS_TLS_KEY": file + ".key"}, file + ".crt"},
		"no such server file":   {map[string]string{"LONGHAUL_NATS_CONFIG": file + ".conf"}, file + ".conf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := start(t, "longhaul-relay", relayEnvironment(t, test.environment))
			if err := relay.wait(); err == nil {
				t.Fatal("the relay ended without an error")
			}
			said := relay.stderr()
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "longhaul-relay: ") || !strings.Contains(said, test.want) {
				t.Fatalf("want one line with %q, got:\n%s", test.want, said)
			}
		})
	}
}

func relayEnvironment(t *testing.T, more map[string]string) map[string]string {
	environment := map[string]string{
		"LONGHAUL_NATS_LISTEN":  "127.0.0.1:0",
		"LONGHAUL_DATA_DIR":     t.TempDir(),
		"LONGHAUL_OTLP_GRPC":    "127.0.0.1:0",
		"LONGHAUL_OTLP_HTTP":    "127.0.0.1:0",
		"LONGHAUL_HEALTH":       "127.0.0.1:0",
		"LONGHAUL_METRICS_PORT": freePort(t),
		"LONGHAUL_LOG_LEVEL":    "error",
	}
	for name, value := range more {
		environment[name] = value
	}
	return environment
}

// process is a running program whose standard error is kept.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan error
}

func start(t *testing.T, program string, environment map[string]string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program), output: new(bytes.Buffer), ended: make(chan error, 1)}
	p.cmd.Stderr = p.output
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "LONGHAUL_") {
			p.cmd.Env = append(p.cmd.Env, entry)
		}
	}
	for name, value := range environment {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// wait returns how the program ended.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		p.ended <- <-p.ended
		p.t.Fatalf("%s did not end within %s:\n%s", p.cmd.Path, patience, p.output)
		return nil
	}
}

// stderr is what the program said; it must have ended.
func (p *process) stderr() string { return p.output.String() }

func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		p.t.Fatalf("after SIGTERM: %v\n%s", err, p.stderr())
	}
}

// eventually waits until the page holds the text.
func (p *process) eventually(url, text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		page, err := get(ctx, url)
		if err == nil && strings.Contains(page, text) {
			return
		}
		select {
		case err := <-p.ended:
			p.t.Fatalf("the program ended: %v\n%s", err, p.stderr())
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			<-p.ended
			p.t.Fatalf("%s never held %q (%v):\n%s\n%s", url, text, err, page, p.stderr())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("status %s", response.Status))
	}
	return string(body), err
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
