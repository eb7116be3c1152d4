package kubeletsd

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/longhaul/longhaul/internal/kubelet"
	"github.com/longhaul/longhaul/internal/kubelet/kubelettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// following is a running discovery; groups are what its updates add up to.
type following struct {
	t       *testing.T
	updates chan []*targetgroup.Group
	groups  map[string]*targetgroup.Group
	log     *bytes.Buffer
}

func follow(t *testing.T, k *kubelettest.Kubelet, configure func(*SDConfig)) *following {
	t.Helper()
	config := defaultConfig()
	config.URL, config.CAFile, config.TokenFile = k.URL, k.CAFile, k.TokenFile
	if configure != nil {
		configure(&config)
	}
	f := &following{t: t, updates: make(chan []*targetgroup.Group), groups: map[string]*targetgroup.Group{}, log: &bytes.Buffer{}}
	d, err := config.NewDiscoverer(discovery.DiscovererOptions{Logger: slog.New(slog.NewTextHandler(f.log, nil))})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx, f.updates)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// until takes updates until the condition holds for all groups.
func (f *following) until(condition func(addresses string) bool) {
	f.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case update := <-f.updates:
			for _, group := range update {
				f.groups[group.Source] = group
			}
			if condition(f.addresses()) {
				return
			}
		case <-timeout:
			f.t.Fatalf("it never came to be; now: %s", f.addresses())
		}
	}
}

func (f *following) addresses() string {
	var all []string
	for _, group := range f.groups {
		for _, target := range group.Targets {
			all = append(all, string(target[model.AddressLabel]))
		}
	}
	return strings.Join(all, " ")
}

func (f *following) target(address string) model.LabelSet {
	f.t.Helper()
	for _, group := range f.groups {
		for _, target := range group.Targets {
			if string(target[model.AddressLabel]) == address {
				return group.Labels.Merge(target)
			}
		}
	}
	f.t.Fatalf("%s is no target", address)
	return nil
}

const checkout, postgres = "10.42.0.17:9102", "10.42.0.18:9187"

func TestAnnotatedPodsBecomeTargets(t *testing.T) {
	f := follow(t, kubelettest.New(t), nil)
	f.until(func(addresses string) bool { return strings.Contains(addresses, checkout) })
	target := f.target(checkout)
	for name, want := range map[model.LabelName]model.LabelValue{
		"__metrics_path__":                                   "/internal/metrics",
		"__meta_kubernetes_namespace":                        "shop",
		"__meta_kubernetes_pod_name":                         "checkout-7d4b9c6f5d-x2x9p",
		"__meta_kubernetes_pod_uid":                          "8f2b6a0e-1c1d-4d8e-9a52-0d8f7a5b1c01",
		"__meta_kubernetes_pod_ip":                           "10.42.0.17",
		"__meta_kubernetes_pod_host_ip":                      "192.168.10.21",
		"__meta_kubernetes_pod_node_name":                    "node-a",
		"__meta_kubernetes_pod_phase":                        "Running",
		"__meta_kubernetes_pod_ready":                        "true",
		"__meta_kubernetes_pod_controller_kind":              "ReplicaSet",
		"__meta_kubernetes_pod_controller_name":              "checkout-7d4b9c6f5d",
		"__meta_kubernetes_pod_container_name":               "app",
		"__meta_kubernetes_pod_container_port_name":          "metrics",
		"__meta_kubernetes_pod_container_port_number":        "9102",
		"__meta_kubernetes_pod_container_init":               "false",
		"__meta_kubernetes_pod_label_team":                   "payments",
		"__meta_kubernetes_pod_labelpresent_team":            "true",
		"__meta_kubernetes_pod_annotation_example_com_owner": "payments@example.com",
		"__meta_kubernetes_pod_label_app_kubernetes_io_name": "checkout",
		"__meta_longhaul_service_name":                       "checkout",
	} {
		assert.Equal(t, want, target[name], name)
	}
	assert.NotContains(t, target, model.LabelName(model.SchemeLabel))
	// Without a port annotation: the TCP ports the containers declare.
	assert.Len(t, strings.Fields(f.addresses()), 3)
	assert.Contains(t, f.addresses(), "10.42.0.18:5432")
	assert.Contains(t, f.addresses(), postgres)
	assert.Empty(t, f.log.String())
}

func TestTargetsVanishWithTheirPod(t *testing.T) {
	k := kubelettest.New(t)
	f := follow(t, k, func(c *SDConfig) { c.PollInterval = model.Duration(5 * time.Second) })
	f.until(func(addresses string) bool { return strings.Contains(addresses, postgres) })
	k.List(func(_, name string) bool { return name != "postgres-0" })
	f.until(func(addresses string) bool { return !strings.Contains(addresses, postgres) })
	assert.Contains(t, f.addresses(), checkout)
}

func TestEveryPortIsATargetWhenAskedFor(t *testing.T) {
	f := follow(t, kubelettest.New(t), func(c *SDConfig) { c.Role = RoleContainer })
	f.until(func(addresses string) bool { return strings.Contains(addresses, checkout) })
	for _, want := range []string{"10.42.0.17:8080", "10.42.0.17:9901", "10.42.0.17", "10.42.0.18:9188", "10.42.0.40:8081", "192.168.10.21"} {
		assert.Contains(t, strings.Fields(f.addresses()), want)
	}
	assert.NotContains(t, f.addresses(), "10.42.0.33", "a pod that failed")
	assert.EqualValues(t, "true", f.target("10.42.0.17")["__meta_kubernetes_pod_container_init"])
}

func TestTheKubeletIsATarget(t *testing.T) {
	k := kubelettest.New(t)
	f := follow(t, k, func(c *SDConfig) { c.Role = RoleNode })
	f.until(func(addresses string) bool { return addresses == strings.TrimPrefix(k.URL, "https://") })
	assert.EqualValues(t, "https", f.target(strings.TrimPrefix(k.URL, "https://"))["__scheme__"])
	assert.Zero(t, k.Requests("/pods"))
}

func TestWithoutAKubeletThereAreNoTargets(t *testing.T) {
	d, err := (&SDConfig{}).NewDiscoverer(discovery.DiscovererOptions{})
	require.NoError(t, err)
	d.Run(t.Context(), nil) // returns, and sends nothing
}

func TestAnnotations(t *testing.T) {
	pod := func(annotations ...string) *kubelet.Pod {
		p := runningPod()
		p.Annotations = map[string]string{"prometheus.io/scrape": "true"}
		for i := 0; i < len(annotations); i += 2 {
			p.Annotations["prometheus.io/"+annotations[i]] = annotations[i+1]
		}
		return p
	}
	for name, test := range map[string]struct {
		pod   *kubelet.Pod
		want  string // address scheme path, of each target
		error string
	}{
		"port":                      {pod("port", "1234"), "[fd00::5]:1234  ", ""},
		"ports":                     {pod("port", "1234, 80"), "[fd00::5]:1234  |[fd00::5]:80  ", ""},
		"scheme":                    {pod("port", "1", "scheme", "https"), "[fd00::5]:1 https ", ""},
		"path":                      {pod("port", "1", "path", "m"), "[fd00::5]:1  /m", ""},
		"path and query":            {pod("port", "1", "path", "/m?format=prometheus&x-y=z"), "[fd00::5]:1  /m", ""},
		"declared ports":            {pod(), "[fd00::5]:80  ", ""},
		"not a port":                {pod("port", "http"), "", "prometheus.io/port: \"http\" is not a port"},
		"port 0":                    {pod("port", "0"), "", "is not a port"},
		"port 65536":                {pod("port", "65536"), "", "is not a port"},
		"not a scheme":              {pod("scheme", "ftp"), "", "prometheus.io/scheme"},
		"not a query":               {pod("path", "/m?%zz"), "", "prometheus.io/path"},
		"scrape: yes":               {pod("scrape", "yes"), "", ""},
		"scrape: false":             {pod("scrape", "false", "port", "1"), "", ""},
		"too many ports":            {pod("port", strings.Repeat("1,", 99)+"1"), strings.TrimSuffix(strings.Repeat("[fd00::5]:1  |", maxTargets), "|"), ""},
		"no port, none is declared": {func() *kubelet.Pod { p := pod(); p.Containers[0].Ports = nil; return p }(), "", "prometheus.io/port is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &bytes.Buffer{}
			d := &discoverer{config: defaultConfig(), logger: slog.New(slog.NewTextHandler(log, nil)), said: map[string]bool{}}
			state := func() string {
				var all []string
				for _, target := range d.targets(test.pod) {
					all = append(all, string(target[model.AddressLabel]+" "+target[model.SchemeLabel]+" "+target[model.MetricsPathLabel]))
				}
				return strings.Join(all, "|")
			}
			assert.Equal(t, test.want, state())
			state()
			if test.error == "" {
				assert.Empty(t, log.String())
			} else {
				assert.Contains(t, strings.ReplaceAll(log.String(), `\"`, `"`), test.error)
				assert.Equal(t, 1, strings.Count(log.String(), "\n"), "it is said once")
			}
		})
	}
	target := (&discoverer{config: defaultConfig()}).targets(pod("port", "1", "path", "/m?format=prometheus&x-y=z"))[0]
	assert.EqualValues(t, "prometheus", target["__param_format"])
	assert.EqualValues(t, "z", target["__param_x_y"])
	other := pod("port", "1")
	other.Annotations["example.com/scrape"], other.Annotations["example.com/port"] = "true", "2"
	config := defaultConfig()
	config.AnnotationPrefix = "example.com"
	assert.EqualValues(t, "[fd00::5]:2", (&discoverer{config: config}).targets(other)[0][model.AddressLabel])
}

func TestConfigurationOfThePrometheusReceiver(t *testing.T) {
	load := func(sd string) (*promconfig.Config, error) {
		return promconfig.Load("scrape_configs:\n- job_name: a\n  longhaul_kubelet_sd_configs:\n  - "+sd, slog.New(slog.DiscardHandler))
	}
	config, err := load("{url: 'https://10.0.0.4:10250', token_file: /t, ca_file: /c, insecure_skip_verify: true, poll_interval: 1m, cache_file: /p, role: node, annotation_prefix: example.com}")
	require.NoError(t, err)
	want := &SDConfig{"https://10.0.0.4:10250", "/t", "/c", true, model.Duration(time.Minute), "/p", RoleNode, "example.com"}
	assert.Equal(t, discovery.Configs{want}, config.ScrapeConfigs[0].ServiceDiscoveryConfigs)
	config, err = load("{url: ''}")
	require.NoError(t, err)
	defaults := defaultConfig()
	assert.Equal(t, discovery.Configs{&defaults}, config.ScrapeConfigs[0].ServiceDiscoveryConfigs)
	for bad, want := range map[string]string{
		"{role: pods}":                    `role: "pods"`,
		"{annotation_prefix: 'a.b/'}":     "annotation_prefix",
		"{url: 'ftp://x'}":                "url: ",
		"{poll_interval: 1s}":             "poll_interval: ",
		"{tokenfile: /t}":                 "tokenfile",
		"{ca_file: relative, role: node}": "ca_file: ",
	} {
		_, err := load(bad)
		assert.ErrorContains(t, err, want, bad)
	}
}

// runningPod is a running pod with one container that declares a port.
func runningPod() *kubelet.Pod {
	return &kubelet.Pod{
		UID: "u", Namespace: "n", Name: "p", Phase: "Running", IPs: []netip.Addr{netip.MustParseAddr("fd00::5")},
		Containers: []kubelet.Container{{Name: "c", Ports: []kubelet.Port{{Name: "http", Number: 80, Protocol: "TCP"}, {Number: 81, Protocol: "UDP"}}}},
	}
}
