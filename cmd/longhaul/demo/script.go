package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/account"
	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
)

const (
	// outageStore is the store whose link is cut, an index.
	outageStore = 1
	// finishTimeout bounds the sending of what an application still has.
	finishTimeout = 2 * time.Minute
	// drainTimeout bounds the wait for the last confirmation.
	drainTimeout = 3 * time.Minute
	// settle is the least time the log reader gets to see the last lines.
	settle = 3 * time.Second
	// searchTimeout bounds the wait for the last item to show up in queries.
	searchTimeout  = time.Minute
	searchInterval = 3 * time.Second
)

// script waits for the backends, runs the load with an outage in its middle,
// drains the pipeline and compares.
func (d *demo) script(ctx context.Context, raised <-chan error) (*result, error) {
	lines, cancel := context.WithCancel(ctx)
	defer cancel()
	shown := make(chan struct{})
	go func() { defer close(shown); d.showLines(lines, nil) }()
	defer func() { cancel(); <-shown }()

	select {
	case err := <-raised:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, interrupted(ctx)
	}
	if err := d.outage(ctx); err != nil {
		return nil, err
	}
	counts, err := d.finish(ctx)
	if err != nil {
		return nil, err
	}
	d.drain(ctx)
	cancel()
	return d.compare(ctx, counts)
}

func interrupted(ctx context.Context) error { return fmt.Errorf("interrupted: %w", ctx.Err()) }

// outage runs the clock, with the link of one store cut in the middle.
func (d *demo) outage(ctx context.Context) error {
	at, length := d.o.outage()
	d.story.add("all backends are up: the clock starts, %d s, with an outage of %v from second %.0f", d.o.Seconds, length, at.Seconds())
	for _, step := range []struct {
		wait time.Duration
		do   func()
	}{
		{at, func() { d.ToggleLink(outageStore) }},
		{length, func() { d.ToggleLink(outageStore) }},
		{time.Duration(d.o.Seconds)*time.Second - at - length, func() {}},
	} {
		select {
		case <-ctx.Done():
			return interrupted(ctx)
		case <-time.After(step.wait):
			step.do()
		}
	}
	return nil
}

// finish stops the load of all stores and waits until the collectors have
// everything the applications made.
func (d *demo) finish(ctx context.Context) ([]orderapp.Snapshot, error) {
	d.story.add("the load stops")
	fctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	counts := make([]orderapp.Snapshot, len(d.stores))
	var g errgroup.Group
	for i, s := range d.stores {
		g.Go(func() (err error) {
			if counts[i], err = s.finish(fctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%w; see %s and %s", err, s.app.LogFile(), s.collector.LogFile())
			}
			return err
		})
	}
	return counts, g.Wait()
}

// drain waits until everything made before it began is confirmed. When that
// takes too long the comparison says what is missing.
func (d *demo) drain(ctx context.Context) {
	since := time.Now()
	d.story.add("draining: waiting for the last confirmation")
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollInterval):
		}
		took := time.Since(since)
		done := took >= settle
		for _, s := range d.stores {
			s.mu.Lock()
			done = done && s.reading.drained(since)
			s.mu.Unlock()
		}
		if done {
			d.story.add("drained after %v", took.Round(time.Second))
			return
		}
		if took > drainTimeout {
			d.story.add("not drained after %v; comparing nevertheless", took.Round(time.Second))
			return
		}
	}
}

// compare queries all backends until everything is found or time is up.
func (d *demo) compare(ctx context.Context, counts []orderapp.Snapshot) (*result, error) {
	d.story.add("querying Loki, Prometheus and Jaeger for every item")
	ledgers := make([]*account.Ledger, len(d.stores))
	for i, s := range d.stores {
		var err error
		if ledgers[i], err = account.ReadLedger(s.name, s.run, s.ledger); err != nil {
			return nil, err
		}
		l, c := ledgers[i], counts[i]
		if int64(len(l.Logs)) != c.Logs.Made || int64(len(l.Points)) != c.Metrics.Made || int64(len(l.Spans)) != c.Traces.Made {
			return nil, fmt.Errorf("%s: the ledger has %d lines, %d points, %d spans, but the application made %d, %d, %d",
				s.name, len(l.Logs), len(l.Points), len(l.Spans), c.Logs.Made, c.Metrics.Made, c.Traces.Made)
		}
	}
	until := time.Now().Add(searchTimeout)
	for {
		report, err := d.compareOnce(ctx, ledgers)
		if ctx.Err() != nil {
			return nil, interrupted(ctx)
		}
		if err == nil && report.Total().Missing == 0 || time.Now().After(until) {
			if err != nil {
				return nil, err
			}
			return &result{Report: report, remarks: d.remarks(ctx, ledgers)}, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(searchInterval):
		}
	}
}

func (d *demo) compareOnce(ctx context.Context, ledgers []*account.Ledger) (account.Report, error) {
	from, to := d.began.Add(-time.Minute), time.Now().Add(time.Minute)
	spans, err := account.FetchSpans(ctx, d.jaeger, from, to)
	if err != nil {
		return nil, err
	}
	var report account.Report
	for _, l := range ledgers {
		logs, lerr := account.CheckLogs(ctx, d.loki, l, from, to)
		points, perr := account.CheckMetrics(ctx, d.prom, l, from, to)
		if err := errors.Join(lerr, perr); err != nil {
			return nil, err
		}
		report = append(report, logs, points, account.MatchSpans(l, spans))
	}
	return report, nil
}

// remarks says what else arrived, which no ledger counts.
func (d *demo) remarks(ctx context.Context, ledgers []*account.Ledger) []string {
	from, to := d.began.Add(-time.Minute), time.Now()
	var out []string
	traces := map[string]bool{}
	for _, l := range ledgers {
		host, err := d.prom.SeriesLabels(ctx, fmt.Sprintf(`{__name__=~"system_.+", cluster=%q}`, l.Store), from, to)
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("also there: host metrics of %s, %d series", l.Store, len(host)))
		for _, e := range l.Spans {
			traces[e.TraceID] = true
		}
	}
	exemplars, err := d.prom.Exemplars(ctx, fmt.Sprintf(`{job=~"%s/.+"}`, orderapp.Namespace), from, to)
	if err != nil {
		return append(out, err.Error())
	}
	lead := 0
	for _, e := range exemplars {
		if traces[e.Labels["trace_id"]] {
			lead++
		}
	}
	return append(out, fmt.Sprintf("also there: %d exemplars in Prometheus, %d of them lead to a trace of these applications", len(exemplars), lead))
}
