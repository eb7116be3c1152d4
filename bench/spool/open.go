package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

// openReach is the most that opening may take.
const openReach = time.Second

const (
	openChildCommand = "open-child" // this program, as a process that only opens
	openMaxBytes     = 1 << 40
	openRuns         = 5
	openPatience     = 5 * time.Second
	fillBytes        = 8 << 20 // appended at a time, to share one fsync
)

func openNeed(o options) int64 { return int64(o.openBytes) + int64(o.openBytes)/16 }

// openShape is the spool that is opened: a share of the bytes for each signal,
// in frames as large as a busy, a middling and an ordinary node make them.
var openShape = []struct {
	signal frame.Signal
	share  float64
	size   int
}{
	{frame.Logs, 0.5, 128 << 10},
	{frame.Traces, 0.3, 32 << 10},
	{frame.Metrics, 0.2, 8 << 10},
}

// opened is what the child tells.
type opened struct {
	Took           time.Duration
	Frames         int
	Resident, Peak int64
	CPU            time.Duration
}

func runOpen(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "spool")
	empty, err := b.openInChild(ctx, filepath.Join(b.dir, "empty"))
	if err != nil {
		return err
	}
	if err := b.fillForOpen(ctx, dir); err != nil {
		return err
	}
	var colds, warms []time.Duration
	var cold, warm opened
	for run := range openRuns {
		if err := dropFromCache(dir); err != nil {
			return fmt.Errorf("drop %s from the kernel's cache: %w", dir, err)
		}
		if cold, err = b.openInChild(ctx, dir); err != nil {
			return err
		}
		if warm, err = b.openInChild(ctx, dir); err != nil {
			return err
		}
		colds, warms = append(colds, cold.Took), append(warms, warm.Took)
		say("open %d: %v cold, %v warm", run+1, cold.Took.Round(time.Millisecond), warm.Took.Round(time.Millisecond))
		if cold.Took > openPatience {
			break // it is far from where it should be, and more of the same tells no more
		}
	}
	cold.Took, warm.Took = median(colds), median(warms)
	grown := max(cold.Peak, warm.Peak) - empty.Peak
	fmt.Fprintf(b.out, "open %s in %d frames (half in 128 KiB, 30 %% in 32 KiB, 20 %% in 8 KiB): %.2f s from the disk, %.2f s from the cache, CPU %.2f s; the reach is %v: %s\n",
		gib(int64(b.openBytes)), cold.Frames, cold.Took.Seconds(), warm.Took.Seconds(), cold.CPU.Seconds(), openReach, verdict(cold.Took < openReach))
	fmt.Fprintf(b.out, "memory of a process that only opens it: %.1f MiB at most, %.1f MiB more than with an empty spool (%.0f bytes a frame)\n\n",
		mib(max(cold.Peak, warm.Peak)), mib(grown), float64(grown)/float64(max(1, cold.Frames)))
	b.result("open_s", "%.2f", cold.Took.Seconds())
	b.result("open_warm_s", "%.2f", warm.Took.Seconds())
	b.result("open_rss_mib", "%.1f", mib(max(cold.Peak, warm.Peak)))
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// fillForOpen makes the spool with package spool itself.
func (b *bench) fillForOpen(ctx context.Context, dir string) error {
	for _, shape := range openShape {
		payload := make([]byte, shape.size-frame.HeaderSize-frame.TrailerSize)
		for i := range payload {
			payload[i] = byte(i * i >> 3)
		}
		h := frame.Header{
			Codec: frame.OTLPZstd, Signal: shape.signal, Class: frame.Live, Items: 100, Uncompressed: uint32(len(payload)),
			First: time.Now().Add(-time.Hour).UnixNano(), Last: time.Now().Add(-time.Hour).UnixNano(),
		}
		count := int64(float64(b.openBytes) * shape.share / float64(shape.size))
		if err := fill(ctx, dir, count, fillBytes/shape.size, func(int64) (frame.Header, []byte) { return h, payload }); err != nil {
			return err
		}
		say("%s of %s in frames of %d KiB are in the spool", gib(count*int64(shape.size)), shape.signal, shape.size>>10)
	}
	return nil
}

// fill appends count frames to the spool in dir, so many at a time.
func fill(ctx context.Context, dir string, count int64, callers int, make func(n int64) (frame.Header, []byte)) (err error) {
	s, err := spool.Open(spool.Options{Dir: dir, MaxBytes: openMaxBytes, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var filling sync.WaitGroup
	for range callers {
		filling.Go(func() {
			for n := next.Add(1); n <= count && ctx.Err() == nil; n = next.Add(1) {
				h, payload := make(n)
				if _, err := s.Append(ctx, h, payload); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	filling.Wait()
	err = s.Close()
	if first := failed.Load(); first != nil {
		err = *first
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// openInChild opens the spool in a fresh process.
func (b *bench) openInChild(ctx context.Context, dir string) (o opened, err error) {
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	cmd := exec.CommandContext(ctx, self, openChildCommand, dir)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return o, fmt.Errorf("open %s in a process of its own: %w", dir, err)
	}
	if err := json.Unmarshal(answer, &o); err != nil {
		return o, fmt.Errorf("open %s in a process of its own: %w", dir, err)
	}
	return o, nil
}

// openChild is what that process does. Its memory is read before it closes.
func openChild(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: spool", openChildCommand, "DIR")
		return 2
	}
	start := time.Now()
	s, err := spool.Open(spool.Options{Dir: args[0], MaxBytes: openMaxBytes, SegmentBytes: spool.DefaultSegmentBytes, Logger: slog.New(slog.DiscardHandler)})
	o := opened{Took: time.Since(start)}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u, err := usageOf(os.Getpid())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	o.Resident, o.Peak, o.CPU = u.resident, u.peak, u.cpu
	for _, l := range s.Stats().Lanes {
		o.Frames += l.Frames
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return 1
	}
	return 0
}
