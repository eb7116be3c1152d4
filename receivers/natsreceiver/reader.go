package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// pullMessages is how many messages one pull asks for; the buffer's bytes are the bound.
	pullMessages  = 256
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 5 * time.Second
)

// reader reads one signal's stream and spreads its messages over workers.
type reader struct {
	*core
	signal  frame.Signal
	workers []*worker
	buffer  *semaphore.Weighted
	stream  atomic.Pointer[jetstream.Stream]
	store   atomic.Pointer[string] // identity of the stream: when it was made
}

func newReader(c *core, signal frame.Signal, to sink) *reader {
	r := &reader{core: c, signal: signal, buffer: semaphore.NewWeighted(int64(c.config.Deliver.BufferBytes))}
	for range c.config.Deliver.Workers {
		r.workers = append(r.workers, &worker{reader: r, deliver: to, in: make(chan *arrival, hub.MaxAckPending)})
	}
	return r
}

// storeIdentity names the hub's present store of this signal; "" when not known.
func (r *reader) storeIdentity() string {
	if id := r.store.Load(); id != nil {
		return *id
	}
	return ""
}

func (r *reader) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, w := range r.workers {
		group.Go(func() { w.run(ctx) })
	}
	first := true
	for ctx.Err() == nil {
		var consumer jetstream.Consumer
		ready := r.untilDone(ctx, "the hub's stream is not ready; trying again", func(ctx context.Context) (err error) {
			consumer, err = r.attach(ctx, first)
			return err
		})
		if !ready {
			break
		}
		first = false
		if err := r.read(ctx, consumer); err != nil && ctx.Err() == nil {
			r.log.Warn("reading from the hub was interrupted; it begins again", zap.Stringer("signal", r.signal), zap.Error(err))
		}
	}
	group.Wait()
}

// attach makes sure of the stream and the consumer. The first time it makes the
// consumer anew: what an earlier relay had in its hands is then delivered at
// once and in its place, not after AckWait and behind newer frames.
func (r *reader) attach(ctx context.Context, first bool) (jetstream.Consumer, error) {
	if first {
		err := r.js.DeleteConsumer(ctx, hub.StreamName(r.signal), hub.ConsumerName)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("take over consumer %s of stream %s: %w", hub.ConsumerName, hub.StreamName(r.signal), err)
		}
	}
	stream, consumer, err := hub.EnsureStream(ctx, r.js, r.signal, r.config.Streams)
	if err != nil {
		return nil, err
	}
	id := strconv.FormatInt(stream.CachedInfo().Created.UnixNano(), 36)
	if old := r.store.Swap(&id); old != nil && *old != id {
		r.ledger.StoreAgain() // the bucket may have gone with it
		r.log.Warn("the hub has a new store; the edges are told to publish again what was not delivered", zap.Stringer("signal", r.signal))
	}
	r.stream.Store(&stream)
	return consumer, nil
}

func (r *reader) read(ctx context.Context, consumer jetstream.Consumer) error {
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(pullMessages), jetstream.PullExpiry(pullExpiry),
		jetstream.PullHeartbeat(pullHeartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("read stream %s: %w", hub.StreamName(r.signal), err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read stream %s: %w", hub.StreamName(r.signal), err)
		}
		if err := r.route(ctx, msg); err != nil {
			return err
		}
	}
}

// route hands a message to its origin's worker, once the buffer has room.
func (r *reader) route(ctx context.Context, msg jetstream.Msg) error {
	a, err := readArrival(msg)
	a.bytes = min(a.bytes, int64(r.config.Deliver.BufferBytes))
	a.reading, a.poison = r.signal, err
	if err := r.buffer.Acquire(ctx, a.bytes); err != nil {
		return err
	}
	r.settler.hold(a)
	r.telemetry.received(a)
	select {
	case r.workers[a.worker(len(r.workers))].in <- a:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
