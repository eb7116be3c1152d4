package kubelet

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 2 * time.Minute

// node is a containerd and a kubelet with one static pod.
type node struct {
	t                   *testing.T
	dir, socket         string
	secure, readOnly    string // ports
	pods                string // directory of the containers' logs
	containerd, kubelet *program
}

func startNode(t *testing.T) *node {
	t.Helper()
	keepKernelSettings(t) // cleaned up last, after the kubelet
	removeControlGroups(t)
	dir, err := os.MkdirTemp("", "lh-kubelet-") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, socket: filepath.Join(dir, "containerd.sock"), secure: freePort(t), readOnly: freePort(t), pods: filepath.Join(dir, "pods")}
	t.Cleanup(n.remove)

	n.write("containerd.toml", strings.ReplaceAll(containerdConfig, "DIR", dir))
	n.containerd = run(t, filepath.Join(dir, "containerd.log"), nil, "containerd", "--config", filepath.Join(dir, "containerd.toml"))
	n.eventually("containerd answers", func() bool { _, err := n.ctr("version"); return err == nil })
	app := filepath.Join(dir, "app")
	if out, err := command("go", "build", "-o", app, "./app"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for tag, args := range map[string][]string{"longhaul.test/pause:1": nil, "longhaul.test/orders:1.2.3": {"serve"}} {
		file := filepath.Join(dir, "image.tar")
		writeImage(t, file, tag, app, args...)
		if out, err := n.ctr("images", "import", "--snapshotter", "native", file); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	n.write("manifests/orders.yaml", manifest)
	n.write("kubelet.yaml", strings.NewReplacer("DIR", dir, "SECURE", n.secure, "READONLY", n.readOnly).Replace(kubeletConfig))
	n.kubelet = run(t, filepath.Join(dir, "kubelet.log"), nil, filepath.Join(binaries, "kubelet"),
		"--config", filepath.Join(dir, "kubelet.yaml"), "--root-dir", filepath.Join(dir, "kubelet"), "--cert-dir", filepath.Join(dir, "certs"),
		"--hostname-override", "node-a", "--containerd", n.socket)
	n.eventually("the pod writes its log", func() bool { return n.log() != "" })
	return n
}

const containerdConfig = `version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/containerd.sock"
[ttrpc]
  address = "DIR/containerd.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "longhaul.test/pause:1"
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/cni"
    conf_dir = "DIR/cni"
`

// Nothing that measures or evicts may disturb the machine.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: SECURE
readOnlyPort: READONLY
healthzPort: 0
staticPodPath: DIR/manifests
podLogsDir: DIR/pods
containerRuntimeEndpoint: unix://DIR/containerd.sock
volumePluginDir: DIR/plugins
cgroupDriver: cgroupfs
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
registerNode: false
fileCheckFrequency: 1s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
`

const manifest = `apiVersion: v1
kind: Pod
metadata:
  name: orders
  namespace: shop
  labels: {app.kubernetes.io/name: orders, team: payments}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
    - name: app
      image: longhaul.test/orders:1.2.3
      imagePullPolicy: Never
      resources: {limits: {memory: 64Mi, cpu: 500m}}
`

// log is the path of the pod's log, when there is something in it.
func (n *node) log() string {
	logs, _ := filepath.Glob(filepath.Join(n.pods, "shop_orders-node-a_*", "app", "*.log"))
	for _, log := range logs {
		if info, err := os.Stat(log); err == nil && info.Size() > 0 {
			return log
		}
	}
	return ""
}

func (n *node) write(name, content string) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) ctr(args ...string) (string, error) {
	return command("ctr", append([]string{"--address", n.socket, "--namespace", "k8s.io"}, args...)...)
}

func (n *node) eventually(what string, condition func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("it never came to be that %s", what)
		}
	}
}

// remove ends everything, and takes away what it left on the machine.
func (n *node) remove() {
	if n.t.Failed() {
		for _, name := range []string{"containerd.log", "kubelet.log"} {
			content, _ := os.ReadFile(filepath.Join(n.dir, name))
			n.t.Logf("the end of %s:\n%s", name, content[max(0, len(content)-4000):])
		}
	}
	if n.kubelet != nil {
		n.kubelet.stop(syscall.SIGTERM)
	}
	if n.containerd != nil {
		tasks, _ := n.ctr("tasks", "ls", "--quiet")
		for _, id := range strings.Fields(tasks) {
			_, _ = n.ctr("tasks", "delete", "--force", id)
		}
		containers, _ := n.ctr("containers", "ls", "--quiet")
		for _, id := range strings.Fields(containers) {
			_, _ = n.ctr("containers", "delete", id)
		}
		n.containerd.stop(syscall.SIGTERM)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[1], n.dir+"/") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil {
				n.t.Errorf("unmount %s: %v", fields[1], err)
			}
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Error(err)
	}
}

// keepKernelSettings puts back at the end what a kubelet sets.
func keepKernelSettings(t *testing.T) {
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		path := "/proc/sys/" + name
		before, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if now, err := os.ReadFile(path); err == nil && !bytes.Equal(now, before) {
				if err := os.WriteFile(path, before, 0o644); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// removeControlGroups removes, at the end, the groups the kubelet makes, if it
// is this one that made them.
func removeControlGroups(t *testing.T) {
	const pattern = "/sys/fs/cgroup/*/kubepods"
	if existing, _ := filepath.Glob(pattern); len(existing) > 0 {
		t.Fatalf("%s exists: is there a kubelet on this machine?", existing[0])
	}
	t.Cleanup(func() {
		made, _ := filepath.Glob(pattern)
		for _, group := range append(made, "/sys/fs/cgroup/kubepods") {
			_, _ = command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";")
		}
	})
}

// program is a running process with a log of its own.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func run(t *testing.T, log string, env []string, name string, args ...string) *program {
	t.Helper()
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := &program{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p
}

func (p *program) stop(signal os.Signal) {
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), err
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
