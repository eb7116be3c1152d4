package spoolcmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/longhaul/longhaul/cmd/longhaul/internal/content"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

func newVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check every byte of a spool; exit status 1 if something is damaged",
		Long: `Check every frame of a spool: checksums, numbers, and that its contents decode.
What is damaged is printed with file, offset and what it is, and the exit status
is 1. A frame cut short at the very end of a lane is no damage: it is being
written, or was when the collector ended, and nobody was promised it.

Nothing is repaired: the collector does that itself, when it starts and when it
comes upon damage. It keeps the broken bytes in quarantine and counts the items
as lost; the bytes stay in the segment, and count as damage here, until the
segment is deleted.`,
		Args: directory,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := &verification{out: cmd.OutOrStdout(), progress: newProgress(cmd.ErrOrStderr())}
			return v.run(cmd, args[0])
		},
	}
}

// verification is one run of the command.
type verification struct {
	out      io.Writer
	progress *progress
	decoder  content.Decoder
	damages  int
	lanes    []laneResult
}

type laneResult struct {
	report  spool.LaneReport
	frames  counts // all that are intact, confirmed or not
	damages int
	newer   int
}

func (v *verification) run(cmd *cobra.Command, dir string) error {
	in, err := spool.Inspect(dir)
	if err != nil {
		return err
	}
	defer v.progress.clear()
	v.progress.total = in.Bytes()
	for _, d := range in.Damage {
		v.damage(d)
	}
	for _, id := range in.Lanes() {
		if err := v.lane(cmd, in, id); err != nil {
			return err
		}
	}
	v.progress.clear()
	if err := v.summary(in); err != nil {
		return err
	}
	if v.damages > 0 {
		return fmt.Errorf("%s: damaged in %s", in.Dir, plural(v.damages, "place"))
	}
	return nil
}

func (v *verification) lane(cmd *cobra.Command, in *spool.Inspection, id frame.Lane) error {
	var result laneResult
	before := v.damages
	report, err := in.Examine(id, spool.Examination{
		Payloads: true,
		Frame: func(f *spool.FoundFrame) error {
			v.progress.add(int64(f.Length))
			if _, err := decode(&v.decoder, f); errors.Is(err, content.ErrNewer) {
				result.newer++
			} else if err != nil {
				v.damage(at(f, err))
				return cmd.Context().Err()
			}
			result.frames.add(f)
			return cmd.Context().Err()
		},
		Damage: v.damage,
		Note: func(file, text string) {
			v.progress.clear()
			fmt.Fprintf(v.out, "no damage: %s: %s\n", file, text)
		},
	})
	result.report, result.damages = report, v.damages-before
	v.lanes = append(v.lanes, result)
	return err
}

func (v *verification) damage(d spool.Damage) {
	v.damages++
	v.progress.clear()
	fmt.Fprintf(v.out, "damaged: %s\n", d.String())
}

func (v *verification) summary(in *spool.Inspection) error {
	table := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LANE\tSEGMENTS\tFRAMES\tITEMS\tBYTES\tDAMAGED")
	for _, lane := range v.lanes {
		damaged := "-"
		if lane.damages > 0 {
			damaged = "in " + plural(lane.damages, "place")
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\t%s\n", lane.report.Lane, lane.report.Segments, lane.frames.Frames, lane.frames.Items, size(lane.frames.Bytes), damaged)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, lane := range v.lanes {
		if lane.newer > 0 {
			fmt.Fprintf(v.out, "%s: %s: %s\n", lane.report.Lane, plural(lane.newer, "frame"), content.ErrNewer)
		}
	}
	for _, name := range in.Strangers {
		fmt.Fprintf(v.out, "not part of a spool: %s\n", name)
	}
	return nil
}

// progress is a line on a terminal that says how far a long look has come.
type progress struct {
	w           io.Writer // nil without a terminal
	total, done int64
	next        time.Time
	shown       bool
}

// progressAfter spares those who need not wait.
const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
)

func newProgress(w io.Writer) *progress {
	p := &progress{next: time.Now().Add(progressAfter)}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

func (p *progress) add(n int64) {
	p.done += n
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(progressEvery)
	p.shown = true
	total := max(p.total, p.done) // a live spool grows
	fmt.Fprintf(p.w, "\r\x1b[K%d %%, %s of %s", 100*p.done/max(total, 1), size(p.done), size(total))
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
