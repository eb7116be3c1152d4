package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// result is what a row came to.
type result struct {
	account
	row       row
	dose      dose
	seconds   float64
	explained int // duplicates
	skipped   string
	problems  []string
	notes     []string
}

func (r result) failed() bool { return len(r.problems) > 0 }

func (r result) verdict() string {
	switch {
	case r.skipped != "":
		return "skipped: " + r.skipped
	case r.failed():
		return "FAILED"
	}
	return "ok"
}

// printResults prints the table and the RESULT line and returns whether every
// row that was done is as it should be.
func printResults(w io.Writer, results []result) (ok bool) {
	ok = true
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "fault\ttimes\titems in\tdelivered\tduplicates\tat most\tsent twice\tnamed lost\tyet delivered\tunnamed lost\tseconds\t\t")
	var done, named, unnamed, duplicates int
	for _, r := range results {
		if r.skipped != "" {
			fmt.Fprintf(t, "%s\t%v\t\t\t\t\t\t\t\t\t\t  %s\t\n", r.row.name, r.dose, r.verdict())
			continue
		}
		done++
		named += r.named()
		unnamed += r.unnamed()
		duplicates += r.duplicates
		ok = ok && !r.failed()
		fmt.Fprintf(t, "%s\t%v\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t  %s\t\n", r.row.name, r.dose,
			r.in, r.delivered, r.duplicates, r.explained, r.resent, r.named(), r.mistaken(), r.unnamed(), r.seconds, r.verdict())
	}
	_ = t.Flush() // the terminal's trouble
	fmt.Fprint(w, legend)
	for _, r := range results {
		for _, p := range r.problems {
			fmt.Fprintf(w, "%s: %s\n", r.row.name, p)
		}
		for _, n := range r.notes {
			fmt.Fprintf(w, "%s (note): %s\n", r.row.name, n)
		}
	}
	fmt.Fprintf(w, "RESULT faults rows=%d named_lost=%d unnamed_lost=%d duplicates=%d\n", done, named, unnamed, duplicates)
	return ok && unnamed == 0
}

const legend = `delivered: distinct acknowledged numbers found in Loki (read from the spool where no collector runs).
duplicates: counted by the proxy before Loki; at most: what was on its way when a relay was killed.
sent twice: arrived again because the feeder had got no answer and sent it again.
named lost: by the relay, without what came after all; yet delivered: of these, what is there.
`
