package spool

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// copyDir copies the files of a closed or abandoned spool.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// It stands for the original, so it is not to be known for a copy.
	id, _, whole, err := readIdentity(osFS{}, filepath.Join(to, identityName))
	if err != nil || !whole {
		t.Fatal(err)
	}
	if err := writeIdentity(osFS{}, to, &id); err != nil {
		t.Fatal(err)
	}
	return to
}

func onlySegment(t testing.TB, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "logs-1", "*.seg"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("segments %v: %v", paths, err)
	}
	return paths[0]
}

// A kill at any byte of a write leaves a prefix. What had been acknowledged
// before stays, the rest goes, its number is free, and nothing counts as lost.
func TestAppendSurvivesKillAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := 1; i <= 2; i++ {
		add(t, s, frame.Logs, i, 150)
	}
	acknowledged := copyDir(t, dir) // with the ledger of this moment
	add(t, s, frame.Logs, 3, 150)
	whole, err := os.ReadFile(onlySegment(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	size := len(whole) / 3
	for cut := 2 * size; cut < 3*size; cut++ {
		if err := os.WriteFile(onlySegment(t, acknowledged), whole[:cut], 0o640); err != nil {
			t.Fatal(err)
		}
		killed := copyDir(t, acknowledged)
		s := open(t, Options{Dir: killed})
		if got := readAll(t, s, logs, 0, 0); len(got) != 2 || lostItems(s) != 0 {
			t.Fatalf("cut at %d: read %v, lost %d", cut, numbers(got), lostItems(s))
		}
		if n := add(t, s, frame.Logs, 9, 50); n != 3 {
			t.Fatalf("cut at %d: number %d", cut, n)
		}
		if got := readAll(t, s, logs, 0, 0); len(got) != 3 || got[2].Header.Items != 9 {
			t.Fatalf("cut at %d: then read %v", cut, numbers(got))
		}
		closeSpool(t, s)
	}
}

// Cutting an acknowledged file short at any byte loses exactly the frames cut,
// all of their items named, and never gives their numbers to others.
func TestTruncationOfAcknowledgedFramesIsNamed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	const frames = 4
	for i := 1; i <= frames; i++ {
		add(t, s, frame.Logs, 10*i, 100)
	}
	closeSpool(t, s)
	segment := onlySegment(t, dir)
	whole, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut < len(whole); cut += 7 {
		damaged := copyDir(t, dir)
		if err := os.Truncate(onlySegment(t, damaged), int64(cut)); err != nil {
			t.Fatal(err)
		}
		intact := cut / (len(whole) / frames)
		var lost uint64
		for i := intact + 1; i <= frames; i++ {
			lost += uint64(10 * i)
		}
		for restart := range 2 {
			s := open(t, Options{Dir: damaged})
			if got := readAll(t, s, logs, 0, 0); len(got) != intact {
				t.Fatalf("cut at %d: read %v", cut, numbers(got))
			}
			if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != lost || st.Next != frames+1 {
				t.Fatalf("cut at %d, start %d: %d items gone, %+v", cut, restart, lost, st)
			}
			checkIdentity(t, s)
			closeSpool(t, s)
		}
		s := open(t, Options{Dir: damaged})
		if n := add(t, s, frame.Logs, 1, 10); n != frames+1 {
			t.Fatalf("cut at %d: number %d", cut, n)
		}
		closeSpool(t, s)
	}
}

// One flipped bit anywhere costs at most the frame it hits, which is named with
// all its items and kept in quarantine.
func TestByteFlipCostsOneFrameAndIsNamed(t *testing.T) {
	const frames = 12
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, SegmentBytes: 1000}) // a few frames in each
	for i := 1; i <= frames; i++ {
		add(t, s, frame.Logs, 10*i, 100)
	}
	closeSpool(t, s)
	segments, err := filepath.Glob(filepath.Join(dir, "logs-1", "*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 120 {
		damaged := copyDir(t, dir)
		path := filepath.Join(damaged, "logs-1", filepath.Base(segments[rng.IntN(len(segments))]))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(path, b, 0o640); err != nil {
			t.Fatal(err)
		}
		for restart := range 2 {
			s := open(t, Options{Dir: damaged, SegmentBytes: 1000})
			got := readAll(t, s, logs, 0, 700)
			if len(got) != frames-1 {
				t.Fatalf("flip %d at %d of %s: read %v", i, at, path, numbers(got))
			}
			hit := uint64(frames*(frames+1)) / 2
			for _, r := range got {
				hit -= r.Number
			}
			if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 10*hit || st.Next != frames+1 {
				t.Fatalf("flip %d at %d of %s, start %d: frame %d hit, %+v", i, at, path, restart, hit, st)
			}
			checkIdentity(t, s)
			closeSpool(t, s)
		}
		kept, err := os.ReadDir(filepath.Join(damaged, quarantineName))
		if err != nil || len(kept) != 1 {
			t.Fatalf("flip %d: quarantine %v: %v", i, kept, err)
		}
	}
}

func TestDamageWhileOpenIsSteppedOverAndNamedExactly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := 1; i <= 10; i++ {
		add(t, s, frame.Logs, i, 200)
	}
	s.Confirm(logs, 2)
	path := onlySegment(t, dir)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	length := int64(frame.HeaderSize + 200 + frame.TrailerSize)
	f.WriteAt([]byte("ouch"), 1*length+50)  // confirmed already: no loss
	f.WriteAt([]byte("ouch"), 4*length+20)  // header of frame 5
	f.WriteAt([]byte("ouch"), 6*length+200) // payload of frame 7
	f.Close()
	add(t, s, frame.Logs, 11, 200)
	got := numbers(readAll(t, s, logs, 0, 300))
	if want := []uint64{3, 4, 6, 8, 9, 10, 11}; !slicesEqual(got, want) {
		t.Fatalf("read %v, want %v", got, want)
	}
	add(t, s, frame.Logs, 12, 200)
	s.Confirm(logs, 6)
	check := func(s *Spool) {
		t.Helper()
		checkIdentity(t, s)
		if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 12 || st.Items != 8+9+10+11+12 || st.Floor != 8 {
			t.Fatalf("%+v", st)
		}
	}
	check(s)
	if got := numbers(readAll(t, s, logs, 0, 1<<20)); !slicesEqual(got, []uint64{8, 9, 10, 11, 12}) {
		t.Fatalf("read %v", got)
	}
	closeSpool(t, s)
	s = open(t, Options{Dir: dir})
	readAll(t, s, logs, 0, 300)
	check(s)
}

// Numbers used again within an epoch are repeats to the relay, which drops them
// and confirms them. A lane whose files someone deleted must not begin at 1.
func TestALaneWhoseFilesWereDeletedUsesNoNumberAgain(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"directory": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "logs-1")) },
		"files": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "logs-1")), os.Mkdir(filepath.Join(dir, "logs-1"), 0o750))
		},
		"directory and spool.json": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "logs-1")), os.Remove(filepath.Join(dir, "spool.json")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			add(t, s, frame.Logs, 1, 100)
			add(t, s, frame.Traces, 2, 100)
			s.Confirm(logs, 1)
			epoch := s.Epoch()
			closeSpool(t, s)
			if err := remove(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 { // and it stays the same lane after another start
				s = open(t, Options{Dir: dir})
				add(t, s, frame.Logs, 3, 100)
				if s.Epoch() != epoch {
					t.Fatal("a new epoch: what the other lanes hold would no longer be theirs")
				}
				if st := laneStats(t, s, frame.Lane{Signal: frame.Traces, Seq: 1}); st.Items != 2 {
					t.Fatalf("another lane holds %d items, not 2", st.Items)
				}
				closeSpool(t, s)
			}
			var held []frame.Lane
			s = open(t, Options{Dir: dir})
			for _, st := range s.Stats().Lanes {
				if st.Lane.Signal == frame.Logs && st.Items > 0 {
					held = append(held, st.Lane)
				}
			}
			if len(held) != 1 || held[0] == logs || len(readAll(t, s, held[0], 0, 0)) != 2 {
				t.Fatalf("frames in lanes %v", held)
			}
			checkIdentity(t, s)
		})
	}
}

func slicesEqual(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestDamageToTheOtherFilesLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, SegmentBytes: 1000})
	for i := 1; i <= 12; i++ {
		add(t, s, frame.Logs, i, 100)
	}
	s.Confirm(logs, 5)
	closeSpool(t, s)
	epoch := s.Epoch()
	for name, damage := range map[string]func(dir string) error{
		"spool.json missing": func(d string) error { return os.Remove(filepath.Join(d, identityName)) },
		"spool.json garbage": func(d string) error { return os.WriteFile(filepath.Join(d, identityName), []byte("{"), 0o640) },
		"spool.json and ledger": func(d string) error {
			os.Remove(filepath.Join(d, identityName))
			return os.Remove(filepath.Join(d, "logs-1", ledgerName))
		},
		"lanes.json missing": func(d string) error { return os.Remove(filepath.Join(d, registryName)) },
		"lanes.json garbage": func(d string) error { return os.WriteFile(filepath.Join(d, registryName), []byte("{"), 0o640) },
		"indexes garbage": func(d string) error {
			paths, err := filepath.Glob(filepath.Join(d, "logs-1", "*"+indexSuffix))
			if len(paths) == 0 {
				err = errors.New("there is no index")
			}
			for i, path := range paths {
				b, readErr := os.ReadFile(path)
				if b[20] ^= 1; i%2 == 0 {
					b = b[:len(b)/2]
				}
				err = errors.Join(err, readErr, os.WriteFile(path, b, 0o640))
			}
			return err
		},
		"ledger missing": func(d string) error { return os.Remove(filepath.Join(d, "logs-1", ledgerName)) },
		"ledger garbage": func(d string) error {
			return os.WriteFile(filepath.Join(d, "logs-1", ledgerName), bytes.Repeat([]byte("x"), 2*ledgerSlot), 0o640)
		},
		"lane is a file": func(d string) error { return os.WriteFile(filepath.Join(d, "logs-2"), []byte("x"), 0o640) },
		"strange files":  func(d string) error { return os.WriteFile(filepath.Join(d, "logs-1", "what"), []byte("x"), 0o640) },
		"new segment left": func(d string) error {
			return os.WriteFile(filepath.Join(d, "logs-1", segmentName(13)+newSuffix), []byte("x"), 0o640)
		},
		"garbage behind all": func(d string) error {
			return os.WriteFile(filepath.Join(d, "logs-1", segmentName(13)), []byte("xyz"), 0o640)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := copyDir(t, dir)
			if err := damage(d); err != nil {
				t.Fatal(err)
			}
			s := open(t, Options{Dir: d, SegmentBytes: 1000})
			got := readAll(t, s, logs, 0, 0)
			if len(got) == 0 || got[0].Number > 6 || got[len(got)-1].Number != 12 || int(13-got[0].Number) != len(got) {
				t.Fatalf("read %v", numbers(got))
			}
			if s.Epoch() != epoch || lostItems(s) != 0 {
				t.Fatalf("epoch %s was %s, lost %d", s.Epoch(), epoch, lostItems(s))
			}
			if n := add(t, s, frame.Logs, 1, 10); n != 13 {
				t.Fatalf("number %d", n)
			}
			checkIdentity(t, s)
		})
	}
}

func TestAppendReadConfirmConcurrently(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 20, SegmentBytes: 20 << 10, CommitDelay: time.Millisecond})
	const callers, each = 8, 60
	var writers sync.WaitGroup
	for caller := range callers {
		writers.Go(func() {
			for i := range each {
				signal := frame.Signals[(caller+i)%3]
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				if _, err := s.Append(ctx, frame.Header{Signal: signal, Items: 1}, body(i, 100+i*20)); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var readers sync.WaitGroup
	for _, lane := range s.Lanes() {
		readers.Go(func() {
			for next := uint64(1); next <= callers*each/3; {
				if err := s.Wait(ctx, lane, next); err != nil {
					t.Error(err)
					return
				}
				records, err := s.Read(lane, next, 8<<10)
				if err != nil || len(records) == 0 {
					t.Errorf("%s: read from %d after Wait: %d frames, %v", lane, next, len(records), err)
					return
				}
				for _, r := range records {
					if r.Number != next {
						t.Errorf("%s: frame %d, want %d", lane, r.Number, next)
					}
					next++
				}
				s.OldestTime(lane, next)
				if next%5 == 0 {
					s.Confirm(lane, next-1)
				}
				s.Stats()
			}
			s.Confirm(lane, callers*each)
		})
	}
	writers.Wait()
	readers.Wait()
	for _, l := range s.Stats().Lanes {
		if l.Items != 0 || l.ItemsIn != callers*each/3 || l.ItemsConfirmed != l.ItemsIn || sum(l.Lost) != 0 {
			t.Errorf("%+v", l)
		}
	}
	if st := s.Stats(); st.Fsyncs >= callers*each || st.Bytes > 3*20<<10 {
		t.Errorf("%d fsyncs for %d frames, %d bytes left", st.Fsyncs, callers*each, st.Bytes)
	}
}

func TestWaitEndsWithContextAndClose(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, 2)
	go func() { results <- s.Wait(ctx, logs, 1) }()
	cancel()
	if err := <-results; err != context.Canceled {
		t.Fatal(err)
	}
	go func() { results <- s.Wait(context.Background(), logs, 1) }()
	closeSpool(t, s)
	if err := <-results; err != ErrClosed {
		t.Fatal(err)
	}
	if _, err := s.Append(context.Background(), frame.Header{Signal: frame.Logs}, nil); err != ErrClosed {
		t.Fatal(err)
	}
	if _, err := s.Read(logs, 1, 1); err != ErrClosed {
		t.Fatal(err)
	}
}

func TestStateIsKeptAndItsNamesChecked(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := open(t, o)
	if err := s.SaveState("shipper.json", []byte("abc")); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, s)
	s = open(t, o)
	if b, err := s.LoadState("shipper.json"); err != nil || string(b) != "abc" {
		t.Fatal(string(b), err)
	}
	if _, err := s.LoadState("other"); !os.IsNotExist(unwrapAll(err)) {
		t.Fatal(err)
	}
	for _, name := range []string{"", "..", "a/b", "../x", ".hidden", "x.tmp"} {
		if err := s.SaveState(name, nil); err == nil || !strings.Contains(err.Error(), "state name") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}

// A pipe in the place of a file must not keep the start waiting for a writer.
func TestAPipeInThePlaceOfAFileIsNotWaitedFor(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4 << 10}
	s := open(t, o)
	for i := 1; i <= 20; i++ {
		add(t, s, frame.Logs, i, 500)
	}
	s.Close()
	segments, err := filepath.Glob(filepath.Join(o.Dir, laneDirName(logs), "*"+segmentSuffix))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	for _, path := range []string{indexPath(segments[1]), filepath.Join(o.Dir, registryName), filepath.Join(o.Dir, identityName)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opened := make(chan *Spool, 1)
	go func() {
		s, err := Open(o)
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	select {
	case s = <-opened:
	case <-time.After(30 * time.Second):
		t.Fatal("the start waits")
	}
	if s == nil {
		return
	}
	defer s.Close()
	if got := readAll(t, s, logs, 0, 1<<20); len(got) != 20 {
		t.Fatalf("%d frames of 20", len(got))
	}
}
