package lease

import (
	"time"

	"go.uber.org/zap"
)

// claimed are the claims that are not lost.
func (m *Member) claimed() []*Claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	claims := make([]*Claim, 0, len(m.claims))
	for _, c := range m.claims {
		if !c.lost {
			claims = append(claims, c)
		}
	}
	return claims
}

// over says whether everything is given on after the end.
func (m *Member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping && len(m.claims) == 0
}

func (m *Member) lose(c *Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loseLocked(c)
}

// loseLocked ends a claim. A partition whose serve has not returned is not taken again.
func (m *Member) loseLocked(c *Claim) {
	if !c.lost {
		if !c.releasing {
			m.log.Warn("another relay has taken a partition; what was in hand comes again there", zap.Stringer("partition", c.part))
		}
		c.lost = true
		c.cancel(ErrLost)
	}
	select {
	case <-c.done:
		delete(m.claims, c.part)
	default:
	}
	m.tellLocked()
}

// tell wakes those who wait for a claim to be held.
func (m *Member) tell() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellLocked()
}

func (m *Member) tellLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Member) hasBucket() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.bucket.IsZero()
}

func (m *Member) wakeUp()     { nudge(m.wake) }
func (m *Member) pokeKeeper() { nudge(m.poke) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// held says whether a claim is certainly this relay's for now.
func (m *Member) held(c *Claim, now time.Duration) (held, lost bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !c.lost && c.certain && now < m.heldUntil, c.lost, m.changed
}
