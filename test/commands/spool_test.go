package commands

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a collector has acknowledged can be seen in its spool while it runs and
// after it was killed.
func TestSpoolOfACollectorRunningAndKilled(t *testing.T) {
	health, otlp := freePort(t), freePort(t)
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	collector := start(t, "longhaul-collector", map[string]string{
		"LONGHAUL_CLUSTER":      "store-0001",
		"LONGHAUL_NODE":         "node-a",
		"LONGHAUL_NATS_URL":     "nats://127.0.0.1:" + freePort(t),
		"LONGHAUL_SPOOL_DIR":    spool,
		"LONGHAUL_POD_LOGS_DIR": filepath.Join(dir, "pods"),
		"LONGHAUL_SCRAPE_FILES": filepath.Join(dir, "scrape", "*.yaml"),
		"LONGHAUL_OTLP_GRPC":    "127.0.0.1:0",
		"LONGHAUL_OTLP_HTTP":    "127.0.0.1:" + otlp,
		"LONGHAUL_HEALTH":       "127.0.0.1:" + health,
		"LONGHAUL_METRICS_PORT": freePort(t),
	})
	collector.eventually("http://127.0.0.1:"+health, "available")
	send := func(n int) {
		t.Helper()
		body := fmt.Sprintf(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"%d","body":{"stringValue":"order %d"}}]}]}]}`, time.Now().UnixNano(), n)
		response, err := http.Post("http://127.0.0.1:"+otlp+"/v1/logs", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("status %s", response.Status)
		}
	}
	look := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("longhaul", append(append([]string{"spool"}, args...), spool)...).CombinedOutput()
		if err != nil {
			t.Fatalf("spool %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for n := range 20 {
		send(n)
		if n%5 == 4 {
			look("verify")
		}
	}
	if listing := look("ls", "--json"); !strings.Contains(listing, fmt.Sprintf(`"pid": %d`, collector.cmd.Process.Pid)) || !strings.Contains(listing, `"lane": "metrics/1"`) {
		t.Errorf("%s", listing)
	}
	if err := collector.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = collector.wait()
	look("verify")
	items := look("cat", "--lane", "logs/1")
	for n := range 20 {
		if !strings.Contains(items, fmt.Sprintf(`"order %d"`, n)) {
			t.Errorf("order %d is not in the spool", n)
		}
	}
	if listing := look("ls"); !strings.Contains(listing, "no process is seen to use it") {
		t.Errorf("%s", listing)
	}
}
