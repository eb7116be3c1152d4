package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

var appendSizes = []int{4 << 10, 64 << 10, 512 << 10}

// appendReach is the least share of the disk's rate at 512 KiB.
const appendReach = 0.7

// appendMaxBytes bounds what one run writes, on a disk however fast.
const appendMaxBytes = 4 << 30

func appendNeed(options) int64 { return appendMaxBytes }

// appended is the outcome of one run.
type appended struct {
	frames, fsyncs int
	bytes          int64
	took, cpu      time.Duration
}

func (a appended) rate() float64 { return float64(a.bytes) / a.took.Seconds() }

// runAppend compares, for each size, the spool with three loops on bare files.
// The first two write the same frames in the same number of files at a time and
// differ in how often they sync: the first as often as the spool did in the run
// before, so that its rate is what the disk has to give for the same promise
// kept the same way; the second after every frame, as one who does not share an
// fsync would. The third is one file alone with an fsync after every frame.
func runAppend(ctx context.Context, b *bench) error {
	t := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "append, fsync always\tspool MB/s\tframes/s\tframes/fsync\tCPU ms/MB\tdisk, same cadence\tratio\tdisk, fsync each, 3 files\tratio\tdisk, fsync each, 1 file\tratio\t")
	for _, size := range appendSizes {
		var spools, cadence, each, single, frames, perSync, cpu, ratios []float64
		for run := range b.appendRuns {
			ours, err := b.appendToSpool(ctx, size)
			if err != nil {
				return err
			}
			n := max(1, (ours.frames+ours.fsyncs/2)/max(1, ours.fsyncs))
			var disk [3]appended
			for i, shape := range [3]struct{ files, perSync int }{{len(frame.Signals), n}, {len(frame.Signals), 1}, {1, 1}} {
				if disk[i], err = b.writeFiles(ctx, size, shape.files, shape.perSync); err != nil {
					return err
				}
			}
			spools, cadence, each, single = append(spools, ours.rate()), append(cadence, disk[0].rate()), append(each, disk[1].rate()), append(single, disk[2].rate())
			ratios = append(ratios, ours.rate()/disk[0].rate())
			frames = append(frames, float64(ours.frames)/ours.took.Seconds())
			perSync = append(perSync, float64(ours.frames)/float64(max(1, ours.fsyncs)))
			cpu = append(cpu, ours.cpu.Seconds()*1e3/(float64(ours.bytes)/1e6))
			say("append %d KiB, run %d: spool %.0f MB/s, disk %.0f / %.0f / %.0f MB/s", size>>10, run+1, ours.rate()/1e6, disk[0].rate()/1e6, disk[1].rate()/1e6, disk[2].rate()/1e6)
		}
		ratio := median(spools) / median(cadence)
		fmt.Fprintf(t, "%d KiB\t%.1f\t%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%.1f\t%.2f\t%.1f\t%.2f\t\n", size>>10, median(spools)/1e6, median(frames), median(perSync), median(cpu),
			median(cadence)/1e6, ratio, median(each)/1e6, median(spools)/median(each), median(single)/1e6, median(spools)/median(single))
		name := fmt.Sprintf("append_%dk", size>>10)
		b.result(name+"_ratio", "%.2f", ratio)
		b.result(name+"_mb_s", "%.1f", median(spools)/1e6)
		b.result(name+"_frames_s", "%.0f", median(frames))
		say("append %d KiB: ratios of single runs %.2f", size>>10, ratios)
		if size == 512<<10 {
			defer fmt.Fprintf(b.out, "append at 512 KiB: %.2f of the disk's rate, the reach is %.1f: %s\n\n", ratio, appendReach, verdict(ratio >= appendReach))
		}
	}
	return t.Flush()
}

func (b *bench) appendToSpool(ctx context.Context, size int) (a appended, err error) {
	dir := filepath.Join(b.dir, "spool")
	s, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 2 * appendMaxBytes, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return a, err
	}
	defer os.RemoveAll(dir)
	defer s.Close()
	payload := make([]byte, size-frame.HeaderSize-frame.TrailerSize)
	_, _ = rand.Read(payload) // never fails
	// The first frame of each lane makes its file.
	for _, signal := range frame.Signals {
		if _, err := s.Append(ctx, frame.Header{Signal: signal, Class: frame.Live, Items: 1}, payload); err != nil {
			return a, err
		}
	}
	fsyncs := s.Stats().Fsyncs
	var frames atomic.Int64
	var failed atomic.Pointer[error]
	var callers sync.WaitGroup
	cpu, start := ownCPU(), time.Now()
	end := start.Add(time.Duration(b.appendSeconds * float64(time.Second)))
	for _, signal := range frame.Signals {
		for range b.appendCallers {
			callers.Go(func() {
				for time.Now().Before(end) && frames.Load()*int64(size) < appendMaxBytes {
					if _, err := s.Append(ctx, frame.Header{Signal: signal, Class: frame.Live, Items: 100}, payload); err != nil {
						failed.Store(&err)
						return
					}
					frames.Add(1)
				}
			})
		}
	}
	callers.Wait()
	if err := failed.Load(); err != nil {
		return a, *err
	}
	a = appended{frames: int(frames.Load()), fsyncs: int(s.Stats().Fsyncs - fsyncs), took: time.Since(start), cpu: ownCPU() - cpu}
	a.bytes = int64(a.frames) * int64(size)
	return a, nil
}

// writeFiles appends blocks to so many files at a time, with an fsync after
// every so many blocks of a file.
func (b *bench) writeFiles(ctx context.Context, size, files, perSync int) (a appended, err error) {
	block := make([]byte, size)
	_, _ = rand.Read(block) // never fails
	var blocks, fsyncs atomic.Int64
	var failed atomic.Pointer[error]
	var writers sync.WaitGroup
	start := time.Now()
	end := start.Add(time.Duration(b.appendSeconds * float64(time.Second)))
	for i := range files {
		path := filepath.Join(b.dir, fmt.Sprintf("file-%d", i))
		f, err := os.Create(path)
		if err != nil {
			return a, err
		}
		defer os.Remove(path)
		defer f.Close()
		writers.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil && blocks.Load()*int64(size) < appendMaxBytes {
				for range perSync {
					if _, err := f.Write(block); err != nil {
						failed.Store(&err)
						return
					}
				}
				if err := f.Sync(); err != nil {
					failed.Store(&err)
					return
				}
				blocks.Add(int64(perSync))
				fsyncs.Add(1)
			}
		})
	}
	writers.Wait()
	if err := failed.Load(); err != nil {
		return a, *err
	}
	a = appended{frames: int(blocks.Load()), fsyncs: int(fsyncs.Load()), took: time.Since(start)}
	a.bytes = int64(a.frames) * int64(size)
	return a, ctx.Err()
}

func ownCPU() time.Duration {
	u, _ := usageOf(os.Getpid()) // 0 where there is no /proc
	return u.cpu
}
