package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

const (
	// pullMessages is how many messages one reader asks for at a time. With a reader for
	// every partition, signal and destination it need not be many.
	pullMessages = 128
	// pullOverhead is what a message may measure beyond its payload: the hub counts it.
	pullOverhead = 64 << 10
	// arrivalBytes is what a frame takes of memory besides its message.
	arrivalBytes = 512
)

// reader reads one signal of a partition for one destination.
type reader struct {
	*share
	signal  frame.Signal
	out     *outlet
	sources map[string]*source // by subject
}

func (r *reader) run(ctx context.Context) {
	for interrupted := false; ctx.Err() == nil; interrupted = true {
		var consumer jetstream.Consumer
		connects := r.connects.Load()
		ready := r.untilDone(ctx, "the hub's stream is not ready; trying again", func(ctx context.Context) (err error) {
			if consumer, err = r.claim.Consumer(ctx, r.signal, r.dest.name); err == nil && interrupted {
				err = r.claim.Rewind(ctx, r.signal, r.dest.name)
			}
			return err
		})
		if !ready {
			return
		}
		err := r.read(ctx, consumer, connects)
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("reading from the hub was interrupted; it begins again", zap.Stringer("signal", r.signal),
			zap.Int("partition", r.claim.Partition()), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(retryMin):
		}
	}
}

var errReconnected = errors.New("the connection to the hub was lost for a while")

// read pulls messages as long as the hub answers, and until the connection was made
// anew: what the hub had sent before may be lost. Each pull is asked for only while
// the partition is certainly this relay's, and is short: what a relay asked for that
// was stopped must not take frames from the partition's next owner.
func (r *reader) read(ctx context.Context, consumer jetstream.Consumer, connects int64) (err error) {
	limit := jetstream.FetchMaxBytes(int(r.nc.MaxPayload()) + pullOverhead)
	for {
		if err = r.claim.WaitHeld(ctx); err != nil {
			break
		}
		if r.connects.Load() != connects {
			err = errReconnected
			break
		}
		if err = r.pull(ctx, consumer, limit); err != nil {
			break
		}
	}
	return fmt.Errorf("read stream %s: %w", hub.StreamName(r.signal), err)
}

func (r *reader) pull(ctx context.Context, consumer jetstream.Consumer, limit jetstream.FetchOpt) error {
	waiting, cancel := context.WithTimeout(ctx, lease.MaxPullExpiry)
	defer cancel()
	messages, err := consumer.Fetch(pullMessages, limit, jetstream.FetchContext(waiting))
	if err != nil {
		return err
	}
	for msg := range messages.Messages() {
		if err := r.route(ctx, msg); err != nil {
			return err
		}
	}
	if err := messages.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return ctx.Err()
}

// route hands a message to its origin's worker, once the budget has room.
func (r *reader) route(ctx context.Context, msg jetstream.Msg) (err error) {
	from, ok := r.sources[msg.Subject()]
	if !ok {
		from = newSource(msg.Subject())
		from.counts = r.telemetry.clusters.of(r.dest.name, r.signal, from.origin.Cluster)
		if from.err == nil {
			r.sources[msg.Subject()] = from
		}
	}
	a := readArrival(msg, from)
	a.share, a.out = r.share, r.out
	if a.bytes, err = r.out.frames.take(ctx, int64(len(msg.Data()))+arrivalBytes); err != nil {
		return err
	}
	from.counts.bytes.Add(int64(len(msg.Data())))
	r.hold(a)
	r.out.workerOf(from).in.push(a)
	return nil
}
