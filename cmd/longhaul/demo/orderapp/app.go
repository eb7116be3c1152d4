// Package orderapp is the order application of the demo: three services
// (storefront → orders → payments) in one process, talking HTTP over loopback,
// instrumented with the OpenTelemetry Go SDK, and a load loop that orders from
// them. It stands for the software of one store.
//
// What it makes:
//   - traces, sent by OTLP/gRPC to the store's collector;
//   - metrics (counters, gauges, explicit and exponential histograms, with
//     exemplars), collected every few seconds and sent by OTLP/HTTP;
//   - JSON log lines with trace_id, span_id and order id, written as the
//     container runtime writes them: CRI format under
//     <pod logs>/<namespace>_<pod>_<uid>/<container>/0.log, rotated by size.
//
// It never drops telemetry: exports are repeated until the collector says OK,
// and a full span queue slows the load down instead. That makes its own
// counts, and the ledger of everything that was accepted, a measure against
// which the far end of the pipeline can be held, item by item.
//
// A small HTTP server gives the counts (GET /counts) and ends the work
// (POST /finish stops the load, sends what is left and answers with the
// final counts).
package orderapp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"
	"golang.org/x/sync/errgroup"
)

// Namespace is the Kubernetes namespace and the service.namespace of the application.
const Namespace = "shop"

// Services are the names of the three services, in the order of the calls.
var Services = []string{"storefront", "orders", "payments"}

// Config says where an application runs and where its telemetry goes.
type Config struct {
	Run     string // run id, on every log line and in every resource
	Cluster string // name of the store, for its own log messages only

	OTLPGRPC    string // host:port for traces
	OTLPHTTP    string // host:port for metrics
	PodLogsDir  string // the node's /var/log/pods
	ControlAddr string // host:port of /counts and /finish
	LedgerPath  string // file that gets every accepted item; empty for none

	Rate            float64       // orders per second
	MetricsInterval time.Duration // time between two collections
	RotateBytes     int64         // size at which a log file is rotated
	RotateKeep      int           // rotated files kept per container
	Seed            uint64        // of the load's dice
	Logger          *slog.Logger
}

// Validate reports every problem of the configuration.
func (c *Config) Validate() error {
	var errs []error
	missing := func(key, v string) {
		if v == "" {
			errs = append(errs, fmt.Errorf("%s: must be set", key))
		}
	}
	missing("run", c.Run)
	missing("cluster", c.Cluster)
	missing("otlp-grpc", c.OTLPGRPC)
	missing("otlp-http", c.OTLPHTTP)
	missing("pod-logs", c.PodLogsDir)
	missing("control", c.ControlAddr)
	if c.Rate <= 0 || c.Rate > 1000 {
		errs = append(errs, fmt.Errorf("rate: must be above 0 and at most 1000 orders a second, is %v", c.Rate))
	}
	if c.MetricsInterval < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("metrics-interval: must be at least 100ms, is %v", c.MetricsInterval))
	}
	if c.RotateBytes < 4<<10 {
		errs = append(errs, fmt.Errorf("rotate-bytes: must be at least 4096, is %d", c.RotateBytes))
	}
	if c.RotateKeep < 1 {
		errs = append(errs, fmt.Errorf("rotate-keep: must be at least 1, is %d", c.RotateKeep))
	}
	return errors.Join(errs...)
}

// Run serves until ctx is done. Telemetry that was not yet accepted then is
// given up: whoever wants an exact count calls /finish first.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	ledger, err := openLedger(cfg.LedgerPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()

	otel.SetErrorHandler(silence{cfg.Logger})
	counts := &Counts{}
	services := make([]*service, len(Services))
	defer func() {
		for _, s := range services {
			if s != nil {
				err = errors.Join(err, s.close())
			}
		}
	}()
	// Started from the last to the first: each needs the address of the next.
	next := ""
	for i := len(Services) - 1; i >= 0; i-- {
		s, err := startService(ctx, &cfg, Services[i], next, counts, ledger)
		if err != nil {
			return fmt.Errorf("start %s: %w", Services[i], err)
		}
		services[i], next = s, s.url
	}

	load := newLoad(&cfg, services[0], counts)
	ctl := &control{load: load, services: services, counts: counts, ledger: ledger}
	ln, err := net.Listen("tcp", cfg.ControlAddr)
	if err != nil {
		return fmt.Errorf("listen for control requests: %w", err)
	}
	srv := &http.Server{Handler: ctl.handler(), ReadHeaderTimeout: 10 * time.Second}
	cfg.Logger.Info("order application is open", "cluster", cfg.Cluster, "control", ln.Addr().String())

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve control requests: %w", err)
		}
		return nil
	})
	g.Go(func() error { load.run(gctx); return nil })
	for _, s := range services {
		g.Go(func() error { s.metrics.run(gctx); return nil })
	}
	<-gctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close()
	}
	return g.Wait()
}

// discard closes c where nothing can be done about an error.
func discard(c io.Closer) { _ = c.Close() }
