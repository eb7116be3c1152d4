package containers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

var began = time.Now()

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "containers %4.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// What the containers print. A line has 100 bytes, one in 40 has 40 KiB.
const (
	steadyLines = 6000
	steadyRate  = 250
	shortLines  = 300
)

// repeatBound is what may be delivered twice after one kill -9, by the
// receiver's package comment: four batches of 512 KiB that were in flight, and
// what was confirmed while the positions were being saved. 250 lines/s of 1.1 KB
// in four containers leave room for more than five seconds of a slow disk.
const repeatBound = 4*512<<10 + 10<<20

// scene is the test's node, collector and containers.
type scene struct {
	t         *testing.T
	node      *node
	collector *lab.Collector
	longhaul  string
	started   map[string]*container
}

func TestEveryLineOfRealContainersOnce(t *testing.T) {
	s := newScene(t)
	steady := s.steady()

	crash := s.node.runPod("crash")
	s.restarts(crash)
	s.deleted("gone")
	s.until(steady, rotated(2))

	say("kill -9 of the collector, and what happens while it is away")
	require.NoError(t, s.collector.Kill())
	for _, c := range steady {
		require.NoError(t, c.rotate())
	}
	s.run(crash.start("short", 0, shortLines, 1000)).exited()
	s.until(steady, written(64<<10))
	require.NoError(t, s.collector.Start(t.Context()))

	s.stopped("stopped")
	s.deleted("gone-after-the-kill")
	s.until(steady, (*container).ended)
	s.check()
}

func newScene(t *testing.T) *scene {
	dir := testDir(t)
	bin := os.Getenv("CONTAINERS_BINARIES")
	if bin == "" {
		t.Skip("CONTAINERS_BINARIES names no directory of longhaul-collector and longhaul: use make test-containers")
	}
	// Nothing listens at the hub's address: everything stays in the spool, where
	// this test reads it.
	port, err := lab.FreePort()
	require.NoError(t, err)
	collector, err := lab.NewCollector(lab.CollectorOptions{
		Binary: filepath.Join(bin, "longhaul-collector"), Dir: dir, Cluster: "store-0001", Node: "node-a",
		NATSURL: fmt.Sprintf("nats://127.0.0.1:%d", port),
	})
	require.NoError(t, err)
	s := &scene{t: t, collector: collector, longhaul: filepath.Join(bin, "longhaul"), started: map[string]*container{}}
	s.node = startNode(t, dir, collector.PodLogsDir)
	say("containerd runs")
	start(t, collector.Process)
	return s
}

// run remembers a container whose lines have to be found.
func (s *scene) run(c *container) *container {
	s.started[c.lines] = c
	return c
}

// steady starts containers that print all the time, two of them in one pod.
func (s *scene) steady() []*container {
	till, oven := s.node.runPod("till"), s.node.runPod("oven")
	return []*container{
		s.run(till.start("app", 0, steadyLines, steadyRate)),
		s.run(till.start("sidecar", 0, steadyLines, steadyRate)),
		s.run(oven.start("app", 0, steadyLines, steadyRate)),
	}
}

// restarts runs a container that ends again and again; the logs of all attempts
// but the last two are removed, as the kubelet does.
func (s *scene) restarts(p *pod) {
	var before *container
	for attempt := range 4 {
		c := s.run(p.start("app", attempt, 20+attempt, 1000))
		c.exited()
		if before != nil {
			s.opened(before)
			before.remove()
		}
		before = c
	}
	say("a container was restarted three times")
}

// deleted runs a pod that is removed with its logs as soon as its container has
// ended. What the collector has not read by then it has to read from the file it
// holds open.
func (s *scene) deleted(name string) {
	p := s.node.runPod(name)
	c := s.run(p.start("app", 0, shortLines, 400))
	s.opened(c)
	c.exited()
	p.remove()
	say("pod %s was removed with its logs", name)
}

// stopped stops a container in the middle of its work.
func (s *scene) stopped(name string) {
	c := s.run(s.node.runPod(name).start("app", 0, steadyLines, steadyRate))
	s.until([]*container{c}, written(64<<10))
	c.stop()
	say("a container was stopped")
}

// opened waits until the collector has the container's log open, or has had it:
// a file that is deleted before anyone saw it cannot be read by anyone.
func (s *scene) opened(c *container) {
	s.t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd", s.collector.PID())
	eventually(s.t, time.Minute, func() error {
		if saved, err := os.ReadFile(filepath.Join(s.collector.SpoolDir, "positions.json")); err == nil && strings.Contains(string(saved), `"`+c.logPath()+`"`) {
			return nil
		}
		entries, err := os.ReadDir(fds)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if target, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && target == c.logPath() {
				return nil
			}
		}
		return fmt.Errorf("the collector has not opened %s", c.logPath())
	})
}

// until rotates the logs of containers as they grow, until done with all of them.
func (s *scene) until(all []*container, done func(*container) bool) {
	s.t.Helper()
	eventually(s.t, 5*time.Minute, func() error {
		var waiting error
		for _, c := range all {
			require.NoError(s.t, c.rotateIfLarge())
			if !done(c) {
				waiting = fmt.Errorf("container %s is not there yet", c.lines)
			}
		}
		return waiting
	})
}

// Conditions on containers; one that has ended will get no further.

func rotated(times int) func(*container) bool {
	return func(c *container) bool { return c.rotation >= times || c.ended() }
}

func written(bytes int64) func(*container) bool {
	return func(c *container) bool {
		info, err := os.Stat(c.logPath())
		return err == nil && info.Size() >= bytes || c.ended()
	}
}

// check waits until every line is in the spool, and looks at it once more when
// the collector has ended.
func (s *scene) check() {
	t := s.t
	say("waiting until every line is found")
	eventuallyEvery(t, time.Second, 2*time.Minute, func() error {
		return readSpool(t, s.longhaul, s.collector.SpoolDir, s.started).missing(s.started)
	})
	require.NoError(t, s.collector.Stop())
	a := readSpool(t, s.longhaul, s.collector.SpoolDir, s.started)
	require.NoError(t, a.missing(s.started))
	lines, bytes, most := a.repeats()
	rotations := 0
	for _, c := range s.started {
		rotations += c.rotation
	}
	say("%d records of %d containers, %d rotations: every line was found; %d lines (%d bytes) twice after the kill", a.records, len(s.started), rotations, lines, bytes)
	require.LessOrEqual(t, most, 2, "a line was delivered more than twice after one kill")
	require.LessOrEqual(t, bytes, repeatBound, "bytes delivered again after one kill")
}

func testDir(t *testing.T) string {
	t.Helper()
	if keep := os.Getenv("CONTAINERS_KEEP"); keep != "" {
		dir := filepath.Join(keep, t.Name())
		require.NoError(t, os.MkdirAll(dir, 0o755))
		return dir
	}
	// Not t.TempDir: its names are too long for a socket's path.
	dir, err := os.MkdirTemp("", "longhaul-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// Only what is still mounted can fail, and that must not be entered.
		if mounted, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounted), " "+dir+"/") {
			t.Errorf("%s stays: something is still mounted in it", dir)
			return
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func start(t *testing.T, p *lab.Process) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of %s:\n%s", p.LogFile(), p.LogTail(6000))
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, p.Start(t.Context()))
}

// eventually calls check every 100 ms until it returns nil, and fails after limit.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	eventuallyEvery(t, 100*time.Millisecond, limit, check)
}

func eventuallyEvery(t *testing.T, interval, limit time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not after %v: %v", limit, err)
		case <-time.After(interval):
		}
	}
}
