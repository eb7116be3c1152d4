package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/longhaul/longhaul/internal/frame"
)

// ordinaryMix are the items an ordinary node has in a second: what the ratio of all
// signals together is weighed by.
var ordinaryMix = map[frame.Signal]float64{frame.Logs: 50, frame.Metrics: 2000. / 30, frame.Traces: 20}

type results struct{ ours, peer turn }

func (r *results) print(to io.Writer) {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tsignal\titems\tCPU s\titems for a CPU s\titems/s\tMiB at most\tlost\tagain\thub's CPU s\t")
	for _, one := range []struct {
		name string
		turn turn
	}{{"longhaul-relay", r.ours}, {"gateway", r.peer}} {
		for _, signal := range frame.Signals {
			f := one.turn[signal]
			if f == nil {
				continue
			}
			hub := "-"
			if f.hubCPU > 0 {
				hub = fmt.Sprintf("%.2f", f.hubCPU.Seconds())
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%.2f\t%.0f\t%.0f\t%d\t%d\t%d\t%s\t\n", one.name, signal, f.items, f.cpu.Seconds(), f.perCoreSecond(),
				float64(f.items)/f.elapsed.Seconds(), f.resident>>20, f.frames-f.arrived, f.again, hub)
		}
	}
	_ = t.Flush() // to a pipe or a terminal
	fmt.Fprintln(to, r.line())
}

func (r *results) line() string {
	var b strings.Builder
	b.WriteString("RESULT bench-relay")
	if ratio := r.speedup(); ratio > 0 {
		fmt.Fprintf(&b, " speedup=%.2f", ratio)
	}
	var most int64
	for _, one := range []struct {
		signal frame.Signal
		name   string
	}{{frame.Logs, "logs_per_core_s"}, {frame.Metrics, "samples_per_core_s"}, {frame.Traces, "spans_per_core_s"}} {
		if f := r.ours[one.signal]; f != nil {
			fmt.Fprintf(&b, " %s=%.0f", one.name, f.perCoreSecond())
			most = max(most, f.resident)
		}
	}
	fmt.Fprintf(&b, " rss_mib=%d", most>>20)
	for _, signal := range frame.Signals {
		ours, peer := r.ours[signal], r.peer[signal]
		if ours != nil && peer != nil {
			fmt.Fprintf(&b, " speedup_%s=%.2f", signal, ours.perCoreSecond()/peer.perCoreSecond())
		}
	}
	fmt.Fprintf(&b, " lost=%d", r.lost())
	return b.String()
}

// speedup is the peer's CPU time for the ordinary mix of all signals that both were
// measured with, divided by ours.
func (r *results) speedup() float64 {
	var ours, peer float64
	for signal, weight := range ordinaryMix {
		if o, p := r.ours[signal], r.peer[signal]; o != nil && p != nil {
			ours += weight / o.perCoreSecond()
			peer += weight / p.perCoreSecond()
		}
	}
	if ours == 0 {
		return 0
	}
	return peer / ours
}

func (r *results) lost() (frames int64) {
	for _, turn := range []turn{r.ours, r.peer} {
		for _, f := range turn {
			frames += f.frames - f.arrived
		}
	}
	return frames
}

func (r *results) verdict() error {
	if n := r.lost(); n > 0 {
		return fmt.Errorf("%d frames did not arrive", n)
	}
	if len(r.ours)+len(r.peer) == 0 {
		return errors.New("nothing was measured")
	}
	return nil
}
