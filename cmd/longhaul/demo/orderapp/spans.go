package orderapp

import (
	"context"
	"log/slog"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Exports are tried again after retryMin, then ever later up to retryMax.
const (
	retryMin      = 100 * time.Millisecond
	retryMax      = 2 * time.Second
	exportTimeout = 30 * time.Second // of one try
)

// insist calls export until it succeeds or life ends.
func insist(life context.Context, counts *Counts, log *slog.Logger, what string, export func(context.Context) error) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		ctx, cancel := context.WithTimeout(life, exportTimeout)
		err := export(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if life.Err() != nil {
			return life.Err()
		}
		if counts.Retries.Add(1) == 1 || wait >= retryMax {
			log.Warn("collector did not take "+what+", trying again", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-life.Done():
			return life.Err()
		}
	}
}

// spanExporter repeats each export until the collector accepted it and writes
// the spans to the ledger then. It ignores the deadline of its caller: the
// batch processor would drop the batch.
type spanExporter struct {
	life    context.Context
	inner   sdktrace.SpanExporter
	service string
	counts  *Counts
	ledger  *ledger
	log     *slog.Logger
}

func (e *spanExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := insist(e.life, e.counts, e.log, "spans", func(ctx context.Context) error {
		return e.inner.ExportSpans(ctx, spans)
	})
	if err != nil {
		return err
	}
	e.counts.Traces.Accepted.Add(int64(len(spans)))
	for _, s := range spans {
		e.ledger.add(Entry{
			Kind: KindSpan, Service: e.service,
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(),
		})
	}
	return nil
}

func (e *spanExporter) Shutdown(ctx context.Context) error { return e.inner.Shutdown(ctx) }

// spanCounter counts the spans that ended.
type spanCounter struct{ counts *Counts }

func (spanCounter) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (c spanCounter) OnEnd(sdktrace.ReadOnlySpan)                   { c.counts.Traces.Made.Add(1) }
func (spanCounter) Shutdown(context.Context) error                  { return nil }
func (spanCounter) ForceFlush(context.Context) error                { return nil }
