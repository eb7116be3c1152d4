package imports

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/longhaul/longhaul/"

// forbidden are the rules of the layering. A trailing /... covers everything below.
var forbidden = []struct {
	packages string   // go list pattern, relative to the module
	why      string   // printed when the rule is broken
	imports  []string // none of these, directly or through others
}{
	{
		packages: "./internal/frame",
		why:      "the frame is what every other part builds on; it knows no storage",
		imports:  []string{module + "internal/spool", module + "internal/hub", module + "internal/shipper", module + "internal/custody"},
	},
	{
		packages: "./internal/spool",
		why:      "the spool knows bytes and numbers, nothing of NATS or OpenTelemetry",
		imports: []string{
			"github.com/nats-io/...", "go.opentelemetry.io/...", "github.com/open-telemetry/...",
			module + "internal/hub", module + "internal/shipper",
		},
	},
	{
		packages: "./internal/...",
		why:      "internal packages are below the components, never above",
		imports: []string{
			module + "receivers/...", module + "exporters/...", module + "processors/...",
			module + "collector/...", module + "relay/...", module + "cmd/...",
		},
	},
	{
		packages: "./collector",
		why:      "the collector is on every node of every store: size and memory count",
		imports: append([]string{
			"github.com/nats-io/nats-server/...",
			"github.com/grafana/loki/...",
			module + "exporters/lokiexporter/...", module + "exporters/prometheusexporter/...",
			module + "receivers/natsreceiver/...", module + "relay/...", module + "internal/lab/...",
		}, heavyweights...),
	},
	{
		packages: "./relay",
		why:      "cloud SDKs and Kubernetes clients cost tens of megabytes and nothing uses them",
		imports:  append([]string{module + "collector/...", module + "internal/lab/..."}, heavyweights...),
	},
}

// heavyweights are kept out by the cut-down Prometheus receiver and its build
// tags. Cloud SDKs are not among them: they are named by packages that cannot be
// left out, and linked_test.go measures that nearly nothing of them is linked.
var heavyweights = []string{
	"k8s.io/client-go/kubernetes/...", "k8s.io/client-go/informers/...", "k8s.io/client-go/tools/cache/...",
	"k8s.io/client-go/dynamic/...", "k8s.io/api/...",
	"github.com/hashicorp/consul/...", "github.com/hashicorp/nomad/...", "github.com/moby/...",
	"github.com/prometheus/prometheus/discovery/kubernetes/...", "github.com/prometheus/prometheus/plugins/...",
	"github.com/prometheus/prometheus/web/...",
}

func TestLayersAndWeight(t *testing.T) {
	for _, rule := range forbidden {
		t.Run(strings.Trim(rule.packages, "./"), func(t *testing.T) {
			t.Parallel()
			for pkg, deps := range dependencies(t, rule.packages) {
				for _, dep := range deps {
					for _, pattern := range rule.imports {
						if matches(pattern, dep) {
							t.Errorf("%s depends on %s: %s\nfind the way with: go list -deps -f '{{.ImportPath}}: {{join .Imports \" \"}}' %s",
								pkg, dep, rule.why, rule.packages)
						}
					}
				}
			}
		})
	}
}

// TestRulesSeeWhatTheyForbid keeps the test above honest: a rule whose packages
// or patterns match nothing that exists would hold for ever.
func TestRulesSeeWhatTheyForbid(t *testing.T) {
	relay := dependencies(t, "./relay")[module+"relay"]
	for _, pattern := range []string{
		"github.com/nats-io/nats-server/...",
		module + "exporters/lokiexporter/...", module + "receivers/natsreceiver/...",
		"go.opentelemetry.io/...",
	} {
		if !anyMatches(pattern, relay) {
			t.Errorf("the relay does not depend on %s, so the collector's rule about it tests nothing", pattern)
		}
	}
	collector := dependencies(t, "./collector")[module+"collector"]
	for _, needed := range []string{
		module + "exporters/natsexporter", module + "receivers/containerlogsreceiver",
		module + "processors/podmetadataprocessor", module + "internal/kubeletsd",
		"github.com/prometheus/prometheus/discovery/file", "github.com/prometheus/prometheus/discovery/http",
	} {
		if !anyMatches(needed, collector) {
			t.Errorf("the collector does not depend on %s", needed)
		}
	}
}

// dependencies returns what each package matching the pattern depends on.
func dependencies(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", pattern)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("%s: %v\n%s", list, err, stderr)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			found[fields[0]] = fields[1:]
		}
	}
	if len(found) == 0 {
		t.Fatalf("no packages match %s", pattern)
	}
	return found
}

func matches(pattern, importPath string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	return importPath == prefix || below && strings.HasPrefix(importPath, prefix+"/")
}

func anyMatches(pattern string, importPaths []string) bool {
	for _, p := range importPaths {
		if matches(pattern, p) {
			return true
		}
	}
	return false
}
