package spoolcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/internal/spool"
)

func newListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls DIR",
		Short: "Show what a spool holds, lane by lane",
		Long: `Show a spool's identity and its lanes: numbers, sizes, times, how far each is
shipped and confirmed, and what it has lost.

It reads the headers of all frames, not their contents; verify reads all.
The newest lane of a signal is live; the others were sealed by an outage and are
backlog. Frames, items and bytes are those not yet confirmed. SHIPPED is what the hub has
acknowledged; a running collector notes it every two seconds. With --json, one
object.`,
		Args: directory,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := list(cmd, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(l)
			}
			return l.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listing is what ls prints; its JSON is an interface for scripts.
type listing struct {
	Directory  string        `json:"directory"`
	Epoch      string        `json:"epoch"` // empty if unknown
	Owner      string        `json:"owner"` // cluster/node; empty if nobody's
	Copied     bool          `json:"copied"`
	Layout     int           `json:"layout"`
	InUse      bool          `json:"in_use"`
	PID        int           `json:"pid,omitempty"`
	Bytes      int64         `json:"segment_bytes"`
	Quarantine quarantine    `json:"quarantine"`
	Lanes      []laneListing `json:"lanes"`
	Strangers  []string      `json:"other_files,omitempty"`
	Problems   []string      `json:"problems,omitempty"`
}

type quarantine struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

type laneListing struct {
	Lane         string              `json:"lane"`
	Class        string              `json:"class"`
	Floor        uint64              `json:"floor"`
	Next         uint64              `json:"next"`
	Confirmed    uint64              `json:"confirmed"`
	Shipped      *uint64             `json:"shipped"` // null if nothing tells
	Segments     int                 `json:"segments"`
	SegmentBytes int64               `json:"segment_bytes"`
	counts                           // held, that is, not confirmed
	First        *time.Time          `json:"first"`
	Last         *time.Time          `json:"last"`
	State        string              `json:"state"` // see stateOf
	Custody      custody             `json:"custody"`
	Lost         map[string]uint64   `json:"lost"`
	Damaged      []spool.NumberRange `json:"damaged"`
}

type counts struct {
	Frames int    `json:"frames"`
	Items  uint64 `json:"items"`
	Bytes  int64  `json:"bytes"`
}

func (c *counts) add(f *spool.FoundFrame) {
	c.Frames++
	c.Items += uint64(f.Header.Items)
	c.Bytes += int64(f.Length)
}

// custody divides the frames on the disk by what is still owed to them.
type custody struct {
	NotShipped counts `json:"not_shipped"`
	Shipped    counts `json:"shipped_not_confirmed"`
	Settled    counts `json:"settled_not_deleted"` // confirmed, mostly: below the floor
}

func list(cmd *cobra.Command, dir string) (*listing, error) {
	in, err := spool.Inspect(dir)
	if err != nil {
		return nil, err
	}
	l := &listing{
		Directory: in.Dir, Layout: in.Layout, InUse: in.InUse, Strangers: in.Strangers,
		Owner: in.Owner, Copied: in.Copied,
		Bytes: in.Bytes(), Quarantine: quarantine{in.QuarantineFiles, in.QuarantineBytes},
	}
	if in.Epoch != 0 {
		l.Epoch = in.Epoch.String()
	}
	if in.InUse {
		l.PID = in.PID
	}
	for _, d := range in.Damage {
		l.Problems = append(l.Problems, d.String())
	}
	shipped, err := shipper.Shipped(in.Epoch, in.LoadState)
	if err != nil {
		l.Problems = append(l.Problems, "what is shipped cannot be read: "+err.Error())
	}
	for _, id := range in.Lanes() {
		lane, err := l.examine(cmd, in, id, shipped)
		if err != nil {
			return nil, err
		}
		l.Lanes = append(l.Lanes, lane)
	}
	return l, nil
}

func (l *listing) examine(cmd *cobra.Command, in *spool.Inspection, id frame.Lane, shipped map[frame.Lane]uint64) (laneListing, error) {
	var c custody
	upTo, known := shipped[id]
	damages := 0
	var first spool.Damage
	report, err := in.Examine(id, spool.Examination{
		Frame: func(f *spool.FoundFrame) error {
			switch {
			case f.Settled: // the report counts them
			case f.Header.Number <= upTo:
				c.Shipped.add(f)
			default:
				c.NotShipped.add(f)
			}
			return cmd.Context().Err()
		},
		Damage: func(d spool.Damage) {
			if damages++; damages == 1 {
				first = d
			}
		},
	})
	if err != nil {
		return laneListing{}, err
	}
	if damages > 0 {
		problem := first.String()
		if damages > 1 {
			problem += fmt.Sprintf("; and %s more in this lane", plural(damages-1, "place"))
		}
		l.Problems = append(l.Problems, problem)
	}
	c.Settled = counts(report.Settled)
	lane := laneListing{
		Lane: id.String(), Class: report.Class.String(),
		Floor: report.Floor, Next: report.Next, Confirmed: report.Confirmed,
		Segments: report.Segments, SegmentBytes: report.SegmentBytes,
		counts: counts(report.Held), Custody: c,
		First: timeOrNil(report.First), Last: timeOrNil(report.Last),
		Lost: map[string]uint64{}, Damaged: report.Damaged,
	}
	if lane.Damaged == nil {
		lane.Damaged = []spool.NumberRange{}
	}
	if known {
		lane.Shipped = &upTo
	}
	lane.State = stateOf(&lane)
	for cause, n := range report.Lost {
		if n > 0 {
			lane.Lost[frame.Cause(cause).String()] = n
		}
	}
	return lane, nil
}

// stateOf says in a word what a lane waits for.
func stateOf(lane *laneListing) string {
	switch {
	case lane.Custody.NotShipped.Frames > 0:
		return "to ship"
	case lane.Custody.Shipped.Frames > 0:
		return "to be confirmed"
	case lane.Class == frame.Live.String() || lane.Next == 1:
		return "empty"
	case lane.Confirmed+1 < lane.Next:
		return "lost, relay to hear"
	default:
		return "done, to be deleted"
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (l *listing) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", l.Directory)
	epoch := l.Epoch
	if epoch == "" {
		epoch = "unknown"
	}
	use := "no process is seen to use it"
	if l.InUse {
		use = "in use"
		if l.PID > 0 {
			use += " by pid " + strconv.Itoa(l.PID)
		}
	}
	fmt.Fprintf(&b, "epoch %s, layout %d, %s\n", epoch, l.Layout, use)
	if l.Owner != "" {
		fmt.Fprintf(&b, "owner %s\n", l.Owner)
	}
	if l.Copied {
		fmt.Fprintln(&b, "a copy: at the next start its lanes are sealed and new ones begin")
	}
	fmt.Fprintf(&b, "segments %s, quarantine %s in %s\n\n", size(l.Bytes), size(l.Quarantine.Bytes), plural(l.Quarantine.Files, "file"))

	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LANE\tCLASS\tFLOOR\tNEXT\tCONFIRMED\tSHIPPED\tFRAMES\tITEMS\tBYTES\tFIRST\tLAST")
	for _, lane := range l.Lanes {
		shipped := "-"
		if lane.Shipped != nil {
			shipped = strconv.FormatUint(*lane.Shipped, 10)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%d\t%d\t%s\t%s\t%s\n", lane.Lane, lane.Class, lane.Floor, lane.Next, lane.Confirmed,
			shipped, lane.Frames, lane.Items, size(lane.Bytes), clock(lane.First), clock(lane.Last))
	}
	table.Flush()
	fmt.Fprintln(&b)
	fmt.Fprintln(table, "LANE\tSTATE\tNOT SHIPPED\tSHIPPED, NOT CONFIRMED\tCONFIRMED, NOT DELETED")
	for _, lane := range l.Lanes {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", lane.Lane, lane.State, lane.Custody.NotShipped, lane.Custody.Shipped, lane.Custody.Settled)
	}
	table.Flush()
	l.printLosses(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (l *listing) printLosses(b *strings.Builder) {
	section := "\n"
	line := func(format string, args ...any) {
		fmt.Fprintf(b, section+format+"\n", args...)
		section = ""
	}
	for _, lane := range l.Lanes {
		for cause := range frame.NumCauses {
			name := frame.Cause(cause).String()
			if n := lane.Lost[name]; n > 0 {
				line("%s lost %s: %s", lane.Lane, plural(n, "item"), name)
			}
		}
		if len(lane.Damaged) > 0 {
			line("%s frames damaged and counted as lost: %s", lane.Lane, ranges(lane.Damaged))
		}
	}
	for _, name := range l.Strangers {
		line("not part of a spool: %s", name)
	}
	for _, problem := range l.Problems {
		line("damaged: %s", problem)
	}
	if len(l.Problems) > 0 {
		line("`longhaul spool verify` lists all damage")
	}
}

func (c counts) String() string {
	if c.Frames == 0 {
		return "-"
	}
	return plural(c.Frames, "frame") + ", " + plural(c.Items, "item")
}

func plural[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// size is for eyes: three digits and a binary unit.
func size(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1000 && unit < 3 {
		value, unit = value/(1<<10), unit+1
	}
	digits := 0
	if value < 10 {
		digits = 1
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func ranges(list []spool.NumberRange) string {
	parts := make([]string, len(list))
	for i, r := range list {
		parts[i] = strconv.FormatUint(r.From, 10)
		if r.To > r.From {
			parts[i] += "-" + strconv.FormatUint(r.To, 10)
		}
	}
	return strings.Join(parts, ", ")
}
