package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

func (f *figures) cpuPerMillion() float64 { return f.cpu.Seconds() / float64(f.lines) * 1e6 }

func (f *figures) perLine(n int64) float64 { return float64(n) / float64(f.lines) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// results holds both scenes; a scene that was not played has no figures.
type results struct {
	burst, drip pair
	shares      []share // of longhaul-collector's CPU time, if profiled
}

type row struct {
	name   string
	format string
	of     func(*figures) float64
}

var common = []row{
	{"CPU s per million lines", "%.2f", (*figures).cpuPerMillion},
	{"resident, steady MiB", "%.0f", func(f *figures) float64 { return mib(f.steady) }},
	{"resident, peak MiB", "%.0f", func(f *figures) float64 { return mib(f.peak) }},
	{"resident, idle before MiB", "%.0f", func(f *figures) float64 { return mib(f.idle) }},
	{"to the disk, bytes per line", "%.1f", func(f *figures) float64 { return f.perLine(f.disk) }},
	{"to the wire, bytes per line", "%.1f", func(f *figures) float64 { return f.perLine(f.wire) }},
	{"delivered more than once, lines", "%.0f", func(f *figures) float64 { return float64(f.repeats) }},
}

var burstRows = append([]row{
	{"lines/s until durable", "%.0f", func(f *figures) float64 { return float64(f.lines) / f.durable.Seconds() }},
	{"lines/s until delivered", "%.0f", func(f *figures) float64 { return float64(f.lines) / f.delivered.Seconds() }},
}, common...)

var dripRows = append([]row{
	{"behind the writer, at most s", "%.1f", func(f *figures) float64 { return f.behind.Seconds() }},
	{"restart, a new line in each file, s", "%.1f", func(f *figures) float64 { return f.restart.Seconds() }},
	{"CPU, % of a core", "%.2f", func(f *figures) float64 { return 100 * f.cpu.Seconds() / f.elapsed.Seconds() }},
	{"CPU without files, % of a core", "%.2f", func(f *figures) float64 { return 100 * f.still }},
	{"CPU with quiet files, % of a core", "%.2f", func(f *figures) float64 { return 100 * f.quiet }},
}, common...)

func (p pair) any() *figures {
	if p.ours != nil {
		return p.ours
	}
	return p.peer
}

func (p pair) ratio(of func(*figures) float64) string {
	if p.ours == nil || p.peer == nil || of(p.peer) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", of(p.ours)/of(p.peer))
}

func (p pair) print(out io.Writer, title string, rows []row) {
	if p.any() == nil {
		return
	}
	fmt.Fprintf(out, "\n%s: %d lines, %.1f bytes each\n\n", title, p.any().lines, p.any().perLine(p.any().bytes))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tlonghaul-collector\totelcol\tours/peer\t")
	for _, r := range rows {
		cell := func(f *figures) string {
			if f == nil {
				return "-"
			}
			return fmt.Sprintf(r.format, r.of(f))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t\n", r.name, cell(p.ours), cell(p.peer), p.ratio(r.of))
	}
	_ = table.Flush()
}

// print prints the tables and, as the last line, the result.
func (r results) print(out io.Writer) {
	r.burst.print(out, sceneBurst, burstRows)
	r.drip.print(out, sceneDrip, dripRows)
	for _, p := range []pair{r.burst, r.drip} {
		if r.shares != nil && p.ours != nil {
			printShares(out, r.shares, p.ours.lines)
		}
	}
	fmt.Fprintln(out)
	fmt.Fprintln(out, r.line())
}

// line is the result for programs to read. What was not measured is left out.
func (r results) line() string {
	fields := []string{"RESULT bench-logs"}
	add := func(name, format string, f *figures, of func(*figures) float64) {
		if f != nil {
			fields = append(fields, fmt.Sprintf("%s="+format, name, of(f)))
		}
	}
	ratio := func(name string, p pair, of func(*figures) float64) {
		if v := p.ratio(of); v != "-" {
			fields = append(fields, name+"="+v)
		}
	}
	rate := func(f *figures) float64 { return float64(f.lines) / f.durable.Seconds() }
	peak := func(f *figures) float64 { return mib(f.peak) }
	ratio("cpu_ratio", r.burst, (*figures).cpuPerMillion)
	add("lines_per_s", "%.0f", r.burst.ours, rate)
	ratio("rss_ratio", r.burst, peak)
	add("cpu_s_per_million", "%.2f", r.burst.ours, (*figures).cpuPerMillion)
	add("peer_cpu_s_per_million", "%.2f", r.burst.peer, (*figures).cpuPerMillion)
	add("peer_lines_per_s", "%.0f", r.burst.peer, rate)
	add("peak_rss_mib", "%.0f", r.burst.ours, peak)
	add("idle_rss_mib", "%.0f", r.burst.ours, func(f *figures) float64 { return mib(f.idle) })
	ratio("disk_ratio", r.burst, func(f *figures) float64 { return f.perLine(f.disk) })
	ratio("wire_ratio", r.burst, func(f *figures) float64 { return f.perLine(f.wire) })
	add("wire_bytes_per_line", "%.1f", r.burst.ours, func(f *figures) float64 { return f.perLine(f.wire) })
	ratio("drip_cpu_ratio", r.drip, (*figures).cpuPerMillion)
	add("drip_core_percent", "%.2f", r.drip.ours, func(f *figures) float64 { return 100 * f.cpu.Seconds() / f.elapsed.Seconds() })
	add("drip_behind_s", "%.1f", r.drip.ours, func(f *figures) float64 { return f.behind.Seconds() })
	add("restart_s", "%.1f", r.drip.ours, func(f *figures) float64 { return f.restart.Seconds() })
	add("quiet_core_percent", "%.2f", r.drip.ours, func(f *figures) float64 { return 100 * f.quiet })
	ratio("drip_rss_ratio", r.drip, peak)
	return strings.Join(fields, " ")
}
