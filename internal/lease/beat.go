package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/hub"
)

// tick gives a sign of life, looks who else lives and owns what, and takes or gives
// on what that calls for.
func (m *Member) tick(ctx context.Context) {
	if m.silent.Load() || !m.hasBucket() || !m.js.Conn().IsConnected() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, 2*requestTime)
	defer cancel()
	sent := m.clock.now()
	m.doubt(sent)
	v, err := m.heartbeat(bounded, sent)
	m.tellFailure(err)
	if err != nil {
		return
	}
	live := m.census.count(v, m.clock.now())
	live[m.id] = v.members[m.id]
	m.mourn(m.census.silent(m.bury))
	m.take(ctx, v, live)
	m.previous = v
}

// heartbeat gives the sign of life and looks who else lives.
func (m *Member) heartbeat(ctx context.Context, sent time.Duration) (*view, error) {
	if err := m.beat(ctx); err != nil {
		return nil, err
	}
	if err := m.assure(ctx); err != nil {
		return nil, err // of some claim it is not known whose it is: nothing may be delivered
	}
	m.hold(sent)
	return m.look(ctx, m.beatSeq)
}

// tellFailure says once when heartbeats begin to fail, and when they work again. A
// single one that fails is nothing: a leader that changes, a hub server that lags.
func (m *Member) tellFailure(err error) {
	switch {
	case err == nil && m.failures > 1:
		m.log.Info("this relay's heartbeat on the hub works again", zap.Int("failed", m.failures))
	case err == nil:
	case m.failures == 1:
		m.log.Warn("this relay's heartbeat on the hub fails: until it works again no partition is taken, what is read is not delivered, "+
			"and another relay takes over what this one has; look at the hub, at the bucket "+hub.CustodyBucket+" and at what this relay's credentials may do",
			zap.Error(err))
	default:
		m.log.Debug("the heartbeat failed", zap.Error(err))
	}
	if m.failures++; err == nil {
		m.failures = 0
	}
}

// mourn notes whose member keys may be removed.
func (m *Member) mourn(dead map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = dead
}

// doubt marks every claim as not certain when the time has run out in which others
// let it be. It must be certain again before anything is Held.
func (m *Member) doubt(now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now < m.heldUntil {
		return
	}
	for _, c := range m.claims {
		c.certain = false
	}
}

// beat writes the member key.
func (m *Member) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	ack, err := m.js.Publish(ctx, hub.KeySubject(hub.MemberKey(m.id)), m.value, jetstream.WithRetryAttempts(0))
	if err != nil {
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			m.pokeKeeper() // the bucket is gone, or has no leader for a moment
		}
		return fmt.Errorf("write the member key: %w", err)
	}
	m.beatSeq = ack.Sequence
	return nil
}

// assure makes every claim certain or lost, or says which could not be.
func (m *Member) assure(ctx context.Context) error {
	var problems []error
	for _, c := range m.claimed() {
		if err := c.assure(ctx); err != nil && !errors.Is(err, ErrLost) {
			problems = append(problems, fmt.Errorf("find out who owns partition %s: %w", c.part, err))
		}
	}
	return errors.Join(problems...)
}

// hold extends the time in which this relay delivers.
func (m *Member) hold(sent time.Duration) {
	m.mu.Lock()
	m.heldUntil = sent + holdTime
	m.mu.Unlock()
	m.tell()
}

// take acts on a view: it notes what is lost, gives on what is too much and takes
// what is free.
func (m *Member) take(ctx context.Context, v *view, live map[string]memberSeen) {
	m.mu.Lock()
	m.live, m.owners = live, v.owners
	m.looks++
	if v.layout != nil && v.layoutRevision > m.layoutRev {
		if *v.layout != m.layout {
			m.pokeKeeper()
		}
		m.layout, m.layoutRev = *v.layout, v.layoutRevision
	}
	count := m.layout.Count
	var mine, surplus []*Claim
	missing := false
	for p, c := range m.claims {
		at, known := v.owners[p]
		switch {
		case c.over():
		case known && at.revision > c.revision && at.id != m.id:
			m.loseLocked(c)
		case !known || at.revision > c.revision:
			c.certain, missing = false, missing || !known
		case c.releasing:
		case p.count != count:
			surplus = append(surplus, c)
		default:
			mine = append(mine, c)
		}
	}
	m.watchLossLocked(v)
	free := m.freeLocked(v, live)
	quota := m.quotaLocked(v, live)
	ready := m.ready && !m.stopping
	m.mu.Unlock()
	if missing {
		m.pokeKeeper() // the bucket may be a new one
	}
	if !ready {
		return
	}
	if len(mine) > quota {
		slices.SortFunc(mine, func(a, b *Claim) int { return a.part.partition - b.part.partition })
		surplus = append(surplus, mine[quota:]...)
	}
	for _, c := range surplus {
		m.release(c)
	}
	if want := min(quota-len(mine), len(free)); want > 0 {
		m.claimAll(ctx, v, free, want)
	}
}

// quotaLocked is how many partitions this relay is to own.
func (m *Member) quotaLocked(v *view, live map[string]memberSeen) int {
	owned := make(map[string]int, len(live))
	for id := range live {
		owned[id] = 0
	}
	for p, at := range v.owners {
		if _, ok := live[at.id]; ok && p.count == m.layout.Count && at.id != m.id {
			owned[at.id]++
		}
	}
	for p, c := range m.claims { // of these more is known than the view says
		if p.count == m.layout.Count && !c.over() && !c.releasing {
			owned[m.id]++
		}
	}
	return quotas(m.layout.Count, owned)[m.id]
}

// watchLossLocked notices that the bucket was lost: owner keys are never removed
// while their generation is read. Those of this relay's own claims count too: no
// view before may have shown them.
func (m *Member) watchLossLocked(v *view) {
	gone := func(p part) bool {
		_, known := v.owners[p]
		return !known && p.count == m.layout.Count
	}
	lost := false
	for p, c := range m.claims {
		lost = lost || !c.over() && gone(p)
	}
	if m.previous != nil {
		for p := range m.previous.owners {
			lost = lost || gone(p)
		}
	}
	if lost {
		m.lossAt = m.census.last
		m.pokeKeeper()
	}
}

// freeLocked are the partitions that may be taken. None are while a relay that lives
// owns a part of an old generation: it may still store how far it had the origins,
// which whoever takes them over has to load.
func (m *Member) freeLocked(v *view, live map[string]memberSeen) []part {
	var free []part
	for p, at := range v.owners {
		if _, lives := live[at.id]; lives && p.count == m.layout.Old {
			return nil
		}
	}
	for partition := range m.layout.Count {
		p := part{m.layout.Count, partition}
		if _, busy := m.claims[p]; busy {
			continue
		}
		at, known := v.owners[p]
		_, lives := live[at.id]
		switch {
		case !known && m.lossAt != 0 && m.census.last < m.lossAt+expiry:
			continue // its owner may be about to make the key again
		case at.id == "":
		case at.id == m.id: // taken or given on in a moment when the hub's answer was lost
		case !lives && m.previous != nil && m.previous.owners[p] == at:
			// Whoever owns it made it so before this relay looked who lives.
		default:
			continue
		}
		free = append(free, p)
	}
	byLiking(m.id, free)
	return free
}
