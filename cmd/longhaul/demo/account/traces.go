package account

import (
	"context"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// FetchSpans reads every span Jaeger has of traces that began in a time.
func FetchSpans(ctx context.Context, jaeger *lab.Jaeger, from, to time.Time) ([]lab.Span, error) {
	return jaeger.AllSpans(ctx, from, to)
}

// MatchSpans compares a store's spans with those fetched.
func MatchSpans(l *Ledger, spans []lab.Span) Row {
	type key struct{ trace, span string }
	seen := make(map[key]int, len(l.Spans))
	elsewhere := make(map[key]any)
	for _, s := range spans {
		k := key{s.TraceID, s.SpanID}
		if cluster := s.Resource["k8s.cluster.name"]; cluster != l.Store {
			elsewhere[k] = cluster
			continue
		}
		seen[k]++
	}
	row := Row{Store: l.Store, Signal: Traces, Sent: len(l.Spans)}
	for _, e := range l.Spans {
		k := key{e.TraceID, e.SpanID}
		n := seen[k]
		if n > 0 {
			row.Found++
			row.Duplicates += n - 1
			continue
		}
		row.Missing++
		if cluster, is := elsewhere[k]; is {
			row.example("altered: span %s of trace %s has cluster %v", e.SpanID, e.TraceID, cluster)
		} else {
			row.example("missing: %s span %s of trace %s", e.Service, e.SpanID, e.TraceID)
		}
	}
	return row
}
