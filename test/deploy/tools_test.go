package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// repository is the root of longhaul's checkout.
var repository = sync.OnceValue(func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
})

func repositoryFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository(), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// run runs a command and returns what it printed, both streams together.
func run(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// goTool returns the path of a tool of a module, building it if need be.
func goTool(dir, name string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		out, err := exec.Command("go", "-C", dir, "tool", "-n", name).Output()
		if err != nil {
			return "", toolError("go tool "+name, err)
		}
		return strings.TrimSpace(string(out)), nil
	})
}

var (
	helmPath       = goTool(".", "helm.sh/helm/v3/cmd/helm")
	natsServerPath = goTool(".", "github.com/nats-io/nats-server/v2")
	validatePath   = goTool("kubectl-validate", "sigs.k8s.io/kubectl-validate")
)

func toolError(what string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s", what, err, exit.Stderr)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func tool(t *testing.T, path func() (string, error)) string {
	t.Helper()
	p, err := path()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// backend returns the binary of Loki, Prometheus or Jaeger, from the cache that
// the demo and the end-to-end test use too.
func backend(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command("go", "run", "./internal/lab/cmd/backends", name)
	cmd.Dir = repository()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(toolError("build "+name, err))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// process is a server under test; it ends with the test.
type process struct {
	output *lockedBuffer
	exited chan struct{}
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{output: &lockedBuffer{}, exited: make(chan struct{})}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-p.exited
		}
	})
	return p
}

// get waits until the server answers 200 and returns the answer.
func (p *process) get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	var last string
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		select {
		case <-p.exited:
			t.Fatalf("the server ended:\n%s", p.output)
		default:
		}
		response, err := client.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode == http.StatusOK {
			return string(body)
		}
		last = fmt.Sprintf("%s: %s", response.Status, body)
	}
	t.Fatalf("no answer from %s: %s\n%s", url, last, p.output)
	return ""
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePorts returns loopback ports nothing listens on.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func post(t *testing.T, url, contentType, body string) (status int, answer string) {
	t.Helper()
	response, err := http.Post(url, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}
