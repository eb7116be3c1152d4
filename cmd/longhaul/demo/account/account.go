// Package account holds what the demo's applications sent against what the
// real backends have: item by item, by the application's ledgers.
//
// An item is found when the backend has it as it was sent: a log line with the
// same time and text, a span with the same ids from the right cluster, a data
// point with the same series, time and value (of a histogram: count, sum and
// every bucket). A duplicate is an item the backend has more than once.
// Prometheus cannot hold one sample twice in a series, so a duplicate there
// would be a second series that differs in labels nobody sent.
package account

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
)

// Row is the comparison of one signal of one store.
type Row struct {
	Store, Signal string
	Sent          int
	Found         int
	Missing       int
	Duplicates    int
	Examples      []string // of what is missing or altered, a few
}

// maxExamples bounds the examples kept in a Row.
const maxExamples = 3

func (r *Row) example(format string, args ...any) {
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// Ledger is what one store's application sent.
type Ledger struct {
	Store  string
	Run    string
	Logs   []orderapp.Entry
	Points []orderapp.Entry
	Spans  []orderapp.Entry
}

// ReadLedger loads the ledger file of a store's application.
func ReadLedger(store, run, path string) (*Ledger, error) {
	l := &Ledger{Store: store, Run: run}
	err := orderapp.ReadLedger(path, func(e orderapp.Entry) error {
		switch e.Kind {
		case orderapp.KindLog:
			l.Logs = append(l.Logs, e)
		case orderapp.KindPoint:
			if e.Point == nil {
				return fmt.Errorf("ledger %s: a point entry without a point", path)
			}
			l.Points = append(l.Points, e)
		case orderapp.KindSpan:
			l.Spans = append(l.Spans, e)
		default:
			return fmt.Errorf("ledger %s: unknown kind %q", path, e.Kind)
		}
		return nil
	})
	return l, err
}

// Report is all rows of a comparison.
type Report []Row

// Total adds the rows up.
func (r Report) Total() Row {
	t := Row{Store: "all", Signal: "all"}
	for _, row := range r {
		t.Sent += row.Sent
		t.Found += row.Found
		t.Missing += row.Missing
		t.Duplicates += row.Duplicates
	}
	return t
}

// WriteTable prints the rows for a person.
func (r Report) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	backend := map[string]string{Logs: "Loki", Metrics: "Prometheus", Traces: "Jaeger"}
	if _, err := fmt.Fprintln(tw, "store\tsignal\tsent by the application\tfound in\t\tmissing\tduplicates\t"); err != nil {
		return err
	}
	for _, row := range append(append(Report(nil), r...), r.Total()) {
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%d\t%d\t%d\t\n",
			row.Store, row.Signal, row.Sent, backend[row.Signal], row.Found, row.Missing, row.Duplicates); err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, row := range r {
		for _, e := range row.Examples {
			if _, err := fmt.Fprintf(w, "  %s %s: %s\n", row.Store, row.Signal, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// Result is the last line of a scripted demo.
func (r Report) Result() string {
	t := r.Total()
	return fmt.Sprintf("RESULT demo sent=%d found=%d missing=%d duplicates=%d", t.Sent, t.Found, t.Missing, t.Duplicates)
}

// The names of the signals in rows.
const (
	Logs    = "logs"
	Metrics = "metrics"
	Traces  = "traces"
)

// short cuts a text for an example.
func short(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
