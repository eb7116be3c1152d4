// Command fleet plays a fleet of thousands of nodes against real longhaul-relays
// and a real nats-server, and counts what becomes of every frame.
//
// One process is all collectors: each node has its connection to the hub, numbers
// its frames, keeps them until they are confirmed, seals lanes in outages and says
// hello (package edge). Frames are made from recorded logs, scrapes and traces
// (package frames). Behind the relays are sinks that read every request to its
// last item (package sink), or with -backends real Loki, Prometheus and Jaeger
// behind these. Every frame carries its number in its data, so that losses,
// repeats and disorder are found where the data ends (package book).
//
// Scripts:
//
//	steady        each signal by itself for its cost, then all at once, with restarts,
//	              new spools and wrong clocks
//	storm         30 % of the clusters return from an hour's outage while the others go on
//	hub-restart   the hub is killed and starts again
//	relay-kill    a relay is killed with SIGKILL and starts again later
//	backend-away  all backends refuse everything for an hour
//	scale10k      10,000 clusters
//	curve         one point of docs/scale.md: -curve-out
//
// An hour is compressed: it leaves -hour seconds' worth of frames, spread over an
// hour's times. The simulated hour thus weighs hour/3600 of a real one.
//
// The last line is the result. It exits with 1 when anything is lost, arrives in
// disorder or under a wrong name, or was confirmed before it arrived.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

type options struct {
	clusters, perCluster int
	script               string
	load                 float64
	signals              []frame.Signal
	relays               int
	backends             string
	hour                 time.Duration
	phase                time.Duration
	sizes                frames.Sizes
	hubMax               string
	overlay              string
	profile              string
	curveOut             string
	limit                time.Duration
	bin, dir             string
	keep                 bool
}

func parseFlags(args []string) (options, error) {
	var o options
	var signals string
	f := flag.NewFlagSet("fleet", flag.ContinueOnError)
	f.IntVar(&o.clusters, "clusters", 3000, "clusters of the fleet; scale10k has 10,000")
	f.IntVar(&o.perCluster, "nodes", 3, "nodes of each cluster")
	f.StringVar(&o.script, "script", "steady", strings.Join(scriptNames(), ", "))
	f.Float64Var(&o.load, "load", 0, "of an ordinary node's 50 lines, 71 samples and 20 spans a second; by making its frames rarer, not smaller. Default: what comes to 20,000 lines/s of the fleet, at most 1")
	f.StringVar(&signals, "signals", "logs,metrics,traces", "signals that are written")
	f.IntVar(&o.relays, "relays", 1, "longhaul-relays that share the hub")
	f.StringVar(&o.backends, "backends", "sinks", "sinks, or real: Loki, Prometheus and Jaeger behind them")
	f.DurationVar(&o.hour, "hour", 60*time.Second, "an hour's outage leaves so many seconds' worth of frames")
	f.DurationVar(&o.phase, "phase", 20*time.Second, "how long a measurement takes")
	f.IntVar(&o.sizes.Logs, "log-items", frames.DefaultSizes.Logs, "records of a frame of logs")
	f.IntVar(&o.sizes.Spans, "span-items", frames.DefaultSizes.Spans, "spans of a frame of traces")
	f.StringVar(&o.hubMax, "hub-max", "8GiB", "streams::max_bytes of the relays")
	f.StringVar(&o.overlay, "overlay", "", "a configuration file to lay over the relays' own")
	f.StringVar(&o.profile, "profile", "", "write the first relay's CPU profile of the measurement to files that begin so")
	f.StringVar(&o.curveOut, "curve-out", "", "curve: append the point to this file, a line of JSON")
	f.DurationVar(&o.limit, "limit", 10*time.Minute, "give up after so long")
	f.StringVar(&o.bin, "bin", "bin", "directory of longhaul-relay and nats-server")
	f.StringVar(&o.dir, "dir", "", "directory for stores and logs; default a temporary one")
	f.BoolVar(&o.keep, "keep", false, "keep the directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	return o, errors.Join(o.check(f.Args(), signals)...)
}

func (o *options) check(rest []string, signals string) (problems []error) {
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		report("unknown argument %q", rest[0])
	}
	if _, ok := scripts[o.script]; !ok {
		report("-script: %q is not one of %s", o.script, strings.Join(scriptNames(), ", "))
	}
	if o.script == "scale10k" {
		o.clusters = 10_000
	}
	for name := range strings.SplitSeq(signals, ",") {
		signal, err := frame.ParseSignal(name)
		if err != nil {
			report("-signals: %w", err)
		}
		o.signals = append(o.signals, signal)
	}
	for name, n := range map[string]int{"clusters": o.clusters, "nodes": o.perCluster, "relays": o.relays} {
		if n < 1 {
			report("-%s: %d is less than 1", name, n)
		}
	}
	if !slices.Contains([]string{"sinks", "real"}, o.backends) {
		report("-backends: %q is neither sinks nor real", o.backends)
	}
	if o.load < 0 {
		report("-load: %v is less than 0", o.load)
	}
	if o.load == 0 && o.clusters > 0 && o.perCluster > 0 {
		o.load = min(1, defaultLines/float64(o.clusters*o.perCluster*ordinaryLines))
	}
	for name, d := range map[string]time.Duration{"hour": o.hour, "phase": o.phase} {
		if d < time.Second || d > time.Hour {
			report("-%s: must be between 1s and 1h, not %v", name, d)
		}
	}
	return problems
}

const (
	// ordinaryLines is what an ordinary node logs in a second.
	ordinaryLines = 50
	// defaultLines a second of the whole fleet leave two cores room for relay, hub,
	// sinks and simulator.
	defaultLines = 20_000
)

// say tells whoever waits what is going on.
var say = lab.Progress("fleet")

func main() { lab.Main("fleet", parseFlags, run) }

func run(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done after %v (-limit)", o.limit))
	defer cancel()
	checkout, err := lab.FindCheckout(".")
	if err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "longhaul-fleet-"); err != nil {
			return err
		}
	} else if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	w, err := newWorld(ctx, o, checkout)
	if err != nil {
		return err
	}
	report, err := w.play(ctx, scripts[o.script])
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return errors.Join(err, w.close())
	}
	if err := w.close(); err != nil {
		return err
	}
	report.print(os.Stdout)
	return report.verdict()
}
