package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/internal/spool"
)

// What a buffered line and the collector that buffers it may take.
const (
	lineReachBytes   = 66
	outageReachBytes = 80 << 20
)

// linesNeed: the container logs themselves, and the spool.
func linesNeed(o options) int64 {
	return int64(float64(o.lineRate)*o.lineTime.Seconds())*(260+100) + 64<<20
}

// runLines lets longhaul-collector, with its embedded configuration and no hub,
// read container logs as they are written.
func runLines(ctx context.Context, b *bench) error {
	containers, err := loadCorpus(b.corpus)
	if err != nil {
		return err
	}
	collector, err := b.collector(b.dir, "127.0.0.1:1", nil) // nothing listens there
	if err != nil {
		return err
	}
	if err := collector.Start(ctx); err != nil {
		return err
	}
	defer collector.Kill()
	idle, err := usageOf(collector.PID())
	if err != nil {
		return err
	}
	written, err := b.writeLines(ctx, collector.PodLogsDir, containers)
	if err != nil {
		return err
	}
	if err := awaitLines(ctx, collector, written); err != nil {
		return err
	}
	used, err := usageOf(collector.PID())
	if err != nil {
		return err
	}
	_ = collector.Kill()
	return b.countLines(collector.SpoolDir, written, meanBytes(containers), idle, used)
}

// countLines opens what the killed collector left.
func (b *bench) countLines(dir string, written int, mean float64, idle, used usage) error {
	s, err := spool.Open(spool.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	var frames, items, bytes int64
	for _, l := range s.Stats().Lanes {
		if l.Lane.Signal == frame.Logs {
			frames, items, bytes = frames+int64(l.Frames), items+l.Items, bytes+l.Bytes
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if items != int64(written) {
		return fmt.Errorf("%d lines were written and %d are in the spool", written, items)
	}
	onDisk, err := blocksOf(dir)
	if err != nil {
		return err
	}
	perLine := float64(bytes) / float64(items)
	fmt.Fprintf(b.out, "%d lines of %.0f bytes at %d lines/s, no hub: %.1f bytes a line on disk in frames of %.0f lines, with host metrics, ledgers and file system blocks %.1f; the reach is %d: %s\n",
		items, mean, b.lineRate, perLine, float64(items)/float64(frames), float64(onDisk)/float64(items), lineReachBytes, verdict(perLine <= lineReachBytes))
	fmt.Fprintf(b.out, "memory of the collector: %.1f MiB resident, %.1f MiB at most (%.1f MiB after its start), CPU %.2f s for 100,000 lines; the reach is %d MiB: %s\n\n",
		mib(used.resident), mib(used.peak), mib(idle.resident), (used.cpu-idle.cpu).Seconds()*1e5/float64(items), outageReachBytes>>20, verdict(used.peak <= outageReachBytes))
	b.result("bytes_per_line", "%.1f", perLine)
	b.result("outage_rss_mib", "%.1f", mib(used.peak))
	b.result("cpu_s_per_100k_lines", "%.2f", (used.cpu-idle.cpu).Seconds()*1e5/float64(items))
	return nil
}

// collector prepares a longhaul-collector with its embedded configuration.
func (b *bench) collector(dir, hub string, env map[string]string) (*lab.Collector, error) {
	return lab.NewCollector(lab.CollectorOptions{
		Binary: filepath.Join(b.bin, "longhaul-collector"), Dir: dir,
		Cluster: "bench", Node: "node-a", NATSURL: "nats://" + hub, Env: env,
	})
}

// writeLines writes container logs as a container runtime does, at lineRate
// over all containers, for lineTime.
func (b *bench) writeLines(ctx context.Context, dir string, containers []*container) (written int, err error) {
	files := make([]*bufio.Writer, len(containers))
	for i, c := range containers {
		path := filepath.Join(dir, c.podDir(), "0.log")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return 0, err
		}
		f, err := os.Create(path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		files[i] = bufio.NewWriterSize(f, 256<<10)
	}
	const tick = 50 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	start := time.Now()
	for {
		select {
		case <-ctx.Done():
			return written, ctx.Err()
		case <-ticker.C:
		}
		passed := min(time.Since(start), b.lineTime)
		for due := int(passed.Seconds() * float64(b.lineRate)); written < due; written++ {
			i := written % len(containers)
			fmt.Fprintf(files[i], "%s stdout F %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00"), containers[i].take())
		}
		for _, f := range files {
			if err := f.Flush(); err != nil {
				return written, err
			}
		}
		if passed == b.lineTime {
			return written, nil
		}
	}
}

// awaitLines waits until the collector has spooled so many log records.
func awaitLines(ctx context.Context, collector *lab.Collector, want int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	have := 0
	for {
		if m, err := lab.ReadMetrics(ctx, collector.MetricsURL); err == nil {
			if have = int(m.Sum("longhaul_items_in_total", "signal", "logs")); have >= want {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the collector has spooled %d of %d lines; the end of its log:\n%s", have, want, collector.LogTail(2000))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// blocksOf adds up the disk space of all files under dir.
func blocksOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		total += (info.Size() + 4095) / 4096 * 4096
		return nil
	})
	return total, err
}
