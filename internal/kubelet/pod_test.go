package kubelet

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func podsByName(t *testing.T) map[string]*Pod {
	t.Helper()
	content, err := os.ReadFile("kubelettest/testdata/pods.json")
	require.NoError(t, err)
	pods, err := parsePodList(bytes.NewReader(content), maxAnswerBytes)
	require.NoError(t, err)
	byName := map[string]*Pod{}
	for _, p := range pods {
		byName[p.Name] = p
	}
	return byName
}

func TestPodListIsRead(t *testing.T) {
	pods := podsByName(t)
	require.Len(t, pods, 9)
	p := pods["checkout-7d4b9c6f5d-x2x9p"]
	assert.Equal(t, "8f2b6a0e-1c1d-4d8e-9a52-0d8f7a5b1c01", p.UID)
	assert.Equal(t, "shop", p.Namespace)
	assert.Equal(t, "node-a", p.Node)
	assert.Equal(t, "192.168.10.21", p.HostIP)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.42.0.17"), netip.MustParseAddr("fd00:42::17")}, p.IPs)
	assert.Equal(t, "true", p.Ready)
	assert.Equal(t, "payments", p.Labels["team"])
	assert.NotContains(t, p.Annotations, "kubectl.kubernetes.io/last-applied-configuration", "longer than any value that is kept")
	require.Len(t, p.Containers, 3)
	assert.Equal(t, Container{
		Name: "app", ID: strings.Repeat("a1", 32), PreviousID: strings.Repeat("a0", 32), Started: true, RestartCount: 1,
		Image: "registry.example.com:5000/shop/checkout:2.14.0@sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270",
		Ports: []Port{{"http", 8080, "TCP"}, {"metrics", 9102, "TCP"}},
	}, p.Containers[0])
	assert.Equal(t, Init, p.Container("migrate").Kind)
	assert.Nil(t, p.OnlyContainer(), "it has two")
	assert.Equal(t, "postgres", pods["postgres-0"].OnlyContainer().Name)
	assert.True(t, pods["kube-flannel-ds-9kq4w"].HostNetwork)
	assert.Empty(t, pods["cart-5f6d7c8b9a-zzzzz"].IPs)
	assert.False(t, pods["cart-5f6d7c8b9a-zzzzz"].Containers[0].Started)
	assert.False(t, pods["report-29399040-7hb4d"].Running())
	assert.Zero(t, pods["kube-apiserver-node-a"].CreatedUnix)
}

// What a real kubelet said that has no API server: a static pod without an
// address, whose name carries the node's.
func TestPodListOfARealKubeletIsRead(t *testing.T) {
	content, err := os.ReadFile("testdata/kubelet-v1.34.4-standalone.json")
	require.NoError(t, err)
	pods, err := parsePodList(bytes.NewReader(content), maxAnswerBytes)
	require.NoError(t, err)
	require.Len(t, pods, 1)
	p := pods[0]
	assert.Equal(t, "orders-node-a", p.Name)
	assert.Equal(t, "6c22fa54c44f884674135d07a0f53208", p.UID)
	assert.True(t, p.HostNetwork)
	assert.True(t, p.Running())
	assert.Equal(t, &Container{
		Name: "app", Image: "longhaul.test/app:1.2.3", Started: true,
		ID: "90c34ebad0e8e9af78993a17cdc107693850ddac761b1b3074215a94d93c081b",
	}, p.OnlyContainer())
}

func TestOwners(t *testing.T) {
	pods := podsByName(t)
	for name, want := range map[string]Workload{
		"checkout-7d4b9c6f5d-x2x9p": {Deployment: "checkout", ReplicaSet: "checkout-7d4b9c6f5d"},
		"postgres-0":                {StatefulSet: "postgres"},
		"kube-flannel-ds-9kq4w":     {DaemonSet: "kube-flannel-ds"},
		"report-29399040-7hb4d":     {Job: "report-29399040", CronJob: "report"},
		"import-20251124-q8zt2":     {Job: "import-20251124"}, // a date, not minutes
		"kube-apiserver-node-a":     {},
		"etcd-node-a":               {}, // its node is no workload
		"legacy":                    {},
	} {
		assert.Equal(t, want, pods[name].Workload(), name)
	}
	for _, test := range []struct {
		pod  Pod
		want Workload
	}{
		// A replica set made by hand, and one of something that is no deployment.
		{Pod{OwnerKind: "ReplicaSet", OwnerName: "web-abc"}, Workload{ReplicaSet: "web-abc"}},
		{Pod{OwnerKind: "ReplicaSet", OwnerName: "web-abc", Labels: map[string]string{templateHashLabel: "xyz"}}, Workload{ReplicaSet: "web-abc"}},
		{Pod{OwnerKind: "Job", OwnerName: "a-29399040"}, Workload{Job: "a-29399040"}}, // made when?
		{Pod{OwnerKind: "Job", OwnerName: "29399040", CreatedUnix: 29399040 * 60}, Workload{Job: "29399040"}},
		{Pod{OwnerKind: "Workflow", OwnerName: "w"}, Workload{}},
	} {
		assert.Equal(t, test.want, test.pod.Workload(), test.pod.OwnerName)
	}
}

func TestImages(t *testing.T) {
	for image, want := range map[string][2]string{
		"nginx":                            {"nginx", "latest"},
		"nginx:1.27":                       {"nginx", "1.27"},
		"host:5000/a/b":                    {"host:5000/a/b", "latest"},
		"host:5000/a/b:c":                  {"host:5000/a/b", "c"},
		"host:5000/a/b:c@sha256:00":        {"host:5000/a/b", "c"},
		"host:5000/a/b@sha256:00":          {"host:5000/a/b", ""},
		"":                                 {"", ""},
		"sha256:5b0bcabd1ed22e9fb1310cf6c": {"sha256", "5b0bcabd1ed22e9fb1310cf6c"},
	} {
		name, tag := (&Container{Image: image}).ImageNameAndTag()
		assert.Equal(t, want, [2]string{name, tag}, image)
	}
}

func TestContainerIDFitsTheRestart(t *testing.T) {
	c := Container{ID: "now", PreviousID: "before", Started: true, RestartCount: 3}
	for restarts, want := range map[int64]string{4: "", 3: "now", 2: "before", 1: ""} {
		assert.Equal(t, want, c.IDAt(restarts))
	}
	assert.Empty(t, (&Container{}).IDAt(0))
}

func TestServiceByTheConventions(t *testing.T) {
	pods := podsByName(t)
	for _, test := range []struct {
		pod, container string
		labels         bool
		want           Service
	}{
		{"checkout-7d4b9c6f5d-x2x9p", "app", false, Service{"checkout", "shop", "2.14.0", "shop.checkout-7d4b9c6f5d-x2x9p.app"}},
		{"checkout-7d4b9c6f5d-x2x9p", "app", true, Service{"shop", "shop", "2.14.0", "shop.checkout-7d4b9c6f5d-x2x9p.app"}},
		{"checkout-7d4b9c6f5d-x2x9p", "", false, Service{"checkout", "shop", "", ""}},
		{"postgres-0", "postgres", false, Service{"postgres", "shop", "17", "shop.postgres-0.postgres"}},
		{"report-29399040-7hb4d", "report", false, Service{"report", "shop", "", "shop.report-29399040-7hb4d.report"}},
		{"import-20251124-q8zt2", "import", false, Service{"import-20251124", "shop", "1", "shop.import-20251124-q8zt2.import"}},
		{"legacy", "till", true, Service{"till", "shop", "9", "shop.legacy.till"}},
		{"etcd-node-a", "", true, Service{"etcd-node-a", "kube-system", "", ""}},
	} {
		p := pods[test.pod]
		assert.Equal(t, test.want, p.Service(p.Container(test.container), test.labels), test.pod)
	}
}

func TestWhatIsNoPodListIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 "EOF",
		`not JSON`:                         "invalid character",
		`[]`:                               "expected",
		`{}`:                               "no items",
		`{"kind":"Status","message":"no"}`: "Status",
		`{"kind":"PodList","items":{}}`:    "not a list",
		`{"kind":"PodList","items":[{}`:    "EOF",
		`{"kind":"PodList","items":[{"metadata":1}]`: "cannot unmarshal",
		`{"kind":"PodList","items":[]`:               "EOF",
	} {
		_, err := parsePodList(strings.NewReader(text), maxAnswerBytes)
		assert.ErrorContains(t, err, want, text)
	}
	for _, text := range []string{`{"items":null}`, `{"kind":"PodList","apiVersion":"v9","new":{"a":[1]},"items":[]}`} {
		pods, err := parsePodList(strings.NewReader(text), maxAnswerBytes)
		assert.NoError(t, err, text)
		assert.Empty(t, pods)
	}
}

func FuzzPodList(f *testing.F) {
	content, err := os.ReadFile("kubelettest/testdata/pods.json")
	require.NoError(f, err)
	f.Add(content)
	f.Add([]byte(`{"kind":"PodList","items":[{"metadata":{"uid":"u","name":"n"},"status":{"podIP":"x"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		pods, err := parsePodList(bytes.NewReader(text), maxAnswerBytes)
		if err != nil {
			return
		}
		state := newState(pods)
		for _, p := range pods {
			if state.find(Ref{UID: p.UID}) == nil {
				t.Fatalf("pod %q is listed and not found", p.UID)
			}
			p.Workload()
			p.Service(p.OnlyContainer(), true)
		}
		encoded, _, err := encodeCache(state.all())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseCache(encoded); err != nil {
			t.Fatal(err)
		}
	})
}
