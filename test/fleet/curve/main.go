// Command curve draws the cost of a fleet against its size: it reads the points that
// 'fleet -script curve' has written, a line of JSON each, writes an SVG, and puts a
// table of them into a document between two comments.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// point is what fleet writes.
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

// Where the table goes in the document.
const (
	tableBegin = "<!-- fleet-curve: begin -->"
	tableEnd   = "<!-- fleet-curve: end -->"
)

func main() {
	points := flag.String("points", "bin/fleet-curve.jsonl", "file that 'fleet -script curve -curve-out' has written")
	picture := flag.String("svg", "docs/scale.svg", "SVG to write")
	document := flag.String("doc", "docs/scale.md", "document to put the table into")
	flag.Parse()
	if err := run(*points, *picture, *document); err != nil {
		fmt.Fprintln(os.Stderr, "curve:", err)
		os.Exit(1)
	}
}

func run(from, picture, document string) error {
	points, err := read(from)
	if err != nil {
		return err
	}
	if err := drawAll(points, picture); err != nil {
		return err
	}
	return insert(document, table(points))
}

// read returns the points in the order of their clusters; of several for one number
// the last.
func read(path string) ([]point, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	byClusters := make(map[int]point)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var p point
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		byClusters[p.Clusters] = p
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(byClusters) < 2 {
		return nil, fmt.Errorf("%s has %d points: a curve needs two", path, len(byClusters))
	}
	var points []point
	for _, p := range byClusters {
		points = append(points, p)
	}
	slices.SortFunc(points, func(a, b point) int { return a.Clusters - b.Clusters })
	return points, nil
}

func table(points []point) string {
	var b strings.Builder
	b.WriteString("| clusters | nodes | items/s | relay cores | idle | relay MiB | idle | hub cores | idle | hub MiB | hub in / out MB/s | messages/s | idle | delay p50 / p99 s | lost |\n")
	b.WriteString("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, p := range points {
		fmt.Fprintf(&b, "| %d | %d | %.0f | %.2f | %.3f | %.0f | %.0f | %.2f | %.3f | %.0f | %.2f / %.2f | %.0f | %.0f | %.2f / %.2f | %d |\n",
			p.Clusters, p.Nodes, p.ItemsS, p.RelayCores, p.IdleRelay, p.RelayMiB, p.IdleMiB, p.HubCores, p.IdleHub, p.HubMiB,
			p.HubInMBs, p.HubOutMBs, p.HubMsgsS, p.IdleMsgsS, p.P50, p.P99, p.Lost)
	}
	return b.String()
}

// insert replaces what stands between the comments.
func insert(path, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(content), tableBegin)
	_, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		return fmt.Errorf("%s: no %s … %s to put the table into", path, tableBegin, tableEnd)
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n\n"+text+"\n"+tableEnd+after), 0o644)
}

// curve is one line of a plot.
type curve struct {
	name string
	of   func(point) float64
}

var plots = []struct {
	title, unit string
	curves      []curve
}{
	{"CPU", "cores", []curve{
		{"relay", func(p point) float64 { return p.RelayCores }},
		{"relay, idle fleet", func(p point) float64 { return p.IdleRelay }},
		{"hub", func(p point) float64 { return p.HubCores }},
		{"hub, idle fleet", func(p point) float64 { return p.IdleHub }},
	}},
	{"Memory", "MiB resident", []curve{
		{"relay", func(p point) float64 { return p.RelayMiB }},
		{"relay, idle fleet", func(p point) float64 { return p.IdleMiB }},
		{"hub", func(p point) float64 { return p.HubMiB }},
	}},
	{"NATS traffic", "messages/s", []curve{
		{"hub", func(p point) float64 { return p.HubMsgsS }},
		{"hub, idle fleet", func(p point) float64 { return p.IdleMsgsS }},
	}},
}

const (
	plotWidth, plotHeight = 11 * vg.Centimeter, 9 * vg.Centimeter
	gap                   = 4 * vg.Millimeter
)

// drawAll draws the plots side by side.
func drawAll(points []point, path string) error {
	width := plotWidth * vg.Length(len(plots))
	canvas := vgsvg.New(width, plotHeight)
	all := draw.New(canvas)
	for i, what := range plots {
		p := plot.New()
		p.Title.Text = what.title
		p.X.Label.Text, p.Y.Label.Text = "clusters (of 3 nodes)", what.unit
		p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
		p.Legend.Top, p.Legend.Left = true, true
		p.Add(plotter.NewGrid())
		var lines []any
		for _, c := range what.curves {
			xy := make(plotter.XYs, 0, len(points))
			for _, at := range points {
				if y := c.of(at); y > 0 && !math.IsInf(y, 0) { // a logarithm has no place for 0
					xy = append(xy, plotter.XY{X: float64(at.Clusters), Y: y})
				}
			}
			if len(xy) > 0 {
				lines = append(lines, c.name, xy)
			}
		}
		if err := plotutil.AddLinePoints(p, lines...); err != nil {
			return fmt.Errorf("plot of %s: %w", what.title, err)
		}
		left := plotWidth * vg.Length(i)
		p.Draw(draw.Crop(all, left, left+plotWidth-width-gap, 0, 0))
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(file)
	return errors.Join(err, file.Close())
}
