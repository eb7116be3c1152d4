// Package e2e proves the whole path: the real longhaul-collector and
// longhaul-relay, real Loki, Prometheus and Jaeger, real input (testdata), and
// what a store's life does to it: a hub that goes away, a collector killed with
// -9, links that fail.
//
// Everything is built by the test itself; the backends take minutes the first
// time (make backends does it beforehand) and are then cached outside the
// checkout. What goes on is printed to standard error. With E2E_KEEP=<directory>
// configurations, logs and stores stay there afterwards; with
// E2E_BINARIES=<directory> the longhaul-collector and longhaul-relay in it are
// tested instead of new ones.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// buildTags are the Makefile's: without them the binaries are others than those
// that are shipped.
const buildTags = "remove_all_sd,grpcnotrace,netgo"

var began = time.Now()

// say tells whoever waits what the test is doing.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "e2e %4.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "longhaul-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if keep := os.Getenv("E2E_KEEP"); keep != "" {
		dir = keep
	}
	world.dir = dir
	code := m.Run()
	stopAll(world.running)
	for _, finding := range world.findings {
		say("%s", finding)
	}
	if os.Getenv("E2E_KEEP") == "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// world is what the tests share: binaries and backends. Each test has its own
// collector, relay and cluster name.
var world struct {
	dir string

	binaries struct {
		sync.Once
		err              error
		collector, relay string
	}
	loki       once[*lab.Loki]
	prometheus once[*lab.Prometheus]
	jaeger     once[*lab.Jaeger]

	mu       sync.Mutex
	running  []*lab.Process
	findings []string
}

// fail ends a test. What it found stands once more at the end of the whole output,
// of which sometimes only that is left.
func fail(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	world.mu.Lock()
	world.findings = append(world.findings, t.Name()+" failed: "+text)
	world.mu.Unlock()
	t.Fatal(text)
}

type once[T any] struct {
	sync.Once
	value T
	err   error
}

func (o *once[T]) get(t *testing.T, make func() (T, error)) T {
	t.Helper()
	if testing.Short() {
		t.Skip("an end-to-end test; run without -short")
	}
	o.Do(func() { o.value, o.err = make() })
	require.NoError(t, o.err)
	return o.value
}

func (o *once[T]) started(t *testing.T, name string, make func(binary, dir string) (T, *lab.Process, error)) T {
	t.Helper()
	return o.get(t, func() (T, error) {
		var none T
		builder := lab.Builder{Progress: func(e lab.Event) { say("%v", e) }}
		binary, err := builder.Binary(context.Background(), name)
		if err != nil {
			return none, err
		}
		value, process, err := make(binary, filepath.Join(world.dir, name))
		if err != nil {
			return none, err
		}
		world.mu.Lock()
		world.running = append(world.running, process)
		world.mu.Unlock()
		return value, process.Start(context.Background())
	})
}

func stopAll(processes []*lab.Process) {
	for _, p := range processes {
		if err := p.Stop(); err != nil {
			say("%v", err)
		}
	}
}

func loki(t *testing.T) *lab.Loki {
	return world.loki.started(t, "loki", func(binary, dir string) (*lab.Loki, *lab.Process, error) {
		l, err := lab.NewLoki(lab.LokiOptions{Binary: binary, Dir: dir})
		if err != nil {
			return nil, nil, err
		}
		return l, l.Process, nil
	})
}

func prometheus(t *testing.T) *lab.Prometheus {
	return world.prometheus.started(t, "prometheus", func(binary, dir string) (*lab.Prometheus, *lab.Process, error) {
		p, err := lab.NewPrometheus(lab.PrometheusOptions{Binary: binary, Dir: dir})
		if err != nil {
			return nil, nil, err
		}
		return p, p.Process, nil
	})
}

func jaeger(t *testing.T) *lab.Jaeger {
	return world.jaeger.started(t, "jaeger", func(binary, dir string) (*lab.Jaeger, *lab.Process, error) {
		j, err := lab.NewJaeger(lab.JaegerOptions{Binary: binary, Dir: dir})
		if err != nil {
			return nil, nil, err
		}
		return j, j.Process, nil
	})
}

// binaries builds longhaul-collector and longhaul-relay as the Makefile does.
func binaries(t *testing.T) (collector, relay string) {
	t.Helper()
	if testing.Short() {
		t.Skip("an end-to-end test; run without -short")
	}
	b := &world.binaries
	b.Do(func() {
		if dir := os.Getenv("E2E_BINARIES"); dir != "" {
			b.collector, b.relay = filepath.Join(dir, "longhaul-collector"), filepath.Join(dir, "longhaul-relay")
			return
		}
		b.collector, b.relay = filepath.Join(world.dir, "bin", "longhaul-collector"), filepath.Join(world.dir, "bin", "longhaul-relay")
		for _, target := range [][2]string{{b.collector, "./collector"}, {b.relay, "./relay"}} {
			say("building %s", filepath.Base(target[0]))
			cmd := exec.Command("go", "build", "-trimpath", "-tags", buildTags, "-ldflags", "-s -w", "-o", target[0], target[1])
			cmd.Dir = filepath.Join("..", "..")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if output, err := cmd.CombinedOutput(); err != nil {
				b.err = fmt.Errorf("build %s: %w:\n%s", target[1], err, output)
				return
			}
		}
	})
	require.NoError(t, b.err)
	return b.collector, b.relay
}

// testDir is the directory of one test's processes, below the shared one so
// that E2E_KEEP keeps it.
func testDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(world.dir, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// newRelay prepares a relay that delivers to the shared backends.
func newRelay(t *testing.T, dir string, env map[string]string) *lab.Relay {
	t.Helper()
	_, binary := binaries(t)
	relay, err := lab.NewRelay(lab.RelayOptions{
		Binary: binary, Dir: dir,
		LokiURL: loki(t).URL, PrometheusURL: prometheus(t).URL, JaegerOTLP: jaeger(t).OTLPGRPC,
		Env: env,
	})
	require.NoError(t, err)
	return relay
}

// newCollector prepares a collector with the built-in configuration.
func newCollector(t *testing.T, dir, cluster, natsURL string, env map[string]string) *lab.Collector {
	t.Helper()
	binary, _ := binaries(t)
	collector, err := lab.NewCollector(lab.CollectorOptions{
		Binary: binary, Dir: dir, Cluster: cluster, Node: "node-a", NATSURL: natsURL, Env: env,
	})
	require.NoError(t, err)
	return collector
}

// start starts a process and stops it when the test ends; a failed test shows
// the end of its log: a little, for what the test found stands before it.
func start(t *testing.T, p *lab.Process) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of %s:\n%s", p.LogFile(), p.LogTail(2000))
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, p.Start(t.Context()))
}

// eventually calls check every second until it returns nil, saying what is
// still missing now and then, and fails the test after limit.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for i := 0; ; i++ {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fail(t, "not after %v: %v", limit, err)
		}
		if i%5 == 4 {
			say("waiting: %v", err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(time.Second):
		}
	}
}
