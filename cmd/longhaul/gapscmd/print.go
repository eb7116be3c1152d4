package gapscmd

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// gap is one loss; its JSON is an interface for scripts.
type gap struct {
	FoundAt time.Time `json:"found_at"`
	// Destination is where it is lost for; absent for the default one.
	Destination string `json:"destination,omitempty"`
	Cluster     string `json:"cluster"`
	Node        string `json:"node"`
	Epoch       string `json:"epoch"`
	Signal      string `json:"signal"`
	Lane        string `json:"lane"`
	// From and To are frame numbers; absent where items never were in a frame, From
	// alone where only the end is known.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// Items lost, and of those, what arrived after all, by cause.
	Items     map[string]uint64 `json:"items"`
	Recovered map[string]uint64 `json:"recovered,omitempty"`
	// Lost is what is lost by now.
	Lost uint64 `json:"lost"`
	// Rejected frames are kept on the hub for a while.
	Kept bool `json:"kept,omitempty"`
	// After and Before are the times of the items around it.
	After       *time.Time `json:"after,omitempty"`
	Before      *time.Time `json:"before,omitempty"`
	RecoveredAt *time.Time `json:"recovered_at,omitempty"`
}

func newGap(of key, g *custody.Gap) gap {
	id := of.spool
	out := gap{
		FoundAt: g.At.UTC(), Cluster: id.Origin.Cluster, Node: id.Origin.Node, Epoch: id.Epoch.String(),
		Signal: g.Lane.Signal.String(), Lane: g.Lane.String(), From: g.From, To: g.To, Kept: g.Kept,
		Items: named(g.Items), Recovered: named(g.Recovered), Lost: g.Lost(), After: moment(g.After), Before: moment(g.Before),
	}
	if of.destination != hub.DefaultDestination {
		out.Destination = of.destination
	}
	if !g.RecoveredAt.IsZero() {
		at := g.RecoveredAt.UTC()
		out.RecoveredAt = &at
	}
	return out
}

func named(items custody.Counts) map[string]uint64 {
	var result map[string]uint64
	for cause, n := range items {
		if n > 0 {
			if result == nil {
				result = make(map[string]uint64)
			}
			result[frame.Cause(cause).String()] = n
		}
	}
	return result
}

func moment(nanoseconds int64) *time.Time {
	if nanoseconds <= 0 {
		return nil
	}
	at := time.Unix(0, nanoseconds).UTC()
	return &at
}

func compare(a, b gap) int {
	return cmp.Or(a.FoundAt.Compare(b.FoundAt), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.To, b.To))
}

// print writes a line per gap and cause. Destinations are named if there are others
// than the default one.
func print(w io.Writer, gaps []gap) error {
	if len(gaps) == 0 {
		_, err := fmt.Fprintln(w, "no gaps")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	several := slices.ContainsFunc(gaps, func(g gap) bool { return g.Destination != "" })
	column := func(text string) string {
		if several {
			return cmp.Or(text, hub.DefaultDestination) + "\t"
		}
		return ""
	}
	fmt.Fprintln(table, "FOUND\tCLUSTER\tNODE\tLANE\t"+column("DESTINATION")+"FRAMES\tLOST\tRECOVERED\tCAUSE\tBETWEEN")
	lost, count := make(map[string]uint64), make(map[string]int)
	for i := range gaps {
		g := &gaps[i]
		lost[g.Destination] += g.Lost
		count[g.Destination]++
		for _, cause := range causes(g.Items) {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s%s\t%d\t%d\t%s\t%s\n", g.FoundAt.Format(time.DateTime), g.Cluster, g.Node, g.Lane,
				column(g.Destination), g.frames(), g.Items[cause], g.Recovered[cause], cause, g.between())
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, destination := range slices.Sorted(maps.Keys(count)) {
		at := ""
		if several {
			at = " at destination " + cmp.Or(destination, hub.DefaultDestination)
		}
		if _, err := fmt.Fprintf(w, "%d items lost in %d gaps%s; times are UTC\n", lost[destination], count[destination], at); err != nil {
			return err
		}
	}
	return nil
}

// causes lists those of a gap in the order of their numbers.
func causes(items map[string]uint64) (names []string) {
	for cause := range frame.Cause(frame.NumCauses) {
		if _, ok := items[cause.String()]; ok {
			names = append(names, cause.String())
		}
	}
	return names
}

func (g *gap) frames() string {
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	switch {
	case g.To == 0:
		return "-"
	case g.From == 0:
		return "up to " + text(g.To)
	case g.From == g.To:
		return text(g.To)
	}
	return text(g.From) + "-" + text(g.To)
}

func (g *gap) between() string {
	if g.After == nil && g.Before == nil {
		return "-"
	}
	text := func(at *time.Time) string {
		if at == nil {
			return "?"
		}
		return at.Format(time.DateTime)
	}
	return strings.Join([]string{text(g.After), text(g.Before)}, " and ")
}
