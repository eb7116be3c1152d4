package main

import (
	"context"
	"fmt"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/edge"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const (
	// stormShare of the clusters, in percent, were away.
	stormShare = 30
	// awayTime is how long a hub or a relay is away.
	awayTime = 10 * time.Second
	// warmUp goes before a fault.
	warmUp = 10 * time.Second
)

// hourOfRounds are templates spread over the last hour, a frame's worth each.
func (w *world) hourOfRounds() ([]frames.Round, error) {
	n := int(w.hour / time.Second)
	times := make([]time.Time, n)
	now := time.Now()
	for i := range times {
		times[i] = now.Add(-time.Hour + time.Hour*time.Duration(i)/time.Duration(n))
	}
	return w.fleet.Rounds(times)
}

// scrapesPerFrame is how many seconds an ordinary node has a frame of metrics in.
const scrapesPerFrame = int(edge.ScrapeInterval / edge.Targets / time.Second)

// storm lets a part of the fleet return from an hour's outage.
func storm(ctx context.Context, w *world, r *report) error {
	w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
	away := w.clusters * stormShare / 100
	if err := w.goOn(ctx, warmUp); err != nil {
		return err
	}
	for cluster := range away {
		w.fleet.Leave(cluster)
	}
	rounds, err := w.hourOfRounds()
	if err != nil {
		return err
	}
	if err := w.until(ctx, "outage", time.Minute, func() (bool, string) {
		s := w.fleet.Stats()
		return s.Connected == w.fleet.Nodes()-away*w.perCluster, fmt.Sprintf("%d nodes are still connected", s.Connected)
	}); err != nil {
		return err
	}
	count := 0
	for cluster := range away {
		count += w.fleet.Gather(cluster, rounds, scrapesPerFrame)
	}
	r.note("%d of %d clusters were away for an hour, which left %d frames: 1/%.0f of an ordinary hour", away, w.clusters, count, time.Hour.Seconds()/w.hour.Seconds())
	say("%d frames were gathered in the outage of %d clusters; they return", count, away)
	if err := w.goOn(ctx, warmUp); err != nil {
		return err
	}
	w.resident.take()
	backlog, _ := w.book.Open()
	r.together, err = w.measure(ctx, func(ctx context.Context) error {
		start := time.Now()
		for cluster := range away {
			w.fleet.Return(cluster)
		}
		err := w.backlogGone(ctx)
		r.recovered = time.Since(start)
		return err
	})
	r.note("%d frames of backlog drained in %.1f s beside what was current", backlog, r.recovered.Seconds())
	r.resident, r.hubResident, r.hubStored = w.resident.take()
	return err
}

// backlogGone waits until nothing that was written up to now is missing.
func (w *world) backlogGone(ctx context.Context) error {
	mark := w.book.Mark()
	return w.until(ctx, "drain the backlog", w.limit, func() (bool, string) {
		left := mark.Left()
		return left == 0, fmt.Sprintf("%d frames of the backlog have not arrived; %s", left, w.state())
	})
}

// hubRestart kills the hub and starts it again.
func hubRestart(ctx context.Context, w *world, r *report) error {
	w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
	if err := w.goOn(ctx, warmUp); err != nil {
		return err
	}
	say("the hub is killed")
	w.hubDown = true
	if err := w.hub.Kill(); err != nil {
		return err
	}
	if err := w.goOn(ctx, awayTime); err != nil {
		return err
	}
	say("the hub starts again")
	start := time.Now()
	if err := w.hub.Start(ctx); err != nil {
		return err
	}
	w.hubDown = false
	if err := w.until(ctx, "connect again", 2*time.Minute, func() (bool, string) {
		s := w.fleet.Stats()
		return s.Connected == w.fleet.Nodes(), fmt.Sprintf("%d of %d nodes are connected again", s.Connected, w.fleet.Nodes())
	}); err != nil {
		return err
	}
	r.note("all %d nodes were connected again %.1f s after the hub's start", w.fleet.Nodes(), time.Since(start).Seconds())
	err := w.backlogGone(ctx)
	r.recovered = time.Since(start)
	r.note("what was written until then had arrived %.1f s after the hub's start", r.recovered.Seconds())
	if err != nil {
		return err
	}
	return w.afterwards(ctx, r)
}

// relayKill kills the first relay; the others, if there are any, take over.
func relayKill(ctx context.Context, w *world, r *report) error {
	w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
	if err := w.goOn(ctx, warmUp); err != nil {
		return err
	}
	w.book.TakeDelays()
	say("a relay is killed")
	w.relayDown = true
	if err := w.relays[0].Kill(); err != nil {
		return err
	}
	mark := w.book.Mark()
	start := time.Now()
	if err := w.goOn(ctx, 2*awayTime); err != nil {
		return err
	}
	if left := mark.Left(); len(w.relays) > 1 {
		r.note("%.0f s after a relay of %d was killed, %d frames from before had not arrived", time.Since(start).Seconds(), len(w.relays), left)
	}
	say("the relay starts again")
	if err := w.relays[0].Start(ctx); err != nil {
		return err
	}
	w.relayDown = false
	start = time.Now()
	if err := w.backlogGone(ctx); err != nil {
		return err
	}
	r.recovered = time.Since(start)
	delays, _ := w.book.TakeDelays()
	r.note("a frame took %.1f s at most while a relay was down and started again", delays.Most.Seconds())
	return w.afterwards(ctx, r)
}

// backendAway lets all backends refuse everything. The nodes go on; -hour says how
// long the simulated hour takes.
func backendAway(ctx context.Context, w *world, r *report) error {
	w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
	if err := w.goOn(ctx, warmUp); err != nil {
		return err
	}
	say("the backends refuse everything for %v", w.hour)
	w.sink.SetAway(true)
	w.resident.take()
	if err := w.goOn(ctx, w.hour); err != nil {
		return err
	}
	backlog, _ := w.book.Open()
	away, _, stored := w.resident.take()
	r.note("the backends were away for an hour of simulated time, %v; %d requests were refused, %d frames waited, %.0f MiB of them on the hub; the relay took %.0f MiB at most",
		w.hour, w.sink.Refused(), backlog, mib(stored), mib(away))
	start := time.Now()
	w.sink.SetAway(false)
	if err := w.backlogGone(ctx); err != nil {
		return err
	}
	r.recovered = time.Since(start)
	r.note("%d frames drained in %.1f s beside what was current", backlog, r.recovered.Seconds())
	r.resident, r.hubResident, r.hubStored = w.resident.take()
	r.resident, r.hubStored = max(r.resident, away), max(r.hubStored, stored)
	return w.afterwards(ctx, r)
}

// afterwards measures that all is as before.
func (w *world) afterwards(ctx context.Context, r *report) (err error) {
	say("and afterwards, for %v", w.phase)
	r.together, err = w.measure(ctx, func(ctx context.Context) error { return w.goOn(ctx, w.phase) })
	if relay, hub, stored := w.resident.take(); r.resident == 0 {
		r.resident, r.hubResident, r.hubStored = relay, hub, stored
	}
	return err
}

// curve is one point of the cost curves: all signals at the same load for each
// node, so that what grows with the fleet is seen.
func curve(ctx context.Context, w *world, r *report) (err error) {
	if err := w.idle(ctx, r); err != nil {
		return err
	}
	if err := w.warm(ctx, r); err != nil {
		return err
	}
	say("all signals for %v, %.3f of the ordinary load", 2*w.phase, w.load)
	w.fleet.Follow(edge.Ordinary(w.load, w.signals...))
	if err := lab.Pause(ctx, 2*time.Second); err != nil { // the first frames wait for company
		return err
	}
	w.resident.take()
	r.together, err = w.measure(ctx, func(ctx context.Context) error { return w.goOn(ctx, 2*w.phase) })
	r.resident, r.hubResident, r.hubStored = w.resident.take()
	return err
}

var order = []frame.Signal{frame.Logs, frame.Metrics, frame.Traces}
