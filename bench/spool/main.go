// Command spool measures the edge's store: what an append costs beside the bare
// disk, how fast a full spool empties while live data keeps its place, how long
// a large spool takes to open and how much memory that needs, and how many bytes
// a log line takes on disk.
//
// Everything is real and on one machine: package spool for appends and opens,
// longhaul-collector with its embedded configuration for the other two, and a
// nats-server with JetStream as the hub. Lines are the log corpus of the
// end-to-end tests, wrapped as applications write JSON lines, 215 bytes on
// average.
//
// Rates depend on the machine and on who else uses it; so the disk's own rate is
// measured in turn with the spool's, and CPU time stands beside wall time. The
// last line is the result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/internal/bytesize"
)

// options are the flags. Every size and time can be made smaller for a quick look.
type options struct {
	parts, dir, bin, corpus string

	appendSeconds  float64       // of each run
	appendRuns     int           // of each size, for each of the contestants
	appendCallers  int           // per signal
	catchUpBytes   bytesize.Size // in the spool at the start
	liveRate       int           // lines/s beside the backlog
	baseline       time.Duration // of live data alone
	openBytes      bytesize.Size
	lineRate       int           // lines/s of the bytes part
	lineTime       time.Duration // how long
	catchUpTimeout time.Duration
}

// part is one measurement. need is the disk space it takes at most.
type part struct {
	name, about string
	need        func(options) int64
	run         func(context.Context, *bench) error
}

var parts = []part{
	{"append", "append throughput beside the disk's own", appendNeed, runAppend},
	{"bytes", "bytes on disk per line, and memory in an outage", linesNeed, runLines},
	{"catch-up", "emptying a full spool while live data flows", catchUpNeed, runCatchUp},
	{"open", "opening a large spool", openNeed, runOpen},
}

// bench is one run of the program.
type bench struct {
	options
	dir     string // scratch, removed at the end
	out     io.Writer
	results []string // key=value of the result line
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == openChildCommand {
		os.Exit(openChild(os.Args[2:]))
	}
	o := options{catchUpBytes: 2 * bytesize.GiB, openBytes: 10 * bytesize.GiB}
	flag.StringVar(&o.parts, "parts", "", "parts to run, separated by commas; default all: append, bytes, catch-up, open")
	flag.StringVar(&o.dir, "dir", "", "where scratch files go, on the disk to be measured; default the system's temporary directory")
	flag.StringVar(&o.bin, "bin", "bin", "directory of longhaul-collector and nats-server")
	flag.StringVar(&o.corpus, "corpus", "test/e2e/testdata/logs", "directory of *.log.zst")
	flag.Float64Var(&o.appendSeconds, "append-seconds", 1.2, "length of one append run")
	flag.IntVar(&o.appendRuns, "append-runs", 5, "append runs of each size, of which the median counts")
	flag.IntVar(&o.appendCallers, "append-callers", 4, "concurrent appenders of each of the three signals")
	flag.TextVar(&o.catchUpBytes, "catch-up-bytes", o.catchUpBytes, "size of the spool that is to be emptied")
	flag.DurationVar(&o.catchUpTimeout, "catch-up-timeout", 2*time.Minute, "when to give up waiting for it to be empty")
	flag.IntVar(&o.liveRate, "live-rate", 1000, "lines/s of live data while it is emptied")
	flag.DurationVar(&o.baseline, "baseline", 15*time.Second, "how long live data is measured without a backlog")
	flag.TextVar(&o.openBytes, "open-bytes", o.openBytes, "size of the spool that is to be opened")
	flag.IntVar(&o.lineRate, "line-rate", 5000, "lines/s of the bytes part")
	flag.DurationVar(&o.lineTime, "line-time", 30*time.Second, "length of the bytes part")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-spool:", err)
		os.Exit(1)
	}
}

var began = time.Now()

// say tells whoever waits what is going on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-spool %4.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// result adds to the result line.
func (b *bench) result(key, format string, args ...any) {
	b.results = append(b.results, key+"="+fmt.Sprintf(format, args...))
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := choose(o.parts)
	if err != nil {
		return err
	}
	if o.appendRuns < 1 || o.appendCallers < 1 || o.liveRate < 1 || o.lineRate < 1 || o.appendSeconds <= 0 {
		return errors.New("counts, rates and times must be above 0")
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	for _, name := range []string{"longhaul-collector", "nats-server"} {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return fmt.Errorf("%w: run this with 'make bench-spool', which builds it", err)
		}
	}
	dir, err := os.MkdirTemp(o.dir, "longhaul-bench-spool-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := checkSpace(dir, chosen, o); err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, out: os.Stdout}
	for _, p := range chosen {
		say("%s: %s", p.name, p.about)
		if err := b.runPart(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	fmt.Fprintln(b.out, "RESULT bench-spool", strings.Join(b.results, " "))
	return nil
}

// runPart gives a part a directory of its own, and takes it away.
func (b *bench) runPart(ctx context.Context, p part) (err error) {
	mine := *b
	mine.dir = filepath.Join(b.dir, p.name)
	if err := os.Mkdir(mine.dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(mine.dir)) }()
	if err := p.run(ctx, &mine); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	b.results = mine.results
	return nil
}

func choose(names string) ([]part, error) {
	if names == "" {
		return parts, nil
	}
	var chosen []part
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("--parts: there is no part %q; there are append, bytes, catch-up and open", name)
		}
		chosen = append(chosen, parts[i])
	}
	return chosen, nil
}

// reserve is left free on the disk whatever happens.
const reserve = 1 << 30

// checkSpace fails before anything is written when the disk cannot hold it.
func checkSpace(dir string, chosen []part, o options) error {
	free, err := freeBytes(dir)
	if err != nil {
		return fmt.Errorf("free space in %s: %w", dir, err)
	}
	for _, p := range chosen {
		if need := p.need(o) + reserve; free < need {
			return fmt.Errorf("the part %q needs %s on the disk of %s, which has %s free: free some, name another disk with --dir, or shrink the part (--help shows the flags) or leave it out (--parts)",
				p.name, gib(need), filepath.Dir(dir), gib(free))
		}
	}
	return nil
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// percentile returns the value below which a share p of values lies; it sorts them.
func percentile[T int | int64 | float64 | time.Duration](values []T, p float64) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(float64(len(values))*p))]
}

func median[T int | int64 | float64 | time.Duration](values []T) T { return percentile(values, 0.5) }

// verdict says whether a figure is within the reach set for it.
func verdict(within bool) string {
	if within {
		return "within reach"
	}
	return "NOT within reach"
}
