package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// A frame that comes before its predecessor is given back to the hub
	// earlyTries times, earlyWait apart: its predecessor may be on its way. Then it
	// is dropped and the edge is asked for all from the missing one on, so that
	// frames waiting for one that the hub has lost cannot fill the relay's hands.
	earlyTries = 3
	earlyWait  = 2 * time.Second
	// resendInterval is the least time between two requests for one lane.
	resendInterval = 5 * time.Second
)

// worker delivers the frames of some origins of one signal.
type worker struct {
	*reader
	deliver sink
	in      chan *arrival
}

// delivery is what goes to the exporters as one piece.
type delivery struct {
	arrivals []*arrival
	contents []content
	items    int
	bytes    int64
	// last is a frame that does not decode, and why. It comes behind the arrivals and
	// is dealt with after them: accepting its number accepts theirs.
	last   *arrival
	reason error
}

func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-w.in:
			if ctx.Err() != nil {
				return // begin nothing that a shutdown may cut short: it stays on the hub
			}
			d := w.collect(ctx, a)
			if len(d.arrivals) > 0 && !w.send(ctx, d) {
				return
			}
			if d.last != nil && !w.refuse(ctx, d.last, d.reason, frame.Corrupt) {
				return
			}
		}
	}
}

// collect judges the first arrival and all that is already waiting behind it, up
// to the limits of a delivery.
func (w *worker) collect(ctx context.Context, first *arrival) *delivery {
	d := &delivery{}
	w.judge(ctx, first, d)
	for d.last == nil && d.items < w.config.Deliver.MaxItems && d.bytes < int64(w.config.Deliver.MaxBytes) {
		select {
		case a := <-w.in:
			w.judge(ctx, a, d)
		default:
			return d
		}
	}
	return d
}

// judge puts an arrival into the delivery or deals with it at once.
func (w *worker) judge(ctx context.Context, a *arrival, d *delivery) {
	if a.poison != nil {
		// Its number cannot be trusted: the ledger goes on waiting for that number,
		// and the edge, which has the frame, is asked for it again.
		w.reject(ctx, a, a.poison)
		w.settler.drop(a)
		return
	}
	verdict := w.ledger.Take(a.key, a.words(), time.Now())
	switch verdict {
	case custody.Duplicate:
		w.telemetry.duplicate(w.signal)
		w.settler.settle(a)
	case custody.Early:
		w.early(a)
	case custody.Undecided:
		w.settler.giveBack(a, earlyWait)
	case custody.Deliver, custody.Late:
		a.late = verdict == custody.Late
		otlp, err := w.decode(a)
		if err != nil {
			// The frame is whole and still does not decode: it will not the next time.
			d.last, d.reason = a, err
			return
		}
		d.arrivals = append(d.arrivals, a)
		d.contents = append(d.contents, content{a.key.Origin, otlp})
		d.items += int(a.header.Items)
		d.bytes += a.bytes
	}
}

func (w *worker) decode(a *arrival) ([]byte, error) {
	codec, err := frame.CodecByID(a.header.Codec)
	if err != nil {
		return nil, err
	}
	otlp, err := codec.Decode(nil, a.payload, int(a.header.Uncompressed))
	if err != nil {
		return nil, fmt.Errorf("decode %s payload: %w", a.header.Codec, err)
	}
	return otlp, nil
}

// early deals with a frame whose predecessors are missing.
func (w *worker) early(a *arrival) {
	metadata, err := a.msg.Metadata()
	if err == nil && metadata.NumDelivered < earlyTries {
		w.settler.giveBack(a, earlyWait)
		return
	}
	w.suspects.wants(a.key, a.header.Number)
	w.settler.drop(a)
}

// send delivers until the exporters accept, or give up what is refused, or until
// ctx is done (false).
func (w *worker) send(ctx context.Context, d *delivery) bool {
	retry := &backoff.ExponentialBackOff{InitialInterval: retryMin, MaxInterval: retryMax, Multiplier: 2, RandomizationFactor: 0.5}
	retry.Reset()
	for complained := false; ; {
		err := w.deliver(w.delivering, d.contents)
		switch {
		case err == nil:
			w.accept(d)
			return true
		case w.delivering.Err() != nil:
			return false
		case isPermanent(err):
			return w.rejectOrSplit(ctx, d, err)
		}
		wait := retry.NextBackOff()
		level := w.log.Warn
		if complained {
			level = w.log.Debug
		}
		complained = true
		level("a backend does not accept data; it is retried until it does, the hub and the edges keep what comes",
			zap.Stringer("signal", w.signal), zap.Int("items", d.items), zap.Duration("retry_in", wait), zap.Error(err))
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

func (w *worker) accept(d *delivery) {
	for _, a := range d.arrivals {
		if a.late {
			a.version = w.ledger.Return(a.key, a.header.Number, uint64(a.header.Items), time.Now())
		} else {
			a.version = w.ledger.Accept(a.key, a.header.Number, time.Now())
		}
		w.telemetry.delivered(a)
		w.settler.settle(a)
	}
}

// rejectOrSplit handles a refusal for good: of one frame, it is that frame's; of
// several, each is tried alone.
func (w *worker) rejectOrSplit(ctx context.Context, d *delivery, reason error) bool {
	if len(d.arrivals) > 1 {
		for i := range d.arrivals {
			one := &delivery{arrivals: d.arrivals[i : i+1], contents: d.contents[i : i+1], items: int(d.arrivals[i].header.Items)}
			if !w.send(ctx, one) {
				return false
			}
		}
		return true
	}
	return w.refuse(ctx, d.arrivals[0], reason, frame.Rejected)
}

// refuse keeps a frame that goes no further in the rejected stream and counts it.
// It returns false only when ctx was done before the hub had it.
func (w *worker) refuse(ctx context.Context, a *arrival, reason error, cause frame.Cause) bool {
	if !w.reject(ctx, a, reason) {
		return false
	}
	if a.late { // named as lost it was already
		a.version = w.ledger.Return(a.key, a.header.Number, 0, time.Now())
	} else {
		a.version = w.ledger.Refuse(a.key, a.header.Number, cause, time.Now())
	}
	w.settler.settle(a)
	return true
}

// reject keeps a copy of the message, with the reason, in the rejected stream.
// It returns false only when ctx was done before the hub had it.
func (w *worker) reject(ctx context.Context, a *arrival, reason error) bool {
	w.log.Error("a frame is rejected; it is kept in the stream "+hub.RejectedStream,
		zap.Stringer("origin", a.key.Origin), zap.Stringer("lane", a.key.Lane),
		zap.Uint64("number", a.header.Number), zap.Uint32("items", a.header.Items), zap.Error(reason))
	w.telemetry.rejected(a, reason)
	subject := hub.RejectedSubject(w.signal, a.key.Origin)
	if a.key.Origin == (hub.Origin{}) {
		subject = hub.RejectedSubject(w.signal, hub.Origin{Cluster: "unknown", Node: "unknown"})
	}
	return w.untilDone(ctx, "a rejected frame cannot be kept on the hub; trying again", func(ctx context.Context) error {
		_, err := w.js.PublishMsg(ctx, &nats.Msg{
			Subject: subject,
			Header:  nats.Header{hub.ReasonHeader: []string{oneLine(reason)}},
			Data:    a.msg.Data(),
		}, jetstream.WithRetryAttempts(0))
		if errors.Is(err, nats.ErrMaxPayload) {
			return nil // cannot be kept; it has been counted and logged
		}
		return err
	})
}
