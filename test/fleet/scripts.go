package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/edge"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// script is what happens to a fleet that is connected and quiet.
type script func(context.Context, *world, *report) error

var scripts map[string]script

func init() {
	scripts = map[string]script{
		"steady": steady, "storm": storm, "hub-restart": hubRestart, "relay-kill": relayKill,
		"backend-away": backendAway, "scale10k": steady, "curve": curve,
	}
}

func scriptNames() []string { return slices.Sorted(maps.Keys(scripts)) }

const (
	// idleTime is how long a connected fleet is watched that writes nothing: about one
	// hello of every node.
	idleTime = 35 * time.Second
	// warmFrames bounds, by the nodes, how many frames each of them writes before
	// anything is measured, warmPerSecond how fast.
	warmFrames    = 20_000
	warmPerSecond = 1_000
	// drainLimit bounds the wait for what is left at the end.
	drainLimit = 3 * time.Minute
	// drainStill is how long nothing may arrive before what is missing counts as lost:
	// more than two hellos.
	drainStill = 100 * time.Second
)

// play plays a script and drains what is left.
func (w *world) play(ctx context.Context, s script) (*report, error) {
	r := &report{world: w, costs: make(map[frame.Signal]span)}
	if err := w.startFleet(ctx); err != nil {
		return r, err
	}
	w.watchResidents(ctx)
	if err := s(ctx, w, r); err != nil {
		return r, err
	}
	return r, w.drain(ctx, r)
}

// drain ends the writing and waits until everything has arrived and been confirmed,
// or nothing moves any more.
func (w *world) drain(ctx context.Context, r *report) error {
	w.fleet.Follow(&edge.Plan{})
	start, moved := time.Now(), time.Now()
	arrivingBefore, unconfirmedBefore := w.book.Open()
	err := w.until(ctx, "drain", drainLimit+drainStill, func() (bool, string) {
		arriving, unconfirmed := w.book.Open()
		if arriving != arrivingBefore || unconfirmed != unconfirmedBefore {
			arrivingBefore, unconfirmedBefore, moved = arriving, unconfirmed, time.Now()
		}
		over := arriving == 0 && unconfirmed == 0 || time.Since(moved) > drainStill || time.Since(start) > drainLimit
		return over, fmt.Sprintf("%d frames have not arrived, %d are not confirmed", arriving, unconfirmed)
	})
	r.drained = time.Since(start)
	r.finish(ctx)
	return err
}

// idle watches the connected fleet doing nothing but say hello.
func (w *world) idle(ctx context.Context, r *report) (err error) {
	say("the fleet is connected and writes nothing for %v", idleTime)
	r.idle, err = w.measure(ctx, func(ctx context.Context) error { return lab.Pause(ctx, idleTime) })
	r.idleResident, _, _ = w.resident.take()
	return err
}

// warm lets every node write some frames of logs: what a relay keeps of a node, and of
// the streams it has seen at Loki, is there when measuring begins.
func (w *world) warm(ctx context.Context, r *report) error {
	each := min(frames.Variants, max(1, warmFrames/w.fleet.Nodes()))
	every := time.Second * time.Duration(max(5, w.fleet.Nodes()/warmPerSecond))
	say("every node writes %d frames of logs, for the relays to know it", each)
	s, err := w.measure(ctx, func(ctx context.Context) error {
		count, err := w.fleet.WriteEach(ctx, each, every, []frame.Signal{frame.Logs})
		if err != nil {
			return err
		}
		say("%d frames were written", count)
		return w.arrived(ctx)
	})
	r.warm = s
	return err
}

// only measures one signal by itself, to its last frame's arrival.
func (w *world) only(ctx context.Context, r *report, signal frame.Signal) error {
	say("%s alone for %v, %.2f of the ordinary load", signal, w.phase, w.load)
	s, err := w.measure(ctx, func(ctx context.Context) error {
		w.fleet.Follow(edge.Ordinary(w.load, signal))
		if err := w.profiled(ctx, signal.String()); err != nil {
			return err
		}
		w.fleet.Follow(&edge.Plan{})
		return w.arrived(ctx)
	})
	if err == nil {
		r.costs[signal] = s
		say("%s: %.0f items/s, %.2f cores of the relay, %.2f of the hub, %.2f of simulator and sinks", signal,
			s.perSecond(s.items[signal]), cores(s.relay, s.seconds), cores(s.hub, s.seconds), cores(s.self, s.seconds))
	}
	return err
}

// profiled lets a phase go by, with a profile if one is wanted.
func (w *world) profiled(ctx context.Context, name string) error {
	if w.profile == "" {
		return lab.Pause(ctx, w.phase)
	}
	return w.profileCPU(ctx, name, w.phase)
}

// arrived waits until all written frames have arrived.
func (w *world) arrived(ctx context.Context) error {
	return w.until(ctx, "wait for the last frames", drainLimit, func() (bool, string) {
		arriving, _ := w.book.Open()
		return arriving == 0, fmt.Sprintf("%d frames have not arrived", arriving)
	})
}

// steady is an ordinary day.
func steady(ctx context.Context, w *world, r *report) error {
	if err := w.idle(ctx, r); err != nil {
		return err
	}
	if err := w.warm(ctx, r); err != nil {
		return err
	}
	for _, signal := range w.signals {
		if err := w.only(ctx, r, signal); err != nil {
			return err
		}
	}
	say("all signals for %v, with restarts, new spools and wrong clocks", 2*w.phase)
	w.resident.take()
	w.wrongClocks()
	var err error
	r.together, err = w.measure(ctx, func(ctx context.Context) error {
		w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
		return w.mishaps(ctx, 2*w.phase)
	})
	r.resident, r.hubResident, r.hubStored = w.resident.take()
	return err
}

const (
	wrongClockEvery = 50 // nodes
	restartEvery    = 100
	renewEvery      = 500
	mishapInterval  = 500 * time.Millisecond
)

// wrongClocks sets some nodes' clocks up to two minutes wrong, one of them by a day.
func (w *world) wrongClocks() {
	for node := 0; node < w.fleet.Nodes(); node += wrongClockEvery {
		by := rand.N(4*time.Minute) - 2*time.Minute
		if node == 0 {
			by = -24 * time.Hour
		}
		w.fleet.Skew(node, by)
	}
}

// mishaps restarts some nodes and installs others anew, spread over a time.
func (w *world) mishaps(ctx context.Context, d time.Duration) error {
	steps := int(d / mishapInterval)
	for step := range steps {
		for node := step; node < w.fleet.Nodes(); node += steps {
			switch {
			case node%restartEvery == 1:
				w.fleet.Restart(node)
			case node%renewEvery == 2:
				w.fleet.Renew(node) // only one with nothing unconfirmed: the others go on
			}
		}
		if err := w.alive(); err != nil {
			return err
		}
		if step%10 == 0 {
			w.progress()
		}
		if err := lab.Pause(ctx, mishapInterval); err != nil {
			return err
		}
	}
	return nil
}

// goOn lets a time go by, saying how things are.
func (w *world) goOn(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return w.until(ctx, "go on", d+time.Minute, func() (bool, string) { return time.Now().After(end), w.state() })
}

func (w *world) progress() { say("%s", w.state()) }

func (w *world) state() string {
	s := w.fleet.Stats()
	arriving, _ := w.book.Open()
	return fmt.Sprintf("%d nodes connected, %d frames unsent, %d not arrived, %d unconfirmed, the simulator at most %d ms late",
		s.Connected, s.Unsent, arriving, s.Holding, s.Lag.Milliseconds())
}
