package custody

import (
	"slices"
	"sync"
	"time"
)

// ConflictSilence is how long an instance must be silent for it to be taken as
// gone. It is more than two of an edge's hellos.
const ConflictSilence = 90 * time.Second

// maxInstances bounds the instances of a spool that are known.
const maxInstances = 16

// Instances notices two collectors that use copies of one spool: they say hello
// for the same origin and epoch by turns. A collector that was restarted is not
// one: its old instance never speaks again. Safe for concurrent use.
type Instances struct {
	mu     sync.Mutex
	spools map[Spool]*instances
	swept  time.Time
}

type instances struct {
	seen     []instance // in the order in which they first spoke
	conflict bool
}

type instance struct {
	name string
	last time.Time
}

// NewInstances returns one that has heard nobody.
func NewInstances() *Instances { return &Instances{spools: make(map[Spool]*instances)} }

// Hear notes a hello. While several instances use the spool it returns all that
// spoke within ConflictSilence, and whether that is news. An edge of a version that
// names no instance is never in conflict.
func (in *Instances) Hear(id Spool, name string, now time.Time) (conflict []string, news bool) {
	if name == "" {
		return nil, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sweep(now)
	s, ok := in.spools[id]
	if !ok {
		s = &instances{}
		in.spools[id] = s
	}
	s.prune(now)
	before := s.conflict
	at := slices.IndexFunc(s.seen, func(i instance) bool { return i.name == name })
	switch {
	case at < 0:
		s.seen = append(s.seen, instance{name, now})
		s.seen = s.seen[max(0, len(s.seen)-maxInstances):]
	default:
		s.seen[at].last = now
		s.conflict = s.conflict || at < len(s.seen)-1 // it spoke, and a newer one had spoken
	}
	if !s.conflict {
		return nil, false
	}
	for _, i := range s.seen {
		conflict = append(conflict, i.name)
	}
	return conflict, !before
}

func (s *instances) prune(now time.Time) {
	s.seen = slices.DeleteFunc(s.seen, func(i instance) bool { return now.Sub(i.last) > ConflictSilence })
	if len(s.seen) < 2 {
		s.conflict = false
	}
}

// InConflict returns the spools that several instances use, and how many do.
func (in *Instances) InConflict(now time.Time) map[Spool]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	found := make(map[Spool]int)
	for id, s := range in.spools {
		s.prune(now)
		if len(s.seen) == 0 {
			delete(in.spools, id)
		}
		if s.conflict {
			found[id] = len(s.seen)
		}
	}
	return found
}

// Conflicting says whether several instances use a spool.
func (in *Instances) Conflicting(id Spool, now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	s, ok := in.spools[id]
	if !ok {
		return false
	}
	s.prune(now)
	return s.conflict
}
