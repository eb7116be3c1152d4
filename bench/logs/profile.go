package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// parts of longhaul-collector's work, by what is on the stack. The first that
// matches has the sample: garbage collection counts as such wherever it happens.
var parts = []struct {
	name  string
	stack *regexp.Regexp
}{
	{"garbage collection", regexp.MustCompile(`runtime\.(gcBgMarkWorker|bgsweep|bgscavenge|gcAssistAlloc|gcStart|gcMark)`)},
	{"frame: zstd", regexp.MustCompile(`klauspost/compress|internal/frame\.`)},
	{"spool: fsync", regexp.MustCompile(`(?i)syscall\.(fdatasync|fsync)`)},
	{"spool: write", regexp.MustCompile(`internal/spool\.`)},
	{"exporter: marshal OTLP", regexp.MustCompile(`\.MarshalLogs`)},
	{"exporter: batch", regexp.MustCompile(`exporters/natsexporter\.`)},
	{"ship: NATS", regexp.MustCompile(`internal/shipper\.|nats-io/`)},
	{"receiver: build pdata", regexp.MustCompile(`containerlogsreceiver\.\(\*batch\)\.logs`)},
	{"receiver: find files, save positions", regexp.MustCompile(`containerlogsreceiver\.\(\*(reader\)\.(discover|lookAgain)|positions\)|delivery\)\.save)`)},
	{"receiver: read and parse", regexp.MustCompile(`containerlogsreceiver\.\(\*reader\)`)},
	{"memory limiter", regexp.MustCompile(`memorylimiter`)},
	{"host metrics, scrapes, own telemetry", regexp.MustCompile(`gopsutil|hostmetrics|prometheus|net/http`)},
	{"pipeline", regexp.MustCompile(`containerlogsreceiver\.|go\.opentelemetry\.io/`)},
	{"scheduler", regexp.MustCompile(`runtime\.(mcall|schedule|findRunnable|sysmon|mstart|goexit)`)},
}

const elsewhere = "everything else"

// share is what one part took.
type share struct {
	name string
	cpu  time.Duration
}

// whereTimeGoes ranks the parts in a CPU profile.
func whereTimeGoes(ctx context.Context, path string) ([]share, error) {
	traces, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", path).Output()
	if err != nil {
		return nil, fmt.Errorf("read the profile: go tool pprof -traces %s: %w", path, err)
	}
	return rank(string(traces))
}

// traceHead is the first line of a stack: its time and innermost function.
var traceHead = regexp.MustCompile(`^\s*([0-9.]+(?:ns|us|ms|s|mins|hrs))\s+\S`)

func rank(traces string) ([]share, error) {
	total := map[string]time.Duration{}
	_, traces, _ = strings.Cut(traces, "-----------+") // what the profile is of
	for stack := range strings.SplitSeq(traces, "-----------+") {
		_, stack, _ = strings.Cut(stack, "\n") // the rest of the ruler
		head := traceHead.FindStringSubmatch(stack)
		if head == nil {
			continue
		}
		unit := strings.NewReplacer("mins", "m", "hrs", "h").Replace(head[1])
		cpu, err := time.ParseDuration(unit)
		if err != nil {
			return nil, fmt.Errorf("read the profile: %w", err)
		}
		total[partOf(stack)] += cpu
	}
	var shares []share
	for name, cpu := range total {
		shares = append(shares, share{name, cpu})
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.cpu, a.cpu), cmp.Compare(a.name, b.name))
	})
	return shares, nil
}

func partOf(stack string) string {
	for _, p := range parts {
		if p.stack.MatchString(stack) {
			return p.name
		}
	}
	return elsewhere
}

// printShares prints what each part took of the CPU, start and idling included.
func printShares(out io.Writer, shares []share, lines int64) {
	var all time.Duration
	for _, s := range shares {
		all += s.cpu
	}
	fmt.Fprintf(out, "\nwhere longhaul-collector's CPU time goes\n\n")
	for _, s := range shares {
		fmt.Fprintf(out, "%6.1f %%  %6.3f s per million lines  %s\n",
			100*s.cpu.Seconds()/all.Seconds(), s.cpu.Seconds()/float64(lines)*1e6, s.name)
	}
}
