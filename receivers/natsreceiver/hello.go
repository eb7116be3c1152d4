package natsreceiver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// edgeForgottenAfter is when an origin that says nothing any more leaves the
	// metrics: a node that was taken out of service.
	edgeForgottenAfter = 7 * 24 * time.Hour
	// maxHellos is how many may wait: a fleet that comes back in one moment. The
	// client drops what comes on top; the edges repeat themselves.
	maxHellos = 16 * 1024
)

// edges is what the relay knows of the origins from their hellos.
type edges struct {
	mu   sync.Mutex
	seen map[hub.Origin]*edge
}

type edge struct {
	at           time.Time
	spoolBytes   int64
	oldestUnsent float64
	taken        map[custody.Key]uint64 // of lanes that were suspect at the hello before
}

func newEdges() *edges { return &edges{seen: make(map[hub.Origin]*edge)} }

// update notes a hello and returns what was suspect at the one before, and how far
// that was taken.
func (e *edges) update(origin hub.Origin, hello custody.Hello, taken map[custody.Key]uint64) (before map[custody.Key]uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.seen[origin]; ok {
		before = old.taken
	}
	e.seen[origin] = &edge{time.Now(), hello.SpoolBytes, hello.OldestUnsentSeconds, taken}
	return before
}

// hear answers hellos until ctx is done.
func (c *core) hear(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-c.hellos:
			c.hello(msg)
		}
	}
}

// hello answers an edge: how far its lanes are confirmed. What it misses, by its
// own words, becomes suspect.
func (c *core) hello(msg *nats.Msg) {
	origin, err := hub.ParseHelloSubject(msg.Subject)
	if err != nil {
		return // not a longhaul subject
	}
	hello, epoch, err := custody.ParseHello(msg.Data)
	if err != nil {
		c.log.Warn("an edge's hello cannot be read; it is ignored", zap.Stringer("origin", origin), zap.Error(err))
		return
	}
	id, now := custody.Spool{Origin: origin, Epoch: epoch}, time.Now()
	if c.conflict(id, hello, now) {
		return
	}
	confirmed, suspects := c.ledger.Hear(id, hello.Lanes, now)
	answer := custody.Confirmation{Lanes: make([]custody.Accepted, 0, len(confirmed))}
	for lane, number := range confirmed {
		answer.Lanes = append(answer.Lanes, custody.Accepted{Lane: lane.String(), Confirmed: number, Stream: c.settler.storeOf(lane.Signal)})
	}
	c.settler.answer(id, answer)

	taken := make(map[custody.Key]uint64, len(suspects))
	for _, s := range suspects {
		taken[s.Key] = s.Taken
	}
	before := c.edges.update(origin, hello, taken)
	var real []custody.Suspect
	for _, s := range suspects {
		was, again := before[s.Key]
		// A lane with something to send has shipped a little more than was taken at any
		// time; only if it stands still from one hello to the next something is wrong.
		if s.Lane.Floor >= s.Lane.Next || again && was == s.Taken {
			real = append(real, s)
		}
	}
	c.suspects.renew(id, real, now)
}

// conflict says whether another collector uses a copy of the spool, and if so
// tells both: the answer goes to all that listen for this origin. It confirms
// nothing, because a number means a different frame to each of them.
func (c *core) conflict(id custody.Spool, hello custody.Hello, now time.Time) bool {
	instances, news := c.instances.Hear(id, hello.Instance, now)
	if len(instances) == 0 {
		return false
	}
	text := fmt.Sprintf("%d collectors use copies of one spool (cluster %s, node %s, epoch %s; instances %s): stop all but one, "+
		"give each of the others a node name and an empty spool directory of its own; a collector counts as stopped after %s of silence",
		len(instances), id.Origin.Cluster, id.Origin.Node, id.Epoch, strings.Join(instances, ", "), custody.ConflictSilence)
	c.settler.answer(id, custody.Confirmation{Conflict: text, Lanes: []custody.Accepted{}})
	c.edges.update(id.Origin, hello, nil)
	if news {
		c.log.Error("a spool was copied; nothing of it is confirmed until that is resolved", zap.Stringer("origin", id.Origin), zap.String("conflict", text))
	}
	return true
}

// ofSignal says whether a key is of a signal that this relay reads.
func (c *core) ofSignal(signal frame.Signal) (*reader, bool) {
	r, ok := c.readers[signal]
	return r, ok && r.stream.Load() != nil
}
