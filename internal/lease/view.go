package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/hub"
)

// custodyStream is the stream behind the custody bucket.
const custodyStream = "KV_" + hub.CustodyBucket

// memberValue stands under a relay's member key.
type memberValue struct {
	Name string `json:"name"`
	// Reads are its destinations and their signals.
	Reads map[string][]string `json:"reads"`
	Since time.Time           `json:"since"`
}

// ownerValue stands under a partition's owner key. An empty ID: nobody owns it.
type ownerValue struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// owner is an owner key as read.
type owner struct {
	id       string
	revision uint64
}

// memberSeen is a member key as read.
type memberSeen struct {
	memberValue
	revision uint64
}

// view is what the bucket said at one moment about who lives and owns what.
type view struct {
	members map[string]memberSeen
	owners  map[part]owner
	layout  *hub.Layout
	// layoutRevision orders layouts.
	layoutRevision uint64
}

var errOldView = errors.New("the hub's answer is older than this relay's last sign of life; a hub server lags behind")

// look reads the bucket. Any server may answer, also one that lags: what it says
// counts only if it knows this relay's last sign of life.
func (m *Member) look(ctx context.Context, beat uint64) (*view, error) {
	answers, err := jetstreamext.GetLastMsgsFor(ctx, m.js, custodyStream,
		[]string{hub.KeySubject(hub.MemberKeys), hub.KeySubject(hub.OwnerKeys), hub.KeySubject(hub.LayoutKey)})
	if err != nil {
		return nil, fmt.Errorf("read who shares the partitions: %w", err)
	}
	v := &view{members: make(map[string]memberSeen), owners: make(map[part]owner)}
	pending := "?"
	for msg, err := range answers {
		if err != nil {
			return nil, fmt.Errorf("read who shares the partitions: %w", err)
		}
		pending = msg.Header.Get("Nats-Num-Pending")
		if msg.Header.Get("KV-Operation") == "" {
			m.note(v, msg)
		}
	}
	if pending != "0" {
		return nil, fmt.Errorf("read who shares the partitions: interrupted, %s answers are missing", pending)
	}
	if v.members[m.id].revision < beat {
		return nil, errOldView
	}
	return v, nil
}

func (m *Member) note(v *view, msg *jetstream.RawStreamMsg) {
	key := hub.SubjectKey(msg.Subject)
	var err error
	if id, ok := hub.ParseMemberKey(key); ok {
		seen := memberSeen{revision: msg.Sequence}
		err = json.Unmarshal(msg.Data, &seen.memberValue)
		v.members[id] = seen
	} else if count, partition, ok := hub.ParseOwnerKey(key); ok {
		var value ownerValue
		err = json.Unmarshal(msg.Data, &value) // what cannot be read is nobody's
		v.owners[part{count, partition}] = owner{value.ID, msg.Sequence}
	} else if key == hub.LayoutKey {
		var l hub.Layout
		if l, err = hub.ParseLayout(msg.Data); err == nil {
			v.layout, v.layoutRevision = &l, msg.Sequence
		}
	}
	if err != nil {
		m.log.Warn("a key of the custody bucket cannot be read", zap.String("key", key), zap.Error(err))
	}
}

// census remembers since when each member's key has not changed, in time during
// which this relay could read it.
type census struct {
	seen  map[string]memberAge
	last  time.Duration // of the clock, at the last view
	grace time.Duration // nobody is taken for dead before
}

type memberAge struct {
	revision uint64
	age      time.Duration
}

// silent are the members that gave no sign of life for so long, and their keys' revisions.
func (c *census) silent(long time.Duration) map[string]uint64 {
	dead := make(map[string]uint64)
	for id, member := range c.seen {
		if member.age >= max(long, expiry) && c.last >= c.grace {
			dead[id] = member.revision
		}
	}
	return dead
}

// count takes a view in and returns who lives.
func (c *census) count(v *view, now time.Duration) map[string]memberSeen {
	step := now - c.last
	if c.last == 0 {
		step = 0
	}
	if step > outage {
		// The hub was away, or this relay stopped: others may have been, too, and come back.
		c.grace = now + comeBack
		c.seen = nil
	}
	c.last = now
	live, seen := make(map[string]memberSeen), make(map[string]memberAge)
	for id, member := range v.members {
		age := memberAge{revision: member.revision}
		if before, ok := c.seen[id]; ok && before.revision == member.revision {
			age.age = before.age + min(step, maxStep)
		}
		seen[id] = age
		if age.age < expiry || now < c.grace {
			live[id] = member
		}
	}
	c.seen = seen
	return live
}
