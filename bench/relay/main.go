// Command relay measures what it costs to bring the frames of a fleet from the hub
// into Loki, Prometheus and Jaeger: longhaul-relay as it runs by default, and an
// OpenTelemetry Collector gateway (bench/peer/gateway) that is sent the same
// telemetry by OTLP, one after the other, on the same machine.
//
//	longhaul-relay  JetStream (a nats-server) → check, decode → Loki push, remote write 2.0, OTLP
//	gateway         OTLP by gRPC, zstd        → queue, batch  → OTLP, remote write 1.0, OTLP
//
// What both send goes to the same sinks, which read every request to its last item
// and check by the numbers in the data that each frame arrived once. The CPU time
// counted is that of the relay's or the gateway's process alone, less what it takes
// to start, from /proc; the hub's stands beside it. The hub is filled before the
// relay starts, the gateway is sent as much as it takes: both work at capacity, one
// signal at a time.
//
// The gateway keeps nothing on disk and confirms to the edges what is in its
// memory; longhaul-relay confirms what the backends have. Its data names cluster
// and node already, which the relay adds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

type options struct {
	nodes    int
	frames   map[frame.Signal]*int
	sizes    frames.Sizes
	only     string
	limit    time.Duration
	overlay  string
	profile  string
	bin, dir string
	keep     bool
}

func parseFlags(args []string) (options, error) {
	o := options{frames: make(map[frame.Signal]*int)}
	f := flag.NewFlagSet("relay", flag.ContinueOnError)
	f.IntVar(&o.nodes, "nodes", 900, "nodes whose frames these are")
	o.frames[frame.Logs] = f.Int("logs", 60_000, "frames of logs, 50 records each")
	o.frames[frame.Metrics] = f.Int("metrics", 7_200, "frames of metrics, about 530 samples each")
	o.frames[frame.Traces] = f.Int("traces", 36_000, "frames of traces, 20 spans each")
	f.IntVar(&o.sizes.Logs, "log-items", frames.DefaultSizes.Logs, "records of a frame of logs")
	f.IntVar(&o.sizes.Spans, "span-items", frames.DefaultSizes.Spans, "spans of a frame of traces")
	f.StringVar(&o.only, "only", "", "ours or peer; default both")
	f.DurationVar(&o.limit, "limit", 10*time.Minute, "give up when one program takes longer for one signal")
	f.StringVar(&o.overlay, "overlay", "", "a configuration file to lay over longhaul-relay's own")
	f.StringVar(&o.profile, "profile", "", "write longhaul-relay's CPU profiles to files that begin so")
	f.StringVar(&o.bin, "bin", "bin", "directory of longhaul-relay and nats-server")
	f.StringVar(&o.dir, "dir", "", "directory for stores and logs; default a temporary one")
	f.BoolVar(&o.keep, "keep", false, "keep the directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if f.NArg() > 0 {
		report("unknown argument %q", f.Arg(0))
	}
	if o.only != "" && o.only != "ours" && o.only != "peer" {
		report("-only: %q is not one of ours, peer", o.only)
	}
	if o.nodes < 1 {
		report("-nodes: %d is less than 1", o.nodes)
	}
	for signal, n := range o.frames {
		if *n < 0 {
			report("-%s: %d is less than 0", signal, *n)
		}
	}
	return o, errors.Join(problems...)
}

// say tells whoever waits what is going on.
var say = lab.Progress("bench-relay")

func main() { lab.Main("bench-relay", parseFlags, run) }

const (
	peerModule  = "bench/peer/gateway"
	peerVersion = "/prometheusremotewriteexporter"
)

func run(ctx context.Context, o options) (err error) {
	checkout, err := lab.FindCheckout(".")
	if err != nil {
		return err
	}
	w := &world{options: o, checkout: checkout}
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "longhaul-bench-relay-"); err != nil {
			return err
		}
	} else if w.dir, err = filepath.Abs(w.dir); err != nil {
		return err
	}
	if w.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	}
	if w.maker, err = frames.NewMaker(filepath.Join(checkout, frames.CorpusDir), o.sizes); err != nil {
		return err
	}
	if w.jaegerCompression, err = jaegerCompression(filepath.Join(checkout, relayConfig)); err != nil {
		return err
	}
	var r results
	if o.only != "ours" {
		if w.peerBinary, err = lab.BuildPeer(ctx, filepath.Join(checkout, peerModule), peerVersion, say); err != nil {
			return err
		}
		if r.peer, err = w.peer(ctx); err != nil {
			return err
		}
	}
	if o.only != "peer" {
		if r.ours, err = w.ours(ctx); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	return r.verdict()
}
