package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/internal/lab"
)

// TestEveryItemArrivesOnce sends the whole corpus through the path: 20,000 log
// lines in container log files, two scrapes of three exporters, 12,103 spans by
// OTLP. In the middle the hub is away for 20 seconds, and in the middle of that
// the collector is killed with SIGKILL. Everything is found in the backends,
// nothing twice, nothing else.
func TestEveryItemArrivesOnce(t *testing.T) {
	const (
		cluster  = "store-0001"
		feedTime = 60 * time.Second
		outage   = 20 * time.Second
	)
	from := time.Now()
	dir := testDir(t)
	relay := newRelay(t, dir, nil)
	collector := newCollector(t, dir, cluster, relay.NATSURL, nil)
	pods := newPodLogs(t, collector.PodLogsDir)
	var exporters []*exporter
	for name, pages := range corpusPages(t) {
		exporters = append(exporters, newExporter(t, name, pages))
	}
	writeScrapeFile(t, collector.ScrapeDir, exporters)
	requests := corpusTraces(t)
	start(t, relay.Process)
	start(t, collector.Process)
	sender := newTraceSender(t, collector)

	say("feeding logs, scrapes and traces for %v", feedTime)
	feed, ctx := errgroup.WithContext(t.Context())
	var written []logLine
	feed.Go(func() (err error) {
		written, err = writeLogs(ctx, pods, feedTime)
		return err
	})
	feed.Go(func() error { return sender.send(ctx, requests, feedTime) })
	releaseAll(exporters)
	eventually(t, 30*time.Second, func() error { return allSettled(exporters) })
	time.Sleep(feedTime / 6)

	say("the hub goes away")
	away := time.Now()
	require.NoError(t, relay.Stop())
	releaseAll(exporters)
	eventually(t, outage/2, func() error { return allSettled(exporters) })
	time.Sleep(time.Until(away.Add(outage / 2)))
	say("kill -9 of the collector")
	require.NoError(t, sender.Between(func() error {
		return errors.Join(collector.Kill(), collector.Start(t.Context()))
	}))
	time.Sleep(time.Until(away.Add(outage)))
	say("the hub comes back")
	require.NoError(t, relay.Start(t.Context()))

	if err := feed.Wait(); err != nil {
		fail(t, "not everything was written and sent: %v", err)
	}
	require.Greater(t, time.Since(away), outage, "the outage was in the middle of it")
	say("everything is written and sent; waiting until it has arrived")
	sent := sentSpans(requests)
	first, last := sentBetween(requests)
	eventually(t, 3*time.Minute, func() error {
		logs, err := foundLogs(t.Context(), loki(t), cluster, from)
		if err != nil {
			return err
		}
		if len(logs) < len(written) {
			return fmt.Errorf("%d of %d log lines in Loki", len(logs), len(written))
		}
		for _, e := range exporters {
			found, err := e.foundSamples(t, prometheus(t), cluster, from)
			if err != nil {
				return err
			}
			if want := len(e.sentSamples(t)); len(found) < want {
				return fmt.Errorf("%d of %d samples of %s in Prometheus", len(found), want, e.name)
			}
		}
		spans, err := foundSpans(t.Context(), jaeger(t), cluster, first, last)
		if err == nil && len(spans) < len(sent) {
			err = fmt.Errorf("%d of %d spans in Jaeger", len(spans), len(sent))
		}
		return err
	})
	requireSpoolEmpties(t, collector)

	logs, err := foundLogs(t.Context(), loki(t), cluster, from)
	require.NoError(t, err)
	requireLogs(t, written, logs)
	for _, e := range exporters {
		found, err := e.foundSamples(t, prometheus(t), cluster, from)
		require.NoError(t, err)
		requireOnce(t, "samples of "+e.name, e.sentSamples(t), found)
	}
	spans, err := foundSpans(t.Context(), jaeger(t), cluster, first, last)
	require.NoError(t, err)
	requireOnce(t, "spans", sent, spans)
}

func releaseAll(exporters []*exporter) {
	for _, e := range exporters {
		e.release()
	}
}

// requireSpoolEmpties waits until the backends' acceptance has come back to the
// collector for logs and traces, and fails if anything was counted as lost.
// (Metrics of the host go on arriving.)
func requireSpoolEmpties(t *testing.T, c *lab.Collector) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		m, err := lab.ReadMetrics(t.Context(), c.MetricsURL)
		if err != nil {
			return err
		}
		require.Contains(t, m, "longhaul_spool_items")
		for _, signal := range []string{"logs", "traces"} {
			if items := m.Sum("longhaul_spool_items", "signal", signal); items != 0 {
				return fmt.Errorf("%v items of %s are in the spool, not confirmed", items, signal)
			}
		}
		if lost := m.Sum("longhaul_items_lost_total"); lost != 0 {
			fail(t, "the collector counts %v items as lost", lost)
		}
		return nil
	})
}
