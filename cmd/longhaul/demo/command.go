// Package demo is the command `longhaul demo`: longhaul's whole path on one
// machine, with real parts only. Three stores, each a longhaul-collector with
// its own spool and an order application that feeds it, send over links that
// can be cut to a relay with its embedded hub, which delivers to a Loki, a
// Prometheus and a Jaeger built from source.
//
// The pipeline runs while the backends are still being built: the hub holds
// what they will get. With a terminal there is a live view with keys to break
// things (package view); without one, plain lines. With --seconds it follows a
// script and ends with an exact count of what was sent and found (package
// account).
//
// Everything it starts ends with it: processes are stopped in order when it
// ends, and killed by the kernel when it is killed.
package demo

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
)

// NewCommand returns the command `longhaul demo`.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole path on this machine: three stores, a relay, Loki, Prometheus and Jaeger",
		Long: `Run the whole path on this machine, with real parts only.

Three stores (longhaul-collector and an order application each) send logs,
metrics and traces over links you can cut to a relay with an embedded hub, which
delivers them to Loki, Prometheus and Jaeger. The first run builds these three
from source, which takes minutes; the hub holds their data meanwhile.

With a terminal you get a live view with keys to break things; without one,
plain lines. With --seconds the demo follows a script with an outage in the
middle, looks up every item it sent in the backends, and fails when one is
missing.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			// The first signal stops everything in order; the second ends the
			// program at once, and the kernel its children.
			ctx, restore := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer restore()
			context.AfterFunc(ctx, restore)
			return run(ctx, &o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.flags(cmd.Flags())
	cmd.AddCommand(newOrderAppCommand())
	return cmd
}

// newOrderAppCommand runs the order application of one store; the demo starts
// itself with it.
func newOrderAppCommand() *cobra.Command {
	var cfg orderapp.Config
	cmd := &cobra.Command{
		Use:          "orderapp",
		Short:        "Run the order application of one store (the demo starts it)",
		Hidden:       true,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, restore := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer restore()
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return orderapp.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Run, "run", "", "run id")
	f.StringVar(&cfg.Cluster, "cluster", "", "name of the store")
	f.StringVar(&cfg.OTLPGRPC, "otlp-grpc", "", "host:port for traces")
	f.StringVar(&cfg.OTLPHTTP, "otlp-http", "", "host:port for metrics")
	f.StringVar(&cfg.PodLogsDir, "pod-logs", "", "the node's directory of pod logs")
	f.StringVar(&cfg.ControlAddr, "control", "", "host:port to serve /counts and /finish on")
	f.StringVar(&cfg.LedgerPath, "ledger", "", "file to write every accepted item to")
	f.Float64Var(&cfg.Rate, "rate", 5, "orders per second")
	f.DurationVar(&cfg.MetricsInterval, "metrics-interval", 5*time.Second, "time between two collections of metrics")
	f.Int64Var(&cfg.RotateBytes, "rotate-bytes", 1<<20, "size at which a log file is rotated")
	f.IntVar(&cfg.RotateKeep, "rotate-keep", 5, "rotated log files kept per container")
	f.Uint64Var(&cfg.Seed, "seed", 1, "seed of the load's dice")
	return cmd
}
