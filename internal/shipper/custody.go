package shipper

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

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
	if sh.link.dispute(confirmation.Conflict) {
		sh.lanes.announce()
		if confirmation.Conflict == "" {
			sh.log.Info("shipping goes on: the relay hears no other collector with this spool any more")
		}
	}
	if confirmation.Conflict != "" {
		return // what it confirms may be the other's
	}
	allowed := false // more of a sealed lane
	for _, accepted := range confirmation.Lanes {
		name, err := frame.ParseLane(accepted.Lane)
		if err != nil {
			continue // a lane of a later version
		}
		l := sh.lanes.get(name)
		if l == nil {
			continue
		}
		if accepted.Confirmed > 0 && accepted.Confirmed >= sh.spool.Next(name) && !l.sealed.Load() {
			sh.diverged(name, accepted.Confirmed)
			continue
		}
		if accepted.Confirmed > 0 {
			sh.spool.Confirm(name, accepted.Confirmed)
			l.confirmed.Store(max(l.confirmed.Load(), accepted.Confirmed))
			l.allow(func(a *Allowance) { a.Confirmed(accepted.Confirmed, time.Now()) })
			allowed = allowed || l.sealed.Load()
		}
		sh.retire(l)
		select {
		case l.orders <- order{accepted.Confirmed, accepted.Resend, accepted.Stream}:
		default: // the lane is behind with its orders; the relay repeats itself
		}
	}
	if allowed {
		sh.lanes.announce()
	}
}

// diverged begins new lanes because the relay has a frame that this spool has not
// written.
func (sh *Shipper) diverged(name frame.Lane, known uint64) {
	live, err := sh.spool.Diverged(name, known)
	if err != nil {
		sh.log.Error("the spool was set back and new lanes cannot be begun: frames to come may be taken for repeats and be lost: move the spool's directory away, or make it writable",
			zap.Stringer("lane", name), zap.Uint64("relay_has", known), zap.Error(err))
	}
	if len(live) > 0 {
		sh.followSpool()
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
		Version: custody.Version, Epoch: sh.spool.Epoch().String(), Release: sh.config.Release, Instance: sh.instance,
		SpoolBytes: stats.Bytes, SpoolMaxBytes: stats.MaxBytes,
	}
	for _, s := range stats.Lanes {
		l := sh.lanes.get(s.Lane)
		if l == nil {
			continue
		}
		shipped := l.shipped.Load()
		hello.Lanes = append(hello.Lanes, custody.HelloLane{
			Lane: s.Lane.String(), Class: s.Class.String(), Floor: s.Floor, Next: s.Next, Before: s.Before,
			Shipped: shipped, Lost: s.Lost[:],
		})
		if oldest := sh.spool.OldestTime(s.Lane, shipped+1); !oldest.IsZero() {
			hello.OldestUnsentSeconds = max(hello.OldestUnsentSeconds, time.Since(oldest).Seconds())
		}
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return fmt.Errorf("encode hello: %w", err)
	}
	if err := sh.nc.Publish(hub.HelloSubject(sh.config.Origin), body); err != nil {
		return fmt.Errorf("publish hello: %w", err)
	}
	sh.lanes.mu.Lock()
	defer sh.lanes.mu.Unlock()
	for _, s := range stats.Lanes {
		if l := sh.lanes.all[s.Lane]; l != nil {
			l.told = &s.Lost
		}
	}
	return nil
}
