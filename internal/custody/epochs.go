package custody

import (
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// epochsSwept is how often epochs that nobody uses any more are looked for.
const epochsSwept = ConflictSilence

// Epochs notices frames and hellos that come under one origin with the epoch of
// another: an epoch is random and belongs to one spool, so one of the two is not
// what it says. The one that used the epoch first keeps it while it is active. A
// spool that was given to a node under another name (`longhaul spool adopt`) is
// taken under the new one when the old one has been silent for ConflictSilence.
// Safe for concurrent use.
type Epochs struct {
	mu    sync.Mutex
	users map[frame.Epoch]epochUser
	swept time.Time
}

type epochUser struct {
	origin      hub.Origin
	since, last time.Time
}

// NewEpochs returns one that has heard nobody.
func NewEpochs() *Epochs { return &Epochs{users: make(map[frame.Epoch]epochUser)} }

// epochFresh is how exactly it is known when an epoch was used last.
const epochFresh = ConflictSilence / 6

// Use notes that an origin used an epoch at a time, and returns the other origin
// that the epoch belongs to, if it does. What is older than that one's first use is
// left alone: the spool was this origin's then.
func (e *Epochs) Use(id Spool, at, now time.Time) (other hub.Origin, conflict bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	user, ok := e.users[id.Epoch]
	switch {
	case ok && user.origin != id.Origin && now.Sub(user.last) <= ConflictSilence:
		return user.origin, !at.Before(user.since)
	case now.Sub(at) > ConflictSilence: // of long ago: it says nothing of who is active
		return other, false
	case !ok || user.origin != id.Origin:
		e.users[id.Epoch] = epochUser{id.Origin, at, at}
	case at.Sub(user.last) > epochFresh:
		user.last = at
		e.users[id.Epoch] = user
	}
	if now.Sub(e.swept) > epochsSwept {
		e.swept = now
		for epoch, user := range e.users {
			if now.Sub(user.last) > ConflictSilence {
				delete(e.users, epoch)
			}
		}
	}
	return other, false
}

// Of returns the other origin that uses a spool's epoch at present, if one does. It
// notes nothing: what is sent again by an operator says nothing of who is active.
func (e *Epochs) Of(id Spool, now time.Time) (other hub.Origin, conflict bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	user, ok := e.users[id.Epoch]
	if !ok || user.origin == id.Origin || now.Sub(user.last) > ConflictSilence {
		return other, false
	}
	return user.origin, true
}

// Fresh says whether an origin's use of an epoch was noted a moment ago, so that it
// need not be again.
func (e *Epochs) Fresh(id Spool, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	user, ok := e.users[id.Epoch]
	return ok && user.origin == id.Origin && now.Sub(user.last) <= epochFresh
}
