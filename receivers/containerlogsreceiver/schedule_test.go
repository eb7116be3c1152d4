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

// schedulesVariable says how many random schedules to run instead of 60, and
// firstVariable which seed is the first instead of 0.
const (
	waitAll           = 30 * time.Second
	schedulesVariable = "CONTAINERLOGS_TEST_SCHEDULES"
	firstVariable     = "CONTAINERLOGS_TEST_FIRST"
)

// TestEveryLineOnceUnderRandomSchedules writes whole lines, partial ones and
// stack traces, rotates in every way, truncates, deletes, refuses, stops, kills
// and starts, in random order and many times between two looks, also in the
// middle of a record. Every line written arrives: once, and once more at most for
// each copy that holds it and for each kill before its position was saved. Records
// come whole at least once; where logs are copied they may come in pieces. What
// nobody can have read is not asked for: before a log is truncated without a copy
// or deleted, what it holds has arrived or is held open, and if it ends a record
// that began in the log before, that is saved.
func TestEveryLineOnceUnderRandomSchedules(t *testing.T) {
	first, count := numberFrom(t, firstVariable, 0), numberFrom(t, schedulesVariable, 60)
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newSchedule(t, seed).run() })
	}
}

func numberFrom(t *testing.T, variable string, otherwise uint64) uint64 {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	number, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err)
	return number
}

// keepRotated is how many rotated logs are kept once they were read: as many as
// the kubelet does.
const keepRotated = 4

// schedule is one random course of events. By its seed it has kills, or copies,
// or both, or neither; and names rotated logs as the kubelet or as Docker does.
type schedule struct {
	*node
	written
	random        *rand.Rand
	path          string
	writer        *writer
	running       bool
	kills, copies bool
	numbered      bool     // rotated logs are x.1, x.2, …, and all are renamed each time
	unfinished    []func() // what is still to be written of a record
	heldOpen      bool     // a deleted log may hold unread lines

	rotated []rotatedLog // newest first
	events  []event      // told when it fails
}

// rotatedLog is a rotated file: a renamed log or a copy.
type rotatedLog struct {
	path  string
	plain bool // and to be compressed at the next rotation
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{
		node: newNode(t), random: rand.New(rand.NewPCG(seed, 1)),
		kills: seed&1 != 0, copies: seed&2 != 0, numbered: seed&4 != 0,
	}
	s.runs = map[string]run{}
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
	for step := range 80 {
		s.step(step)
	}
	s.drain()
	s.entry("stdout", "end of stdout")
	s.check()
}

func (s *schedule) step(step int) {
	switch s.random.IntN(24) {
	case 0, 1:
		s.rotate(step)
	case 2, 3:
		if s.copies {
			s.copy(step)
		}
	case 4:
		s.drainToLose()
		s.write(step) // into a file that is open
		require.NoError(s.t, os.Remove(s.path))
		s.note("remove")
		s.reopen()
		s.heldOpen = true
	case 5:
		s.drainToLose()
		require.NoError(s.t, os.Truncate(s.path, 0))
		s.note("truncate")
		s.begin()
	case 6:
		s.drain()
		s.deleteRotated(s.random.IntN(1 + len(s.rotated)))
	case 7, 8:
		s.stopOrStart()
	case 9:
		if s.running && s.kills {
			s.killAndStart()
		}
	case 10, 11, 12:
		s.joined(step)
	case 13, 14:
		time.Sleep(time.Duration(s.random.IntN(15)) * time.Millisecond)
	case 15:
		s.finish(1)
	default:
		s.write(step)
	}
}

// entry writes a line that is a record.
func (s *schedule) entry(stream, body string) {
	s.add("", s.line())(body)
	s.writer.write(stream, "F", body)
	s.note("write %s", body)
}

func (s *schedule) write(step int) {
	for i := range 1 + s.random.IntN(40) {
		s.entry("stdout", fmt.Sprintf("step %d line %d", step, i))
	}
}

// joined writes the beginning of a record in parts or of the lines of a trace;
// its end may come after other things have happened.
func (s *schedule) joined(step int) {
	s.finish(len(s.unfinished))
	var texts, tags []string
	between := ""
	if s.random.IntN(2) == 0 {
		for i := range 2 + s.random.IntN(3) {
			texts, tags = append(texts, fmt.Sprintf("<part %d of %d>", i, step)), append(tags, "P")
		}
		tags[len(tags)-1] = "F"
	} else {
		between = "\n"
		for i, text := range strings.Split(javaTrace, "\n") {
			if i == 0 {
				text = fmt.Sprintf("step %d: %s", step, text)
			}
			texts, tags = append(texts, strings.Replace(text, "a.B.", fmt.Sprintf("a.B%d.", step), 1)), append(tags, "F")
		}
		texts[3] += fmt.Sprint(" in ", step)
	}
	var numbers []int
	for i := range texts {
		s.unfinished = append(s.unfinished, func() {
			numbers = append(numbers, s.line())
			s.continues = s.continues || s.file[0] > numbers[0]
			s.writer.write("stderr", tags[i], texts[i])
			s.note("write stderr %s %q", tags[i], texts[i])
			if i == len(texts)-1 {
				s.add(between, numbers...)(texts...)
			}
		})
	}
	s.finish(s.random.IntN(len(texts) + 1))
}

// finish writes what is missing of a record, or a part of it.
func (s *schedule) finish(lines int) {
	for ; lines > 0 && len(s.unfinished) > 0; lines-- {
		s.unfinished[0]()
		s.unfinished = s.unfinished[1:]
	}
}

// rotate renames the log, and the runtime opens a new one, maybe not at once.
func (s *schedule) rotate(step int) {
	s.rename(step)
	if s.random.IntN(3) == 0 {
		s.write(1000 + step)
	}
	s.reopen()
}

// rename renames the log, and compresses what was renamed before, as the kubelet
// does.
func (s *schedule) rename(step int) {
	s.note("rename")
	s.compress()
	require.NoError(s.t, os.Rename(s.path, s.nextName(step)))
}

// copy copies the log and truncates it, as logrotate does with copytruncate.
func (s *schedule) copy(step int) {
	s.note("copy")
	s.compress()
	copyTruncate(s.t, s.path, s.nextName(step))
	s.copied()
}

func (s *schedule) reopen() {
	s.note("reopen")
	s.writer.reopen()
	s.begin()
}

// nextName makes room for one more rotated log and names it.
func (s *schedule) nextName(step int) string {
	name := fmt.Sprintf("%s.20261124-%06d", s.path, step)
	if s.numbered {
		for i := range slices.Backward(s.rotated) {
			old := &s.rotated[i]
			path := fmt.Sprintf("%s.%d", s.path, i+2)
			if strings.HasSuffix(old.path, gzipSuffix) {
				path += gzipSuffix
			}
			require.NoError(s.t, os.Rename(old.path, path))
			old.path = path
		}
		name = s.path + ".1"
	}
	s.rotated = slices.Insert(s.rotated, 0, rotatedLog{name, s.random.IntN(2) == 0})
	return name
}

func (s *schedule) compress() {
	for i := range s.rotated {
		if old := &s.rotated[i]; old.plain {
			compress(s.t, old.path)
			s.note("compress %s", old.path)
			old.path, old.plain = old.path+gzipSuffix, false
		}
	}
}

// deleteRotated deletes the oldest rotated logs, whose lines have arrived; their
// inodes are free for what comes next.
func (s *schedule) deleteRotated(keep int) {
	for len(s.rotated) > keep {
		last := len(s.rotated) - 1
		s.note("remove %s", s.rotated[last].path)
		require.NoError(s.t, os.Remove(s.rotated[last].path))
		s.rotated = s.rotated[:last]
	}
}

// drain waits until everything has arrived: what follows would lose lines that
// nobody can have read.
func (s *schedule) drain() {
	if !s.running {
		s.start()
		s.running = true
	}
	s.finish(len(s.unfinished))
	s.entry("stderr", fmt.Sprint("drained ", len(s.lines))) // so that no trace is held
	s.await()
	s.heldOpen = false
	s.deleteRotated(keepRotated)
	s.note("drained")
}

func (s *schedule) start() {
	if s.logs != nil {
		for _, entry := range s.logs.All() {
			if !strings.Contains(entry.Message, "the pipeline") {
				s.events = append(s.events, event{entry.Time, fmt.Sprint("    ", entry.Message, " ", entry.ContextMap())})
			}
		}
	}
	s.note("start")
	s.node.start()
	s.note("started")
}

func (s *schedule) stop() {
	s.note("stop")
	s.node.stop()
	s.note("stopped")
}

// drainToLose waits also until positions are saved if a kill would make what is
// about to be lost seem to be missing from a record.
func (s *schedule) drainToLose() {
	s.drain()
	if s.kills && s.continues {
		s.waitSaved()
		s.allSaved()
	}
}

func (s *schedule) stopOrStart() {
	switch {
	case !s.running:
		s.start()
	case s.heldOpen:
		s.drain()
		fallthrough
	default:
		s.stop()
	}
	s.running = !s.running
}

// killAndStart kills the receiver, sometimes when all it read is saved.
func (s *schedule) killAndStart() {
	if s.heldOpen {
		s.drain()
	}
	if s.random.IntN(3) == 0 {
		s.drain()
		s.waitSaved()
		s.allSaved()
	}
	s.killed()
	s.kill()
	s.start()
}

// kill ends the receiver as a kill would: nothing is accepted after it, and no
// position saved.
func (s *schedule) kill() {
	s.note("kill")
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

// waitSaved waits until the log counts as read to its end, and so everything
// before it.
func (s *schedule) waitSaved() {
	s.t.Helper()
	info, err := os.Stat(s.path)
	require.NoError(s.t, err)
	id, _ := idOf(info)
	require.Eventually(s.t, func() bool {
		table, _, err := loadPositions(s.config.PositionFile)
		require.NoError(s.t, err)
		entry := table.table[id] // which may speak of an earlier text
		return entry.Offset == info.Size() && entry.FingerprintBytes > 0 && s.beginsAs(entry.fingerprint())
	}, 30*time.Second, 2*time.Millisecond)
}

func (s *schedule) beginsAs(known fingerprint) bool {
	log, err := os.Open(s.path)
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, log.Close()) }()
	_, same, err := takeFingerprint(log, known, 0, &[fingerprintMaxBytes]byte{})
	require.NoError(s.t, err)
	return same
}

func (s *schedule) await() {
	s.t.Helper()
	deadline := time.Now().Add(waitAll)
	for {
		arrived := s.arrivals(s.sink.records())
		missing := arrived.missing()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.fail(fmt.Sprintf("%d lines are lost, from %.60q to %.60q; strange: %q", len(missing), s.body(missing[0]), s.body(missing[len(missing)-1]), arrived.strange))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *schedule) check() {
	s.t.Helper()
	s.await()
	time.Sleep(30 * time.Millisecond) // what comes too much comes now
	arrived := s.arrivals(s.sink.records())
	if wrong := s.tooMuch(&arrived, s.copies); len(wrong) > 0 {
		s.fail(fmt.Sprintf("%d wrong, such as\n%s", len(wrong), strings.Join(wrong[:min(10, len(wrong))], "\n")))
	}
}

// note tells of an event when the schedule fails.
func (s *schedule) note(format string, arguments ...any) {
	s.events = append(s.events, event{time.Now(), fmt.Sprintf(format, arguments...)})
}

func (s *schedule) fail(why string) {
	s.t.Helper()
	s.t.Error(why)
	for _, entry := range s.logs.All() {
		if !strings.Contains(entry.Message, "the pipeline") {
			s.events = append(s.events, event{entry.Time, fmt.Sprint("    ", entry.Message, " ", entry.ContextMap())})
		}
	}
	slices.SortStableFunc(s.events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range s.events {
		s.t.Log(e.at.Format("05.000000"), strings.ReplaceAll(e.what, filepath.Dir(s.path), ""))
	}
	found, _ := filepath.Glob(s.path + "*")
	for _, path := range found {
		text, _ := os.ReadFile(path)
		s.t.Log(filepath.Base(path), len(text))
	}
	s.t.FailNow()
}

type event struct {
	at   time.Time
	what string
}
