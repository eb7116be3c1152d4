package natsreceiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lease"
)

const (
	// pullMessages is how many messages one reader asks for at a time. With a reader for
	// every partition, signal and destination it need not be many.
	pullMessages = 128
	// pullOverhead is what a message may measure beyond its payload: the hub counts it.
	pullOverhead = 64 << 10
	// arrivalBytes is what a frame takes of memory besides its message's data.
	arrivalBytes = 1 << 10
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

var (
	errReconnected = errors.New("the connection to the hub was lost for a while")
	errSilent      = errors.New("the hub did not answer a pull")
)

// pullRequest is what the hub understands at pullSubject.
type pullRequest struct {
	Expires  time.Duration `json:"expires"`
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes"`
}

const pullSubject = "$JS.API.CONSUMER.MSG.NEXT."

// read pulls messages as long as the hub answers, and until the connection was made
// anew: what the hub had sent before may be lost. Each pull is asked for only while
// the partition is certainly this relay's, and is short: what a relay asked for that
// was stopped must not take frames from the partition's next owner.
//
// It does not use the client's Fetch, which stops listening when a pull is over by
// the clock of this process: what a busy hub or relay has on its way by then would be
// lost, to come again after hub.AckWait behind newer frames. Here all pulls have one
// inbox, with a token of its own for each: a pull ends when all it asked for has come
// or by the hub's word on this pull. (The hub also says of a pull that was filled that
// it is over: on the token of one that is.)
func (r *reader) read(ctx context.Context, consumer jetstream.Consumer, connects int64) (err error) {
	info := consumer.CachedInfo()
	request, err := json.Marshal(pullRequest{lease.MaxPullExpiry, pullMessages, int(r.nc.MaxPayload()) + pullOverhead})
	if err != nil {
		return err
	}
	inbox, in := r.nc.NewInbox()+".", make(chan *nats.Msg, 4*pullMessages)
	sub, err := r.nc.ChanSubscribe(inbox+"*", in)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	for n := 0; err == nil; n++ {
		if err = r.claim.WaitHeld(ctx); err != nil {
			break
		}
		if r.connects.Load() != connects {
			err = errReconnected
			break
		}
		pull := inbox + strconv.Itoa(n)
		if err = r.nc.PublishRequest(pullSubject+info.Stream+"."+info.Name, pull, request); err == nil {
			err = r.receive(ctx, pull, in, connects)
		}
	}
	return fmt.Errorf("read stream %s: %w", info.Stream, err)
}

// receive takes what comes of one pull.
func (r *reader) receive(ctx context.Context, pull string, in <-chan *nats.Msg, connects int64) error {
	// A hub that is busy answers late; one that does not answer at all may have lost
	// what it sent.
	const patience = lease.MaxPullExpiry + 20*time.Second
	last := time.Now()
	look := time.NewTicker(lease.MaxPullExpiry)
	defer look.Stop()
	for received := 0; received < pullMessages; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			switch {
			case len(in) > 0:
			case r.connects.Load() != connects:
				return errReconnected
			case time.Since(last) > patience:
				return errSilent
			}
			continue
		case msg := <-in:
			if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 {
				if msg.Subject != pull {
					break // of one before, which was filled
				}
				return pullEnd(status, msg.Header.Get("Description"))
			}
			if err := r.route(ctx, msg); err != nil {
				return err
			}
			received++
		}
		last = time.Now()
	}
	return nil
}

// pullEnd says what a status that ends a pull means: nil if it is over as it should be.
func pullEnd(status, description string) error {
	switch {
	case status == "404", status == "408", // nothing there, or not in time
		status == "409" && (strings.Contains(description, "MaxBytes") || strings.Contains(description, "Completed")):
		return nil
	}
	return fmt.Errorf("the hub ended a pull: status %s %s", status, description)
}

// route hands a message to its origin's worker, once the budget has room.
func (r *reader) route(ctx context.Context, msg *nats.Msg) (err error) {
	from, ok := r.sources[msg.Subject]
	if !ok {
		from = newSource(msg.Subject)
		from.counts = r.telemetry.clusters.of(r.dest.name, r.signal, from.origin.Cluster)
		if from.err == nil {
			r.sources[msg.Subject] = from
		}
	}
	a := readArrival(msg, from)
	a.share, a.out = r.share, r.out
	if a.bytes, err = r.out.frames.take(ctx, int64(len(msg.Data))+arrivalBytes); err != nil {
		return err
	}
	from.counts.bytes.Add(int64(len(msg.Data)))
	r.hold(a)
	r.out.workerOf(from).in.push(a)
	return nil
}
