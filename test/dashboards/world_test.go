package dashboards

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
	"github.com/longhaul/longhaul/internal/lab"
)

// world is the whole path on this machine: two clusters, one of them with two
// nodes, the order application on each node, and the real backends.
type world struct {
	loki       *lab.Loki
	prometheus *lab.Prometheus
	jaeger     *lab.Jaeger
	relay      *lab.Relay
	bin        string // directory of our programs
	began      time.Time
}

type edge struct{ cluster, node string }

// edges are the collectors that run.
var edges = []edge{
	{"store-0001", "node-a"}, {"store-0001", "node-b"}, {"store-0002", "node-a"},
}

// running is the world, started once for all tests.
var running = sync.OnceValues(startWorld)

var (
	cleanup []func() error
	workDir string
)

func TestMain(m *testing.M) {
	code := m.Run()
	for i := len(cleanup) - 1; i >= 0; i-- {
		if err := cleanup[i](); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if workDir != "" && os.Getenv("DASHBOARDS_KEEP") == "" {
		_ = os.RemoveAll(workDir)
	}
	os.Exit(code)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "dashboards  "+format+"\n", args...) }

func theWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the real backends; run without -short")
	}
	w, err := running()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func startWorld() (_ *world, err error) {
	ctx := context.Background()
	if workDir, err = os.MkdirTemp("", "longhaul-dashboards-"); err != nil {
		return nil, err
	}
	if keep := os.Getenv("DASHBOARDS_KEEP"); keep != "" {
		workDir = keep
	}
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	w := &world{bin: bin, began: time.Now()}
	if err := w.startBackends(ctx); err != nil {
		return nil, err
	}
	w.relay, err = lab.NewRelay(lab.RelayOptions{
		Binary: filepath.Join(bin, "longhaul-relay"), Dir: filepath.Join(workDir, "relay"),
		LokiURL: w.loki.URL, PrometheusURL: w.prometheus.URL, JaegerOTLP: w.jaeger.OTLPGRPC,
	})
	if err != nil {
		return nil, err
	}
	if err := startProcess(ctx, w.relay.Process); err != nil {
		return nil, err
	}
	for i, e := range edges {
		if err := startEdge(ctx, bin, w.relay.NATSURL, i, e.cluster, e.node); err != nil {
			return nil, err
		}
	}
	say("everything runs")
	return w, nil
}

func (w *world) startBackends(ctx context.Context) error {
	builder := lab.Builder{Progress: func(e lab.Event) { say("%v", e) }}
	binary := func(name string) (path, dir string, err error) {
		path, err = builder.Binary(ctx, name)
		return path, filepath.Join(workDir, name), err
	}
	path, dir, err := binary("loki")
	if err != nil {
		return err
	}
	if w.loki, err = lab.NewLoki(lab.LokiOptions{Binary: path, Dir: dir}); err != nil {
		return err
	}
	if path, dir, err = binary("prometheus"); err != nil {
		return err
	}
	if w.prometheus, err = lab.NewPrometheus(lab.PrometheusOptions{Binary: path, Dir: dir}); err != nil {
		return err
	}
	if path, dir, err = binary("jaeger"); err != nil {
		return err
	}
	if w.jaeger, err = lab.NewJaeger(lab.JaegerOptions{Binary: path, Dir: dir}); err != nil {
		return err
	}
	for _, p := range []*lab.Process{w.loki.Process, w.prometheus.Process, w.jaeger.Process} {
		if err := startProcess(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func startProcess(ctx context.Context, p *lab.Process) error {
	cleanup = append(cleanup, p.Stop)
	return p.Start(ctx)
}

// startEdge starts a collector and the application that feeds it.
func startEdge(ctx context.Context, bin, natsURL string, i int, cluster, node string) error {
	dir := filepath.Join(workDir, cluster+"-"+node)
	collector, err := lab.NewCollector(lab.CollectorOptions{
		Binary: filepath.Join(bin, "longhaul-collector"), Dir: dir, Cluster: cluster, Node: node, NATSURL: natsURL,
	})
	if err != nil {
		return err
	}
	if err := startProcess(ctx, collector.Process); err != nil {
		return err
	}
	port, err := lab.FreePort()
	if err != nil {
		return err
	}
	appCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- orderapp.Run(appCtx, orderapp.Config{
			Run: "dashboards", Cluster: cluster,
			OTLPGRPC: collector.OTLPGRPC, OTLPHTTP: strings.TrimPrefix(collector.OTLPHTTP, "http://"),
			PodLogsDir: collector.PodLogsDir, ControlAddr: fmt.Sprintf("127.0.0.1:%d", port),
			Rate: 5, MetricsInterval: 3 * time.Second, RotateBytes: 1 << 20, RotateKeep: 10,
			Seed: uint64(i) + 1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	}()
	cleanup = append(cleanup, func() error {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("order application of %s: %w", cluster, err)
		}
		return nil
	})
	return nil
}

// programs builds longhaul-collector and longhaul-relay as the Makefile does,
// or takes those in DASHBOARDS_BINARIES.
func programs() (string, error) {
	if dir := os.Getenv("DASHBOARDS_BINARIES"); dir != "" {
		return dir, nil
	}
	bin := filepath.Join(workDir, "bin")
	for name, source := range map[string]string{"longhaul-collector": "./collector", "longhaul-relay": "./relay"} {
		say("building %s", name)
		cmd := exec.Command("go", "build", "-trimpath", "-tags", "remove_all_sd,grpcnotrace,netgo", "-ldflags", "-s -w", "-o", filepath.Join(bin, name), source)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return bin, nil
}
