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
}

func newEdges() *edges { return &edges{seen: make(map[hub.Origin]*edge)} }

// update notes a hello.
func (e *edges) update(origin hub.Origin, hello *custody.Hello) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[origin] = &edge{time.Now(), hello.SpoolBytes, hello.OldestUnsentSeconds}
}

// hear listens to hellos until ctx is done. Every relay hears all of them, so that a
// partition's next owner knows what its last one knew; only the owner answers.
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

func (c *core) hello(msg *nats.Msg) {
	origin, err := hub.ParseHelloSubject(msg.Subject)
	if err != nil {
		return // not a longhaul subject
	}
	p := c.owner(origin)
	hello, epoch, err := custody.ParseHello(msg.Data)
	if err != nil {
		if p != nil {
			c.log.Warn("an edge's hello cannot be read; it is ignored", zap.Stringer("origin", origin), zap.Error(err))
		}
		return
	}
	if hello.Cut > 0 && p != nil && c.notices.hellos.due() {
		c.log.Warn("an edge's hello has more lanes than are kept track of; the youngest are left out until others are done with",
			zap.Stringer("origin", origin), zap.Int("left_out", hello.Cut), zap.Int("most", custody.MaxLanes))
	}
	id, now := custody.Spool{Origin: origin, Epoch: epoch}, time.Now()
	c.edges.update(origin, &hello)
	conflict, news := c.conflict(id, hello.Instance, now)
	switch {
	case p == nil || !p.ready.Load() || p.ended.Load() || !p.claim.Held():
		return // the owner answers; if there is none at this moment, the edge says it again
	case conflict != "":
		if news {
			c.log.Error("an origin is in conflict; nothing of it is confirmed until that is resolved", zap.Stringer("origin", origin), zap.String("conflict", conflict))
		}
		p.settler.answer(id, custody.Confirmation{Conflict: conflict, Lanes: []custody.Accepted{}})
	default:
		p.hello(id, &hello, now)
	}
}

// hello answers an edge: how far its lanes are confirmed. What it misses, by its
// own words, becomes suspect.
func (p *partition) hello(id custody.Spool, hello *custody.Hello, now time.Time) {
	lanes := hello.Lanes
	confirmed := make(map[frame.Lane]uint64, len(lanes))
	for _, said := range lanes {
		if lane, err := frame.ParseLane(said.Lane); err == nil {
			confirmed[lane] = 0 // a signal that no destination reads waits on the hub
		}
	}
	heard := make(map[frame.Lane]struct{}, len(lanes))
	for _, s := range p.shares {
		accepted, suspects := s.ledger.Hear(id, s.ofSignals(lanes), now)
		for lane, number := range accepted {
			if _, again := heard[lane]; !again || number < confirmed[lane] {
				confirmed[lane] = number
			}
			heard[lane] = struct{}{}
		}
		s.suspects.heard(id, suspects, now)
	}
	answer := custody.Confirmation{Instance: hello.Instance, Heard: hello.Seq, Lanes: make([]custody.Accepted, 0, len(confirmed))}
	for lane, number := range confirmed {
		answer.Lanes = append(answer.Lanes, custody.Accepted{Lane: lane.String(), Confirmed: number, Stream: p.settler.storeOf(lane.Signal)})
	}
	p.settler.answer(id, answer)
}

// ofSignals leaves out the lanes of signals that the destination does not read.
func (s *share) ofSignals(lanes []custody.HelloLane) []custody.HelloLane {
	if len(s.dest.outlets) == len(frame.Signals) {
		return lanes
	}
	var kept []custody.HelloLane
	for _, said := range lanes {
		if lane, err := frame.ParseLane(said.Lane); err == nil && s.dest.outlets[lane.Signal] != nil {
			kept = append(kept, said)
		}
	}
	return kept
}

// conflict says whether another collector uses a copy of the spool, under this
// origin or another, and whether that is news. Both are told, because the answer
// goes to all that listen for this origin; nothing is confirmed, because a number
// means a different frame to each of them.
func (c *core) conflict(id custody.Spool, instance string, now time.Time) (text string, news bool) {
	if other, conflict := c.epochs.Use(id, now, now); conflict {
		return fmt.Sprintf("the spool of epoch %s is used by a collector that calls itself %s, and this one calls itself %s: stop the one that has a copy and "+
			"give it an empty spool directory of its own; if the spool was adopted or the node renamed, this resolves itself when %s has been silent for %s",
			id.Epoch, other, id.Origin, other, custody.ConflictSilence), true
	}
	instances, news := c.instances.Hear(id, instance, now)
	if len(instances) == 0 {
		return "", false
	}
	return fmt.Sprintf("%d collectors use copies of one spool (cluster %s, node %s, epoch %s; instances %s): stop all but one, "+
		"give each of the others a node name and an empty spool directory of its own; a collector counts as stopped after %s of silence",
		len(instances), id.Origin.Cluster, id.Origin.Node, id.Epoch, strings.Join(instances, ", "), custody.ConflictSilence), news
}
