package containers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/longhaul/longhaul/internal/lab"
)

// containerdConfig keeps everything of this containerd below one directory. The
// shims' sockets alone are elsewhere, in /run/containerd/s, under names that are
// a hash of the socket's.
var containerdConfig = template.Must(template.New("containerd").Parse(`version = 2
root = "{{.Dir}}/root"
state = "{{.Dir}}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "{{.Socket}}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Image}}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.Dir}}/cni/bin"
    conf_dir = "{{.Dir}}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`))

// node is a containerd that the test started, and the logs of its pods.
type node struct {
	t       *testing.T
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	logs    string // as /var/log/pods
}

// startNode starts containerd and imports the image. It skips the test where
// there is no container runtime.
func startNode(t *testing.T, dir, logs string) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root: run make test-containers as root")
	}
	if !mayMount(t) {
		t.Skip("containers need CAP_SYS_ADMIN, which root does not have here: run make test-containers outside a container, or in a privileged one")
	}
	binaries := map[string]string{}
	for _, name := range []string{"containerd", "runc", "ctr", "containerd-shim-runc-v2"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed: apt-get install containerd runc", name)
		}
		binaries[name] = path
	}
	const image = "longhaul.test/writer:test"
	socket := filepath.Join(dir, "containerd.sock")
	configFile := filepath.Join(dir, "containerd.toml")
	f, err := os.Create(configFile)
	require.NoError(t, err)
	require.NoError(t, containerdConfig.Execute(f, map[string]string{"Dir": dir, "Socket": socket, "Image": image}))
	require.NoError(t, f.Close())

	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	n := &node{t: t, runtime: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn), logs: logs}

	containerd := lab.NewProcess(lab.Spec{
		Name: "containerd", Binary: binaries["containerd"], Args: []string{"--config", configFile},
		LogFile: filepath.Join(dir, "containerd.log"),
		Ready:   n.ready,
	})
	start(t, containerd)
	t.Cleanup(n.removeAll) // before containerd stops

	archive := filepath.Join(dir, "image.tar")
	writeImage(t, archive, image, buildWriter(t, dir))
	load := exec.CommandContext(t.Context(), binaries["ctr"], "--address", socket, "--namespace", "k8s.io",
		"images", "import", "--snapshotter", "native", archive)
	output, err := load.CombinedOutput()
	require.NoError(t, err, "%s", output)
	eventually(t, time.Minute, func() error { // the CRI plugin learns of it by an event
		status, err := n.images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
		if err == nil && status.Image == nil {
			err = fmt.Errorf("the runtime does not know %s", image)
		}
		return err
	})
	return n
}

// mayMount says whether this process has CAP_SYS_ADMIN, number 21.
func mayMount(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(status), "CapEff:\t")
	require.True(t, found)
	effective, _, _ := strings.Cut(after, "\n")
	set, err := strconv.ParseUint(effective, 16, 64)
	require.NoError(t, err)
	return set&(1<<21) != 0
}

// ready is nil when the runtime takes requests. The network is not asked about:
// the pods use the node's.
func (n *node) ready(ctx context.Context) error {
	status, err := n.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range status.Status.Conditions {
		if c.Type == cri.RuntimeReady && !c.Status {
			return fmt.Errorf("runtime is not ready: %s %s", c.Reason, c.Message)
		}
	}
	return nil
}

// removeAll removes what a failed test leaves behind, so that no process of a
// container outlives it.
func (n *node) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := n.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		n.t.Errorf("list the pods to remove: %v", err)
		return
	}
	for _, p := range list.Items {
		_, err := n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id})
		if err == nil {
			_, err = n.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id})
		}
		if err != nil {
			n.t.Errorf("remove pod %s: %v", p.Metadata.Name, err)
		}
	}
}

// pod is a sandbox and where its logs are.
type pod struct {
	node                 *node
	id                   string
	name, namespace, uid string
	config               *cri.PodSandboxConfig
}

// logDirectory is <namespace>_<name>_<uid>, as the kubelet names it.
func (p *pod) logDirectory() string {
	return filepath.Join(p.node.logs, strings.Join([]string{p.namespace, p.name, p.uid}, "_"))
}

func (n *node) runPod(name string) *pod {
	n.t.Helper()
	p := &pod{node: n, name: name, namespace: "shop", uid: fmt.Sprintf("%08x-0000-4000-8000-000000000000", time.Now().UnixNano()&0xffffffff)}
	p.config = &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: p.namespace, Uid: p.uid},
		LogDirectory: p.logDirectory(),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	require.NoError(n.t, os.MkdirAll(p.logDirectory(), 0o755))
	answer, err := n.runtime.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: p.config})
	require.NoError(n.t, err, "run pod %s", name)
	p.id = answer.PodSandboxId
	return p
}

// remove stops the pod, which ends its containers, and removes it; then removes
// its logs as the kubelet does.
func (p *pod) remove() {
	p.node.t.Helper()
	ctx := p.node.t.Context()
	_, err := p.node.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	require.NoError(p.node.t, err)
	_, err = p.node.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	require.NoError(p.node.t, err)
	require.NoError(p.node.t, os.RemoveAll(p.logDirectory()))
}

// container is one attempt of a container of a pod.
type container struct {
	pod      *pod
	name     string
	attempt  int
	id       string
	lines    string // the id its lines begin with
	rotation int    // counts
}

// logPath is where the runtime writes.
func (c *container) logPath() string {
	return filepath.Join(c.pod.logDirectory(), c.name, fmt.Sprintf("%d.log", c.attempt))
}

// start runs one attempt of a container that prints count lines, rate a second.
func (p *pod) start(name string, attempt, count, rate int) *container {
	t, ctx := p.node.t, p.node.t.Context()
	t.Helper()
	c := &container{pod: p, name: name, attempt: attempt, lines: fmt.Sprintf("%s/%s/%d", p.name, name, attempt)}
	require.NoError(t, os.MkdirAll(filepath.Dir(c.logPath()), 0o755))
	created, err := p.node.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name, Attempt: uint32(attempt)},
			Image:    &cri.ImageSpec{Image: "longhaul.test/writer:test"},
			Command:  []string{"/writer", "lines", c.lines, fmt.Sprint(count), fmt.Sprint(rate)},
			LogPath:  filepath.Join(name, fmt.Sprintf("%d.log", attempt)),
			Linux:    &cri.LinuxContainerConfig{},
		},
	})
	require.NoError(t, err, "create container %s", c.lines)
	c.id = created.ContainerId
	_, err = p.node.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id})
	require.NoError(t, err, "start container %s", c.lines)
	return c
}

// exited waits until the container has ended by itself. Its log is complete
// then: the runtime drains the pipes first.
func (c *container) exited() {
	t := c.pod.node.t
	t.Helper()
	eventually(t, 3*time.Minute, func() error {
		if !c.ended() {
			return fmt.Errorf("container %s has not ended", c.lines)
		}
		return nil
	})
}

func (c *container) ended() bool {
	t := c.pod.node.t
	t.Helper()
	answer, err := c.pod.node.runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id})
	require.NoError(t, err)
	s := answer.Status
	if s.State != cri.ContainerState_CONTAINER_EXITED {
		return false
	}
	require.Zero(t, s.ExitCode, "container %s: %s %s", c.lines, s.Reason, s.Message)
	return true
}

// stop ends the container in the middle of its work.
func (c *container) stop() {
	t := c.pod.node.t
	t.Helper()
	_, err := c.pod.node.runtime.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: c.id, Timeout: 60})
	require.NoError(t, err)
	c.exited()
}

// remove removes the container and its logs, as the kubelet's garbage collection
// does with all but the last dead attempt.
func (c *container) remove() {
	t := c.pod.node.t
	t.Helper()
	_, err := c.pod.node.runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id})
	require.NoError(t, err)
	logs, err := filepath.Glob(c.logPath() + "*")
	require.NoError(t, err)
	for _, l := range logs {
		require.NoError(t, os.Remove(l))
	}
}
