package spool

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
	"pgregory.net/rapid"
)

// observer is what a fair observer knows of a spool across its lives.
type observer struct {
	mu        sync.Mutex
	acked     map[frame.Lane]map[uint64][]byte // what Append promised
	seen      map[frame.Lane]map[uint64][]byte // what Read ever gave out, and so may have been sent
	inDoubt   uint64                           // items of appends that failed or were cut
	confirmed map[frame.Lane]uint64
	serial    int
}

func newObserver() *observer {
	o := &observer{acked: map[frame.Lane]map[uint64][]byte{}, seen: map[frame.Lane]map[uint64][]byte{}, confirmed: map[frame.Lane]uint64{}}
	for _, signal := range frame.Signals {
		lane := frame.Lane{Signal: signal, Seq: 1}
		o.acked[lane], o.seen[lane] = map[uint64][]byte{}, map[uint64][]byte{}
	}
	return o
}

// appendOne appends a frame that differs from all others.
func (o *observer) appendOne(s *Spool, signal frame.Signal, size int) error {
	o.mu.Lock()
	o.serial++
	payload := body(o.serial, size)
	payload = append(payload, fmt.Sprint(o.serial)...)
	o.mu.Unlock()
	const items = 3
	number, err := s.Append(context.Background(), frame.Header{Signal: signal, Items: items}, payload)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.inDoubt += items
		return err
	}
	o.acked[frame.Lane{Signal: signal, Seq: 1}][number] = payload
	return nil
}

// check reads everything and compares it with what was promised and shown.
func (o *observer) check(t interface{ Fatalf(string, ...any) }, s *Spool) {
	for lane, acked := range o.acked {
		from, got := uint64(0), map[uint64][]byte{}
		for {
			records, err := s.Read(lane, from, 1000)
			if err != nil {
				t.Fatalf("%s: read from %d: %v", lane, from, err)
			}
			if len(records) == 0 {
				break
			}
			for _, r := range records {
				_, payload, _, err := frame.Parse(r.Bytes)
				if err != nil {
					t.Fatalf("%s: frame %d: %v", lane, r.Number, err)
				}
				if r.Number < from {
					t.Fatalf("%s: frame %d after %d", lane, r.Number, from)
				}
				got[r.Number] = payload
				from = r.Number + 1
				if before, ok := o.seen[lane][r.Number]; ok && !bytes.Equal(before, payload) {
					t.Fatalf("%s: number %d stands for two frames", lane, r.Number)
				}
				o.seen[lane][r.Number] = payload
			}
		}
		for number, payload := range acked {
			if number > o.confirmed[lane] && !bytes.Equal(got[number], payload) {
				t.Fatalf("%s: acknowledged frame %d is gone (have %d, next %d)", lane, number, len(got), laneOf(s, lane).Next)
			}
		}
	}
}

func laneOf(s *Spool, id frame.Lane) LaneStats {
	for _, l := range s.Stats().Lanes {
		if l.Lane == id {
			return l
		}
	}
	return LaneStats{}
}

// total is in = confirmed + held + lost, over all lanes and since the epoch.
func checkIdentity(t interface{ Fatalf(string, ...any) }, s *Spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		if held := l.held(); l.itemsIn != l.itemsConfirmed+held.items+sum(l.lost) {
			t.Fatalf("%s: in %d, confirmed %d, held %d, lost %v", id, l.itemsIn, l.itemsConfirmed, held.items, l.lost)
		}
	}
}

func lostItems(s *Spool) (n uint64) {
	for _, l := range s.Stats().Lanes {
		n += sum(l.Lost)
	}
	return n
}

func TestAcknowledgedFramesSurvivePowerCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := newMemFS(rapid.Uint64().Draw(t, "seed"))
		o := newObserver()
		for range rapid.IntRange(1, 5).Draw(t, "lives") {
			options := Options{Dir: "/spool", MaxBytes: 1 << 30, SegmentBytes: int64(rapid.IntRange(500, 5000).Draw(t, "segment bytes")), Logger: quiet(), fs: disk}
			disk.mu.Lock()
			disk.cutAt = disk.ops + rapid.IntRange(1, 400).Draw(t, "operations until the cut")
			disk.mu.Unlock()
			s, err := Open(options)
			if err == nil {
				life(t, s, disk, o)
				s.Close()
			}
			disk = disk.powerCut()

			options.fs = disk
			s, err = Open(options)
			if err != nil {
				t.Fatalf("open after the cut: %v", err)
			}
			o.check(t, s)
			checkIdentity(t, s)
			if lost := lostItems(s); lost > o.inDoubt {
				t.Fatalf("counts %d lost items, %d were never acknowledged", lost, o.inDoubt)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
	})
}

// life uses a spool until the power goes.
func life(t *rapid.T, s *Spool, disk *memFS, o *observer) {
	failEvery := rapid.IntRange(0, 12).Draw(t, "failing fsync or write every")
	n := 0
	disk.mu.Lock()
	disk.refuse = func(op, path string) error {
		if failEvery == 0 || !isSegment(path) || op != "sync" && op != "write" {
			return nil
		}
		if n++; n%(failEvery+2) == 0 {
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	for round := range rapid.IntRange(1, 8).Draw(t, "rounds") {
		var callers sync.WaitGroup
		for _, signal := range frame.Signals {
			for caller := range rapid.IntRange(0, 3).Draw(t, "callers") {
				callers.Go(func() {
					for i := range 3 {
						o.appendOne(s, signal, 10+300*((round+caller+i)%4))
					}
				})
			}
		}
		callers.Wait()
		lane := frame.Lane{Signal: rapid.SampledFrom(frame.Signals).Draw(t, "signal"), Seq: 1}
		disk.mu.Lock()
		dead := disk.dead
		disk.mu.Unlock()
		if !dead {
			checkIdentity(t, s)
			if upTo := rapid.Uint64Range(0, laneOf(s, lane).Next-1).Draw(t, "confirm"); upTo > o.confirmed[lane] {
				o.confirmed[lane] = upTo
				s.Confirm(lane, upTo)
			}
		}
	}
}

func TestPowerCutWhileConfirmingOrEvictingMiscountsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := newMemFS(rapid.Uint64().Draw(t, "seed"))
		o := newObserver()
		options := Options{Dir: "/spool", MaxBytes: 64 << 10, SegmentBytes: 1000, Logger: quiet(), fs: disk}
		s, err := Open(options)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		evict := rapid.Bool().Draw(t, "evict")
		frames := 40
		if evict {
			frames = 300
		}
		for range frames {
			if err := o.appendOne(s, frame.Logs, 200); err != nil {
				t.Fatalf("append: %v", err)
			}
		}
		disk.mu.Lock()
		disk.cutAt = disk.ops + rapid.IntRange(1, 30).Draw(t, "operations until the cut")
		disk.mu.Unlock()
		var inDoubt uint64
		if evict {
			for range 10 {
				if o.appendOne(s, frame.Logs, 200) != nil {
					inDoubt = 3 // one at a time is under way
					break
				}
			}
		} else {
			o.confirmed[logs] = rapid.Uint64Range(1, 40).Draw(t, "confirm")
			s.Confirm(logs, o.confirmed[logs])
		}
		s.Close()
		disk = disk.powerCut()
		options.fs = disk
		if s, err = Open(options); err != nil {
			t.Fatalf("open after the cut: %v", err)
		}
		defer s.Close()
		checkIdentity(t, s)
		st := laneOf(s, logs)
		if lost := st.Lost[frame.Corrupt]; lost > inDoubt {
			t.Fatalf("counts %d items as corrupt, none is: %+v", lost, st)
		}
		if !evict {
			o.check(t, s)
			return
		}
		// Every frame is there, or named as evicted.
		if in, known := uint64(len(o.acked[logs]))*3, uint64(st.Items)+sum(st.Lost); known < in || known > in+2*inDoubt {
			t.Fatalf("%d items acknowledged, %d held or named lost: %+v", in, known, st)
		}
	})
}
