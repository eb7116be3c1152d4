package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// relay is one of a row's relays.
type relay struct {
	*lab.Relay
	name    string
	overlay string // configuration file, written anew where a row changes it

	lost, rejected int // named by its processes that ended
}

// server is one of an external hub's.
type server struct {
	*lab.Process
	addr, store, health string
}

// openCentre starts relays and hub and returns the hub's addresses, host:port.
func (s *scene) openCentre(ctx context.Context, w *world, st stage) (hub []string, err error) {
	if st.external {
		if hub, err = s.openHub(ctx, w, max(1, st.servers)); err != nil {
			return nil, err
		}
	}
	for i := range max(1, st.relays) {
		r, err := s.newRelay(w, st, i, hub)
		if err != nil {
			return nil, err
		}
		s.relays = append(s.relays, r)
		if err := r.Start(ctx); err != nil {
			return nil, err
		}
	}
	if !st.external {
		hub = []string{s.relays[0].NATSAddr}
	}
	return hub, nil
}

func (s *scene) newRelay(w *world, st stage, i int, hub []string) (*relay, error) {
	r := &relay{name: fmt.Sprintf("relay-%d", i+1)}
	dir := s.dir
	if st.relays > 1 {
		dir = filepath.Join(s.dir, r.name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	options := lab.RelayOptions{
		Binary: filepath.Join(w.bin, "longhaul-relay"), Dir: dir,
		LokiURL: s.gate.url() + "/" + r.name, PrometheusURL: w.prometheus.URL,
	}
	if st.external {
		options.Env = map[string]string{"LONGHAUL_NATS_URL": natsURL(hub)}
	}
	if st.tenants || st.partitions > 0 || st.servers > 1 {
		r.overlay = filepath.Join(dir, "overlay.yaml")
		options.Overlay = r.overlay
		if err := r.configure(st, st.partitions); err != nil {
			return nil, err
		}
	}
	var err error
	r.Relay, err = lab.NewRelay(options)
	return r, err
}

// configure writes what differs from the built-in configuration. It is read at the
// relay's next start.
func (r *relay) configure(st stage, partitions int) error {
	var text strings.Builder
	replicas := 1
	if st.servers > 1 {
		replicas = 3
	}
	fmt.Fprintf(&text, "receivers:\n  nats:\n    streams:\n      replicas: %d\n", replicas)
	if partitions > 0 {
		fmt.Fprintf(&text, "      partitions: %d\n", partitions)
	}
	if st.tenants {
		text.WriteString("exporters:\n  loki:\n    tenant:\n      from_attribute: k8s.cluster.name\n")
	}
	return os.WriteFile(r.overlay, []byte(text.String()), 0o644)
}

func natsURL(hub []string) string { return "nats://" + strings.Join(hub, ",nats://") }

// openHub starts nats-servers, a cluster if they are several.
func (s *scene) openHub(ctx context.Context, w *world, n int) (addrs []string, err error) {
	ports := make([]int, 3*n)
	for i := range ports {
		if ports[i], err = lab.FreePort(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("%q", fmt.Sprintf("nats://127.0.0.1:%d", ports[3*i+1])))
	}
	for i := range n {
		one := &server{addr: fmt.Sprintf("127.0.0.1:%d", ports[3*i]), health: fmt.Sprintf("http://127.0.0.1:%d/healthz", ports[3*i+2])}
		name := fmt.Sprintf("nats-%d", i+1)
		one.store = filepath.Join(s.dir, name)
		config := fmt.Sprintf("server_name: %s\nlisten: %q\nhttp: \"127.0.0.1:%d\"\njetstream: { store_dir: %q }\n", name, one.addr, ports[3*i+2], one.store)
		if n > 1 {
			config += fmt.Sprintf("cluster: { name: faults, listen: \"127.0.0.1:%d\", routes: [%s] }\n", ports[3*i+1], strings.Join(routes, ", "))
		}
		file := filepath.Join(s.dir, name+".conf")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return nil, err
		}
		one.Process = lab.NewProcess(lab.Spec{
			Name: name, Binary: filepath.Join(w.bin, "nats-server"), Args: []string{"-c", file},
			LogFile: filepath.Join(s.dir, name+".log"), Ready: tcpReady(one.addr),
		})
		s.servers = append(s.servers, one)
		addrs = append(addrs, one.addr)
		if err := one.Start(ctx); err != nil {
			return nil, err
		}
	}
	for _, one := range s.servers {
		if err := one.awaitHealth(ctx); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// awaitHealth waits until the server has caught up with the others.
func (h *server) awaitHealth(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		err := h.healthy(bounded)
		if err == nil {
			return nil
		}
		if lab.Pause(bounded, 200*time.Millisecond) != nil {
			return fmt.Errorf("%s is not well after %v: %w", h.Name(), settleTime, err)
		}
	}
}

func (h *server) healthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.health, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func tcpReady(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
}

// What a relay that was killed had delivered, and not noted on the hub (it does at
// least every 1.2 s, if the disk lets it) or, which counts where the hub's store
// goes with it, not told the edges (every 2 s).
const (
	notedWithin = 2 * time.Second
	toldWithin  = 5 * time.Second
)

// killRelay kills with SIGKILL, does what else is to be done, and starts again.
func (s *scene) killRelay(ctx context.Context, r *relay, forgets time.Duration, meanwhile func() error) error {
	s.remember(ctx, r)
	_ = r.Kill() // cannot fail
	s.explained += s.gate.onTheWay(r.name, forgets)
	if meanwhile != nil {
		if err := meanwhile(); err != nil {
			return err
		}
	}
	return r.Start(ctx)
}

// remember keeps what a relay that is to end has named as lost.
func (s *scene) remember(ctx context.Context, r *relay) {
	if lost, rejected, err := s.namedBy(ctx, r); err == nil {
		r.lost, r.rejected = lost, rejected
	}
}

// wipe deletes a store's contents.
func wipe(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("wipe %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("wipe %s: %w", dir, err)
		}
	}
	return nil
}

// relayCounts returns what the relays of this row named as lost so far, less
// what came after all (a relay that does not count that says nothing: 0).
func (s *scene) relayCounts(ctx context.Context) (lost, rejected int, err error) {
	for _, r := range s.relays {
		l, rej, err := s.namedBy(ctx, r)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", r.name, err)
		}
		lost, rejected = lost+l, rejected+rej
	}
	return lost, rejected, nil
}

func (s *scene) namedBy(ctx context.Context, r *relay) (lost, rejected int, err error) {
	m, err := lab.ReadMetrics(ctx, r.MetricsURL)
	if err != nil {
		return 0, 0, err
	}
	lost, rejected = r.lost, r.rejected
	for _, cluster := range s.clusters {
		sum := func(name string, labels ...string) int {
			return int(m.Sum(name, append(labels, "cluster", cluster, "signal", "logs")...))
		}
		lost += sum("longhaul_lost_items_total") - sum("longhaul_recovered_items_total")
		rejected += sum("longhaul_lost_items_total", "cause", "rejected") - sum("longhaul_recovered_items_total", "cause", "rejected")
	}
	return lost, rejected, nil
}
