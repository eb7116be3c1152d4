// Package shipper publishes a spool's frames to the hub and confirms them in
// the spool when the relay says that the backends have them.
//
// Each lane is published in order, with up to WindowBytes on the way. A lane's
// cursor moves back (go-back-N) when a publish fails, when the relay misses a
// frame, or when the hub has lost its store; never in a tight loop. A frame is
// re-published under a new message id, because the hub would drop the old one as
// a duplicate although the relay never took it; the relay drops true duplicates
// by their numbers.
//
// Nothing here deletes: only a confirmation does (spool.Confirm).
package shipper

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
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
)

// Config is what a Shipper needs to know. WindowBytes and PublishTimeout are per lane.
type Config struct {
	Origin         hub.Origin
	WindowBytes    int
	PublishTimeout time.Duration
	Release        string
}

// Observer is told what happens, for self-telemetry.
type Observer interface {
	// Shipped: the hub acknowledged a frame.
	Shipped(signal frame.Signal, items, bytes int, took time.Duration)
}

// Shipper ships one spool. Make it with New, call Run once.
type Shipper struct {
	config   Config
	spool    *spool.Spool
	observer Observer
	log      *zap.Logger
	lanes    map[frame.Lane]*lane
	link     link
	nc       *nats.Conn
	js       jetstream.JetStream
	greet    chan struct{} // asks for a hello
}

// New prepares a shipper of a spool.
func New(config Config, s *spool.Spool, observer Observer, log *zap.Logger) *Shipper {
	sh := &Shipper{
		config: config, spool: s, observer: observer, log: log,
		lanes: make(map[frame.Lane]*lane), greet: make(chan struct{}, 1),
	}
	sh.link.changed = make(chan struct{})
	state := sh.loadState()
	for _, name := range s.Lanes() {
		l := &lane{Shipper: sh, name: name, orders: make(chan order, 16)}
		if saved, ok := state.Lanes[name.String()]; ok {
			l.shipped.Store(saved.Shipped)
			l.stream = saved.Stream
		}
		sh.lanes[name] = l
	}
	return sh
}

// Events are the connection's hooks; give them to hub.Connection.Connect.
func (sh *Shipper) Events() hub.Events {
	return hub.Events{
		Connected:    func() { sh.link.set(true); sh.askHello() },
		Disconnected: func() { sh.link.set(false) },
	}
}

// LinkUp says whether the hub is connected.
func (sh *Shipper) LinkUp() bool { return sh.link.isUp() }

// Unsent returns the first number of a lane that is not yet acknowledged by the hub.
func (sh *Shipper) Unsent(name frame.Lane) uint64 {
	if l, ok := sh.lanes[name]; ok {
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
	sh.nc, sh.js = nc, js
	sub, err := nc.Subscribe(hub.CustodySubject(sh.config.Origin), sh.confirmed)
	if err != nil {
		return fmt.Errorf("subscribe to confirmations: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a connection already closed

	var group sync.WaitGroup
	for _, l := range sh.lanes {
		group.Go(func() { l.run(ctx) })
	}
	group.Go(func() { sh.greetRegularly(ctx) })
	group.Go(func() { sh.saveRegularly(ctx) })
	group.Wait()
	sh.saveState()
	return nil
}

// confirmed handles the relay's word on how far the backends have accepted.
func (sh *Shipper) confirmed(msg *nats.Msg) {
	confirmation, epoch, err := custody.ParseConfirmation(msg.Data)
	if err != nil {
		sh.log.Warn("a confirmation from the relay cannot be read; it is ignored", zap.Error(err))
		return
	}
	if epoch != sh.spool.Epoch() {
		return // for an earlier spool of this node
	}
	for _, accepted := range confirmation.Lanes {
		name, err := frame.ParseLane(accepted.Lane)
		if err != nil {
			continue // a lane of a later version
		}
		l, ok := sh.lanes[name]
		if !ok {
			continue
		}
		if accepted.Confirmed > 0 {
			sh.spool.Confirm(name, accepted.Confirmed)
		}
		select {
		case l.orders <- order{accepted.Confirmed, accepted.Resend, accepted.Stream}:
		default: // the lane is behind with its orders; the relay repeats itself
		}
	}
}

func (sh *Shipper) askHello() {
	select {
	case sh.greet <- struct{}{}:
	default:
	}
}

// greetRegularly says hello on connecting and every helloInterval after, spread
// so that a fleet does not speak in one moment.
func (sh *Shipper) greetRegularly(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sh.greet:
		case <-timer.C:
		}
		if sh.link.isUp() {
			if err := sh.hello(); err != nil {
				sh.log.Debug("hello not sent", zap.Error(err))
			}
		}
		timer.Reset(helloInterval*3/4 + rand.N(helloInterval/2))
	}
}

func (sh *Shipper) hello() error {
	stats := sh.spool.Stats()
	hello := custody.Hello{
		Version: custody.Version, Epoch: sh.spool.Epoch().String(), Release: sh.config.Release,
		SpoolBytes: stats.Bytes, SpoolMaxBytes: stats.MaxBytes,
	}
	for _, s := range stats.Lanes {
		l, ok := sh.lanes[s.Lane]
		if !ok {
			continue
		}
		shipped := l.shipped.Load()
		hello.Lanes = append(hello.Lanes, custody.HelloLane{
			Lane: s.Lane.String(), Floor: s.Floor, Next: s.Next, Shipped: shipped, Lost: s.Lost[:],
		})
		if oldest := sh.spool.OldestTime(s.Lane, shipped+1); !oldest.IsZero() {
			hello.OldestUnsentSeconds = max(hello.OldestUnsentSeconds, time.Since(oldest).Seconds())
		}
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return fmt.Errorf("encode hello: %w", err)
	}
	return sh.nc.Publish(hub.HelloSubject(sh.config.Origin), body)
}

// link is the connection's state with a channel to wait on.
type link struct {
	mu       sync.Mutex
	up       atomic.Bool
	connects atomic.Uint64 // how often it came up
	changed  chan struct{}
}

func (k *link) isUp() bool { return k.up.Load() }

func (k *link) set(up bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if up {
		k.connects.Add(1)
	}
	if k.up.Swap(up) != up {
		close(k.changed)
		k.changed = make(chan struct{})
	}
}

// wait returns once the link is up, or the context's error.
func (k *link) wait(ctx context.Context) error {
	for {
		k.mu.Lock()
		changed := k.changed
		k.mu.Unlock()
		if k.isUp() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
