package account

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
	"github.com/longhaul/longhaul/internal/lab"
)

// CheckLogs compares a store's lines with what Loki has of its cluster.
func CheckLogs(ctx context.Context, loki *lab.Loki, l *Ledger, from, to time.Time) (Row, error) {
	entries, err := loki.Entries(ctx, fmt.Sprintf(`{cluster=%q, namespace=%q}`, l.Store, orderapp.Namespace), from, to)
	if err != nil {
		return Row{}, err
	}
	return matchLogs(l, entries), nil
}

func matchLogs(l *Ledger, entries []lab.LogEntry) Row {
	type key struct {
		service string
		seq     int64
	}
	want := make(map[key]orderapp.Entry, len(l.Logs))
	for _, e := range l.Logs {
		want[key{e.Service, e.Seq}] = e
	}
	row := Row{Store: l.Store, Signal: Logs, Sent: len(l.Logs)}
	seen := make(map[key]int, len(l.Logs))
	for _, got := range entries {
		var head orderapp.Line
		if err := json.Unmarshal([]byte(got.Line), &head); err != nil {
			row.example("not a line of the application: %s", short(got.Line))
			continue
		}
		if head.Run != l.Run {
			continue
		}
		k := key{head.Service, head.Seq}
		w, known := want[k]
		if !known || w.UnixNano != got.Time || w.Sum != orderapp.LineSum([]byte(got.Line)) {
			row.example("altered: %s line %d: at %d (sent %d): %s", k.service, k.seq, got.Time, w.UnixNano, short(got.Line))
			continue
		}
		seen[k]++
	}
	for k := range want {
		switch n := seen[k]; n {
		case 0:
			row.Missing++
			row.example("missing: %s line %d", k.service, k.seq)
		default:
			row.Found++
			row.Duplicates += n - 1
		}
	}
	return row
}
