package spool

import (
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
	mu      sync.Mutex
	acked   map[string]bool                  // payloads that Append promised and nobody confirmed
	seen    map[frame.Lane]map[uint64]string // what Read ever gave out, and so may have been sent
	inDoubt uint64                           // items of appends that failed or were cut
	serial  int
}

func newObserver() *observer {
	return &observer{acked: map[string]bool{}, seen: map[frame.Lane]map[uint64]string{}}
}

// observedItems are in every frame of an observer.
const observedItems = 3

// appendOne appends a frame that differs from all others.
func (o *observer) appendOne(s *Spool, signal frame.Signal, size int) error {
	o.mu.Lock()
	o.serial++
	payload := body(o.serial, size)
	payload = append(payload, fmt.Sprint(o.serial)...)
	o.mu.Unlock()
	_, err := s.Append(context.Background(), frame.Header{Signal: signal, Items: observedItems}, payload)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.inDoubt += observedItems
		return err
	}
	o.acked[string(payload)] = true
	return nil
}

type fatal interface{ Fatalf(string, ...any) }

// read gives the payloads of a lane by number, and checks that no number ever
// stands for two frames and that the count of what came before never goes back.
func (o *observer) read(t fatal, s *Spool, lane frame.Lane) map[uint64]string {
	if o.seen[lane] == nil {
		o.seen[lane] = map[uint64]string{}
	}
	got := map[uint64]string{}
	var from, before uint64
	for {
		records, err := s.Read(lane, from, 1000)
		if err != nil {
			t.Fatalf("%s: read from %d: %v", lane, from, err)
		}
		if len(records) == 0 {
			return got
		}
		for _, r := range records {
			h, payload, _, err := frame.Parse(r.Bytes)
			if err != nil {
				t.Fatalf("%s: frame %d: %v", lane, r.Number, err)
			}
			if r.Number < from || h.Before < before || h.Before != (r.Number-1)*observedItems {
				t.Fatalf("%s: frame %d after %d, %d items before it", lane, r.Number, from-1, h.Before)
			}
			got[r.Number], before = string(payload), h.Before+uint64(h.Items)
			from = r.Number + 1
			if was, ok := o.seen[lane][r.Number]; ok && was != got[r.Number] {
				t.Fatalf("%s: number %d stands for two frames", lane, r.Number)
			}
			o.seen[lane][r.Number] = got[r.Number]
		}
	}
}

// check reads everything and compares it with what was promised.
func (o *observer) check(t fatal, s *Spool) {
	found := map[string]bool{}
	for _, lane := range s.Lanes() {
		for _, payload := range o.read(t, s, lane) {
			found[payload] = true
		}
	}
	for payload := range o.acked {
		if !found[payload] {
			t.Fatalf("an acknowledged frame is gone (have %d; %+v)", len(found), s.Stats())
		}
	}
}

// confirm says that the backends have a lane up to a number. What the observer
// reads for it is no part of the spool's life.
func (o *observer) confirm(t fatal, s *Spool, disk *memFS, lane frame.Lane, upTo uint64) {
	disk.mu.Lock()
	cutAt, dead, ops := disk.cutAt, disk.dead, disk.ops
	disk.cutAt, disk.dead = 0, false
	disk.mu.Unlock()
	got := o.read(t, s, lane)
	disk.mu.Lock()
	if disk.dead = dead; cutAt > 0 {
		disk.cutAt = cutAt + disk.ops - ops
	}
	disk.mu.Unlock()
	for number, payload := range got {
		if number <= upTo {
			delete(o.acked, payload)
		}
	}
	s.Confirm(lane, upTo)
}

func laneOf(s *Spool, id frame.Lane) LaneStats {
	for _, l := range s.Stats().Lanes {
		if l.Lane == id {
			return l
		}
	}
	return LaneStats{}
}

// checkIdentity: in = confirmed + held + lost, of every lane, and the frames' own
// count of what came before agrees.
func checkIdentity(t fatal, s *Spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		if l.before != l.itemsIn-l.lost[frame.TooLarge] {
			t.Fatalf("%s: %d items in frames, in %d, lost %v", id, l.before, l.itemsIn, l.lost)
		}
		if held := l.held(); l.itemsIn != l.itemsConfirmed+held.items+sum(l.lost) {
			t.Fatalf("%s: in %d, confirmed %d, held %d, lost %v", id, l.itemsIn, l.itemsConfirmed, held.items, l.lost)
		}
	}
}

func lostItems(s *Spool) (n uint64) {
	for _, l := range s.Stats().Lanes {
		n += sum(l.Lost)
	}
	for _, r := range s.Stats().Retired {
		n += sum(r.Lost)
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
		disk.mu.Lock()
		dead := disk.dead
		disk.mu.Unlock()
		if dead {
			continue
		}
		checkIdentity(t, s)
		if rapid.IntRange(0, 3).Draw(t, "seal") == 0 {
			s.Seal(rapid.SampledFrom(frame.Signals).Draw(t, "sealed signal"))
		}
		lane := rapid.SampledFrom(s.Lanes()).Draw(t, "lane")
		if upTo := rapid.Uint64Range(0, laneOf(s, lane).Next-1).Draw(t, "confirm"); upTo > 0 {
			o.confirm(t, s, disk, lane, upTo)
		}
		for _, lane := range s.Lanes() {
			s.Retire(lane)
		}
		checkIdentity(t, s)
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
			o.confirm(t, s, disk, logs, rapid.Uint64Range(1, 40).Draw(t, "confirm"))
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
		if in, known := uint64(len(o.acked))*observedItems, uint64(st.Items)+sum(st.Lost); known < in || known > in+2*inDoubt {
			t.Fatalf("%d items acknowledged, %d held or named lost: %+v", in, known, st)
		}
	})
}
