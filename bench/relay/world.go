package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/book"
	"github.com/longhaul/longhaul/test/fleet/frames"
	"github.com/longhaul/longhaul/test/fleet/sink"
)

const (
	pollInterval = 100 * time.Millisecond
	sayInterval  = 5 * time.Second
	// settleTime is what comes after the last item: acknowledging, storing, confirming.
	settleTime = 2 * time.Second
	// apart is between the times of a node's frames, which all came before now.
	apart = time.Second
)

// world is what both turns share.
type world struct {
	options
	checkout, peerBinary string
	jaegerCompression    string // of the relay's configuration: the gateway has the same
	maker                *frames.Maker
}

// figures is what one program did with one signal.
type figures struct {
	frames, arrived, again int64
	items                  int64 // that arrived
	cpu, hubCPU            time.Duration
	elapsed                time.Duration
	resident               int64 // bytes at most
}

func (f *figures) perCoreSecond() float64 { return float64(f.items) / f.cpu.Seconds() }

// turn is what one program did, by signal.
type turn map[frame.Signal]*figures

func originOf(node int) hub.Origin {
	return hub.Origin{Cluster: fmt.Sprintf("store-%05d", node/3), Node: fmt.Sprintf("node-%d", node%3)}
}

// scene is one program and one signal.
type scene struct {
	*world
	signal frame.Signal
	book   *book.Book
	sink   *sink.Sink
}

func (w *world) newScene(signal frame.Signal) (*scene, error) {
	s := &scene{world: w, signal: signal, book: book.New(w.nodes)}
	var err error
	s.sink, err = sink.New(sink.Options{Taken: s.taken})
	return s, err
}

func (s *scene) taken(b sink.Batch) {
	arrivals := make([]book.Arrival, len(b.Sightings))
	for i, sighting := range b.Sightings {
		arrivals[i] = book.Arrival{Marker: sighting.Marker, Named: sighting.Cluster, Cluster: originOf(int(sighting.Origin)).Cluster}
	}
	s.book.Arrived(b.Signal, b.Items, b.At, arrivals)
}

// each makes all frames of the scene: one of each node, then the next of each. Their
// times are a second apart and end now. of is valid until the next call.
func (s *scene) each(do func(node int, t *frames.Template, n *frames.Numbers) error) error {
	total := *s.frames[s.signal]
	rounds := (total + s.nodes - 1) / s.nodes
	before := make([]uint64, s.nodes)
	start := time.Now().Add(-apart * time.Duration(rounds))
	lane := frame.Lane{Signal: s.signal, Seq: 1}
	made := 0
	for number := 1; number <= rounds; number++ {
		at := start.Add(apart * time.Duration(number))
		round, err := s.maker.Round(at)
		if err != nil {
			return err
		}
		templates := round[s.signal]
		for node := 0; node < s.nodes && made < total; node++ {
			t := templates[(node+number)%len(templates)]
			s.book.Wrote(node, 0, lane, uint64(number), 1, t.Samples)
			if err := do(node, t, &frames.Numbers{
				Origin: uint32(node), Epoch: epochOf(node), Lane: 1, Number: uint64(number), Floor: 1, Before: before[node], Written: at,
			}); err != nil {
				return err
			}
			before[node] += uint64(t.Items)
			made++
		}
	}
	return nil
}

func epochOf(node int) frame.Epoch { return frame.Epoch(0xbe9c00000000 + uint64(node) + 1) }

// measure waits until all has arrived that do makes arrive, and says what that took
// of a process that had used so much before.
func (s *scene) measure(ctx context.Context, p *lab.Process, base time.Duration, do func(context.Context) error) (*figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done after %v (-limit)", s.limit))
	defer cancel()
	start := time.Now()
	if err := do(ctx); err != nil {
		return nil, err
	}
	if err := s.wait(ctx, p); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	if err := lab.Pause(ctx, settleTime); err != nil {
		return nil, err
	}
	u, err := lab.UsageOf(p.PID())
	if err != nil {
		return nil, err
	}
	counts, wrongs := s.book.Counts()
	c := counts[s.signal]
	if wrongs.Unknown+wrongs.Misplaced > 0 {
		return nil, fmt.Errorf("%s: %s", p.Name(), wrongs.Example())
	}
	if c.Items != c.Expected {
		return nil, fmt.Errorf("%s: %d items arrived, the frames with them hold %d", p.Name(), c.Items, c.Expected)
	}
	f := &figures{
		frames: c.Written, arrived: c.Arrived, again: c.Again, items: c.Items,
		cpu: u.CPU - base, elapsed: elapsed, resident: u.MaxResident,
	}
	say("%s, %s: %d items in %.1f s, %.2f CPU s, %.0f items for each; %d MiB at most", p.Name(), s.signal, f.items, elapsed.Seconds(), f.cpu.Seconds(), f.perCoreSecond(), f.resident>>20)
	return f, nil
}

func (s *scene) wait(ctx context.Context, p *lab.Process) error {
	said := time.Now()
	for {
		counts, _ := s.book.Counts()
		c := counts[s.signal]
		if c.Arrived == c.Written {
			return nil
		}
		if err := s.sink.Trouble(); err != nil {
			return fmt.Errorf("%s sent what the sink does not understand: %w", p.Name(), err)
		}
		if !p.Running() {
			return fmt.Errorf("%s has ended; the end of its log:\n%s", p.Name(), p.LogTail(2000))
		}
		if time.Since(said) >= sayInterval {
			said = time.Now()
			say("%s, %s: %d of %d frames have arrived", p.Name(), s.signal, c.Arrived, c.Written)
		}
		if err := lab.Pause(ctx, pollInterval); err != nil {
			return errors.Join(context.Cause(ctx), fmt.Errorf("%d of %d frames arrived; the end of the log:\n%s", c.Arrived, c.Written, p.LogTail(2000)))
		}
	}
}
