package spool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
)

func seal(t testing.TB, s *Spool, signal frame.Signal) frame.Lane {
	t.Helper()
	id, err := s.Seal(signal)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func hasLane(s *Spool, id frame.Lane) bool {
	for _, l := range s.Lanes() {
		if l == id {
			return true
		}
	}
	return false
}

func dirExists(dir string, id frame.Lane) bool {
	_, err := os.Stat(filepath.Join(dir, laneDirName(id)))
	return err == nil
}

func TestASealedLaneKeepsItsFramesAndTheNextBeginsAtOne(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4 << 10}
	s := open(t, o)
	if id := seal(t, s, frame.Logs); id != logs {
		t.Fatalf("an empty lane was sealed: %s", id)
	}
	for i := 1; i <= 20; i++ {
		add(t, s, frame.Logs, i, 500)
	}
	second := frame.Lane{Signal: frame.Logs, Seq: 2}
	if id := seal(t, s, frame.Logs); id != second {
		t.Fatalf("the new lane is %s", id)
	}
	if n := add(t, s, frame.Logs, 100, 500); n != 1 {
		t.Fatalf("the new lane begins at %d", n)
	}
	check := func() {
		t.Helper()
		if got := readAll(t, s, logs, 0, 3000); len(got) != 20 || got[19].Header.Before != 190 {
			t.Fatalf("sealed: %v", numbers(got))
		}
		if got := readAll(t, s, second, 0, 3000); len(got) != 1 || got[0].Header.Items != 100 || got[0].Header.Before != 0 {
			t.Fatalf("live: %v", numbers(got))
		}
		if a, b := laneStats(t, s, logs), laneStats(t, s, second); a.Class != frame.Backlog || b.Class != frame.Live || a.Before != 210 || b.Before != 100 {
			t.Fatalf("%+v\n%+v", a, b)
		}
		checkIdentity(t, s)
	}
	check()
	closeSpool(t, s)
	s = open(t, o)
	check()

	if s.Retire(logs) {
		t.Fatal("a lane that is not confirmed was retired")
	}
	s.Confirm(logs, 20)
	s.Confirm(second, 1)
	if s.Retire(second) {
		t.Fatal("the live lane was retired")
	}
	if !s.Retire(logs) || hasLane(s, logs) || dirExists(o.Dir, logs) {
		t.Fatal("a confirmed lane stays")
	}
	if err := s.Wait(context.Background(), logs, 1); !errors.Is(err, ErrUnknownLane) {
		t.Fatal(err)
	}
	closeSpool(t, s)
	s = open(t, o)
	if hasLane(s, logs) || laneStats(t, s, second).Next != 2 || lostItems(s) != 0 {
		t.Fatalf("after a restart: %+v", s.Stats())
	}
	s.mu.Lock()
	total := s.retired[frame.Logs]
	s.mu.Unlock()
	if total.ItemsIn != 210 || total.ItemsConfirmed != 210 {
		t.Fatalf("retired: %+v", total)
	}
}

// The relay has to hear of the loss: until it says so the lane stays.
func TestALaneThatWasOnlyEvictedIsNotRetired(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 8 << 10}
	s := open(t, o)
	for range 10 {
		add(t, s, frame.Logs, 3, 1000)
	}
	second := seal(t, s, frame.Logs)
	for range 100 {
		add(t, s, frame.Logs, 1, 1000)
	}
	for range 2 {
		st := laneStats(t, s, logs)
		if st.Frames != 0 || st.Floor != 11 || st.Next != 11 || st.Lost[frame.EvictedSpace] != 30 || st.Confirmed != 0 || st.Before != 30 {
			t.Fatalf("%+v", st)
		}
		if s.Retire(logs) {
			t.Fatal("retired although nobody was told")
		}
		checkIdentity(t, s)
		closeSpool(t, s)
		s = open(t, o)
	}
	s.Confirm(logs, 10)
	if !s.Retire(logs) {
		t.Fatalf("stays: %+v", laneStats(t, s, logs))
	}
	if lost := s.Stats().Retired[frame.Logs].Lost[frame.EvictedSpace]; lost != 30 {
		t.Fatalf("%d lost items are remembered, not 30", lost)
	}
	if st := laneStats(t, s, second); st.Lost[frame.EvictedSpace]+uint64(st.Items) != 100 {
		t.Fatalf("%+v", st)
	}
}

func TestSealedLanesAreBounded(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	for range MaxSealedLanes {
		add(t, s, frame.Logs, 1, 10)
		seal(t, s, frame.Logs)
	}
	add(t, s, frame.Logs, 1, 10)
	if id, err := s.Seal(frame.Logs); !errors.Is(err, ErrManyLanes) || id.Seq != MaxSealedLanes+1 {
		t.Fatal(id, err)
	}
	add(t, s, frame.Logs, 1, 10)
	seal(t, s, frame.Traces) // empty, and another signal's
}

func TestADeletedSealedLaneIsNamed(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := open(t, o)
	for range 5 {
		add(t, s, frame.Logs, 7, 10)
	}
	s.Confirm(logs, 2)
	second := seal(t, s, frame.Logs)
	add(t, s, frame.Logs, 1, 10)
	closeSpool(t, s)
	if err := os.RemoveAll(filepath.Join(o.Dir, "logs-1")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = open(t, o)
		if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 21 || st.Next != 6 || st.Floor != 6 || st.Before != 35 || st.Class != frame.Backlog {
			t.Fatalf("%+v", st)
		}
		if st := laneStats(t, s, second); st.Class != frame.Live || st.Items != 1 {
			t.Fatalf("%+v", st)
		}
		checkIdentity(t, s)
		closeSpool(t, s)
	}
}

// A crash may end a seal or a retirement anywhere; a lane's directory without a
// ledger is then no deleted lane.
func TestABeginningThatWasNotFinishedIsNoLoss(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := open(t, o)
	add(t, s, frame.Logs, 1, 10)
	closeSpool(t, s)
	if err := os.Mkdir(filepath.Join(o.Dir, "logs-2"), 0o750); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if got := s.Lanes(); len(got) != 4 || got[1] != (frame.Lane{Signal: frame.Logs, Seq: 2}) {
		t.Fatalf("lanes %v", got)
	}
	if laneStats(t, s, logs).Class != frame.Backlog || lostItems(s) != 0 {
		t.Fatalf("%+v", s.Stats())
	}
}

func TestAnothersSpoolIsRefusedAndCanBeAdopted(t *testing.T) {
	o := Options{Dir: t.TempDir(), Owner: "store-1/a"}
	s := open(t, Options{Dir: o.Dir}) // an older longhaul's, nobody's
	add(t, s, frame.Logs, 1, 10)
	closeSpool(t, s)
	for range 2 {
		closeSpool(t, open(t, o))
	}
	other := o
	other.Owner = "store-2/b"
	_, err := Open(other)
	if !errors.Is(err, ErrNotOwner) {
		t.Fatalf("opened: %v", err)
	}
	for _, want := range []string{o.Dir, "store-1/a", "store-2/b", "longhaul spool adopt --as store-2/b " + o.Dir} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	held := open(t, o)
	if _, err := Adopt(o.Dir, other.Owner); !errors.Is(err, ErrInUse) {
		t.Fatalf("adopted a spool in use: %v", err)
	}
	closeSpool(t, held)
	if former, err := Adopt(o.Dir, other.Owner); err != nil || former != o.Owner {
		t.Fatal(former, err)
	}
	s = open(t, other)
	if got := readAll(t, s, logs, 0, 0); len(got) != 1 || laneStats(t, s, logs).Class != frame.Live {
		t.Fatalf("%+v", s.Stats())
	}
	closeSpool(t, s)
	if _, err := Open(o); !errors.Is(err, ErrNotOwner) {
		t.Fatalf("the former owner opens it: %v", err)
	}
}

// A name misread is not another's: the spool opens, whatever byte of it is damaged.
func TestADamagedOwnerDoesNotLockItsSpool(t *testing.T) {
	o := Options{Dir: t.TempDir(), Owner: "store-1/a"}
	s := open(t, o)
	add(t, s, frame.Logs, 1, 10)
	epoch := s.Epoch()
	closeSpool(t, s)
	path := filepath.Join(o.Dir, identityName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		damaged := slices.Clone(whole)
		damaged[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, damaged, 0o640); err != nil {
			t.Fatal(err)
		}
		s, err := Open(o)
		if err != nil {
			t.Fatalf("byte %d of %q: %v", at, damaged, err)
		}
		if s.Epoch() != epoch || s.Stats().Lanes[0].Items != 1 || lostItems(s) != 0 {
			t.Fatalf("byte %d: epoch %s, %+v", at, s.Epoch(), s.Stats())
		}
		closeSpool(t, s)
	}
}

// Copied, or restored from a backup: the original may have used any number since.
func TestACopyUsesNoNumberOfTheOriginalAgain(t *testing.T) {
	o := Options{Dir: t.TempDir(), Owner: "store-1/a"}
	s := open(t, o)
	add(t, s, frame.Logs, 5, 10)
	closeSpool(t, s)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	used := map[frame.Lane]bool{}
	for range 3 { // the original goes on
		add(t, s, frame.Logs, 5, 10)
		add(t, s, frame.Traces, 5, 10)
		seal(t, s, frame.Logs)
	}
	for _, id := range s.Lanes() {
		used[id] = true
	}
	closeSpool(t, s)

	o.Dir = backup
	s = open(t, o)
	if got := readAll(t, s, logs, 0, 0); len(got) != 1 || laneStats(t, s, logs).Class != frame.Backlog || lostItems(s) != 0 {
		t.Fatalf("%+v", s.Stats())
	}
	live := map[frame.Lane]bool{}
	for _, st := range s.Stats().Lanes {
		if st.Class == frame.Live {
			if live[st.Lane] = true; used[st.Lane] {
				t.Errorf("%s may have been used", st.Lane)
			}
		}
	}
	if len(live) != 3 {
		t.Fatalf("live lanes %v", live)
	}
	closeSpool(t, s)
	s = open(t, o) // now it is where it was left
	for id := range live {
		if laneStats(t, s, id).Class != frame.Live {
			t.Errorf("%s was sealed again", id)
		}
	}
}

// The disk was set back: frames 2 and 3 of the relay are not those of this spool.
func TestASpoolThatWasSetBackGivesItsFramesNewNumbers(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentBytes: 4000}
	s := open(t, o)
	for range 5 {
		add(t, s, frame.Logs, 1, 1000) // the relay has them
	}
	closeSpool(t, s)
	s = open(t, o)
	for range 7 {
		add(t, s, frame.Logs, 10, 1000)
	}
	if live, err := s.Diverged(logs, 12); err != nil || live != nil {
		t.Fatal(live, err)
	}
	live, err := s.Diverged(logs, 20)
	if err != nil || len(live) != len(frame.Signals) {
		t.Fatal(live, err)
	}
	if st := laneStats(t, s, logs); st.Class != frame.Backlog || st.Items != 0 || st.Confirmed != 12 || sum(st.Lost) != 0 {
		t.Fatalf("%+v", st)
	}
	moved := readAll(t, s, s.Live(frame.Logs), 0, 0)
	if len(moved) != 7 || moved[0].Number != 1 || moved[6].Header.Items != 10 || moved[6].Header.Before != 60 {
		t.Fatalf("moved: %v", numbers(moved))
	}
	if in, confirmed, held, lost := accounts(s); in != 75 || confirmed != 5 || held != 70 || lost != 0 {
		t.Fatalf("in %d, confirmed %d, held %d, lost %d", in, confirmed, held, lost)
	}
	checkIdentity(t, s)
	if !s.Retire(logs) {
		t.Fatal("the lane that was set back stays")
	}
	closeSpool(t, s)
	s = open(t, o)
	if in, _, held, lost := accounts(s); in != 75 || held != 70 || lost != 0 {
		t.Fatalf("after a restart: in %d, held %d, lost %d", in, held, lost)
	}
}

func TestWhatCannotMoveIsNamed(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 1<<20)
	for range 4 {
		add(t, s, frame.Logs, 10, 1000)
	}
	disk.mu.Lock()
	disk.refuse = func(op, path string) error {
		if op == "write" && isSegment(path) {
			return syscall.ENOSPC
		}
		return nil
	}
	disk.mu.Unlock()
	if _, err := s.Diverged(logs, 9); err != nil {
		t.Fatal(err)
	}
	if in, confirmed, held, lost := accounts(s); in != 40 || confirmed != 0 || held != 0 || lost != 40 {
		t.Fatalf("in %d, confirmed %d, held %d, lost %d", in, confirmed, held, lost)
	}
	checkIdentity(t, s)
}

// A kill or a power cut at any operation of sealing, confirming and retiring
// loses nothing, names nothing as lost, and leaves one live lane a signal.
func TestSealingAndRetiringSurviveAnEndAtAnyOperation(t *testing.T) {
	for name, after := range map[string]func(*memFS) *memFS{
		"kill": func(disk *memFS) *memFS {
			disk.dead, disk.cutAt = false, 0
			return disk
		},
		"power cut": (*memFS).powerCut,
	} {
		t.Run(name, func(t *testing.T) {
			for ops, finished := 1, false; !finished; ops++ {
				disk := newMemFS(uint64(ops))
				o := Options{Dir: "/spool", SegmentBytes: 1000, fs: disk}
				s, ob := open(t, o), newObserver()
				for range 10 {
					if err := ob.appendOne(s, frame.Logs, 200); err != nil {
						t.Fatal(err)
					}
				}
				disk.cutAt = disk.ops + ops
				if _, err := s.Seal(frame.Logs); err == nil {
					for range 3 {
						if ob.appendOne(s, frame.Logs, 200) != nil {
							break
						}
					}
					ob.confirm(t, s, disk, logs, 10)
					finished = s.Retire(logs) && !disk.dead
				}
				s.Close()
				o.fs = after(disk)
				s = open(t, o)
				ob.check(t, s)
				checkIdentity(t, s)
				live := 0
				for _, st := range s.Stats().Lanes {
					if st.Class == frame.Live {
						live++
					}
				}
				if live != len(frame.Signals) || lostItems(s) > ob.inDoubt {
					t.Fatalf("ended at operation %d: %d live lanes, %d items lost: %+v", ops, live, lostItems(s), s.Stats())
				}
				if err := ob.appendOne(s, frame.Logs, 10); err != nil {
					t.Fatalf("ended at operation %d: %v", ops, err)
				}
				ob.check(t, s)
				closeSpool(t, s)
			}
		})
	}
}
