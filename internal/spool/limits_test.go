package spool

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// clock is a wall clock that a test sets.
type clock struct{ nanoseconds atomic.Int64 }

func newClock(t time.Time) *clock {
	c := &clock{}
	c.nanoseconds.Store(t.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *clock) advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

// run lets time pass in the steps in which the spool looks at it.
func (c *clock) run(s *Spool, d time.Duration) {
	for ; d > 0; d -= maintainEvery {
		c.advance(maintainEvery)
		s.maintain()
	}
}

func TestAgeEvictsWholeSegmentsAndNamesThem(t *testing.T) {
	c := newClock(time.Now())
	o := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 8 << 10, MaxAge: time.Hour, now: c.now}
	s := open(t, o)
	for range 10 {
		add(t, s, frame.Logs, 2, 1000)
	}
	c.run(s, 50*time.Minute)
	add(t, s, frame.Logs, 1, 1000) // not into a segment that is about to go
	if lost := lostItems(s); lost != 0 {
		t.Fatalf("lost %d before their time", lost)
	}
	c.run(s, 20*time.Minute)
	st := laneStats(t, s, logs)
	if st.Lost[frame.EvictedAge] != 20 || st.Items != 1 || st.Floor != 11 {
		t.Fatalf("%+v", st)
	}
	c.run(s, 2*time.Hour)
	if st := laneStats(t, s, logs); st.Lost[frame.EvictedAge] != 21 || st.Frames != 0 || st.Next != 12 {
		t.Fatalf("%+v", st)
	}
	checkIdentity(t, s)
	if n := add(t, s, frame.Logs, 1, 10); n != 12 {
		t.Fatalf("number %d", n)
	}
}

func TestAWrongClockDeletesLittle(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 8 << 10, MaxAge: time.Hour}
	s := open(t, o)
	for range 900 {
		add(t, s, frame.Logs, 1, 1000)
	}
	closeSpool(t, s)
	for name, start := range map[string]time.Time{
		"in ten years": time.Now().AddDate(10, 0, 0), "in 1970": time.Unix(100, 0),
	} {
		c := newClock(start)
		o.Dir, o.now = copyDir(t, dir), c.now
		s := open(t, o)
		add(t, s, frame.Logs, 1, 10)
		c.run(s, 30*time.Minute)
		evicted := s.Stats().Traffic[frame.Logs].BytesEvicted
		if limit := o.MaxBytes/ageShare/2 + o.SegmentBytes; evicted > limit {
			t.Errorf("%s: %d bytes deleted in half an hour, more than %d", name, evicted, limit)
		}
		if name == "in 1970" && evicted > 0 {
			t.Errorf("%s: %d bytes deleted", name, evicted)
		}
		checkIdentity(t, s)
		closeSpool(t, s)
	}
}

func TestTheSpoolDoesNotGrowIntoWhatShallStayFree(t *testing.T) {
	disk := newMemFS(1)
	disk.space = 1 << 20
	o := Options{Dir: "/spool", MaxBytes: 1 << 20, SegmentBytes: 32 << 10, MinFreeBytes: 200 << 10, fs: disk}
	s := open(t, o)
	for i := range 2000 {
		add(t, s, frame.Logs, 1, 1000)
		if free, _, _ := disk.Space(""); free < o.MinFreeBytes-8<<10 { // ledgers are small
			t.Fatalf("%d bytes free after append %d", free, i)
		}
	}
	full := s.Stats().Bytes
	if full < 700<<10 {
		t.Fatalf("the spool stopped at %d bytes", full)
	}
	disk.mu.Lock()
	disk.space -= 150 << 10 // someone else writes
	disk.mu.Unlock()
	for range 500 {
		add(t, s, frame.Logs, 1, 1000)
	}
	if now := s.Stats().Bytes; now < full-2*o.SegmentBytes || now > full {
		t.Fatalf("the spool went from %d to %d bytes because of what others wrote", full, now)
	}
	checkIdentity(t, s)
	closeSpool(t, s)

	o.OnFull, o.Shares = Block, map[frame.Signal]int{}
	s = open(t, o)
	if err := appendNow(s, frame.Logs); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "min_free_bytes") {
		t.Fatal(err)
	}
}

// appendNow appends a frame and does not wait for room.
func appendNow(s *Spool, signal frame.Signal) error {
	payload := body(1, 1000)
	_, err := s.append(context.Background(), frame.Header{Signal: signal, Items: 1}, payload, int64(frame.HeaderSize+len(payload)+frame.TrailerSize))
	return err
}

func TestBlockRefusesUntilThereIsRoom(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 8 << 10, OnFull: Block}
	s := open(t, o)
	n := 0
	var err error
	for ; err == nil; n++ {
		err = appendNow(s, frame.Logs)
	}
	n--
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "may be sent again") {
		t.Fatal(err)
	}
	// A quarter for metrics and 15 % for traces stay free for them.
	if b := s.Stats().Bytes; b > 64<<10*60/100 || b < 64<<10*55/100 {
		t.Fatalf("logs took %d bytes", b)
	}
	if err := appendNow(s, frame.Metrics); err != nil {
		t.Fatalf("metrics are within their share: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancelled := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, frame.Header{Signal: frame.Logs, Items: 1}, body(1, 1000))
		cancelled <- err
	}()
	cancel()
	if err := <-cancelled; !errors.Is(err, ErrFull) && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		for {
			_, err := s.Append(context.Background(), frame.Header{Signal: frame.Logs, Items: 1}, body(1, 1000))
			if !errors.Is(err, ErrFull) {
				waiting <- err
				return
			}
		}
	}()
	s.Confirm(logs, uint64(n))
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	if lostItems(s) != 0 {
		t.Fatal("something was evicted")
	}
	checkIdentity(t, s)
}

func TestWhatTheHubHasIsEvictedFirst(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 8 << 10})
	for range 20 {
		add(t, s, frame.Logs, 1, 1000)
	}
	second := seal(t, s, frame.Logs)
	for range 20 {
		add(t, s, frame.Logs, 1, 1000)
	}
	s.Acknowledged(second, 20)
	for range 20 {
		add(t, s, frame.Logs, 1, 1000)
	}
	first, live := laneStats(t, s, logs), laneStats(t, s, second)
	if first.Lost[frame.EvictedSpace] != 0 || live.Lost[frame.EvictedSpace] == 0 {
		t.Fatalf("the hub has nothing of %+v\nand the beginning of %+v", first, live)
	}
	s.Acknowledged(second, 0)
	for range 10 {
		add(t, s, frame.Logs, 1, 1000)
	}
	if first := laneStats(t, s, logs); first.Lost[frame.EvictedSpace] == 0 {
		t.Fatalf("the oldest was not evicted: %+v", first)
	}
}

func TestASignalWithinItsShareLosesNothingToAnother(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 4 << 10})
	for range 5 { // less than 15 %
		add(t, s, frame.Traces, 1, 1000)
	}
	for range 10 { // less than a quarter
		add(t, s, frame.Metrics, 1, 1000)
	}
	for range 300 {
		add(t, s, frame.Logs, 1, 1000)
	}
	for _, st := range s.Stats().Lanes {
		if lost := sum(st.Lost); st.Lane.Signal == frame.Logs != (lost > 0) {
			t.Errorf("%+v", st)
		}
	}
}

// Without an fsync a kill loses nothing, a power cut what was not written; the
// numbers that went with it are not used again.
func TestWithoutFsyncNoNumberIsUsedTwice(t *testing.T) {
	for _, mode := range []Fsync{FsyncInterval, FsyncNever} {
		t.Run(string(mode), func(t *testing.T) {
			disk, boot := newMemFS(7), "first"
			o := Options{Dir: "/spool", Fsync: mode, FsyncInterval: time.Hour, fs: disk, boot: func() string { return boot }}
			s := open(t, o)
			for range 20 {
				add(t, s, frame.Logs, 1, 100)
			}
			if got := readAll(t, s, logs, 0, 0); len(got) != 20 {
				t.Fatalf("read %d", len(got))
			}
			killed := open(t, o) // memFS has no lock: as after a kill
			if got := readAll(t, killed, logs, 0, 0); len(got) != 20 || laneStats(t, killed, logs).Class != frame.Live {
				t.Fatalf("after a kill: %d frames", len(got))
			}
			if mode == FsyncInterval { // a planned restart seals nothing
				closeSpool(t, killed)
				boot = "planned"
				killed = open(t, o)
				if laneStats(t, killed, logs).Class != frame.Live {
					t.Fatal("a planned restart of the machine sealed the lane")
				}
				add(t, killed, frame.Logs, 1, 100)
			}
			o.fs, boot = disk.powerCut(), "second"
			s = open(t, o)
			if st := laneStats(t, s, logs); st.Class != frame.Backlog {
				t.Fatalf("after a power cut the lane goes on: %+v", st)
			}
			add(t, s, frame.Logs, 1, 100)
			if live := s.Live(frame.Logs); live == logs || laneStats(t, s, live).Items != 1 {
				t.Fatalf("live %s", live)
			}
			checkIdentity(t, s)
		})
	}
}

func TestAnIntervalsFailedFsyncEndsTheSegment(t *testing.T) {
	disk := newMemFS(1)
	o := Options{Dir: "/spool", Fsync: FsyncInterval, FsyncInterval: time.Hour, fs: disk}
	s := open(t, o)
	add(t, s, frame.Logs, 1, 100)
	disk.mu.Lock()
	disk.refuse = func(op, path string) error {
		if op == "sync" && isSegment(path) {
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	s.maintain()
	disk.mu.Lock()
	disk.refuse = nil
	disk.mu.Unlock()
	add(t, s, frame.Logs, 1, 100)
	if files := segmentFiles(t, disk); len(files) != 2 {
		t.Fatalf("went on in the segment whose fsync failed: %v", files)
	}
	fsyncs := s.Stats().Fsyncs
	s.maintain()
	s.maintain() // nothing new to sync
	if got := s.Stats().Fsyncs; got != fsyncs+1 {
		t.Fatalf("%d fsyncs", got-fsyncs)
	}
	checkIdentity(t, s)
}

func TestTroubleOfTheDiskEndsWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no space":           {syscall.ENOSPC, "disk full"},
		"quota":              {syscall.EDQUOT, "disk full"},
		"read-only":          {syscall.EROFS, "read-only"},
		"another's":          {syscall.EACCES, "may no longer write"},
		"input/output error": {syscall.EIO, "not made durable"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newMemFS(1)
			s := openMem(t, disk, 1<<20, 2000)
			add(t, s, frame.Logs, 1, 1000)
			disk.mu.Lock()
			disk.refuse = func(op, path string) error {
				switch op {
				case "write", "sync", "rename", "remove", "mkdir", "truncate":
					return c.err
				case "open":
					if disk.dirs["/spool/logs-1"].now[pathBase(path)] == nil && strings.HasPrefix(path, "/spool/logs-") {
						return c.err // a new file
					}
				}
				return nil
			}
			disk.mu.Unlock()
			for range 3 {
				if err := tryAdd(s, 2, 1000); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "may be sent again") {
					t.Fatal(err)
				}
			}
			if _, err := s.Seal(frame.Logs); !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			disk.mu.Lock()
			disk.refuse = nil
			disk.mu.Unlock()
			add(t, s, frame.Logs, 3, 1000)
			held := uint64(laneStats(t, s, logs).Items)
			if held+lostItems(s) != 4 || lostItems(s) > 1 {
				t.Fatalf("held %d, lost %d", held, lostItems(s))
			}
			second := seal(t, s, frame.Logs)
			add(t, s, frame.Logs, 4, 1000)
			if st := laneStats(t, s, second); st.Items != 4 {
				t.Fatalf("%+v", st)
			}
			checkIdentity(t, s)
		})
	}
}

func pathBase(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func TestADeletedSpoolDirectoryIsMadeAgain(t *testing.T) {
	dir := t.TempDir() + "/spool"
	o := Options{Dir: dir, Owner: "store-1/a"}
	s := open(t, o)
	for range 3 {
		add(t, s, frame.Logs, 5, 100)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if n := add(t, s, frame.Logs, 7, 100); n != 4 {
		t.Fatalf("number %d", n)
	}
	if _, err := Open(o); !errors.Is(err, ErrInUse) {
		t.Fatalf("another may open it: %v", err)
	}
	if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 15 || st.Items != 7 {
		t.Fatalf("%+v", st)
	}
	epoch := s.Epoch()
	closeSpool(t, s)
	s = open(t, o)
	if st := laneStats(t, s, logs); s.Epoch() != epoch || st.Lost[frame.Corrupt] != 15 || st.Items != 7 || st.Next != 5 {
		t.Fatalf("after a restart: %+v", st)
	}
	checkIdentity(t, s)
}
