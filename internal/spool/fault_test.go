package spool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

func openMem(t *testing.T, disk *memFS, maxBytes, segmentBytes int64) *Spool {
	t.Helper()
	return open(t, Options{Dir: "/spool", MaxBytes: maxBytes, SegmentBytes: segmentBytes, fs: disk})
}

func tryAdd(s *Spool, i, size int) error {
	_, err := s.Append(context.Background(), frame.Header{Signal: frame.Logs, Items: 1}, body(i, size))
	return err
}

func TestFailedFsyncIsNotDurableAndNotRead(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 1<<20)
	add(t, s, frame.Logs, 1, 100)
	var failing atomic.Bool
	disk.mu.Lock()
	disk.refuse = func(op, path string) error {
		if op == "sync" && isSegment(path) && failing.Load() {
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	failing.Store(true)
	if err := tryAdd(s, 2, 100); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "not made durable") {
		t.Fatalf("append with a failing fsync: %v", err)
	}
	if got := numbers(readAll(t, s, logs, 0, 0)); len(got) != 1 {
		t.Fatalf("read %v", got)
	}
	failing.Store(false)
	if n := add(t, s, frame.Logs, 3, 100); n != 2 {
		t.Fatalf("number %d", n)
	}
	if files := segmentFiles(t, disk); len(files) != 2 {
		t.Fatalf("went on in the segment whose fsync failed: %v", files)
	}
	closeSpool(t, s)
	s = openMem(t, disk, 1<<20, 1<<20)
	got := readAll(t, s, logs, 0, 0)
	if len(got) != 2 || got[1].Header.Items != 3 || lostItems(s) != 0 {
		t.Fatalf("after a restart: %v, lost %d", numbers(got), lostItems(s))
	}
}

func segmentFiles(t *testing.T, disk *memFS) (names []string) {
	t.Helper()
	entries, err := disk.ReadDir("/spool/logs-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if isSegment(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names
}

func TestFullDiskRefusesThenRecovers(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 1<<20)
	for i := 1; i <= 3; i++ {
		add(t, s, frame.Logs, i, 1000)
	}
	disk.mu.Lock()
	disk.space = disk.used() + 300
	disk.refuse = func(op, path string) error {
		if op == "open" && strings.HasSuffix(path, "00004.seg") {
			return syscall.ENOSPC // no inode either
		}
		return nil
	}
	disk.mu.Unlock()
	err := tryAdd(s, 4, 1000)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("append on a full disk: %v", err)
	}
	if got := readAll(t, s, logs, 0, 0); len(got) != 3 {
		t.Fatalf("read %v", numbers(got))
	}
	disk.mu.Lock()
	disk.space, disk.refuse = 0, nil
	disk.mu.Unlock()
	if n := add(t, s, frame.Logs, 5, 1000); n != 4 {
		t.Fatalf("number %d", n)
	}
	if got := readAll(t, s, logs, 0, 0); len(got) != 4 || got[3].Header.Items != 5 || lostItems(s) != 0 {
		t.Fatalf("read %v, lost %d", numbers(got), lostItems(s))
	}
}

func TestFullDiskEvictsTheOldestAndNamesIt(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 4000)
	disk.mu.Lock()
	disk.space = disk.used() + 20000
	disk.mu.Unlock()
	for i := 1; i <= 100; i++ {
		if err := tryAdd(s, i, 1000); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	st := laneStats(t, s, logs)
	if st.Lost[frame.EvictedSpace] == 0 || uint64(st.Items)+st.Lost[frame.EvictedSpace] != 100 || st.Next != 101 {
		t.Fatalf("%+v", st)
	}
	if got := readAll(t, s, logs, 0, 0); got[0].Number != st.Floor || got[len(got)-1].Number != 100 {
		t.Fatalf("floor %d, read %v", st.Floor, numbers(got))
	}
}

func TestQuotaEvictsBySignalBeyondItsShare(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 8 << 10})
	for range 10 {
		add(t, s, frame.Traces, 2, 1000)
	}
	for i := 1; i <= 200; i++ {
		add(t, s, frame.Logs, 1, 1000)
		if b := s.Stats().Bytes; b > 64<<10 {
			t.Fatalf("spool of %d bytes after append %d", b, i)
		}
	}
	// A segment of traces, which were beyond 15 %, and from then on logs alone.
	traces, l := laneStats(t, s, frame.Lane{Signal: frame.Traces, Seq: 1}), laneStats(t, s, logs)
	if traces.Lost[frame.EvictedSpace] != 14 || traces.Frames != 3 || traces.Next != 11 || traces.Floor != 8 {
		t.Fatalf("traces: %+v", traces)
	}
	if l.Lost[frame.EvictedSpace]+uint64(l.Items) != 200 || l.Items < 40 {
		t.Fatalf("logs: %+v", l)
	}
	last := readAll(t, s, logs, 199, 0)
	if h := last[len(last)-1].Header; h.Lost[frame.EvictedSpace] != l.Lost[frame.EvictedSpace] || h.Floor != l.Floor {
		t.Fatalf("the newest frame says %+v, the spool %+v", h, l)
	}
	if n := add(t, s, frame.Traces, 1, 10); n != 11 {
		t.Fatalf("traces go on with %d", n)
	}
	checkIdentity(t, s)
}

func TestTooLargeIsRefusedForGood(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10})
	if err := tryAdd(s, 1, 64<<10); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	s.Lose(frame.Logs, frame.TooLarge, 7)
	add(t, s, frame.Logs, 1, 40<<10) // larger than a segment, smaller than the spool
	add(t, s, frame.Logs, 1, 10)
	if st := laneStats(t, s, logs); st.Lost[frame.TooLarge] != 7 || st.ItemsIn != 9 {
		t.Fatalf("%+v", st)
	}
	if got := readAll(t, s, logs, 0, 100); len(got) != 2 {
		t.Fatal(numbers(got))
	}
	checkIdentity(t, s)
}

func TestOpenSaysClearlyWhyNot(t *testing.T) {
	held := t.TempDir()
	open(t, Options{Dir: held})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refusing := func(err error) *memFS {
		disk := newMemFS(1)
		disk.refuse = func(op, path string) error {
			if op == "mkdir" || op == "open" {
				return err
			}
			return nil
		}
		return disk
	}
	newer := t.TempDir()
	id := identityFile{Format: identityFormat, Version: layoutVersion + 1, Epoch: frame.NewEpoch().String()}
	id.Check = id.check()
	text := `{"version":` + strconv.Itoa(id.Version) + `,"epoch":"` + id.Epoch + `","check":"` + id.Check + `"}`
	if err := os.WriteFile(filepath.Join(newer, identityName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options Options
		want    []string
	}{
		"in use":          {Options{Dir: held}, []string{held, "pid " + strconv.Itoa(os.Getpid()), "stop that process"}},
		"a file":          {Options{Dir: file}, []string{file, "is a file", "name a directory"}},
		"below a file":    {Options{Dir: filepath.Join(file, "spool")}, []string{"is a file"}},
		"not writable":    {Options{Dir: "/spool", fs: refusing(syscall.EACCES)}, []string{"may not write", "uid"}},
		"read-only":       {Options{Dir: "/spool", fs: refusing(syscall.EROFS)}, []string{"read-only", "mount it writable"}},
		"full":            {Options{Dir: "/spool", fs: refusing(syscall.ENOSPC)}, []string{"disk is full", "make room"}},
		"broken":          {Options{Dir: "/spool", fs: refusing(syscall.EIO)}, []string{"cannot be used", "check the volume"}},
		"newer":           {Options{Dir: newer}, []string{"newer longhaul"}},
		"no directory":    {Options{}, []string{"directory: must be set"}},
		"several options": {Options{Dir: held, MaxBytes: 1, CommitDelay: -1}, []string{"max_bytes", "commit delay"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(c.options)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestLockIsFreeAfterClose(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	closeSpool(t, open(t, o))
	open(t, o)
}

func TestDeletedFilesAndDirectoryAreNamedAndSurvived(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, SegmentBytes: 4000})
	for range 10 {
		add(t, s, frame.Logs, 2, 1000)
	}
	if err := os.RemoveAll(filepath.Join(dir, "logs-1")); err != nil {
		t.Fatal(err)
	}
	if n := add(t, s, frame.Logs, 5, 1000); n != 11 {
		t.Fatalf("number %d", n)
	}
	got := readAll(t, s, logs, 0, 0)
	if len(got) != 1 || got[0].Number != 11 {
		t.Fatalf("read %v", numbers(got))
	}
	if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 20 || st.Items != 5 {
		t.Fatalf("%+v", st)
	}
	checkIdentity(t, s)
	closeSpool(t, s)
	s = open(t, Options{Dir: dir, SegmentBytes: 4000})
	if st := laneStats(t, s, logs); st.Lost[frame.Corrupt] != 20 || st.Items != 5 || st.Next != 12 {
		t.Fatalf("after a restart: %+v", st)
	}
}

func TestReadsGoOnAfterTheDiskDoes(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 1<<20)
	for i := 1; i <= 3; i++ {
		add(t, s, frame.Logs, i, 100)
	}
	disk.mu.Lock()
	disk.refuse = func(op, path string) error {
		if op == "read" && isSegment(path) {
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	for range maxFailing - 1 {
		if _, err := s.Read(logs, 0, 100); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	disk.mu.Lock()
	disk.refuse = nil
	disk.mu.Unlock()
	if got := readAll(t, s, logs, 0, 100); len(got) != 3 || lostItems(s) != 0 {
		t.Fatalf("read %v, lost %d", numbers(got), lostItems(s))
	}
}

func TestConfirmedDataGoesBeforeUnconfirmed(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 32 << 10})
	traces := frame.Lane{Signal: frame.Traces, Seq: 1}
	add(t, s, frame.Logs, 5, 20<<10)
	add(t, s, frame.Traces, 1, 20<<10)
	s.Confirm(traces, 1)
	add(t, s, frame.Metrics, 1, 30<<10)
	if st := laneStats(t, s, logs); st.Items != 5 || lostItems(s) != 0 {
		t.Fatalf("%+v, lost %d", st, lostItems(s))
	}
	if n := add(t, s, frame.Traces, 1, 10); n != 2 {
		t.Fatalf("number %d", n)
	}
}

// A context that ends while the frame waits withdraws it; the caller's payload
// is its own again.
func TestAppendGivesUpWithItsContext(t *testing.T) {
	disk := newMemFS(1)
	s := openMem(t, disk, 1<<20, 1<<20)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	s.OnFsync(func(time.Duration) {
		if once.CompareAndSwap(false, true) {
			close(blocked)
			<-release
		}
	})
	first := make(chan error)
	go func() { first <- tryAdd(s, 1, 10) }()
	<-blocked
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error)
	go func() {
		_, err := s.Append(ctx, frame.Header{Signal: frame.Logs, Items: 1}, body(2, 10))
		second <- err
	}()
	for {
		if bytes, _ := s.queue.size(); bytes > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	add(t, s, frame.Logs, 3, 10)
	if got := readAll(t, s, logs, 0, 0); len(got) != 2 || got[1].Header.Items != 3 {
		t.Fatalf("read %v", numbers(got))
	}
}
