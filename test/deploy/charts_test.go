package deploy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	collectorChart = "longhaul-collector"
	relayChart     = "longhaul-relay"
)

// valueSet is one way to install a chart.
type valueSet struct {
	name   string
	chart  string
	values string // YAML, over the least a chart asks for
}

// least is what a chart asks for before it renders.
var least = map[string]string{
	collectorChart: "cluster: store-0421\nnats: {url: 'nats://hub.example.com:4222'}\n",
	relayChart:     "backends: {lokiUrl: 'http://loki:3100', prometheusUrl: 'http://prometheus:9090', jaegerOtlp: 'jaeger:4317'}\n",
}

var valueSets = []valueSet{
	{"defaults", collectorChart, ``},
	{"root", collectorChart, `access: root`},
	{"no kubelet", collectorChart, `kubelet: {enabled: false}`},
	{"everything", collectorChart, `
nats:
  url: tls://a.example.com:4222,tls://b.example.com:4222
  credentials: {existingSecret: edge, key: edge.creds}
  tls: {existingSecret: edge-tls, caKey: ca.crt, certKey: tls.crt, keyKey: tls.key}
spool: {hostPath: /data/spool, maxBytes: 8GiB}
podLogs: {linkTargets: [/var/lib/docker/containers]}
hostMetrics: {mountHostRoot: true}
kubelet: {port: 10350, insecureSkipVerify: true, nodesProxy: true}
otlp: {hostPorts: true}
metrics: {host: 0.0.0.0}
scrape: [{targets: ['10.0.0.7:9100'], labels: {job: node}}]
config: {processors: {memory_limiter: {limit_mib: 120}}}
logLevel: debug
image: {digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'}
imagePullSecrets: [{name: registry}]
priorityClassName: system-node-critical
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: edge, operator: Exists}]}]}}}
serviceAccount: {annotations: {a: b}}
seLinuxOptions: {type: spc_t}
extraEnv: [{name: TZ, value: UTC}]
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
podAnnotations: {a: b}
podLabels: {team: platform}
fullnameOverride: edge
`},
	{"own configuration", collectorChart, `
configMode: replace
serviceAccount: {create: false}
otlp: {service: false}
config:
  receivers: {otlp: {protocols: {grpc: {endpoint: '${env:LONGHAUL_OTLP_GRPC}'}}}}
  exporters:
    nats:
      cluster: ${env:LONGHAUL_CLUSTER}
      node: ${env:LONGHAUL_NODE}
      connection: {urls: '${env:LONGHAUL_NATS_URL}'}
      spool: {directory: '${env:LONGHAUL_SPOOL_DIR}', max_bytes: '${env:LONGHAUL_SPOOL_MAX_BYTES}'}
  extensions: {health_check: {endpoint: '${env:LONGHAUL_HEALTH}'}}
  service:
    extensions: [health_check]
    pipelines: {logs: {receivers: [otlp], exporters: [nats]}}
`},
	{"defaults", relayChart, ``},
	{"embedded with everything", relayChart, `
hub:
  maxBytes: 100GiB
  tls: {existingSecret: hub-tls, clientCaKey: ca.crt}
  websocket: {enabled: true, port: 8443}
  config: {existingSecret: hub-config}
  service: {type: LoadBalancer, annotations: {a: b}, loadBalancerSourceRanges: [10.0.0.0/8], nodePort: 30422, websocketNodePort: 30443}
nats: {credentials: {existingSecret: relay}}
persistence: {size: 200Gi, storageClassName: fast}
metrics: {host: 127.0.0.1}
config: {processors: {memory_limiter: {limit_mib: 1500}}}
priorityClassName: high
tolerations: [{operator: Exists}]
podAnnotations: {a: b}
extraEnv: [{name: TZ, value: UTC}]
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
`},
	{"embedded without volume", relayChart, `persistence: {enabled: false}`},
	{"external NATS", relayChart, `
replicaCount: 3
hub: {replicas: 3, partitions: 32}
nats:
  url: tls://n1:4222,tls://n2:4222
  credentials: {existingSecret: relay}
  tls: {existingSecret: relay-tls, certKey: tls.crt, keyKey: tls.key}
`},
}

func forEachSet(t *testing.T, check func(t *testing.T, set valueSet)) {
	for _, set := range valueSets {
		t.Run(set.chart+"/"+set.name, func(t *testing.T) { check(t, set) })
	}
}

// render is `helm template`; the error is what Helm says to the user.
func render(t *testing.T, chart string, values ...string) (string, error) {
	t.Helper()
	args := []string{"template", "lh", chartDir(chart), "--namespace", "longhaul", "--kube-version", "1.30.0"}
	dir := t.TempDir()
	for i, v := range values {
		file := filepath.Join(dir, fmt.Sprint(i, ".yaml"))
		if err := os.WriteFile(file, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--values", file)
	}
	return run(".", os.Environ(), tool(t, helmPath), args...)
}

func mustRender(t *testing.T, set valueSet) string {
	t.Helper()
	out, err := render(t, set.chart, least[set.chart], set.values)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, out)
	}
	return out
}

func chartDir(chart string) string { return filepath.Join(repository(), "deploy/charts", chart) }

// objects is a rendered chart as the types of a current Kubernetes release.
type objects struct {
	daemonSet   *appsv1.DaemonSet
	statefulSet *appsv1.StatefulSet
	configMap   *corev1.ConfigMap
	account     *corev1.ServiceAccount
	role        *rbacv1.ClusterRole
	binding     *rbacv1.ClusterRoleBinding
	services    []*corev1.Service
}

// pod is the pod template of the workload.
func (o *objects) pod() *corev1.PodSpec {
	if o.daemonSet != nil {
		return &o.daemonSet.Spec.Template.Spec
	}
	return &o.statefulSet.Spec.Template.Spec
}

// parse reads manifests strictly: a field the types do not have, a field given
// twice, or a kind the charts should not make is an error.
func parse(manifests string) (*objects, error) {
	o := &objects{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return o, nil
		}
		if err != nil {
			return nil, err
		}
		var meta struct{ Kind string }
		if err := yaml.Unmarshal(document, &meta); err != nil {
			return nil, err
		}
		var into any
		switch meta.Kind {
		case "":
			continue
		case "DaemonSet":
			o.daemonSet = &appsv1.DaemonSet{}
			into = o.daemonSet
		case "StatefulSet":
			o.statefulSet = &appsv1.StatefulSet{}
			into = o.statefulSet
		case "ConfigMap":
			o.configMap = &corev1.ConfigMap{}
			into = o.configMap
		case "ServiceAccount":
			o.account = &corev1.ServiceAccount{}
			into = o.account
		case "ClusterRole":
			o.role = &rbacv1.ClusterRole{}
			into = o.role
		case "ClusterRoleBinding":
			o.binding = &rbacv1.ClusterRoleBinding{}
			into = o.binding
		case "Service":
			service := &corev1.Service{}
			o.services = append(o.services, service)
			into = service
		default:
			return nil, fmt.Errorf("a %s: the charts should make none", meta.Kind)
		}
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", meta.Kind, err)
		}
		// Unlike encoding/json, this tells hostPath from hostpath.
		strict, err := kjson.UnmarshalStrict(asJSON, into)
		if err := errors.Join(append(strict, err)...); err != nil {
			return nil, fmt.Errorf("%s: %w", meta.Kind, err)
		}
	}
}

func mustParse(t *testing.T, set valueSet) *objects {
	t.Helper()
	o, err := parse(mustRender(t, set))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestLint(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		dir := t.TempDir()
		files := []string{filepath.Join(dir, "least.yaml"), filepath.Join(dir, "values.yaml")}
		for i, values := range []string{least[set.chart], set.values} {
			if err := os.WriteFile(files[i], []byte(values), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := run(".", os.Environ(), tool(t, helmPath), "lint", "--strict", "--kube-version", "1.30.0",
			"--values", files[0], "--values", files[1], chartDir(set.chart))
		if err != nil {
			t.Fatalf("helm lint: %v\n%s", err, out)
		}
	})
}

// kubernetesVersions are those with published schemas in kubectl-validate that
// the charts claim to support. The newest types are checked by parse.
var kubernetesVersions = []string{"1.27", "1.28", "1.29", "1.30"}

func validate(t *testing.T, version, manifests string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(".", os.Environ(), tool(t, validatePath), "--version", version, file)
}

func TestManifestsFitKubernetes(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		manifests := mustRender(t, set)
		for _, version := range kubernetesVersions {
			if out, err := validate(t, version, manifests); err != nil {
				t.Errorf("Kubernetes %s: %v\n%s", version, err, out)
			}
		}
		if _, err := parse(manifests); err != nil {
			t.Error(err)
		}
	})
}

// Without this, the test above could pass because it checks nothing.
func TestBrokenManifestsDoNotFitKubernetes(t *testing.T) {
	manifests := mustRender(t, valueSets[0])
	for _, c := range []struct{ name, old, new string }{
		{"unknown field", "hostPath:\n            path: /var/lib", "hostpath:\n            path: /var/lib"},
		{"wrong type", "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: soon"},
		{"missing required field", "  selector:\n    matchLabels:", "  selector:\n    matchlabels:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := strings.Replace(manifests, c.old, c.new, 1)
			if broken == manifests {
				t.Fatalf("%q is not in the manifests any more", c.old)
			}
			if out, err := validate(t, "1.30", broken); err == nil {
				t.Errorf("kubectl-validate took it:\n%s", out)
			}
			if _, err := parse(broken); err == nil {
				t.Error("parse took it")
			}
		})
	}
}

// What is missing or contradictory is refused with a sentence that names the
// value.
func TestRefusedValues(t *testing.T) {
	c, r := least[collectorChart], least[relayChart]
	for _, test := range []struct{ chart, values, want string }{
		{collectorChart, "", "cluster is required"},
		{collectorChart, "cluster: a", "nats.url is required"},
		{collectorChart, c, ""},
		{relayChart, r, ""},
		{collectorChart, merge(c, "nats: {tls: {certKey: tls.crt}}"), "belong together"},
		{collectorChart, merge(c, "nats: {tls: {certKey: tls.crt, keyKey: tls.key}}"), "existingSecret"},
		{relayChart, "", "backends.lokiUrl is required"},
		{relayChart, "backends: {lokiUrl: 'http://l'}", "backends.prometheusUrl is required"},
		{relayChart, "backends: {lokiUrl: 'http://l', prometheusUrl: 'http://p'}", "backends.jaegerOtlp is required"},
		{relayChart, merge(r, "nats: {credentials: {existingSecret: s}}"), "set nats.url, or hub.config"},
		{relayChart, merge(r, "nats: {tls: {existingSecret: s}}"), "set nats.url too"},
		{relayChart, merge(r, "nats: {url: 'tls://n:4222', tls: {existingSecret: s, keyKey: k}}"), "belong together"},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, hub: {websocket: {enabled: true}}}"), "hub.websocket"},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, hub: {tls: {existingSecret: s}}}"), "hub.tls"},
		// values.schema.json
		{collectorChart, merge(c, "cluster: store 1"), "/cluster"},
		{collectorChart, merge(c, "cluster: "+strings.Repeat("a", 64)), "/cluster"},
		{collectorChart, merge(c, "cluster: 421"), "/cluster"},
		{collectorChart, merge(c, "nats: {url: 'hub:4222'}"), "/nats/url"},
		{collectorChart, merge(c, "nats: {url: 'http://hub:4222'}"), "/nats/url"},
		{collectorChart, merge(c, "nats: {credentials: {key: ''}}"), "/nats/credentials/key"},
		{collectorChart, merge(c, "nats: {credentials: {existingSecret: A_B}}"), "/nats/credentials/existingSecret"},
		{collectorChart, merge(c, "spool: {maxBytes: lots}"), "/spool/maxBytes"},
		{collectorChart, merge(c, "spool: {hostPath: spool}"), "/spool/hostPath"},
		{collectorChart, merge(c, "spool: {hostPath: /}"), "/spool/hostPath"},
		{collectorChart, merge(c, "access: everything"), "/access"},
		{collectorChart, merge(c, "kubelet: {port: 0}"), "/kubelet/port"},
		{collectorChart, merge(c, "kubelet: {nodesProxy: maybe}"), "/kubelet/nodesProxy"},
		{collectorChart, merge(c, "logLevel: loud"), "/logLevel"},
		{collectorChart, merge(c, "configMode: both"), "/configMode"},
		{collectorChart, merge(c, "config: a string"), "/config"},
		{collectorChart, merge(c, "scrape: [{target: a}]"), "/scrape/0"},
		{collectorChart, merge(c, "spol: {}"), "spol"},
		{collectorChart, merge(c, "image: {digest: abc}"), "/image/digest"},
		{relayChart, merge(r, "backends: {lokiUrl: loki}"), "/backends/lokiUrl"},
		{relayChart, merge(r, "backends: {jaegerOtlp: 'http://jaeger:4317'}"), "/backends/jaegerOtlp"},
		{relayChart, merge(r, "hub: {tls: {certKey: ''}}"), "/hub/tls/certKey"},
		{relayChart, merge(r, "hub: {service: {type: Ingress}}"), "/hub/service/type"},
		{relayChart, merge(r, "hub: {websocket: {port: 70000}}"), "/hub/websocket/port"},
		{relayChart, merge(r, "persistence: {size: big}"), "/persistence/size"},
		{relayChart, merge(r, "replicas: 2"), "replicas"},
		{relayChart, merge(r, "replicaCount: 2"), "set nats.url"},
		{relayChart, merge(r, "hub: {replicas: 3}"), "the embedded hub is one server"},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, replicaCount: 3, hub: {partitions: 2}}"), "more relays than hub.partitions"},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, replicaCount: 3}"), ""},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, hub: {replicas: 2}}"), "/hub/replicas"},
		{relayChart, merge(r, "{nats: {url: 'nats://n:4222'}, hub: {partitions: 257}}"), "/hub/partitions"},
		{relayChart, merge(r, "replicaCount: -1"), "/replicaCount"},
	} {
		out, err := render(t, test.chart, test.values)
		switch {
		case test.want == "":
			if err != nil {
				t.Errorf("%s with %q: %v\n%s", test.chart, test.values, err, out)
			}
		case err == nil:
			t.Errorf("%s took %q", test.chart, test.values)
		case !strings.Contains(strings.ReplaceAll(out, ".", "/"), strings.ReplaceAll(test.want, ".", "/")):
			t.Errorf("%s with %q: no %q in\n%s", test.chart, test.values, test.want, out)
		}
	}
}

// merge lays one YAML map over another.
func merge(base, over string) string {
	var b, o map[string]any
	if err := errors.Join(yaml.Unmarshal([]byte(base), &b), yaml.Unmarshal([]byte(over), &o)); err != nil {
		panic(err)
	}
	var lay func(b, o map[string]any)
	lay = func(b, o map[string]any) {
		for k, v := range o {
			if under, ok := b[k].(map[string]any); ok {
				if above, ok := v.(map[string]any); ok {
					lay(under, above)
					continue
				}
			}
			b[k] = v
		}
	}
	lay(b, o)
	out, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// Every value of values.yaml is described in the schema, and every name in the
// schema stands in values.yaml, where its comment is.
func TestSchemaAndValuesNameTheSame(t *testing.T) {
	for _, chart := range []string{collectorChart, relayChart} {
		var values map[string]any
		if err := yaml.Unmarshal([]byte(repositoryFile(t, "deploy/charts/"+chart+"/values.yaml")), &values); err != nil {
			t.Fatal(err)
		}
		var schema map[string]any
		if err := json.Unmarshal([]byte(repositoryFile(t, "deploy/charts/"+chart+"/values.schema.json")), &schema); err != nil {
			t.Fatal(err)
		}
		inValues, inSchema := map[string]bool{}, map[string]bool{}
		walkSchema(schema, "", inSchema)
		walkValues(values, schema, "", inValues)
		for path := range inSchema {
			if !inValues[path] && path != "global" { // Helm's own
				t.Errorf("%s: %s is in the schema but not in values.yaml", chart, path)
			}
		}
		for path := range inValues {
			if !inSchema[path] {
				t.Errorf("%s: %s is in values.yaml but not in the schema", chart, path)
			}
		}
	}
}

func walkSchema(schema map[string]any, path string, into map[string]bool) {
	properties, _ := schema["properties"].(map[string]any)
	for name, sub := range properties {
		into[path+name] = true
		if closed(sub) {
			walkSchema(sub.(map[string]any), path+name+".", into)
		}
	}
}

func walkValues(values map[string]any, schema map[string]any, path string, into map[string]bool) {
	properties, _ := schema["properties"].(map[string]any)
	for name, value := range values {
		into[path+name] = true
		sub, _ := properties[name].(map[string]any)
		if below, ok := value.(map[string]any); ok && closed(sub) {
			walkValues(below, sub, path+name+".", into)
		}
	}
}

// closed says whether a part of the schema lists all its names.
func closed(schema any) bool {
	s, _ := schema.(map[string]any)
	return s["additionalProperties"] == false
}

// The images the charts ask for by default carry the version of the chart.
func TestChartsShareOneVersion(t *testing.T) {
	var versions []string
	for _, chart := range []string{collectorChart, relayChart} {
		var meta struct{ Version, AppVersion string }
		if err := yaml.Unmarshal([]byte(repositoryFile(t, "deploy/charts/"+chart+"/Chart.yaml")), &meta); err != nil {
			t.Fatal(err)
		}
		versions = append(versions, meta.Version, meta.AppVersion)
	}
	if versions = slices.Compact(versions); len(versions) != 1 {
		t.Errorf("versions differ: %q", versions)
	}
}

func TestNotesWarnOfAnOpenHub(t *testing.T) {
	for _, c := range []struct {
		chart, values string
		want, not     []string
	}{
		{collectorChart, "", []string{"WARNING", "pod-security", "store-0421", "access=root"}, nil},
		{collectorChart, "nats: {credentials: {existingSecret: s}}, kubelet: {nodesProxy: true}", []string{"store-0421", "insecureSkipVerify"}, []string{"WARNING"}},
		{collectorChart, "nats: {credentials: {existingSecret: s}}, kubelet: {enabled: false}", []string{"store-0421"}, []string{"WARNING", "kubelet"}},
		{collectorChart, "nats: {credentials: {existingSecret: s}}", []string{"kubelet.nodesProxy=true"}, nil}, // an old Kubernetes
		{relayChart, "", []string{"hub.tls is not set", "takes data from", "lh-longhaul-relay-hub"}, []string{"persistence is off"}},
		{relayChart, "hub: {tls: {existingSecret: s, clientCaKey: ca.crt}}", []string{"tls://lh-longhaul-relay-hub.longhaul.svc:4222"}, []string{"WARNING"}},
		{relayChart, "persistence: {enabled: false}", []string{"persistence is off"}, nil},
	} {
		notes := renderNotes(t, c.chart, merge(least[c.chart], "{"+c.values+"}"))
		for _, want := range c.want {
			if !strings.Contains(notes, want) {
				t.Errorf("%s with %q: no %q in the notes:\n%s", c.chart, c.values, want, notes)
			}
		}
		for _, not := range c.not {
			if strings.Contains(notes, not) {
				t.Errorf("%s with %q: %q in the notes:\n%s", c.chart, c.values, not, notes)
			}
		}
	}
}

// renderNotes is what `helm install` prints at the end. The command itself wants
// a cluster even for a dry run.
func renderNotes(t *testing.T, name, values string) string {
	t.Helper()
	c, err := loader.Load(chartDir(name))
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "lh", Namespace: "longhaul"}
	rendered, err := chartutil.ToRenderValues(c, v, release, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, rendered)
	if err != nil {
		t.Fatal(err)
	}
	return files[name+"/templates/NOTES.txt"]
}
