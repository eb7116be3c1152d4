package commands

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/longhaul/longhaul/internal/kubelet/kubelettest"
)

// scrapePatience covers the built-in configuration's scrape interval of 30 s.
const scrapePatience = 2 * time.Minute

// kubeletNode is a collector with the built-in configuration on a node with a
// kubelet, whose pod "legacy" has this machine's loopback address.
type kubeletNode struct {
	*process
	kubelet           *kubelettest.Kubelet
	spool, pods, otlp string
	metrics           string
	environment       map[string]string
}

func startKubeletNode(t *testing.T) *kubeletNode {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/m" && r.Header.Get("Authorization") == "" {
			fmt.Fprintln(w, "till_receipts_total 7")
		}
	}))
	t.Cleanup(app.Close)
	_, appPort, err := net.SplitHostPort(app.Listener.Addr().String())
	require.NoError(t, err)

	n := &kubeletNode{kubelet: kubelettest.New(t)}
	n.kubelet.Edit(func(pod map[string]any) bool {
		metadata := pod["metadata"].(map[string]any)
		annotations, _ := metadata["annotations"].(map[string]any)
		delete(annotations, "prometheus.io/scrape") // nobody is at these addresses
		if metadata["name"] == "legacy" {
			annotations["prometheus.io/scrape"], annotations["prometheus.io/port"], annotations["prometheus.io/path"] = "true", appPort, "/m"
			status := pod["status"].(map[string]any)
			status["podIP"], status["podIPs"] = "127.0.0.1", []any{map[string]any{"ip": "127.0.0.1"}}
		}
		return true
	})
	dir := t.TempDir()
	health := freePort(t)
	n.spool, n.pods = filepath.Join(dir, "spool"), filepath.Join(dir, "pods")
	require.NoError(t, os.Mkdir(n.pods, 0o755))
	n.otlp, n.metrics = freePort(t), freePort(t)
	n.environment = map[string]string{
		"LONGHAUL_CLUSTER":       "store-0001",
		"LONGHAUL_NODE":          "node-a",
		"LONGHAUL_NATS_URL":      "nats://127.0.0.1:" + freePort(t),
		"LONGHAUL_SPOOL_DIR":     n.spool,
		"LONGHAUL_POD_LOGS_DIR":  n.pods,
		"LONGHAUL_SCRAPE_FILES":  filepath.Join(dir, "scrape", "*.yaml"),
		"LONGHAUL_OTLP_GRPC":     "127.0.0.1:0",
		"LONGHAUL_OTLP_HTTP":     "127.0.0.1:" + n.otlp,
		"LONGHAUL_HEALTH":        "127.0.0.1:" + health,
		"LONGHAUL_METRICS_PORT":  n.metrics,
		"LONGHAUL_KUBELET_URL":   n.kubelet.URL,
		"LONGHAUL_KUBELET_CA":    n.kubelet.CAFile,
		"LONGHAUL_KUBELET_TOKEN": n.kubelet.TokenFile,
	}
	n.process = start(t, "longhaul-collector", n.environment)
	n.eventually("http://127.0.0.1:"+health, "available")
	return n
}

// write appends a line to a container's log, as containerd does.
func (n *kubeletNode) write(pod, container, line string) {
	n.t.Helper()
	dir := filepath.Join(n.pods, pod, container)
	require.NoError(n.t, os.MkdirAll(dir, 0o755))
	file, err := os.OpenFile(filepath.Join(dir, "1.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	require.NoError(n.t, err)
	_, err = fmt.Fprintf(file, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	require.NoError(n.t, err)
	require.NoError(n.t, file.Close())
}

func (n *kubeletNode) send(signal, body string) {
	n.t.Helper()
	response, err := http.Post("http://127.0.0.1:"+n.otlp+"/v1/"+signal, "application/json", strings.NewReader(body))
	require.NoError(n.t, err)
	response.Body.Close()
	require.Equal(n.t, http.StatusOK, response.StatusCode)
}

// item is a resource in the spool, with the names, texts and attributes of what
// it holds, as JSON.
type item struct {
	resource map[string]string
	content  string
}

// items are all resources in the spool's lane whose content holds the text.
func (n *kubeletNode) items(lane, text string) (found []item) {
	n.t.Helper()
	out, err := exec.Command("longhaul", "spool", "cat", "--lane", lane, n.spool).Output()
	if err != nil {
		return nil // the lane is not there yet
	}
	for line := range strings.Lines(string(out)) {
		var request map[string][]map[string]json.RawMessage
		require.NoError(n.t, json.Unmarshal([]byte(line), &request))
		for _, resources := range request {
			for _, r := range resources {
				content := ""
				for key, part := range r {
					if key != "resource" {
						content += string(part)
					}
				}
				if strings.Contains(content, text) {
					found = append(found, item{attributesOf(n.t, r["resource"]), content})
				}
			}
		}
	}
	return found
}

func attributesOf(t *testing.T, text json.RawMessage) map[string]string {
	t.Helper()
	var resource struct {
		Attributes []struct {
			Key   string
			Value map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(text, &resource))
	attributes := map[string]string{}
	for _, a := range resource.Attributes {
		for _, value := range a.Value {
			attributes[a.Key] = fmt.Sprint(value)
		}
	}
	return attributes
}

// one waits for the text in the lane and returns its resource.
func (n *kubeletNode) one(lane, text string) item {
	n.t.Helper()
	var found []item
	require.Eventually(n.t, func() bool { found = n.items(lane, text); return len(found) > 0 },
		scrapePatience, 200*time.Millisecond, "%q in %s", text, lane)
	return found[0]
}

func (n *kubeletNode) expect(got item, want map[string]string) {
	n.t.Helper()
	for name, value := range want {
		assert.Equal(n.t, value, got.resource[name], name)
	}
}

var checkoutPod = map[string]string{
	"k8s.namespace.name": "shop", "k8s.pod.name": "checkout-7d4b9c6f5d-x2x9p", "k8s.container.name": "app",
	"k8s.deployment.name": "checkout", "k8s.node.name": "node-a", "service.name": "checkout",
	"container.image.name": "registry.example.com:5000/shop/checkout", "container.image.tag": "2.14.0",
	"container.id": strings.Repeat("a1", 32), "k8s.container.restart_count": "1",
}

var tillPod = map[string]string{
	"k8s.namespace.name": "shop", "k8s.pod.name": "legacy", "k8s.container.name": "till",
	"service.name": "till", "deployment.environment.name": "production",
}

const checkoutLogs = "shop_checkout-7d4b9c6f5d-x2x9p_8f2b6a0e-1c1d-4d8e-9a52-0d8f7a5b1c01"

// The built-in configuration on a node with a kubelet: logs, OTLP from a pod's
// address, annotated pods and the kubelet's numbers are in the spool, named.
func TestPodsOfTheNodeAreNamed(t *testing.T) {
	t.Parallel()
	n := startKubeletNode(t)
	n.write(checkoutLogs, "app", "order placed")
	n.expect(n.one("logs/1", "order placed"), checkoutPod)

	now := time.Now().UnixNano()
	n.send("logs", fmt.Sprintf(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"%d","body":{"stringValue":"receipt printed"}}]}]}]}`, now))
	n.send("metrics", fmt.Sprintf(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"own-name"}}]},"scopeMetrics":[{"metrics":[{"name":"drawer.open","gauge":{"dataPoints":[{"timeUnixNano":"%d","asInt":"1"}]}}]}]}]}`, now))
	n.send("traces", fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0123456789abcdef0123456789abcdef","spanId":"0123456789abcdef","name":"pay","startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`, now, now+1))
	n.expect(n.one("logs/1", "receipt printed"), tillPod)
	n.expect(n.one("traces/1", `"pay"`), tillPod)
	n.expect(n.one("metrics/1", "drawer.open"), map[string]string{"k8s.pod.name": "legacy", "service.name": "own-name"})

	// Scraped with the annotations' port and path, and no credentials.
	n.expect(n.one("metrics/1", "till_receipts"), tillPod)
	n.expectUsage()

	var page string
	require.Eventually(t, func() bool { // the processors and the discovery ask once for all
		page, _ = get(t.Context(), "http://127.0.0.1:"+n.metrics+"/metrics")
		return strings.Contains(page, fmt.Sprintf("\nlonghaul_podmetadata_refreshes_total %d\n", n.kubelet.Requests("/pods")))
	}, patience, 100*time.Millisecond)
	assert.Contains(t, page, "\nlonghaul_podmetadata_pods{state=\"current\"} 9\n")
	assert.Contains(t, page, "\nlonghaul_podmetadata_age_seconds ")
	n.stop()
	if out, err := exec.Command("longhaul", "spool", "verify", n.spool).CombinedOutput(); err != nil {
		t.Errorf("the file of known pods is in the spool's way: %v\n%s", err, out)
	}
	for line := range strings.Lines(n.stderr()) {
		about := strings.Contains(line, "podmetadata") || strings.Contains(line, "prometheus/kubelet")
		if about && (strings.Contains(line, "\twarn\t") || strings.Contains(line, "\terror\t")) {
			t.Errorf("it worried: %s", line)
		}
	}
}

// expectUsage: of the kubelet's metrics those that matter, and no others.
func (n *kubeletNode) expectUsage() {
	n.t.Helper()
	cadvisor, usage := n.one("metrics/1", "container_cpu_cfs_throttled_periods"), n.one("metrics/1", "container_memory_working_set_bytes")
	assert.Equal(n.t, "node-a", usage.resource["service.instance.id"])
	assert.Equal(n.t, "kubelet-cadvisor", cadvisor.resource["service.name"])
	assert.NotContains(n.t, cadvisor.resource, "k8s.pod.name", "its points name their pods")
	var names []string
	points := 0
	for _, scraped := range []item{cadvisor, usage} {
		var scopes []struct {
			Metrics []struct {
				Name       string
				Sum, Gauge *struct{ DataPoints []json.RawMessage }
			}
		}
		require.NoError(n.t, json.Unmarshal([]byte(scraped.content), &scopes), scraped.content)
		for _, scope := range scopes {
			for _, m := range scope.Metrics {
				if !strings.HasPrefix(m.Name, "container_") {
					continue
				}
				names = append(names, m.Name)
				for _, data := range []*struct{ DataPoints []json.RawMessage }{m.Sum, m.Gauge} {
					if data != nil {
						points += len(data.DataPoints)
					}
				}
			}
		}
		for _, dropped := range []string{`"key":"id"`, "kubepods", "cni0", "system.slice", "pause"} {
			assert.NotContains(n.t, scraped.content, dropped)
		}
	}
	slices.Sort(names)
	assert.Equal(n.t, []string{
		"container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_periods_total", "container_cpu_usage_seconds_total",
		"container_fs_usage_bytes", "container_memory_rss", "container_memory_working_set_bytes",
		"container_network_receive_bytes_total", "container_network_receive_errors_total",
		"container_network_transmit_bytes_total", "container_network_transmit_errors_total",
		"container_oom_events_total", "container_spec_memory_limit_bytes", "container_start_time_seconds",
	}, names)
	// Of the test kubelet's answers: 8 of /metrics/resource, 6 of the one
	// container and 6 of the network of /metrics/cadvisor.
	assert.Equal(n.t, 20, points)
}

// A pod that was deleted while the collector was stopped, with lines unread, is
// still named; the kubelet may even be away.
func TestLogsOfADeletedPodAreNamedAfterARestart(t *testing.T) {
	t.Parallel()
	n := startKubeletNode(t)
	n.write(checkoutLogs, "app", "before")
	n.expect(n.one("logs/1", "before"), checkoutPod)
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(n.spool, "pods.json")); return err == nil }, patience, 50*time.Millisecond)
	n.stop()

	n.write(checkoutLogs, "app", "after")
	n.kubelet.Refuse(http.StatusForbidden)
	n.process = start(t, "longhaul-collector", n.environment)
	n.expect(n.one("logs/2", "after"), checkoutPod) // a start seals the lane that holds unsent lines
	n.stop()
	assert.Contains(t, n.stderr(), "nodes/pods and nodes/metrics", "what to do about a refusal")
	assert.NotContains(t, n.stderr(), kubelettest.Token)
}

// kubelet.yaml replaces the list of the metrics' receivers, as every layer does:
// it must hold those of config.yaml.
func TestTheKubeletsLayerKeepsTheReceivers(t *testing.T) {
	receivers := func(file string) []string {
		text, err := os.ReadFile(filepath.Join("../../collector", file))
		require.NoError(t, err)
		var config struct {
			Service struct {
				Pipelines map[string]struct{ Receivers []string }
			}
		}
		require.NoError(t, yaml.Unmarshal(text, &config))
		return config.Service.Pipelines["metrics"].Receivers
	}
	assert.Equal(t, append(receivers("config.yaml"), "prometheus/kubelet"), receivers("kubelet.yaml"))
}
