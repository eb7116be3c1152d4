package spool

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
)

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 512 << 10} {
		payload := make([]byte, size-frame.HeaderSize-frame.TrailerSize)
		rand.Read(payload)
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%dKiB/callers=%d", size>>10, callers), func(b *testing.B) {
				s := open(b, Options{Dir: b.TempDir(), MaxBytes: 1 << 30})
				b.SetBytes(int64(size))
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := s.Append(context.Background(), frame.Header{Signal: frame.Logs, Items: 100}, payload); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
				b.ReportMetric(float64(s.Stats().Fsyncs)/float64(b.N), "fsyncs/frame")
			})
		}
	}
}

// BenchmarkDisk is what BenchmarkAppend is to be compared with: the disk's own
// rate for writes of the same size, an fsync after each.
func BenchmarkDisk(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "file"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			block := make([]byte, size)
			rand.Read(block)
			b.SetBytes(int64(size))
			for i := range b.N {
				if _, err := f.WriteAt(block, int64(i%2048)*int64(size)); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWalk(b *testing.B) {
	const size = 64 << 10
	payload := make([]byte, size-frame.HeaderSize-frame.TrailerSize)
	rand.Read(payload)
	s := open(b, Options{Dir: b.TempDir(), MaxBytes: 1 << 30})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 128 {
				if _, err := s.Append(context.Background(), frame.Header{Signal: frame.Logs, Items: 100}, payload); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	const total = 16 * 128
	b.SetBytes(total * size)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for from := uint64(1); ; {
			records, err := s.Read(logs, from, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			n += len(records)
			from = records[len(records)-1].Number + 1
		}
		if n != total {
			b.Fatalf("%d frames", n)
		}
	}
	b.ReportMetric(float64(total)*float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

// BenchmarkOpen opens a spool of 1 GiB in frames of 64 KiB.
func BenchmarkOpen(b *testing.B) {
	const size, perSegment, segments = 64 << 10, 256, 64
	dir := b.TempDir()
	closeSpool(b, open(b, Options{Dir: dir}))
	s := open(b, Options{Dir: dir})
	epoch := s.Epoch()
	closeSpool(b, s)
	h := frame.Header{Codec: frame.OTLPZstd, Signal: frame.Logs, Class: frame.Live, Lane: 1, Items: 100, Epoch: epoch}
	payload := make([]byte, size-frame.HeaderSize-frame.TrailerSize)
	for i := range segments {
		var buf []byte
		for j := range perSegment {
			h.Number = uint64(i*perSegment + j + 1)
			buf = frame.Append(buf, &h, payload)
		}
		if err := os.WriteFile(newSegment(filepath.Join(dir, "logs-1"), uint64(i*perSegment+1)).path, buf, 0o640); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := Open(Options{Dir: dir, Logger: quiet()})
		if err != nil {
			b.Fatal(err)
		}
		if st := s.Stats(); st.Lanes[0].Frames != segments*perSegment {
			b.Fatalf("%+v", st)
		}
		closeSpool(b, s)
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/GiB")
}
