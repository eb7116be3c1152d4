package containerlogsreceiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
)

// schedulesVariable says how many random schedules to run instead of 60.
const schedulesVariable = "CONTAINERLOGS_TEST_SCHEDULES"

// TestEveryLineOnceUnderRandomSchedules writes whole and partial lines and stack
// traces, rotates in every way, truncates, refuses, stops, kills and starts, in
// random order and many times between two looks. The lines delivered are the
// lines written, each once; a kill may repeat lines, and so may a rotation by
// copying, which may also tear a record that is being joined.
func TestEveryLineOnceUnderRandomSchedules(t *testing.T) {
	count := uint64(60)
	if text := os.Getenv(schedulesVariable); text != "" {
		var err error
		count, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	for seed := range count {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newSchedule(t, seed).run() })
	}
}

// schedule is one random course of events. By its seed it has kills, or copies,
// or both, or neither.
type schedule struct {
	*node
	random        *rand.Rand
	path          string
	writer        *writer
	want          []string
	running       bool
	kills, copies bool
	repeats       int // how often a line may come too much

	plain []string // rotated files that are not compressed
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{node: newNode(t), random: rand.New(rand.NewPCG(seed, 1)), kills: seed%4&1 != 0, copies: seed%4&2 != 0}
	s.config.Multiline.Wait = time.Minute
	s.config.Batch.MaxLines = 1 + s.random.IntN(50)
	s.accept()
	s.path = s.log("api")
	s.writer = newWriter(t, s.path)
	return s
}

func (s *schedule) accept() {
	s.sink.setRefuse(func(plog.Logs) error {
		if rand.IntN(4) == 0 {
			return errRefused
		}
		return nil
	})
}

func (s *schedule) run() {
	s.start()
	s.running = true
	for step := range 60 {
		s.step(step)
	}
	if !s.running {
		s.start()
	}
	s.writer.line("end of stdout")
	s.writer.write("stderr", "F", "end of stderr")
	s.want = append(s.want, "end of stdout", "end of stderr")
	s.check()
}

func (s *schedule) step(step int) {
	switch s.random.IntN(20) {
	case 0, 1:
		s.rotate(step)
	case 2:
		if s.copies {
			s.repeats++
			s.drain() // one copy at a time: see the README for what is known of more
			s.write(step)
			copyTruncate(s.t, s.path, fmt.Sprintf("%s.20261124-%06d", s.path, step))
			s.drain()
		}
	case 3:
		s.drain()
		s.write(step) // into a file that is open
		require.NoError(s.t, os.Remove(s.path))
		s.writer.reopen()
		s.drain()
	case 4:
		s.drain()
		require.NoError(s.t, os.Truncate(s.path, 0))
	case 5, 6:
		if s.running {
			s.stop()
		} else {
			s.start()
		}
		s.running = !s.running
	case 7:
		if s.running && s.kills {
			s.repeats++
			s.kill()
			s.start()
		}
	case 8, 9, 10:
		s.write(step)
		if !s.copies { // a copy may tear a record that is being joined
			s.joined(step)
		}
	case 11, 12:
		time.Sleep(time.Duration(s.random.IntN(15)) * time.Millisecond)
	default:
		s.write(step)
	}
}

// joined writes a record in parts or as the lines of a trace.
func (s *schedule) joined(step int) {
	if s.random.IntN(2) == 0 {
		body := fmt.Sprintf("long %d", step)
		s.writer.write("stderr", "P", body)
		s.writer.line(fmt.Sprintf("between %d", step))
		s.writer.write("stderr", "F", " joined")
		s.want = append(s.want, body+" joined", fmt.Sprintf("between %d", step))
		return
	}
	trace := fmt.Sprintf("step %d: %s", step, javaTrace)
	s.writer.trace("stderr", trace)
	s.want = append(s.want, trace)
}

func (s *schedule) write(step int) {
	s.want = append(s.want, s.writer.lines(fmt.Sprint("step ", step), len(s.want), 1+s.random.IntN(40))...)
}

// rotate renames the log, and compresses what was renamed before, as the kubelet
// does.
func (s *schedule) rotate(step int) {
	rotated := fmt.Sprintf("%s.20261124-%06d", s.path, step)
	for _, path := range s.plain {
		compress(s.t, path)
	}
	s.plain = nil
	require.NoError(s.t, os.Rename(s.path, rotated))
	s.writer.reopen()
	if s.random.IntN(2) == 0 {
		s.plain = []string{rotated}
	}
}

// drain waits until everything has arrived: what follows would lose lines that
// nobody can have read.
func (s *schedule) drain() {
	if !s.running {
		s.start()
		s.running = true
	}
	body := fmt.Sprint("drained ", len(s.want)) // unique: a repeat of another must not count
	s.writer.write("stderr", "F", body)         // so that no trace is held
	s.want = append(s.want, body)
	s.await()
}

// kill ends the receiver as a kill would: nothing is accepted after it, and no
// position saved.
func (s *schedule) kill() {
	s.sink.setRefuse(func(plog.Logs) error { return errRefused })
	before, err := os.ReadFile(s.config.PositionFile)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(s.t, err)
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(s.t, s.receiver.Shutdown(now))
	require.NoError(s.t, s.meter.Shutdown(context.Background()))
	require.NoError(s.t, os.WriteFile(s.config.PositionFile, before, 0o600))
	s.accept()
}

// missing counts what has not arrived.
func (s *schedule) missing() (missing []string, counts map[string]int) {
	counts = map[string]int{}
	for _, got := range s.sink.records() {
		counts[got.body]++
	}
	want := map[string]int{}
	for _, body := range s.want {
		want[body]++
	}
	for body, count := range want {
		if counts[body] < count {
			missing = append(missing, body)
		}
	}
	return missing, counts
}

func (s *schedule) await() {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		missing, _ := s.missing()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			slices.Sort(missing)
			s.fail(fmt.Sprintf("%d lines are lost, such as %.60q", len(missing), missing[:min(5, len(missing))]))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *schedule) check() {
	s.t.Helper()
	s.await()
	time.Sleep(30 * time.Millisecond) // what comes too much comes now
	_, counts := s.missing()
	for _, body := range s.want {
		counts[body]--
	}
	for body, more := range counts {
		if more > s.repeats {
			s.fail(fmt.Sprintf("%q came %d times too much, at most %d are allowed", body, more, s.repeats))
		}
		if more > 0 && !slices.Contains(s.want, body) {
			s.fail(fmt.Sprintf("%q was never written", body))
		}
	}
}

func (s *schedule) fail(why string) {
	s.t.Helper()
	s.t.Error(why)
	for _, entry := range s.logs.All() {
		if !strings.Contains(entry.Message, "the pipeline") {
			s.t.Log(entry.Level, entry.Message, entry.ContextMap())
		}
	}
	found, _ := filepath.Glob(s.path + "*")
	s.t.Log(found)
	s.t.FailNow()
}
