package kubelet

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// binaries holds the kubelet, longhaul-collector and longhaul.
var binaries = os.Getenv("KUBELET_BINARIES")

func TestNamesAndUsageFromARealKubelet(t *testing.T) {
	if binaries == "" {
		t.Skip("KUBELET_BINARIES is not set: run make test-kubelet")
	}
	if os.Getuid() != 0 {
		t.Fatal("containerd and the kubelet need root")
	}
	for _, name := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: install containerd and runc", err)
		}
	}
	n := startNode(t)
	t.Run("over HTTPS", func(t *testing.T) {
		c := n.collect(t, "https://127.0.0.1:"+n.secure, "LONGHAUL_KUBELET_INSECURE=true")
		c.expectNamedLogs(n)
		c.expectUsage()
	})
	t.Run("over the read-only port", func(t *testing.T) {
		n.collect(t, "http://127.0.0.1:"+n.readOnly).expectNamedLogs(n)
	})
	t.Run("its own certificate is not trusted unasked", func(t *testing.T) {
		c := n.collect(t, "https://127.0.0.1:"+n.secure)
		n.eventually("the log says what to do", func() bool {
			log, err := os.ReadFile(c.log)
			return err == nil && strings.Contains(string(log), "insecure_skip_verify")
		})
	})
}

// collector is a longhaul-collector with its built-in configuration.
type collector struct {
	t          *testing.T
	node       *node
	spool, log string
}

func (n *node) collect(t *testing.T, kubelet string, env ...string) *collector {
	t.Helper()
	dir := t.TempDir()
	c := &collector{t: t, node: n, spool: filepath.Join(dir, "spool"), log: filepath.Join(dir, "collector.log")}
	p := run(t, c.log, append(env,
		"LONGHAUL_CLUSTER=store-0001", "LONGHAUL_NODE=node-a", "LONGHAUL_NATS_URL=nats://127.0.0.1:"+freePort(t),
		"LONGHAUL_SPOOL_DIR="+c.spool, "LONGHAUL_POD_LOGS_DIR="+n.pods, "LONGHAUL_SCRAPE_FILES="+dir+"/*.yaml",
		"LONGHAUL_OTLP_GRPC=127.0.0.1:0", "LONGHAUL_OTLP_HTTP=127.0.0.1:0", "LONGHAUL_HEALTH=127.0.0.1:0",
		"LONGHAUL_METRICS_PORT="+freePort(t), "LONGHAUL_KUBELET_URL="+kubelet,
	), filepath.Join(binaries, "longhaul-collector"))
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if t.Failed() {
			content, _ := os.ReadFile(c.log)
			t.Logf("the collector said:\n%s", content)
		}
	})
	return c
}

// lines are the spool's frames of a lane, as JSON.
func (c *collector) lines(lane string) string {
	out, err := exec.Command(filepath.Join(binaries, "longhaul"), "spool", "cat", "--lane", lane, c.spool).Output()
	if err != nil {
		return "" // not there yet
	}
	return string(out)
}

// logResource are the attributes of the pod's lines written last.
func (c *collector) logResource() map[string]string {
	frames := strings.Split(strings.TrimSpace(c.lines("logs/1")), "\n")
	var request struct {
		ResourceLogs []struct {
			Resource struct {
				Attributes []struct {
					Key   string
					Value map[string]any
				}
			}
		}
	}
	got := map[string]string{}
	if json.Unmarshal([]byte(frames[len(frames)-1]), &request) != nil {
		return got
	}
	for _, a := range request.ResourceLogs[0].Resource.Attributes {
		for _, value := range a.Value {
			got[a.Key] = fmt.Sprint(value)
		}
	}
	return got
}

func (c *collector) expectNamedLogs(n *node) {
	c.t.Helper()
	var got map[string]string
	// A pod is listed a little earlier than the ids of its containers.
	n.eventually("the pod's lines are in the spool, with their container's id", func() bool {
		got = c.logResource()
		return got["container.id"] != ""
	})
	uid := regexp.MustCompile(`shop_orders-node-a_([0-9a-f]+)/`).FindStringSubmatch(n.log())[1]
	for name, want := range map[string]string{
		"k8s.namespace.name": "shop", "k8s.pod.name": "orders-node-a", "k8s.pod.uid": uid, "k8s.container.name": "app",
		"k8s.node.name": "node-a", "k8s.container.restart_count": "0",
		"container.image.name": "longhaul.test/orders", "container.image.tag": "1.2.3",
		"service.name": "orders-node-a", "service.namespace": "shop", "service.version": "1.2.3",
		"service.instance.id": "shop.orders-node-a.app",
	} {
		if got[name] != want {
			c.t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	containers, err := n.ctr("tasks", "ls", "--quiet")
	if err != nil || !strings.Contains(containers, got["container.id"]) {
		c.t.Errorf("container.id is %q; %v, containerd runs\n%s", got["container.id"], err, containers)
	}
}

func (c *collector) expectUsage() {
	c.t.Helper()
	for _, want := range []string{
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds", // of /metrics/resource
		"container_memory_rss", "container_cpu_cfs_periods_total", "container_spec_memory_limit_bytes", // of /metrics/cadvisor
	} {
		c.node.eventually(want+" of the container is in the spool", func() bool {
			_, after, found := strings.Cut(c.lines("metrics/1"), `"name":"`+want+`"`)
			metric, _, _ := strings.Cut(after, `"name":"`)
			return found && strings.Contains(metric, `{"key":"container","value":{"stringValue":"app"}}`) &&
				strings.Contains(metric, `{"key":"pod","value":{"stringValue":"orders-node-a"}}`)
		})
	}
}
