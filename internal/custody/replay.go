package custody

import (
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// replay is a refused frame that is being delivered again.
type replay struct {
	Key
	number uint64
}

// Replay judges a frame that was refused and that an operator sends again from
// the rejected stream. With Late the caller owes a Replayed. Duplicate: it has been
// delivered since. Undecided: it is being delivered, and no edge has it: what comes
// again must stay on the hub until that has ended. A refusal that the ledger has forgotten,
// with its spool or behind many others, is no hindrance: the frame is delivered,
// and stays named as lost.
//
// It moves no lane on, and needs none to be known.
func (l *Ledger) Replay(key Key, number uint64) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := replay{key, number}
	if _, ok := l.replays[one]; ok {
		return Undecided
	}
	if s, ok := l.spools[key.Spool()]; ok {
		if g := s.refusal(key.Lane, number); g != nil && g.hasReturned(number) {
			return Duplicate
		}
	}
	if l.replays == nil {
		l.replays = make(map[replay]struct{})
	}
	l.replays[one] = struct{}{}
	return Late
}

// Refused says whether the ledger knows that a frame was refused and has not been
// delivered since. It may have forgotten: see Replay.
func (l *Ledger) Refused(key Key, number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.spools[key.Spool()]
	if !ok {
		return false
	}
	g := s.refusal(key.Lane, number)
	return g != nil && !g.hasReturned(number)
}

// Replayed says that the backends accepted a frame that Replay let pass: its items
// are no longer lost. One that is refused again, or given up, has items 0: it stays
// named as it was, and may be sent again. The version it returns is for Due; 0 when
// there is nothing to be stored.
func (l *Ledger) Replayed(key Key, number, items uint64, now time.Time) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.replays, replay{key, number})
	s, ok := l.spools[key.Spool()]
	if !ok || items == 0 {
		return 0
	}
	g := s.refusal(key.Lane, number)
	if g == nil || g.hasReturned(number) || len(g.returned) >= maxReturned && !g.adjoins(number) {
		return 0
	}
	s.version++
	g.restore(number, items, now)
	g.version = s.version
	report := Report{Key: key, Recovered: g.takeBack(items), Gap: g.clone()}
	s.reports = append(s.reports, pending{s.version, report})
	return s.version
}

// refusal returns the gap of refused frames that a number lies in, of a lane that
// may be retired.
func (s *spool) refusal(lane frame.Lane, number uint64) *Gap {
	gaps := s.old
	if e, ok := s.lanes[lane]; ok {
		gaps = e.gaps
	}
	for _, g := range gaps {
		if g.Kept && g.Lane == lane && g.From <= number && number <= g.To {
			return g
		}
	}
	return nil
}

func (g *Gap) hasReturned(number uint64) bool {
	return slices.ContainsFunc(g.returned, func(r numbers) bool { return r.From <= number && number <= r.To })
}
