package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// local rewrites the settings of a server so that it can run beside others on
// this machine: every old/new pair must occur.
func local(t *testing.T, file string, pairs ...string) string {
	t.Helper()
	content := repositoryFile(t, file)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(content, pairs[i]) {
			t.Fatalf("%s has no %q", file, pairs[i])
		}
		content = strings.ReplaceAll(content, pairs[i], pairs[i+1])
	}
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	write(t, path, content)
	return path
}

func TestLokiTakesItsSettings(t *testing.T) {
	file := filepath.Join(repository(), "deploy/compose/loki.yaml")
	loki := backend(t, "loki")
	if out, err := run(t.TempDir(), os.Environ(), loki, "-verify-config", "-config.file="+file); err != nil {
		t.Errorf("loki -verify-config: %v\n%s", err, out)
	}
	// It would say no.
	broken := local(t, "deploy/compose/loki.yaml", "time_sharding_enabled", "time_charding_enabled")
	if out, err := run(t.TempDir(), os.Environ(), loki, "-verify-config", "-config.file="+broken); err == nil {
		t.Errorf("loki took a setting that does not exist:\n%s", out)
	}
}

// An entry a day older than the newest of its stream is what an outage makes.
func TestLokiTakesLateEntries(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t, 2)
	file := local(t, "deploy/compose/loki.yaml",
		"http_listen_port: 3100", fmt.Sprintf("http_listen_address: 127.0.0.1\n  http_listen_port: %d", ports[0]),
		"grpc_listen_port: 9095", fmt.Sprintf("grpc_listen_address: 127.0.0.1\n  grpc_listen_port: %d", ports[1]),
		": /loki", ": "+dir)
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	p := start(t, backend(t, "loki"), "-config.file="+file)
	p.get(t, url+"/ready")
	now := time.Now()
	for _, at := range []time.Time{now, now.Add(-24 * time.Hour), now.Add(-6 * 24 * time.Hour)} {
		body := fmt.Sprintf(`{"streams":[{"stream":{"cluster":"store-0001"},"values":[["%d","a line"]]}]}`, at.UnixNano())
		if status, answer := post(t, url+"/loki/api/v1/push", "application/json", body); status != 204 {
			t.Errorf("an entry of %s: %d %s", now.Sub(at), status, answer)
		}
	}
}

func TestPrometheusTakesItsSettings(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t, 1)
	file := filepath.Join(repository(), "deploy/compose/prometheus.yml")
	// The flags are those of the compose file, but for places and ports.
	args := []string{fmt.Sprintf("--web.listen-address=127.0.0.1:%d", ports[0])}
	for _, a := range compose(t).Services["prometheus"].Command {
		a = strings.ReplaceAll(a, "=/etc/prometheus/prometheus.yml", "="+file)
		args = append(args, strings.ReplaceAll(a, "=/prometheus", "="+dir))
	}
	p := start(t, backend(t, "prometheus"), args...)
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	p.get(t, url+"/-/ready")
	if status := p.get(t, url+"/api/v1/status/config"); !strings.Contains(status, "out_of_order_time_window: 3d") {
		t.Errorf("the out-of-order window is not in force: %s", status)
	}
	if flags := p.get(t, url+"/api/v1/status/flags"); !strings.Contains(flags, `"web.enable-remote-write-receiver":"true"`) {
		t.Errorf("remote write is not in force: %s", flags)
	}

	broken := local(t, "deploy/compose/prometheus.yml", "out_of_order_time_window: 72h", "out_of_order_time_window: long")
	if out, err := run(dir, os.Environ(), backend(t, "prometheus"), "--config.file="+broken, "--storage.tsdb.path="+filepath.Join(dir, "x"), "--web.listen-address=127.0.0.1:0"); err == nil {
		t.Errorf("prometheus took a window of \"long\":\n%s", out)
	}
}

func TestJaegerTakesItsSettings(t *testing.T) {
	dir := t.TempDir()
	content := repositoryFile(t, "deploy/compose/jaeger.yaml")
	var pairs []string
	health := ""
	endpoints := regexp.MustCompile(`0\.0\.0\.0:[0-9]+`).FindAllString(content, -1)
	for i, port := range freePorts(t, len(endpoints)) {
		pairs = append(pairs, endpoints[i], fmt.Sprintf("127.0.0.1:%d", port))
		if endpoints[i] == "0.0.0.0:16686" {
			health = fmt.Sprintf("http://127.0.0.1:%d/api/services", port)
		}
	}
	file := local(t, "deploy/compose/jaeger.yaml", append(pairs,
		"/badger/", dir+"/",
		"logs: {level: warn}", "logs: {level: warn}\n    metrics: {level: none}")...)
	p := start(t, backend(t, "jaeger"), "--config", file)
	p.get(t, health)
	if _, err := os.Stat(filepath.Join(dir, "keys")); err != nil {
		t.Errorf("traces are not kept on disk: %v", err)
	}
}

func TestNATSTakesItsSettings(t *testing.T) {
	nats := tool(t, natsServerPath)
	file := filepath.Join(repository(), "deploy/compose/nats.conf")
	if out, err := run(t.TempDir(), os.Environ(), nats, "-t", "-c", file); err != nil {
		t.Errorf("nats-server -t: %v\n%s", err, out)
	}
	broken := local(t, "deploy/compose/nats.conf", "max_file_store: 20GB", "max_file_store: lots")
	if out, err := run(t.TempDir(), os.Environ(), nats, "-t", "-c", broken); err == nil {
		t.Errorf("nats-server took a store of \"lots\":\n%s", out)
	}

	ports := freePorts(t, 2)
	p := start(t, nats, "-a", "127.0.0.1", "-c", local(t, "deploy/compose/nats.conf",
		"port: 4222", fmt.Sprintf("port: %d", ports[0]),
		"http_port: 8222", fmt.Sprintf("http: 127.0.0.1:%d", ports[1]),
		"/data", t.TempDir()))
	var state struct {
		Config struct {
			MaxStore int64 `json:"max_storage"`
		}
	}
	answer := p.get(t, fmt.Sprintf("http://127.0.0.1:%d/jsz", ports[1]))
	if err := json.Unmarshal([]byte(answer), &state); err != nil || state.Config.MaxStore != 20e9 && state.Config.MaxStore != 20<<30 {
		t.Errorf("JetStream has %d bytes (%v): %s", state.Config.MaxStore, err, answer)
	}
}
