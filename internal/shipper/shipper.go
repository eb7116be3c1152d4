// Package shipper publishes a spool's frames to the hub and confirms them in
// the spool when the relay says that the backends have them.
//
// Each lane is published in order. A live lane has up to WindowBytes on the way.
// When the hub has taken nothing for SealAfter the live lane is sealed, and what
// comes from then on goes into a new one (LiveFirst): when the hub is back it gets
// what is current at once. The sealed lanes of a signal follow beside it, the
// oldest first, each only while the live lane has nothing to send, and all together
// with a window that grows while the hub answers promptly and shrinks when it does
// not (pace): they take what bandwidth is left. And no more of a sealed lane is on the
// hub, unconfirmed, than the relay delivers within seconds (Allowance): what is current
// waits behind it there. InOrder never seals.
//
// A lane's cursor moves back (go-back-N) when a publish fails, when the relay
// misses a frame, or when the hub has lost its store; never in a tight loop. A
// frame is re-published under a new message id, because the hub would drop the old
// one as a duplicate although the relay never took it; the relay drops true
// duplicates by their numbers.
//
// Nothing here deletes: only a confirmation does (spool.Confirm, spool.Retire).
package shipper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/spool"
)

const (
	// helloInterval is how often an edge says what it holds while connected.
	helloInterval = 30 * time.Second
	// positionWait is how long a lane waits after connecting for the relay to say
	// where it stands, before it goes on from what was saved.
	positionWait = 5 * time.Second
	// rewindInterval is the least time between two rewinds of a lane at the
	// relay's request.
	rewindInterval = 2 * time.Second
	// stateInterval is how often the shipped numbers are saved.
	stateInterval = 2 * time.Second
	stateName     = "shipped.json"
	// watchInterval is how often it is looked at whether the hub takes anything.
	watchInterval = time.Second
	// conflictInterval is how often a conflict is logged while it lasts.
	conflictInterval = time.Minute
)

// Recovery says in what order data leaves after an outage.
type Recovery string

const (
	// LiveFirst ships what is current first and what was left behind beside it.
	LiveFirst Recovery = "live_first"
	// InOrder ships everything in the order in which it was written.
	InOrder Recovery = "in_order"
)

// DefaultSealAfter is long enough for a hub to restart or a link to reconnect.
const DefaultSealAfter = 30 * time.Second

// Config is what a Shipper needs to know.
type Config struct {
	Origin hub.Origin
	// WindowBytes may be on the way per live lane, and in all sealed lanes together.
	WindowBytes    int
	PublishTimeout time.Duration
	Release        string
	// Recovery is LiveFirst if empty.
	Recovery Recovery
	// SealAfter is how long the hub must have taken nothing of a live lane before it
	// is sealed; 0 means DefaultSealAfter.
	SealAfter time.Duration
}

// Observer is told what happens, for self-telemetry.
type Observer interface {
	// Shipped: the hub acknowledged a frame.
	Shipped(signal frame.Signal, items, bytes int, took time.Duration)
}

// Shipper ships one spool. Make it with New, call Run once.
type Shipper struct {
	config   Config
	instance string // of this process, for the relay to tell two copies apart
	spool    *spool.Spool
	observer Observer
	log      *zap.Logger
	lanes    lanes
	pace     pace
	link     link
	nc       *nats.Conn
	js       jetstream.JetStream
	greet    chan struct{} // asks for a hello
	running  sync.WaitGroup
}

// New prepares a shipper of a spool to which nothing was appended yet since it was
// opened: with LiveFirst, what it holds unsent is what an earlier life left behind.
func New(config Config, s *spool.Spool, observer Observer, log *zap.Logger) *Shipper {
	if config.Recovery == "" {
		config.Recovery = LiveFirst
	}
	if config.SealAfter == 0 {
		config.SealAfter = DefaultSealAfter
	}
	sh := &Shipper{
		config: config, instance: rand.Text(), spool: s, observer: observer, log: log,
		greet: make(chan struct{}, 1),
	}
	sh.link.changed = make(chan struct{})
	sh.lanes.changed = make(chan struct{})
	sh.lanes.all = make(map[frame.Lane]*lane)
	sh.pace.limit = config.WindowBytes
	state := sh.loadState()
	for _, name := range s.Lanes() {
		l := sh.newLane(name)
		if saved, ok := state.Lanes[name.String()]; ok {
			l.shipped.Store(saved.Shipped)
			l.stream, l.saved = saved.Stream, saved
			s.Acknowledged(name, saved.Shipped)
		}
		sh.lanes.all[name] = l
	}
	if config.Recovery == LiveFirst {
		for _, signal := range frame.Signals {
			if sh.lanes.get(s.Live(signal)).unsent() {
				sh.seal(signal)
			}
		}
	}
	return sh
}

// Events are the connection's hooks; give them to hub.Connection.Connect.
func (sh *Shipper) Events() hub.Events {
	return hub.Events{
		Connected:    func() { sh.pace.reset(); sh.link.set(true); sh.askHello() },
		Disconnected: func() { sh.link.set(false) },
	}
}

// LinkUp says whether the hub is connected.
func (sh *Shipper) LinkUp() bool { return sh.link.isUp() }

// Conflict says why nothing is shipped although the hub is connected: the relay
// hears another process with the same spool. Empty: there is no such thing.
func (sh *Shipper) Conflict() string { return sh.link.disputed() }

// Unsent returns the first number of a lane that is not yet acknowledged by the hub.
func (sh *Shipper) Unsent(name frame.Lane) uint64 {
	if l := sh.lanes.get(name); l != nil {
		return l.shipped.Load() + 1
	}
	return 0
}

// Run ships until ctx is done. The connection must have been made with Events.
// It returns an error only when it cannot work at all.
func (sh *Shipper) Run(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(1<<16), // the byte window is the bound
		jetstream.WithPublishAsyncTimeout(sh.config.PublishTimeout))
	if err != nil {
		return fmt.Errorf("JetStream: %w", err)
	}
	sh.nc, sh.js, sh.lanes.life = nc, js, ctx
	sub, err := nc.Subscribe(hub.CustodySubject(sh.config.Origin), func(msg *nats.Msg) { sh.confirmed(msg) })
	if err != nil {
		return fmt.Errorf("subscribe to confirmations: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a connection already closed

	sh.followSpool()
	sh.running.Go(func() { sh.greetRegularly(ctx) })
	sh.running.Go(func() { sh.saveRegularly(ctx) })
	sh.running.Go(func() { sh.watch(ctx) })
	<-ctx.Done()
	sh.lanes.stop()
	sh.running.Wait()
	sh.saveState()
	return nil
}

// watch seals the live lane of a signal of which the hub takes nothing, once for
// each such time, and repeats what stands in the way of shipping.
func (sh *Shipper) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, signal := range frame.Signals {
			if l := sh.lanes.get(sh.spool.Live(signal)); l != nil && l.stalled(time.Now()) && !sh.lanes.outage(signal) {
				sh.sealAndFollow(l, "the hub has taken nothing of it")
				sh.lanes.setOutage(signal, true)
			}
		}
		sh.forgive(time.Now())
		if why := sh.Conflict(); why != "" && time.Since(told) >= conflictInterval {
			told = time.Now()
			sh.log.Error("nothing is shipped: the relay hears another collector with the same origin and a copy of this spool: stop one of the two and give it a spool directory of its own; until then data is kept here",
				zap.String("origin", sh.config.Origin.String()), zap.Stringer("epoch", sh.spool.Epoch()), zap.String("relay_says", why))
		}
	}
}

// forgive has sealed lanes go on whose frames the relay does not confirm.
func (sh *Shipper) forgive(now time.Time) {
	forgiven := false
	for _, l := range sh.lanes.list() {
		l.allow(func(a *Allowance) { forgiven = a.Tick(l.shipped.Load(), now) || forgiven })
	}
	if forgiven {
		sh.lanes.announce()
	}
}

// seal ends the live lane of a signal.
func (sh *Shipper) seal(signal frame.Signal) {
	if _, err := sh.spool.Seal(signal); err != nil && !errors.Is(err, spool.ErrManyLanes) {
		sh.log.Warn("a lane could not be sealed: what is current waits behind what is left behind", zap.Stringer("signal", signal), zap.Error(err))
	}
}

// sealAndFollow ends a live lane and ships the one that follows it.
func (sh *Shipper) sealAndFollow(l *lane, why string) {
	if sh.config.Recovery != LiveFirst {
		return
	}
	sh.seal(l.name.Signal)
	sh.followSpool()
	if l.sealed.Load() {
		sh.log.Info("what was left behind is shipped beside what is current, and after it",
			zap.Stringer("sealed_lane", l.name), zap.Stringer("live_lane", sh.spool.Live(l.name.Signal)), zap.String("because", why))
	}
}
