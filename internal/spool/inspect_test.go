package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
)

// found is what an examination of all lanes came upon.
type found struct {
	numbers []uint64 // of logs/1, not settled
	damages []string
	notes   []string
	report  LaneReport // of logs/1
}

func examine(t testing.TB, dir string, payloads bool) found {
	t.Helper()
	in, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	var f found
	for _, d := range in.Damage {
		f.damages = append(f.damages, d.String())
	}
	for _, id := range in.Lanes() {
		report, err := in.Examine(id, Examination{
			Payloads: payloads,
			Frame: func(at *FoundFrame) error {
				if payloads && string(at.Payload) != string(body(int(at.Header.Items), int(at.Header.Uncompressed))) {
					return fmt.Errorf("frame %d of %s is not what was written", at.Header.Number, id)
				}
				if id == logs && !at.Settled {
					f.numbers = append(f.numbers, at.Header.Number)
				}
				return nil
			},
			Damage: func(d Damage) { f.damages = append(f.damages, d.String()) },
			Note:   func(file, text string) { f.notes = append(f.notes, file+": "+text) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if id == logs {
			f.report = report
		}
	}
	return f
}

func TestExamineAgreesWithAnOpenSpool(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: 64 << 10, SegmentBytes: 4 << 10}
	s := open(t, o)
	for i := 1; i <= 400; i++ {
		add(t, s, frame.Logs, i, 300)
	}
	s.Confirm(logs, 333)
	for _, payloads := range []bool{false, true} {
		got, want := examine(t, o.Dir, payloads), laneStats(t, s, logs)
		r := got.report
		if r.Floor != want.Floor || r.Next != want.Next || r.Confirmed != want.Confirmed || r.Lost != want.Lost ||
			r.Held != (Counts{want.Frames, uint64(want.Items), want.Bytes}) || len(got.damages) > 0 {
			t.Fatalf("examined %+v, damage %v\nopen %+v", r, got.damages, want)
		}
	}
}

// Whatever is broken: what Examine calls intact is what a start then gives to
// the shipper, and where something is lost Examine said so. A start walks old
// segments by their headers, so it may give up an intact frame whose beginning
// a broken one claims; Examine, which checks every byte, sees it until then.
func TestExamineForetellsRecovery(t *testing.T) {
	whole := t.TempDir()
	o := Options{Dir: whole, MaxBytes: 1 << 20, SegmentBytes: 3 << 10}
	s := open(t, o)
	for i := 1; i <= 60; i++ {
		add(t, s, frame.Logs, i, 20+i*7)
	}
	s.Confirm(logs, 17)
	closeSpool(t, s)
	var files []string
	for _, pattern := range []string{"spool.json", "lanes.json", "logs-1/*"} {
		matches, _ := filepath.Glob(filepath.Join(whole, pattern))
		files = append(files, matches...)
	}
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		done := ""
		for range 1 + random.IntN(3) {
			name, _ := filepath.Rel(whole, files[random.IntN(len(files))])
			done += breakFile(t, random, filepath.Join(dir, name))
		}
		before := tree(t, dir)
		_, got := examine(t, dir, false), examine(t, dir, true)
		if tree(t, dir) != before {
			t.Fatalf("seed %d: looking changed the spool", seed)
		}
		o.Dir = dir
		s := open(t, o)
		read := numbers(readAll(t, s, logs, 0, 0))
		expected := slices.DeleteFunc(slices.Clone(got.numbers), func(n uint64) bool {
			return !slices.Contains(read, n) && contains(s.lanes[logs].damaged, n) && !slices.Contains(read, n-1)
		})
		if !slices.Equal(read, expected) {
			t.Fatalf("seed %d: %s\nexamined %v\nread     %v\ndamage %v", seed, done, got.numbers, read, got.damages)
		}
		if lost := sum(laneStats(t, s, logs).Lost); lost > 0 && len(got.damages) == 0 {
			t.Fatalf("seed %d: %s\n%d items lost, no damage seen", seed, done, lost)
		}
		closeSpool(t, s)
	}
}

func breakFile(t *testing.T, random *rand.Rand, path string) string {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || len(b) == 0 {
		return ""
	}
	at := random.IntN(len(b))
	what := ""
	switch random.IntN(5) {
	case 0:
		what, b = "cut", b[:at]
	case 1:
		what, b = "insert", slices.Insert(b, at, []byte("LHF1 something")...)
	case 2:
		what, b = "remove", slices.Delete(b, at, min(len(b), at+1+random.IntN(300)))
	case 3:
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return " delete " + filepath.Base(path)
	default:
		what = "flip"
		b[at] ^= byte(1 + random.IntN(255))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(" %s %s at %d", what, filepath.Base(path), at)
}

// tree describes names, sizes and times of everything below dir.
func tree(t *testing.T, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A spool that is written, confirmed and evicted from while it is looked at
// shows no damage.
func TestExamineSeesNoDamageInALiveSpool(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: 256 << 10, SegmentBytes: 16 << 10}
	s := open(t, o)
	add(t, s, frame.Logs, 1, 100)
	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for i := 1; ctx.Err() == nil; i = i%3000 + 1 {
				h := frame.Header{Signal: frame.Logs, Codec: frame.OTLPZstd, Items: uint32(i), Uncompressed: uint32(i)}
				n, err := s.Append(context.Background(), h, body(i, i))
				if err != nil {
					t.Error(err)
					return
				}
				if i%50 == 0 && n > 100 {
					s.Confirm(logs, n-100)
				}
			}
		})
	}
	for range 40 {
		for _, payloads := range []bool{false, true} {
			if got := examine(t, o.Dir, payloads); len(got.damages) > 0 {
				t.Errorf("damage in a live spool: %v", got.damages)
			}
		}
	}
	in, err := Inspect(o.Dir)
	if err != nil || !in.InUse && fileExists("/proc/locks") || in.PID != os.Getpid() && in.InUse {
		t.Errorf("holder: %+v, %v", in, err)
	}
	stop()
	writers.Wait()
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A lane that is confirmed to its end between being listed and looked at.
func TestALaneRetiredMeanwhileIsNoDamage(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := open(t, o)
	for i := 1; i <= 5; i++ {
		add(t, s, frame.Logs, i, 500)
	}
	seal(t, s, frame.Logs)
	in, err := Inspect(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Confirm(logs, 5)
	if !s.Retire(logs) {
		t.Fatal("the lane was not retired")
	}
	if _, err := in.Examine(logs, Examination{Damage: func(d Damage) { t.Errorf("damage: %s", &d) }}); err != nil {
		t.Fatal(err)
	}
}

func TestInspectionCannotWrite(t *testing.T) {
	var fsys fileSystem = readOnlyFS{}
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	_, lockErr := fsys.Lock(path)
	_, createErr := fsys.OpenFile(path, os.O_CREATE|os.O_RDWR)
	for what, err := range map[string]error{
		"mkdir": fsys.MkdirAll(path), "rename": fsys.Rename(dir, path), "remove": fsys.Remove(dir),
		"sync": fsys.SyncDir(dir), "lock": lockErr, "create": createErr,
	} {
		if err == nil {
			t.Errorf("%s works", what)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Fatalf("%v, %v", entries, err)
	}
}
