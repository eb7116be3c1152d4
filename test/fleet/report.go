package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/book"
	"github.com/longhaul/longhaul/test/fleet/edge"
)

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// report is what a run has found.
type report struct {
	world                            *world
	idle, warm, together             span
	costs                            map[frame.Signal]span
	idleResident, selfResident       int64
	resident, hubResident, hubStored int64
	recovered, drained               time.Duration
	notes                            []string

	counts         map[frame.Signal]book.Counts
	wrongs         book.Wrongs
	lost, held     int64
	missing        []book.Missing
	named          int64 // lost, by the relays' word
	relayDuplicate int64
	stats          edge.Stats
	trouble        error
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// finish takes stock at the end.
func (r *report) finish(ctx context.Context) {
	w := r.world
	r.counts, r.wrongs = w.book.Counts()
	r.lost, r.held = w.book.Open()
	r.missing = w.book.Missing(5)
	r.stats = w.fleet.Stats()
	if self, err := lab.UsageOf(os.Getpid()); err == nil {
		r.selfResident = self.MaxResident
	}
	for _, relay := range w.relays {
		m, err := lab.ReadMetrics(ctx, relay.MetricsURL)
		if err != nil {
			r.trouble = errors.Join(r.trouble, err)
			continue
		}
		r.named += int64(m.Sum("longhaul_lost_items_total") - m.Sum("longhaul_recovered_items_total"))
		r.relayDuplicate += int64(m.Sum("longhaul_relay_frames_duplicate_total"))
	}
}

// perMillion is the CPU time of the relays for a million items of a signal, without
// what the fleet costs them when it writes nothing.
func (r *report) perMillion(signal frame.Signal) float64 {
	s, ok := r.costs[signal]
	if !ok || s.items[signal] == 0 {
		return 0
	}
	idle := 0.0
	if r.idle.seconds > 0 {
		idle = cores(r.idle.relay, r.idle.seconds) * s.seconds
	}
	return max(0, s.relay.Seconds()-idle) / float64(s.items[signal]) * 1e6 // 0: too little to tell
}

func (r *report) print(to io.Writer) {
	w := r.world
	fmt.Fprintf(to, "\nscript %s: %d clusters, %d nodes on %d connections, %d relays, %s; %.3f of the ordinary load\n",
		w.script, w.clusters, w.fleet.Nodes(), w.fleet.Links(), len(w.relays), w.backends.name(), w.load)
	for _, note := range r.notes {
		fmt.Fprintf(to, "- %s\n", note)
	}
	fmt.Fprintln(to)
	if len(r.costs) > 0 {
		r.printCosts(to)
	}
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	s := &r.together
	if s.seconds > 0 {
		row("items/s through the relays", "%.0f (logs %.0f, samples %.0f, spans %.0f)", s.perSecond(s.allItems()),
			s.perSecond(s.items[frame.Logs]), s.perSecond(s.items[frame.Metrics]), s.perSecond(s.items[frame.Traces]))
		row("cores", "relays %.2f, hub %.2f, simulator and sinks %.2f", cores(s.relay, s.seconds), cores(s.hub, s.seconds), cores(s.self, s.seconds))
		row("traffic of the hub", "in %.2f, out %.2f MB/s, %.0f messages/s", float64(s.inBytes)/s.seconds/1e6, float64(s.outBytes)/s.seconds/1e6, s.perSecond(s.messages))
		row("delay of live frames", "p50 %.2f, p99 %.2f, most %.2f s", s.delays.P50.Seconds(), s.delays.P99.Seconds(), s.delays.Most.Seconds())
	}
	if r.idle.seconds > 0 {
		row("when the fleet writes nothing", "relays %.3f cores, %.0f MiB; hub %.3f cores; hub in %.2f, out %.2f MB/s", cores(r.idle.relay, r.idle.seconds),
			mib(r.idleResident), cores(r.idle.hub, r.idle.seconds), float64(r.idle.inBytes)/r.idle.seconds/1e6, float64(r.idle.outBytes)/r.idle.seconds/1e6)
	}
	if s := &r.warm; s.seconds > 0 {
		row("the first frames of every node", "%.0f items/s, relays %.2f CPU s per million items, %.1f s in all", s.perSecond(s.allItems()), s.relay.Seconds()/float64(s.allItems())*1e6, s.seconds)
	}
	row("relay, resident at most", "%.0f MiB", mib(r.resident))
	row("hub, resident and stored at most", "%.0f, %.0f MiB", mib(r.hubResident), mib(r.hubStored))
	row("the simulator, resident at most", "%.0f MiB with the sinks", mib(r.selfResident))
	row("drained at the end", "in %.1f s", r.drained.Seconds())
	var written, arrived, again int64
	for _, c := range r.counts {
		written, arrived, again = written+c.Written, arrived+c.Arrived, again+c.Again
	}
	row("frames", "%d written, %d arrived, %d again; the relays dropped %d repeats by their numbers", written, arrived, again, r.relayDuplicate)
	if n := r.counts[frame.Logs].Reordered; n > 0 {
		row("", "%d of them, late logs, arrived behind younger ones of their lane: they go in requests of their own", n)
	}
	row("the fleet", "%d hellos, %d confirmations, %d restarts, %d new spools, %d lanes sealed, %d times sent again, %d publishes refused, %d links lost",
		r.stats.Hellos, r.stats.Confirmations, r.stats.Restarts, r.stats.Renewals, r.stats.Sealed, r.stats.Rewinds, r.stats.RefusedPublishes, r.stats.LostLinks)
	_ = t.Flush() // to a pipe or a terminal
	for _, problem := range r.problems() {
		fmt.Fprintf(to, "WRONG: %s\n", problem)
	}
	fmt.Fprintln(to, r.line())
}

func (r *report) printCosts(to io.Writer) {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "alone\titems/s\titems a frame\trelay cores\thub cores\tsimulator, sinks\trelay CPU s per million\titems/s a relay core\tp50 s\tp99 s\t")
	for _, signal := range order {
		s, ok := r.costs[signal]
		if !ok {
			continue
		}
		each := r.perMillion(signal)
		perCore := "-"
		if each > 0 {
			perCore = fmt.Sprintf("%.0f", 1e6/each)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t%.2f\t%.2f\t\n", signal, s.perSecond(s.items[signal]),
			float64(s.items[signal])/float64(max(1, s.frames[signal])), cores(s.relay, s.seconds), cores(s.hub, s.seconds), cores(s.self, s.seconds),
			each, perCore, s.delays.P50.Seconds(), s.delays.P99.Seconds())
	}
	_ = t.Flush()
	fmt.Fprintln(to)
}

// problems are what must not be.
func (r *report) problems() (list []string) {
	add := func(n int64, text string) {
		if n != 0 {
			list = append(list, fmt.Sprintf("%d %s", n, text))
		}
	}
	add(r.lost, "frames are lost")
	for _, m := range r.missing {
		list = append(list, fmt.Sprintf("of node %d (%s), life %d, %s the frames from %d on are missing; %d were written",
			m.Node, r.world.fleet.ClusterOf(m.Node), m.Life, m.Lane, m.From, m.Written))
	}
	if r.lost == 0 {
		add(r.held, "frames arrived and were not confirmed")
	}
	add(r.named, "items are named as lost by the relays")
	add(r.wrongs.Disorder, "frames arrived behind later ones of their lane")
	add(r.wrongs.Misplaced, "frames arrived under the name of another cluster")
	add(r.wrongs.Unknown, "frames arrived that nobody wrote")
	add(r.wrongs.Untrue, "times frames were confirmed that had not arrived")
	if example := r.wrongs.Example(); example != "" {
		list = append(list, "for example: "+example)
	}
	add(r.stats.Disputes, "times a spool was taken for a copy")
	add(r.stats.Unread, "messages of the relays could not be read")
	for _, signal := range order {
		c := r.counts[signal]
		add(c.Items-c.Expected, fmt.Sprintf("more items of %s arrived than the frames with them hold", signal))
	}
	if r.trouble != nil {
		list = append(list, r.trouble.Error())
	}
	return list
}

// duplicates are items that arrived more than once.
func (r *report) duplicates() (items int64) {
	for _, c := range r.counts {
		if c.Written > 0 {
			items += c.Again * c.WrittenItems / c.Written
		}
	}
	return items
}

func (r *report) lostItems() (items int64) {
	for _, c := range r.counts {
		if c.Written > 0 {
			items += (c.Written - c.Arrived) * c.WrittenItems / c.Written
		}
	}
	return items
}

func (r *report) line() string {
	w, s := r.world, &r.together
	var b strings.Builder
	fmt.Fprintf(&b, "RESULT fleet lost=%d duplicates=%d script=%s clusters=%d nodes=%d relays=%d backends=%s wrong=%d",
		r.lostItems(), r.duplicates(), w.script, w.clusters, w.fleet.Nodes(), len(w.relays), w.options.backends, len(r.problems()))
	if s.seconds > 0 {
		fmt.Fprintf(&b, " items_s=%.0f p50_s=%.2f p99_s=%.2f", s.perSecond(s.allItems()), s.delays.P50.Seconds(), s.delays.P99.Seconds())
	}
	for _, signal := range order {
		if each := r.perMillion(signal); each > 0 {
			fmt.Fprintf(&b, " %s_cpu_s_per_million=%.2f", signal, each)
		}
	}
	fmt.Fprintf(&b, " relay_rss_mib=%.0f hub_mib=%.0f", mib(r.resident), mib(r.hubStored))
	if r.recovered > 0 {
		fmt.Fprintf(&b, " recovered_s=%.1f", r.recovered.Seconds())
	}
	fmt.Fprintf(&b, " drain_s=%.1f", r.drained.Seconds())
	return b.String()
}

// verdict is an error when something is wrong.
func (r *report) verdict() error {
	if problems := r.problems(); len(problems) > 0 {
		return errors.New("the run is not as it should be: see WRONG above")
	}
	return r.appendPoint()
}

// point is one line of what docs/scale.md is drawn from.
type point struct {
	Clusters    int     `json:"clusters"`
	Nodes       int     `json:"nodes"`
	Load        float64 `json:"load"`
	ItemsS      float64 `json:"items_s"`
	RelayCores  float64 `json:"relay_cores"`
	HubCores    float64 `json:"hub_cores"`
	IdleRelay   float64 `json:"idle_relay_cores"`
	IdleHub     float64 `json:"idle_hub_cores"`
	RelayMiB    float64 `json:"relay_mib"`
	IdleMiB     float64 `json:"idle_relay_mib"`
	HubMiB      float64 `json:"hub_mib"`
	HubInMBs    float64 `json:"hub_in_mb_s"`
	HubOutMBs   float64 `json:"hub_out_mb_s"`
	HubMsgsS    float64 `json:"hub_msgs_s"`
	IdleMsgsS   float64 `json:"idle_hub_msgs_s"`
	P50         float64 `json:"p50_s"`
	P99         float64 `json:"p99_s"`
	Lost        int64   `json:"lost"`
	Connections int     `json:"connections"`
}

func (r *report) appendPoint() error {
	w, s := r.world, &r.together
	if w.curveOut == "" || s.seconds == 0 {
		return nil
	}
	p := point{
		Clusters: w.clusters, Nodes: w.fleet.Nodes(), Load: w.load, ItemsS: s.perSecond(s.allItems()),
		RelayCores: cores(s.relay, s.seconds), HubCores: cores(s.hub, s.seconds),
		IdleRelay: cores(r.idle.relay, r.idle.seconds), IdleHub: cores(r.idle.hub, r.idle.seconds),
		RelayMiB: mib(r.resident), IdleMiB: mib(r.idleResident), HubMiB: mib(r.hubResident),
		HubInMBs: float64(s.inBytes) / s.seconds / 1e6, HubOutMBs: float64(s.outBytes) / s.seconds / 1e6,
		HubMsgsS: s.perSecond(s.messages), IdleMsgsS: r.idle.perSecond(r.idle.messages),
		P50: s.delays.P50.Seconds(), P99: s.delays.P99.Seconds(), Lost: r.lostItems(), Connections: w.fleet.Links(),
	}
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(w.curveOut, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}
