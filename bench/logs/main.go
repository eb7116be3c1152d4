// Command logs measures what it costs to bring container logs from their files
// into a durable buffer and over the wire: longhaul-collector as it runs by
// default, and an OpenTelemetry Collector (bench/peer/otelcol) that promises the
// same, one after the other, on the same machine and the same lines.
//
//	longhaul-collector  containerlogs → spool, fsync → NATS, zstd → longhaul-relay
//	otelcol             filelog → sending queue on file_storage, fsync → OTLP/HTTP, zstd → a sink
//
// Both run with their metrics on; longhaul-collector also does everything else
// its built-in configuration asks for (host metrics, its own metrics, OTLP
// endpoints). The relay's hub is on loopback and its exporters print a line a
// batch, so that what it accepts is confirmed at once and leaves the spool. CPU,
// memory and disk are those of the collector process alone, read from /proc;
// wire bytes are counted by a TCP proxy before hub and sink.
//
// There are two scenes. In burst the files are there at once: how much does a
// line cost, how fast does it go? In drip many files get a few lines a second
// each, as on an ordinary day, and then nothing: what does watching cost?
//
// A line counts as durable when the receiver's next consumer accepted it, and
// as delivered when relay or sink did. CPU is counted until the last line is
// delivered.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

type options struct {
	lines, pods          int
	plain                bool
	files, rate, seconds int
	scene, only          string
	limit                time.Duration
	bin, dir, profile    string
	keep                 bool
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("logs", flag.ContinueOnError)
	f.IntVar(&o.lines, "lines", 5_000_000, "burst: lines in all files together")
	f.IntVar(&o.pods, "pods", 10, "burst: pods, each with one file")
	f.BoolVar(&o.plain, "plain", false, "burst: every pod prints the corpus as it is (about 165 bytes a line); by default every second one wraps it in JSON (about 215)")
	f.IntVar(&o.files, "files", 300, "drip: files")
	f.IntVar(&o.rate, "rate", 10, "drip: lines per second and file")
	f.IntVar(&o.seconds, "seconds", 60, "drip: for so long")
	f.StringVar(&o.scene, "scene", "", "burst or drip; default both")
	f.StringVar(&o.only, "only", "", "ours or peer; default both")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "give up when one program takes longer for one scene")
	f.StringVar(&o.bin, "bin", "bin", "directory of longhaul-collector and longhaul-relay")
	f.StringVar(&o.dir, "dir", "", "directory for inputs, stores and logs, on the disk to measure; default a temporary one")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of longhaul-collector to this file, and print where the time goes; needs -scene")
	f.BoolVar(&o.keep, "keep", false, "keep the directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if f.NArg() > 0 {
		report("unknown argument %q", f.Arg(0))
	}
	if o.scene != "" && o.scene != sceneBurst && o.scene != sceneDrip {
		report("-scene: %q is not one of %s, %s", o.scene, sceneBurst, sceneDrip)
	}
	if o.only != "" && o.only != "ours" && o.only != "peer" {
		report("-only: %q is not one of ours, peer", o.only)
	}
	for name, n := range map[string]int{"pods": o.pods, "files": o.files, "rate": o.rate, "seconds": o.seconds} {
		if n < 1 {
			report("-%s: %d is less than 1", name, n)
		}
	}
	if o.profile != "" && (o.scene == "" || o.only == "peer") {
		report("-profile: name one scene with -scene, and not -only peer")
	}
	if o.lines < o.pods {
		report("-lines: %d is less than one for each pod", o.lines)
	}
	return o, errors.Join(problems...)
}

// say tells whoever waits what is going on.
var say = lab.Progress("bench-logs")

func main() { lab.Main("bench-logs", parseFlags, run) }

func run(ctx context.Context, o options) (err error) {
	checkout, err := lab.FindCheckout(".")
	if err != nil {
		return err
	}
	w := world{options: o, checkout: checkout}
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "longhaul-bench-logs-"); err != nil {
			return err
		}
	} else if w.dir, err = filepath.Abs(w.dir); err != nil {
		return err
	}
	if w.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	say("inputs, stores and logs in %s", w.dir)
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	}
	if o.only != "ours" {
		if w.peerBinary, err = lab.BuildPeer(ctx, filepath.Join(checkout, peerModule), peerVersion, say); err != nil {
			return err
		}
	}
	var results results
	if o.scene != sceneDrip {
		if results.burst, err = w.burst(ctx); err != nil {
			return err
		}
	}
	if o.scene != sceneBurst {
		if results.drip, err = w.drip(ctx); err != nil {
			return err
		}
	}
	if o.profile != "" {
		if results.shares, err = whereTimeGoes(ctx, o.profile); err != nil {
			return err
		}
	}
	results.print(os.Stdout)
	return nil
}
