package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lab"
)

// How fast a backlog should leave, and how much later live data may be for it.
const (
	catchUpReach = 300_000 // lines/s
	liveReach    = time.Second
)

// catchUpNeed: the spool, and what the hub keeps of it.
func catchUpNeed(o options) int64 { return 2*int64(o.catchUpBytes) + 256<<20 }

// liveSettle is more than a live line takes when nothing is in its way.
const liveSettle = 4 * time.Second

// distinct is how many different payloads the backlog is made of. Each frame is
// compressed by itself, so more would change nothing but the time to make them.
const distinct = 24

// runCatchUp fills a spool, gives it to longhaul-collector, and looks at the hub
// at what arrives when.
func runCatchUp(ctx context.Context, b *bench) error {
	lines, frames, err := b.fillBacklog(ctx)
	if err != nil {
		return err
	}
	server, url, err := b.startHub(ctx)
	if err != nil {
		return err
	}
	defer server.Kill()
	watch, err := newWatch(url, lines)
	if err != nil {
		return err
	}
	defer watch.close()
	spoolMax := 2*int64(b.catchUpBytes) + 256<<20
	collector, err := b.collector(b.dir, url, map[string]string{"LONGHAUL_SPOOL_MAX_BYTES": fmt.Sprint(spoolMax)})
	if err != nil {
		return err
	}
	if err := collector.Start(ctx); err != nil {
		return err
	}
	defer collector.Kill()
	live, err := newLive(collector.OTLPHTTP, b.liveRate, b.corpus)
	if err != nil {
		return err
	}
	live.start(ctx)
	defer live.stop()
	return b.watchCatchUp(ctx, watch, collector, lines, frames)
}

func (b *bench) watchCatchUp(ctx context.Context, watch *watch, collector *lab.Collector, lines, frames int64) error {
	before, err := usageOf(collector.PID())
	if err != nil {
		return err
	}
	err = watch.await(ctx, b.catchUpTimeout)
	after, usageErr := usageOf(collector.PID())
	if err = errors.Join(err, usageErr); err != nil {
		return fmt.Errorf("%w; the end of the collector's log:\n%s", err, collector.LogTail(2000))
	}
	c := watch.caughtUp()
	seconds := c.last.Sub(c.first).Seconds()
	say("the backlog is gone after %.1f s; now live data alone for %v", seconds, b.baseline)
	// What was made during it comes first; then lines of the baseline, and the last of them have to come.
	quiet := time.Now().Add(liveSettle)
	end := quiet.Add(b.baseline)
	if err := lab.Pause(ctx, time.Until(end.Add(liveSettle))); err != nil {
		return err
	}
	during, alone := watch.ages(c.first, c.last), watch.ages(quiet, end)
	if len(alone) == 0 || len(during) == 0 {
		return fmt.Errorf("%d live lines arrived during the catch-up and %d after it: nothing to compare; the end of the collector's log:\n%s", len(during), len(alone), collector.LogTail(2000))
	}
	rate, p99, alone99 := float64(lines)/seconds, percentile(during, 0.99), percentile(alone, 0.99)
	added := max(0, p99-alone99)
	fmt.Fprintf(b.out, "catch-up of %s, %d lines in %d frames: %.0f lines/s, %.0f frames/s, %.1f MB/s, CPU of the collector %.2f s for a million lines; the reach is %d lines/s: %s\n",
		gib(int64(b.catchUpBytes)), lines, frames, rate, float64(frames)/seconds, float64(c.bytes)/seconds/1e6,
		(after.cpu-before.cpu).Seconds()*1e6/float64(lines), catchUpReach, verdict(rate >= catchUpReach))
	fmt.Fprintf(b.out, "live lines from their time to the hub, p50 / p99: %.2f / %.2f s during it (%d lines), %.2f / %.2f s alone (%d lines): p99 %.2f s more; the reach is %v: %s\n",
		median(during).Seconds(), p99.Seconds(), len(during), median(alone).Seconds(), alone99.Seconds(), len(alone), added.Seconds(), liveReach, verdict(added < liveReach))
	fmt.Fprintf(b.out, "memory of the collector during it: %.1f MiB at most; %d frames came more than once\n\n", mib(after.peak), c.repeated)
	b.result("catchup_lines_s", "%.0f", rate)
	b.result("catchup_frames_s", "%.0f", float64(frames)/seconds)
	b.result("catchup_mb_s", "%.1f", float64(c.bytes)/seconds/1e6)
	b.result("live_p99_added_s", "%.2f", added.Seconds())
	b.result("catchup_rss_mib", "%.1f", mib(after.peak))
	return nil
}

// fillBacklog makes the spool of a collector that has been cut off for a while.
func (b *bench) fillBacklog(ctx context.Context) (lines, frames int64, err error) {
	containers, err := loadCorpus(b.corpus)
	if err != nil {
		return 0, 0, err
	}
	yesterday := time.Now().Add(-24 * time.Hour)
	var payloads []packed
	var size int64
	for i := range distinct {
		p, err := pack(containers, yesterday.Add(time.Duration(i)*time.Second))
		if err != nil {
			return 0, 0, err
		}
		payloads = append(payloads, p)
		size += int64(len(p.payload) + frame.HeaderSize + frame.TrailerSize)
	}
	frames = int64(b.catchUpBytes) * distinct / size
	for n := range frames {
		lines += int64(payloads[n%distinct].header.Items)
	}
	say("filling a spool with %d lines of %.0f bytes in %d frames of %.0f KiB", lines, meanBytes(containers), frames, float64(size)/distinct/1024)
	err = fill(ctx, filepath.Join(b.dir, "spool"), frames, int(fillBytes*distinct/size), func(n int64) (frame.Header, []byte) {
		p := payloads[(n-1)%distinct]
		return p.header, p.payload
	})
	return lines, frames, err
}

// startHub starts a nats-server with JetStream and longhaul's streams.
func (b *bench) startHub(ctx context.Context) (server *lab.Process, address string, err error) {
	port, err := lab.FreePort()
	if err != nil {
		return nil, "", err
	}
	address = fmt.Sprintf("127.0.0.1:%d", port)
	server = lab.NewProcess(lab.Spec{
		Name: "nats-server", Binary: filepath.Join(b.bin, "nats-server"),
		Args:    []string{"-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", filepath.Join(b.dir, "hub")},
		LogFile: filepath.Join(b.dir, "nats.log"),
	})
	if err := server.Start(ctx); err != nil {
		return nil, "", err
	}
	if err := b.makeStreams(ctx, address); err != nil {
		_ = server.Kill()
		return nil, "", err
	}
	return server, address, nil
}

func (b *bench) makeStreams(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	nc, err := nats.Connect("nats://"+address, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for ctx.Err() == nil { // JetStream answers a moment after the port does
		if _, err = js.AccountInfo(ctx); err == nil {
			break
		}
		if err := lab.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	for _, signal := range frame.Signals {
		settings := hub.Streams{MaxBytes: 4*b.catchUpBytes + bytesize.GiB, Replicas: 1}
		reader := []hub.Reader{{Destination: hub.DefaultDestination}}
		if _, err := hub.EnsureSignal(ctx, js, signal, settings, hub.Layout{Count: hub.DefaultPartitions}, reader); err != nil {
			return err
		}
	}
	return nil
}
