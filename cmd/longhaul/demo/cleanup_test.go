package demo

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// TestNothingSurvivesTheDemo starts the real demo and ends it in every way
// there is; no process that knows the run directory may be left.
func TestNothingSurvivesTheDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole demo")
	}
	checkout, err := lab.FindCheckout(".")
	require.NoError(t, err)
	bin := filepath.Join(checkout, "bin")
	if dir := os.Getenv("DEMO_TEST_BIN"); dir != "" {
		bin = dir
	}
	for _, name := range []string{"longhaul-collector", "longhaul-relay"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Skipf("%s is not built: run make build first", name)
		}
	}
	for _, c := range []struct {
		name    string
		signal  syscall.Signal
		orderly bool
	}{
		{"CtrlC", syscall.SIGINT, true},
		{"Terminated", syscall.SIGTERM, true},
		{"TerminalClosed", syscall.SIGHUP, true},
		{"Panic", syscall.SIGQUIT, false}, // the Go runtime dies as it does of a panic
		{"Killed", syscall.SIGKILL, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			out := &output{}
			cmd := exec.Command(os.Args[0], "demo", "--bin", bin, "--dir", dir,
				"--loki-port", "0", "--prometheus-port", "0", "--jaeger-port", "0")
			cmd.Env = append(os.Environ(), asLonghaul+"=1")
			cmd.Stdout, cmd.Stderr = out, out
			require.NoError(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() })

			// Seven processes: relay, three collectors, three applications.
			require.Eventually(t, func() bool { return len(processesOf(t, dir, cmd.Process.Pid)) >= 7 && out.has("the pipeline is up") },
				90*time.Second, 100*time.Millisecond, "the demo did not start:\n%s", out)
			require.NoError(t, cmd.Process.Signal(c.signal))
			select {
			case err := <-ended:
				if c.orderly {
					require.NoError(t, err, "%s", out)
					require.True(t, out.has("everything is stopped"), "%s", out)
				}
			case <-time.After(90 * time.Second):
				require.Fail(t, "the demo did not end", "%s", out)
			}
			require.Eventually(t, func() bool { return len(processesOf(t, dir, 0)) == 0 },
				10*time.Second, 50*time.Millisecond, "left behind: %v", processesOf(t, dir, 0))
		})
	}
}

// processesOf lists the processes whose arguments or environment name dir.
func processesOf(t *testing.T, dir string, except int) []string {
	entries, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	if len(entries) == 0 {
		t.Skip("this system has no /proc")
	}
	var out []string
	for _, e := range entries {
		// A process that ended meanwhile reads as nothing.
		args, _ := os.ReadFile(filepath.Join(e, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(e, "environ"))
		if (bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir))) && filepath.Base(e) != strconv.Itoa(except) {
			out = append(out, filepath.Base(e)+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return out
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) has(s string) bool { return strings.Contains(o.String(), s) }

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
