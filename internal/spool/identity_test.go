package spool

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"pgregory.net/rapid"
)

// accounts adds up all lanes that a spool ever had.
func accounts(s *Spool) (in, confirmed, held, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		in += l.itemsIn
		confirmed += l.itemsConfirmed
		held += l.held().items
		lost += sum(l.lost)
	}
	for _, t := range s.retired {
		in += t.ItemsIn
		confirmed += t.ItemsConfirmed
		for _, n := range t.Lost {
			lost += n
		}
	}
	return in, confirmed, held, lost
}

// Whatever is done to a spool: what came in is what was confirmed, what it holds
// and what it names as lost, of every lane and of all that ever were.
func TestItemsInAreConfirmedHeldOrNamedAsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock(time.Now())
		o := Options{
			Dir: "/spool", MaxBytes: 64 << 10, SegmentBytes: 4 << 10, Logger: quiet(), fs: newMemFS(1), now: c.now,
			OnFull: rapid.SampledFrom([]OnFull{EvictOldest, Block}).Draw(t, "on full"),
			MaxAge: rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "max age"),
			Fsync:  rapid.SampledFrom([]Fsync{FsyncAlways, FsyncInterval}).Draw(t, "fsync"),
		}
		s, err := Open(o)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		defer func() { s.Close() }()
		var taken uint64
		signal := rapid.SampledFrom(frame.Signals)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				which := signal.Draw(t, "signal")
				for range rapid.IntRange(1, 30).Draw(t, "frames") {
					err := appendNow(s, which)
					if err == nil {
						taken++
					} else if !errors.Is(err, ErrFull) || o.OnFull != Block {
						t.Fatalf("append: %v", err)
					}
				}
			},
			"lose": func(t *rapid.T) {
				s.Lose(signal.Draw(t, "signal"), frame.TooLarge, 2)
				taken += 2
			},
			"seal": func(t *rapid.T) {
				if _, err := s.Seal(signal.Draw(t, "signal")); err != nil && !errors.Is(err, ErrManyLanes) {
					t.Fatalf("seal: %v", err)
				}
			},
			"confirm": func(t *rapid.T) {
				lane := rapid.SampledFrom(s.Lanes()).Draw(t, "lane")
				s.Confirm(lane, rapid.Uint64Range(0, s.Next(lane)).Draw(t, "up to"))
			},
			"acknowledge": func(t *rapid.T) {
				lane := rapid.SampledFrom(s.Lanes()).Draw(t, "lane")
				s.Acknowledged(lane, rapid.Uint64Range(0, s.Next(lane)).Draw(t, "up to"))
			},
			"retire": func(t *rapid.T) {
				for _, lane := range s.Lanes() {
					s.Retire(lane)
				}
			},
			"grow old": func(t *rapid.T) {
				c.run(s, time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes"))*time.Minute)
			},
			"restart": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				if s, err = Open(o); err != nil {
					t.Fatalf("open: %v", err)
				}
			},
			"": func(t *rapid.T) {
				checkIdentity(t, s)
				in, confirmed, held, lost := accounts(s)
				if in != taken || in != confirmed+held+lost {
					t.Fatalf("%d taken, in %d, confirmed %d, held %d, lost %d", taken, in, confirmed, held, lost)
				}
				var disk int64
				for _, l := range s.Stats().Lanes {
					disk += l.DiskBytes
				}
				if st := s.Stats(); st.Bytes != disk || st.Bytes > o.MaxBytes {
					t.Fatalf("%d bytes, %d in lanes", st.Bytes, disk)
				}
			},
		})
	})
}

// The frames at both ends of a hole tell what it held, also when the ledger is
// gone; and what is given out afterwards goes on counting from there.
func TestAGapIsCountedFromTheFramesAtItsEnds(t *testing.T) {
	whole := t.TempDir()
	o := Options{Dir: whole, SegmentBytes: 3000}
	s := open(t, o)
	const frames = 30
	for i := 1; i <= frames; i++ {
		add(t, s, frame.Logs, i*10, 400)
	}
	closeSpool(t, s)
	segments, err := filepath.Glob(filepath.Join(whole, "logs-1", "*"+segmentSuffix))
	if err != nil || len(segments) < 5 {
		t.Fatal(segments, err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		o.Dir = copyDir(t, whole)
		lane := filepath.Join(o.Dir, "logs-1")
		if random.IntN(2) == 0 {
			if err := os.Remove(filepath.Join(lane, ledgerName)); err != nil {
				t.Fatal(err)
			}
		}
		// Not the first nor the last: nothing tells what stood before or after them.
		victim := filepath.Join(lane, filepath.Base(segments[1+random.IntN(len(segments)-2)]))
		if random.IntN(2) == 0 {
			err = os.Remove(victim)
		} else {
			var b []byte
			if b, err = os.ReadFile(victim); err == nil {
				at := random.IntN(len(b) - 600)
				clear(b[at : at+600])
				err = os.WriteFile(victim, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, o)
		want := uint64(frames * (frames + 1) / 2 * 10)
		for _, r := range readAll(t, s, logs, 0, 0) {
			want -= uint64(r.Header.Items)
		}
		if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != want || want == 0 || st.Before != frames*(frames+1)/2*10 {
			t.Fatalf("%s: %d items are gone, %+v", victim, want, st)
		}
		checkIdentity(t, s)
		add(t, s, frame.Logs, 1, 10)
		last := readAll(t, s, logs, frames+1, 0)
		if len(last) != 1 || last[0].Header.Before != frames*(frames+1)/2*10 {
			t.Fatalf("the next frame: %+v", last)
		}
		closeSpool(t, s)
	}
}

// Whatever byte of whatever file is hit: what cannot be read any more is named,
// in sealed lanes too, and nothing is named twice by starting again.
func TestDamageAnywhereInLanesIsNamed(t *testing.T) {
	whole := t.TempDir()
	o := Options{Dir: whole, SegmentBytes: 2 << 10}
	s := open(t, o)
	for lane := range 3 {
		for i := 1; i <= 15; i++ {
			add(t, s, frame.Logs, i, 100+i*20)
		}
		s.Confirm(s.Live(frame.Logs), 4)
		if lane < 2 {
			seal(t, s, frame.Logs)
		}
	}
	closeSpool(t, s)
	const owed = 3 * (15*16/2 - 4*5/2) // items not confirmed
	var files []string
	for _, pattern := range []string{"*.json", "logs-*/*"} {
		matches, _ := filepath.Glob(filepath.Join(whole, pattern))
		files = append(files, matches...)
	}
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 9))
		o.Dir = copyDir(t, whole)
		done := ""
		for range 1 + random.IntN(2) {
			name, _ := filepath.Rel(whole, files[random.IntN(len(files))])
			done += breakFile(t, random, filepath.Join(o.Dir, name))
		}
		var before uint64
		for start := range 2 {
			s := open(t, o)
			var read uint64
			for _, id := range s.Lanes() {
				for _, r := range readAll(t, s, id, 0, 0) {
					read += uint64(r.Header.Items)
				}
			}
			lost := lostItems(s)
			if read+lost < owed {
				t.Fatalf("seed %d, start %d:%s: %d items read and %d named lost of %d\n%+v", seed, start, done, read, lost, owed, s.Stats())
			}
			if start > 0 && lost != before {
				t.Fatalf("seed %d:%s: %d items lost, after another start %d", seed, done, before, lost)
			}
			before = lost
			checkIdentity(t, s)
			closeSpool(t, s)
		}
	}
}
