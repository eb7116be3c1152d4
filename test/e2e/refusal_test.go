package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/longhaul/longhaul/internal/lab"
)

// refusalTime is far more than a program needs to notice that it cannot start.
const refusalTime = 30 * time.Second

// requireRefusal runs a program that cannot start: it has to end by itself, with
// status 1, and its last line has to say why, naming every given part. Nothing
// like a stack trace may stand before it.
func requireRefusal(t *testing.T, cmd []string, env map[string]string, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), refusalTime)
	defer cancel()
	c := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LONGHAUL_") {
			c.Env = append(c.Env, kv)
		}
	}
	for k, v := range env {
		c.Env = append(c.Env, k+"="+v)
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	output := stdout.String() + stderr.String()
	require.NoError(t, ctx.Err(), "it is still running; it wrote:\n%s", output)
	require.Error(t, err, output)
	require.Equal(t, 1, c.ProcessState.ExitCode(), output)
	require.NotContains(t, output, "goroutine ", "a stack trace is not an explanation")
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	last := lines[len(lines)-1]
	for _, part := range parts {
		require.Contains(t, last, part, "the last line has to say it; all of standard error:\n%s", stderr.String())
	}
	errorLines := 0
	for _, line := range lines {
		if strings.HasPrefix(line, filepath.Base(cmd[0])+":") {
			errorLines++
		}
	}
	require.Equal(t, 1, errorLines, "one clear error:\n%s", stderr.String())
	say("%s: %s", t.Name(), last)
}

// collectorEnv is the environment of a collector on free ports.
func collectorEnv(t *testing.T, spool string) map[string]string {
	t.Helper()
	address := func() string {
		port, err := lab.FreePort()
		require.NoError(t, err)
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	_, metricsPort, _ := strings.Cut(address(), ":")
	return map[string]string{
		"LONGHAUL_CLUSTER": "store-0051", "LONGHAUL_NODE": "node-a",
		"LONGHAUL_NATS_URL":  "nats://" + address(),
		"LONGHAUL_SPOOL_DIR": spool, "LONGHAUL_POD_LOGS_DIR": t.TempDir(),
		"LONGHAUL_OTLP_GRPC": address(), "LONGHAUL_OTLP_HTTP": address(), "LONGHAUL_HEALTH": address(),
		"LONGHAUL_METRICS_PORT": metricsPort,
	}
}

func TestCollectorRefusesSpoolDirectory(t *testing.T) {
	collector, _ := binaries(t)

	t.Run("unreachable", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o644))
		spool := filepath.Join(file, "spool")
		requireRefusal(t, []string{collector}, collectorEnv(t, spool), spool, "not a directory")
	})
	t.Run("full", func(t *testing.T) {
		spool := mountTmpfs(t)
		filler, err := os.Create(filepath.Join(spool, "filler"))
		require.NoError(t, err)
		defer filler.Close()
		for block := make([]byte, 4096); ; {
			if _, err := filler.Write(block); err != nil {
				require.ErrorIs(t, err, unix.ENOSPC)
				break
			}
		}
		requireRefusal(t, []string{collector}, collectorEnv(t, spool), spool, "no space left on device")
	})
	t.Run("read-only", func(t *testing.T) {
		spool := filepath.Join(t.TempDir(), "spool")
		cause := "permission denied"
		require.NoError(t, os.MkdirAll(spool, 0o555))
		if os.Geteuid() == 0 { // root may write anywhere but here
			spool = mountTmpfs(t)
			require.NoError(t, unix.Mount("", spool, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			cause = "read-only file system"
		}
		requireRefusal(t, []string{collector}, collectorEnv(t, spool), spool, cause)
	})
}

// mountTmpfs mounts a file system of 256 KiB.
func mountTmpfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("this machine does not let root mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestProgramsRefuseNonsenseConfiguration(t *testing.T) {
	collector, relay := binaries(t)
	for name, nonsense := range map[string]struct {
		text  string
		parts []string
	}{
		"not YAML":          {"receivers: [}\n", []string{"yaml"}},
		"unknown key":       {"nonsense: true\n", []string{"nonsense"}},
		"unknown component": {"receivers: {nonsense: {}}\nexporters: {debug: {}}\nservice: {pipelines: {logs: {receivers: [nonsense], exporters: [debug]}}}\n", []string{"nonsense"}},
		"empty":             {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "nonsense.yaml")
			require.NoError(t, os.WriteFile(file, []byte(nonsense.text), 0o644))
			for _, program := range []string{collector, relay} {
				requireRefusal(t, []string{program, "--config", file}, nil, nonsense.parts...)
			}
		})
	}
	t.Run("no such file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "nonsense.yaml")
		for _, program := range []string{collector, relay} {
			requireRefusal(t, []string{program, "--config", file}, nil, file, "no such file")
		}
	})
}

func TestCollectorNeedsACluster(t *testing.T) {
	collector, _ := binaries(t)
	env := collectorEnv(t, t.TempDir())
	delete(env, "LONGHAUL_CLUSTER")
	requireRefusal(t, []string{collector}, env, "LONGHAUL_CLUSTER")
}
