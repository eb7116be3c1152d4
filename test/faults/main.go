// Command faults does to longhaul what happens to it in a store: it kills the
// collector, the relay and the hub with SIGKILL, cuts and degrades the link,
// fills the disk, damages the spool's files, cuts the power, and lets the backend
// refuse, hang and fail. Everything is real (longhaul-collector, longhaul-relay,
// nats-server, Loki) and on loopback; the faults are bounded in number and time.
// Two rows need no programs and say so: spool-damage-offline and power-cut.
//
// In a row a feeder sends numbered log records by OTLP and remembers which were
// acknowledged. At the end each of these has to be found in Loki, or be among the
// losses that the relay names, less what it found to have come after all. A record
// that got no answer is sent again under the same number; where it then arrives
// twice it is counted as "sent twice", not as a duplicate. Loki keeps one of two
// equal entries, so duplicates are counted by a proxy before it; they have to be
// among what was on its way when a relay was killed.
//
// It prints a table and, as the last line, the result. It exits with 1 unless no
// acknowledged item is missing unnamed, the duplicates are explained, nothing is
// lost by a fault that destroys nothing, and the collector came back by itself, in
// every row.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// world is what the rows share.
type world struct {
	dir, bin   string
	seed       uint64
	loki       *lab.Loki
	prometheus *lab.Prometheus
}

type options struct {
	rows  string
	times float64
	bin   string
	dir   string
	keep  bool
	list  bool
	seed  uint64
	full  bool
	// parallel rows have processes and directories of their own; they share Loki.
	parallel int
}

func main() {
	o := options{full: os.Getenv("FAULTS_FULL") == "1"}
	flag.StringVar(&o.rows, "rows", "", "names of rows, separated by commas; default all")
	flag.Float64Var(&o.times, "times", 1, "scale how often each fault happens")
	flag.StringVar(&o.bin, "bin", "bin", "directory of longhaul, longhaul-collector, longhaul-relay and nats-server")
	flag.StringVar(&o.dir, "dir", "", "directory for stores and logs; default a temporary one; one named here is kept")
	flag.BoolVar(&o.keep, "keep", false, "keep stores and logs; those of a failed row are kept anyway")
	flag.BoolVar(&o.list, "list", false, "list the rows and exit")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the random moments and damages")
	flag.IntVar(&o.parallel, "parallel", 2, "rows at a time")
	flag.Parse()
	if o.list {
		for _, r := range rows {
			fmt.Printf("%-24s %s\n", r.name, r.about)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

var began = time.Now()

// say tells whoever waits what is going on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "faults %4.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, o options) (ok bool, err error) {
	chosen, err := choose(o.rows)
	if err != nil {
		return false, err
	}
	w := &world{seed: o.seed}
	if w.bin, err = filepath.Abs(o.bin); err != nil {
		return false, err
	}
	for _, name := range []string{"longhaul", "longhaul-collector", "longhaul-relay", "nats-server"} {
		if _, err := os.Stat(filepath.Join(w.bin, name)); err != nil {
			return false, fmt.Errorf("%w: run this with 'make faults', which builds it", err)
		}
	}
	if w.dir = o.dir; w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "longhaul-faults-"); err != nil {
			return false, err
		}
	} else if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return false, err
	}
	say("seed %d, stores and logs in %s", w.seed, w.dir)
	defer func() { err = errors.Join(err, w.clean(o.keep || o.dir != "" || !ok)) }()
	defer w.stopBackends()
	if slices.ContainsFunc(chosen, func(r row) bool { return r.offline == nil }) {
		if err := w.startBackends(ctx); err != nil {
			return false, err
		}
	}
	results := w.playAll(ctx, chosen, o)
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("interrupted: %w", err)
	}
	return printResults(os.Stdout, results), nil
}

// playAll does the rows, some at a time: most of a row's time is waiting.
func (w *world) playAll(ctx context.Context, chosen []row, o options) []result {
	results := make([]result, len(chosen))
	turns := make(chan int)
	var playing sync.WaitGroup
	for range max(1, o.parallel) {
		playing.Go(func() {
			for i := range turns {
				results[i] = w.play(ctx, chosen[i], chosen[i].dose(o), o.keep)
			}
		})
	}
	for i := range chosen {
		select {
		case turns <- i:
		case <-ctx.Done():
		}
	}
	close(turns)
	playing.Wait()
	return results
}

func choose(names string) (chosen []row, err error) {
	if names == "" {
		return rows, nil
	}
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--rows: there is no row %q; --list shows them", name)
		}
		if slices.ContainsFunc(chosen, func(r row) bool { return r.name == name }) {
			return nil, fmt.Errorf("--rows: %q stands there twice", name)
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}

func (r row) dose(o options) dose {
	d := dose{r.times, r.hold}
	if o.full {
		d = dose{r.full, r.fullHold}
	}
	d.times = max(1, int(float64(d.times)*o.times+0.5))
	return d
}

func (w *world) startBackends(ctx context.Context) error {
	builder := lab.Builder{Progress: func(e lab.Event) { say("%v", e) }}
	binary, err := builder.Binary(ctx, "loki")
	if err != nil {
		return err
	}
	loki, err := lab.NewLoki(lab.LokiOptions{Binary: binary, Dir: filepath.Join(w.dir, "loki")})
	if err != nil {
		return err
	}
	if binary, err = builder.Binary(ctx, "prometheus"); err != nil {
		return err
	}
	// The collector's own metrics want to go somewhere too.
	prometheus, err := lab.NewPrometheus(lab.PrometheusOptions{Binary: binary, Dir: filepath.Join(w.dir, "prometheus")})
	if err != nil {
		return err
	}
	w.loki, w.prometheus = loki, prometheus
	if err := loki.Start(ctx); err != nil {
		return err
	}
	return prometheus.Start(ctx)
}

func (w *world) stopBackends() {
	if w.loki != nil {
		_ = w.loki.Kill() // what it holds is thrown away
		_ = w.prometheus.Kill()
	}
}

func (w *world) clean(keep bool) error {
	if keep {
		say("stores and logs are kept in %s", w.dir)
		return nil
	}
	return os.RemoveAll(w.dir)
}

// play does one row.
func (w *world) play(ctx context.Context, r row, d dose, keep bool) result {
	res := result{row: r, dose: d}
	if r.skip != nil {
		if res.skipped = r.skip(); res.skipped != "" {
			return res
		}
	}
	say("%s (%v): %s", r.name, d, r.about)
	start := time.Now()
	w.perform(ctx, &res)
	res.seconds = time.Since(start).Seconds()
	switch {
	case res.skipped != "":
	case res.failed():
		for _, p := range res.problems {
			say("%s FAILED: %s", r.name, p)
		}
	default:
		say("%s: %d in, %d delivered, %d duplicates, %d named lost, %.0f s", r.name, res.in, res.delivered, res.duplicates, res.named(), res.seconds)
	}
	if !keep && !res.failed() {
		if err := os.RemoveAll(filepath.Join(w.dir, r.name)); err != nil {
			say("%v", err)
		}
	}
	return res
}

func (w *world) perform(ctx context.Context, res *result) {
	if res.row.offline != nil {
		w.performOffline(ctx, res)
		return
	}
	s, err := w.open(ctx, res.row.name, res.row.stage)
	if errors.Is(err, errSkip) {
		res.skipped = err.Error()
		return
	}
	if err != nil {
		res.problems = []string{err.Error()}
		return
	}
	defer s.close()
	if err := res.row.run(ctx, s, res.dose); err != nil {
		res.problems = []string{err.Error()}
		if err := s.heal(); err != nil { // losses are counted all the same
			res.problems = append(res.problems, err.Error())
		}
	}
	a, problems, err := s.settle(ctx)
	res.account, res.explained, res.notes = a, s.explained, s.notes
	res.problems = append(res.problems, problems...)
	if err != nil {
		res.problems = append(res.problems, err.Error())
	}
	if n := a.named(); n > 0 && !res.row.mayLose {
		res.problems = append(res.problems, fmt.Sprintf("%d items are named as lost; this fault destroys nothing", n))
	}
	if missing := s.missing(); missing != "" && res.failed() {
		res.problems = append(res.problems, "not in Loki: numbers "+missing)
	}
}

// performOffline does a row that needs no collector, no hub and no backend.
func (w *world) performOffline(ctx context.Context, res *result) {
	dir := filepath.Join(w.dir, res.row.name)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		res.account, res.notes, res.problems, err = res.row.offline(ctx, w, dir, res.dose)
	}
	if err != nil {
		res.problems = append(res.problems, err.Error())
	}
	if n := res.mistaken(); n > 0 {
		res.notes = append(res.notes, fmt.Sprintf("%d items are named as lost and are there", n))
	}
}
