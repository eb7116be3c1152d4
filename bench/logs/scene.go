package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

const (
	sceneBurst = "burst"
	sceneDrip  = "drip"

	// idleTime is how long a collector runs without a file before a scene
	// begins, quietTime how long after drip with files that do not grow.
	idleTime  = 10 * time.Second
	quietTime = 30 * time.Second

	pollInterval = 250 * time.Millisecond
	sayInterval  = 15 * time.Second
)

// world is what the scenes share.
type world struct {
	options
	checkout, peerBinary string
}

// figures is what one collector did in one scene.
type figures struct {
	lines, bytes       int64         // in the files
	durable, delivered time.Duration // from the first line's appearance to the last one's arrival
	repeats            int64         // lines delivered beyond those in the files
	cpu                time.Duration // until all lines were delivered
	elapsed            time.Duration // in which cpu was spent
	idle, steady, peak int64         // resident bytes: before, median during, most
	disk, wire         int64         // bytes
	behind             time.Duration // at most, of what was written; drip
	restart            time.Duration // until a line in each file is durable; drip
	still              float64       // cores used while there is no file
	quiet              float64       // cores used while no file grows; drip
}

// pair holds the figures of both; nil was not measured.
type pair struct{ ours, peer *figures }

// burst writes the files once and lets each collector read them in turn.
func (w *world) burst(ctx context.Context) (p pair, err error) {
	c, err := readCorpus(w.checkout)
	if err != nil {
		return p, err
	}
	input := filepath.Join(w.dir, "input")
	say("writing %d lines of %d pods", w.lines, w.pods)
	size, err := writeInput(ctx, c, input, w.lines, w.pods, w.plain)
	if err != nil {
		return p, fmt.Errorf("write the input: %w", err)
	}
	say("%d bytes, %.1f a line", size, float64(size)/float64(w.lines))
	return w.each(ctx, sceneBurst, func(ctx context.Context, m *meter) error {
		m.lines, m.bytes = int64(w.lines), size
		if err := moveAll(input, m.contender.podsDir); err != nil {
			return err
		}
		if err := m.wait(ctx); err != nil {
			return err
		}
		if err := m.end(); err != nil {
			return err
		}
		if err := m.contender.stop(); err != nil {
			return err
		}
		return moveAll(m.contender.podsDir, input)
	})
}

// drip writes to many files while each collector reads them.
func (w *world) drip(ctx context.Context) (p pair, err error) {
	c, err := readCorpus(w.checkout)
	if err != nil {
		return p, err
	}
	return w.each(ctx, sceneDrip, func(ctx context.Context, m *meter) error {
		m.lines = int64(w.files) * int64(w.rate) * int64(w.seconds)
		say("%s: %d lines/s into each of %d files for %d s", m.contender.name, w.rate, w.files, w.seconds)
		var written atomic.Int64
		stop := m.watchBehind(ctx, &written, float64(w.files*w.rate))
		m.bytes, err = writeDrip(ctx, c, m.contender.podsDir, w.options, &written)
		stop()
		if err != nil {
			return fmt.Errorf("write the lines: %w", err)
		}
		if err := m.wait(ctx); err != nil {
			return err
		}
		if err := m.end(); err != nil {
			return err
		}
		if err := m.rest(ctx); err != nil {
			return err
		}
		if err := m.again(ctx, c, w.options); err != nil {
			return fmt.Errorf("start again: %w", err)
		}
		return m.contender.stop()
	})
}

// each plays a scene with one collector after the other.
func (w *world) each(ctx context.Context, scene string, play func(context.Context, *meter) error) (p pair, err error) {
	for _, turn := range []struct {
		name string
		make func(dir string) (*contender, error)
		to   **figures
	}{{"peer", w.peer, &p.peer}, {"ours", w.ours, &p.ours}} {
		if w.only != "" && w.only != turn.name {
			continue
		}
		dir := filepath.Join(w.dir, scene, turn.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return p, err
		}
		c, err := turn.make(dir)
		if err != nil {
			return p, err
		}
		if *turn.to, err = w.measure(ctx, c, play); err != nil {
			return p, fmt.Errorf("%s of %s: %w", scene, c.name, errors.Join(err, c.stop()))
		}
	}
	return p, nil
}

// measure starts a collector, lets it idle, and plays the scene.
func (w *world) measure(ctx context.Context, c *contender, play func(context.Context, *meter) error) (*figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, w.limit, fmt.Errorf("not done after %v (-limit)", w.limit))
	defer cancel()
	say("%s starts", c.name)
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	m := &meter{contender: c}
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	if err := play(ctx, m); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	return &m.figures, nil
}

// meter measures one scene of one collector.
type meter struct {
	figures
	contender  *contender
	pid        int
	base       lab.Usage
	baseWire   int64
	start      time.Time
	stopSample func() int64
}

// begin lets the collector idle and notes where its counters stand.
func (m *meter) begin(ctx context.Context) (err error) {
	m.pid = m.contender.collector.PID()
	sample := lab.WatchResident(ctx, m.pid)
	m.still, err = m.cores(ctx, idleTime)
	m.idle = sample()
	if err != nil {
		return err
	}
	if m.base, err = lab.UsageOf(m.pid); err != nil {
		return err
	}
	m.baseWire = m.contender.sentBytes()
	m.start = time.Now()
	m.stopSample = lab.WatchResident(ctx, m.pid)
	return nil
}

// wait waits until every line is durable and delivered.
func (m *meter) wait(ctx context.Context) error {
	said := time.Now()
	for {
		if !m.contender.collector.Running() {
			return errors.New("the collector has ended; see its log with -keep")
		}
		durable, err := m.contender.durable(ctx)
		if err != nil {
			return err
		}
		delivered, err := m.contender.delivered(ctx)
		if err != nil {
			return err
		}
		if m.durable == 0 && durable >= m.lines {
			m.durable = time.Since(m.start)
		}
		if m.durable != 0 && delivered >= m.lines {
			m.delivered, m.repeats = time.Since(m.start), delivered-m.lines
			return nil
		}
		if time.Since(said) >= sayInterval {
			said = time.Now()
			say("%s: %d of %d lines durable, %d delivered", m.contender.name, durable, m.lines, delivered)
		}
		if err := lab.Pause(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// end notes what was used.
func (m *meter) end() error {
	m.steady = m.stopSample()
	u, err := lab.UsageOf(m.pid)
	if err != nil {
		return err
	}
	m.elapsed = time.Since(m.start)
	m.cpu, m.disk, m.peak = u.CPU-m.base.CPU, u.DiskBytes-m.base.DiskBytes, u.MaxResident
	m.wire = m.contender.sentBytes() - m.baseWire
	say("%s: %.2f CPU s per million lines", m.contender.name, m.cpuPerMillion())
	return nil
}

// watchBehind notes how far the collector is behind the writer at most, as the
// time in which so many lines are written, until stop is called.
func (m *meter) watchBehind(ctx context.Context, written *atomic.Int64, perSecond float64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lab.Pause(ctx, pollInterval) == nil {
			ahead := written.Load()
			durable, err := m.contender.durable(ctx)
			if err != nil {
				continue // wait, later, tells if it stays so
			}
			m.behind = max(m.behind, time.Duration(float64(ahead-durable)/perSecond*float64(time.Second)))
		}
	}()
	return func() { cancel(); <-done }
}

// rest measures what files cost that do not grow.
func (m *meter) rest(ctx context.Context) (err error) {
	m.quiet, err = m.cores(ctx, quietTime)
	return err
}

// again measures how long a collector that starts again takes to find one new
// line in every file.
func (m *meter) again(ctx context.Context, c corpus, o options) error {
	if err := m.contender.collector.Stop(); err != nil {
		return err
	}
	if err := appendToAll(c, m.contender.podsDir, o); err != nil {
		return err
	}
	began := time.Now()
	if err := m.contender.collector.Start(ctx); err != nil {
		return err
	}
	for {
		durable, err := m.contender.durable(ctx)
		if err != nil {
			return err
		}
		if m.restart = time.Since(began); durable >= int64(o.files) {
			return nil
		}
		if err := lab.Pause(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// cores returns how many cores the collector keeps busy for a while.
func (m *meter) cores(ctx context.Context, d time.Duration) (float64, error) {
	from, err := lab.UsageOf(m.pid)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := lab.Pause(ctx, d); err != nil {
		return 0, err
	}
	to, err := lab.UsageOf(m.pid)
	if err != nil {
		return 0, err
	}
	return (to.CPU - from.CPU).Seconds() / time.Since(began).Seconds(), nil
}

// moveAll moves what is in one directory to another.
func moveAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
