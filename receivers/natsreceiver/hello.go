package natsreceiver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// edgeForgottenAfter is when an origin that says nothing any more leaves the
// metrics: a node that was taken out of service.
const edgeForgottenAfter = 7 * 24 * time.Hour

// edges is what the relay knows of the origins from their hellos.
type edges struct {
	mu   sync.Mutex
	seen map[hub.Origin]*edge
}

type edge struct {
	at           time.Time
	spoolBytes   int64
	oldestUnsent float64
	confirmed    map[custody.Key]uint64 // at the hello before
}

func newEdges() *edges { return &edges{seen: make(map[hub.Origin]*edge)} }

// update notes a hello and returns what was confirmed at the one before.
func (e *edges) update(origin hub.Origin, hello custody.Hello, confirmed map[custody.Key]uint64) (before map[custody.Key]uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.seen[origin]; ok {
		before = old.confirmed
	}
	e.seen[origin] = &edge{time.Now(), hello.SpoolBytes, hello.OldestUnsentSeconds, confirmed}
	return before
}

// hello answers an edge: how far its lanes are confirmed, and whether the hub
// has lost some of what it shipped.
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
	confirmed := make(map[custody.Key]uint64, len(hello.Lanes))
	shipped := make(map[custody.Key]uint64, len(hello.Lanes))
	var accepted []custody.Accepted
	for _, l := range hello.Lanes {
		lane, err := frame.ParseLane(l.Lane)
		if err != nil {
			continue // a lane of a later version
		}
		key := custody.Key{Origin: origin, Epoch: epoch, Lane: lane}
		confirmed[key], _ = c.ledger.Confirmed(key)
		shipped[key] = l.Shipped
		accepted = append(accepted, custody.Accepted{Lane: l.Lane, Confirmed: confirmed[key], Stream: c.settler.storeOf(lane.Signal)})
	}
	c.settler.tell(origin, epoch, accepted)
	before := c.edges.update(origin, hello, confirmed)
	for key := range confirmed {
		if was, ok := before[key]; ok && was == confirmed[key] && shipped[key] > confirmed[key] {
			c.askForLost(key, shipped[key])
		}
	}
}

// askForLost is called for a lane that has not moved between two hellos although
// the edge has shipped more. If the hub holds nothing of it, it was lost there.
func (c *core) askForLost(key custody.Key, shipped uint64) {
	r, ok := c.readers[key.Lane.Signal]
	if !ok {
		return // no pipeline for this signal: its frames wait on the hub
	}
	stream := r.stream.Load()
	if stream == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held, err := heldFor(ctx, *stream, hub.FrameSubject(key.Lane.Signal, key.Origin))
	if err != nil {
		c.log.Debug("cannot ask the hub what it holds", zap.Error(err))
		return
	}
	// In this order: a frame leaves the hub only after its watermark is confirmed.
	confirmed, _ := c.ledger.Confirmed(key)
	if held > 0 || confirmed >= shipped || c.ledger.AskedWithin(key, resendInterval, time.Now()) {
		return
	}
	c.log.Warn("the hub has lost frames; the edge is asked for them",
		zap.Stringer("origin", key.Origin), zap.Stringer("lane", key.Lane), zap.Uint64("from", confirmed+1), zap.Uint64("to", shipped))
	c.settler.ask(key, confirmed+1)
}

func heldFor(ctx context.Context, stream jetstream.Stream, subject string) (uint64, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, fmt.Errorf("stream info: %w", err)
	}
	return info.State.Subjects[subject], nil
}
