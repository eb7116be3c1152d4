package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
	// wholeTries is how often a batch of which nothing is accepted is tried whole.
	wholeTries = 3
	// asideMax is the longest time between two attempts while there is room to set
	// aside what was tried.
	asideMax = time.Second
	// probes is how many other origins' frames join a full batch that is not accepted.
	probes = 8
)

// worker delivers the frames of some origins of an outlet, of whatever partition.
type worker struct {
	*outlet
	in      *queue
	parking *parking

	pace *backoff.ExponentialBackOff // of attempts, since the backend took nothing; nil while it does
	seen uint64                      // outlet.answers at the last attempt of which nothing was taken
}

// batch is what goes to the exporters as one piece: arrivals that the ledgers have
// taken, in the order in which they are to be delivered.
type batch struct {
	arrivals []*arrival
	items    int
	bytes    int64
	memory   int64 // what it is thought to take when decoded
}

func (b *batch) add(a *arrival) {
	b.arrivals = append(b.arrivals, a)
	b.items += int(a.header.Items)
	b.bytes += int64(a.header.PayloadLen)
	b.memory += a.out.decodedBytes(a)
}

func batchOf(arrivals []*arrival) *batch {
	b := &batch{}
	for _, a := range arrivals {
		b.add(a)
	}
	return b
}

// full says whether a batch has reached the limits of a delivery, times n.
func (o *outlet) full(b *batch, times int) bool {
	c := &o.destination.config.Deliver
	return b.items >= times*c.MaxItems || b.bytes >= int64(times)*int64(c.MaxBytes) || b.memory >= int64(times)*o.batch ||
		len(b.arrivals) >= times*o.batchFrames
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		b := &batch{}
		if !w.collect(ctx, b) {
			return
		}
		w.send(ctx, b)
	}
}

// collect fills a batch: until it is full, or MaxDelay after its first frame came.
// It returns false when ctx is done.
func (w *worker) collect(ctx context.Context, b *batch) bool {
	var late <-chan time.Time
	for !w.full(b, 1) {
		if a := w.parking.pop(nil); a != nil {
			w.judge(a, b)
			continue
		}
		if late == nil && len(b.arrivals) > 0 {
			timer := time.NewTimer(w.destination.config.Deliver.MaxDelay)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return false
		case <-late:
			return true
		case <-w.in.ready:
		}
	}
	return true
}

// judge puts an arrival into the batch or deals with it at once.
func (w *worker) judge(a *arrival, b *batch) {
	switch {
	case a.share.ended.Load():
		a.discard()
	case a.poison != nil:
		w.poisoned(a, a.poison)
	case w.parking.keeps(a):
	default:
		w.take(a, b)
	}
}

// poisoned keeps what is no frame of its origin. Its number cannot be trusted: the
// ledger goes on waiting for that number, and the edge, which has the frame, is
// asked for it again.
func (w *worker) poisoned(a *arrival, reason error) {
	if w.reject(a, reason) {
		a.drop()
	} else {
		a.discard()
	}
}

// take lets the ledger judge an arrival.
func (w *worker) take(a *arrival, b *batch) {
	if a.replay != "" {
		w.takeReplay(a, b)
		return
	}
	if other, conflict := w.stranger(a); conflict {
		a.poison = &originError{a.key, other}
		w.poisoned(a, a.poison)
		return
	}
	verdict := a.share.ledger.Take(a.key, a.words(), time.Now())
	switch verdict {
	case custody.Duplicate:
		w.telemetry.duplicate(w.outlet)
		a.settle(0)
	case custody.Early:
		w.early(a)
	case custody.Undecided:
		a.giveBack(earlyWait)
	case custody.Deliver, custody.Late:
		a.taken, a.late = true, verdict == custody.Late
		b.add(a)
	}
}

// takeReplay judges a frame that an operator sends again from the rejected stream.
// It moves no lane on, and the edge is not asked for it.
//
// An edge may set the header, too: it comes on the edge's own subject. A frame that the
// ledger knows as refused has passed the check of its origin; any other has to pass it
// now, and that it is delivered outside of its lane's numbers is counted and said.
func (w *worker) takeReplay(a *arrival, b *batch) {
	if a.replay != w.destination.name {
		w.telemetry.duplicate(w.outlet)
		a.drop()
		return
	}
	refused := a.share.ledger.Refused(a.key, a.header.Number)
	if other, conflict := w.epochs.Of(a.key.Spool(), time.Now()); conflict && !refused {
		a.replay = "" // it is rejected as any other, and counted
		a.poison = &originError{a.key, other}
		w.poisoned(a, a.poison)
		return
	}
	switch a.share.ledger.Replay(a.key, a.header.Number) {
	case custody.Duplicate:
		w.telemetry.duplicate(w.outlet)
		a.drop()
	case custody.Undecided:
		a.giveBack(earlyWait)
	default:
		a.taken = true
		b.add(a)
		w.telemetry.replayed(w.outlet, refused)
		if !refused {
			w.tellReplay(a)
		}
	}
}

// tellReplay says that something is delivered outside of the numbers that no ledger
// knows as refused.
func (w *worker) tellReplay(a *arrival) {
	if !w.notices.replays.due() {
		return
	}
	w.log.Warn("a frame that is marked as sent again from the stream "+hub.RejectedStream+" is not known as refused; it is delivered, whatever its number: "+
		"if no operator sent it, the edge itself marks its frames so (longhaul_relay_frames_replayed_total counts them)",
		zap.Stringer("origin", a.key.Origin), zap.Stringer("epoch", a.key.Epoch), zap.Stringer("lane", a.key.Lane), zap.Uint64("number", a.header.Number))
}

// originError is a frame with the epoch of a spool that is active under another name.
type originError struct {
	key   custody.Key
	other hub.Origin
}

func (e *originError) Error() string {
	return fmt.Sprintf("a frame of %s carries epoch %s, and a collector that calls itself %s uses the spool of that epoch: "+
		"one of them has a copy of the other's spool, or claims to be it; frames are taken from here when %s has been silent for %s",
		e.key.Origin, e.key.Epoch, e.other, e.other, custody.ConflictSilence)
}

// stranger says whether a frame's epoch is active under another origin.
func (w *worker) stranger(a *arrival) (other hub.Origin, conflict bool) {
	now := time.Now()
	if w.epochs.Fresh(a.key.Spool(), now) {
		return other, false
	}
	at := now
	if metadata, err := a.msg.Metadata(); err == nil {
		at = metadata.Timestamp
	}
	return w.epochs.Use(a.key.Spool(), at, now)
}

// early deals with a frame whose predecessors are missing.
func (w *worker) early(a *arrival) {
	metadata, err := a.msg.Metadata()
	if err == nil && metadata.NumDelivered < earlyTries {
		a.giveBack(earlyWait)
		return
	}
	a.share.suspects.wants(a.key, a.header.Number)
	a.drop()
}

// send delivers a batch: until the exporters accept it, or refuse for good, or
// until ctx is done. What only some of its origins' backend refuses is parked, and
// the worker goes on with the others. When nothing at all is accepted the batch is set
// aside after wholeTries, or at once if something is parked already: what comes next
// may be others' that the backend takes. Where there is no room to set it aside it is
// tried on, together with what has come since and only a half of its origins at a time:
// if some of that is accepted, it is not the whole backend that is away.
func (w *worker) send(ctx context.Context, b *batch) {
	for tries := 1; ctx.Err() == nil && len(b.arrivals) > 0; tries++ {
		now, behind := b.arrivals, []*arrival(nil)
		if tries > wholeTries {
			now, behind = halve(now)
		}
		once := pass{worker: w}
		left, err := once.try(ctx, now)
		if once.answered {
			w.pace = nil
			if len(left) > 0 {
				w.parking.park(left, true)
			}
			b = batchOf(behind)
			continue
		}
		all := append(slices.Clip(left), behind...)
		if len(all) == 0 {
			return
		}
		answers := w.answers.Load()
		others := answers != w.seen // have been taken since the last attempt of which nothing was
		w.seen = answers
		items, aside := b.items, tries >= wholeTries || w.parking.count.Load() > 0
		switch {
		case aside && w.parking.park(all, false):
			b = &batch{}
		case aside && others:
			w.parking.park(left, true)
			b = batchOf(behind)
		default:
			aside = false
		}
		if !w.wait(ctx, items, aside, err) {
			return
		}
		switch {
		case aside:
		case tries < wholeTries:
			b = batchOf(all)
		default:
			b = w.extend(all)
		}
	}
}

// wait lets the backend be for a while after an attempt of which it took nothing: not
// for long where what was tried is out of the way.
func (w *worker) wait(ctx context.Context, items int, aside bool, err error) bool {
	level := w.log.Debug
	if w.pace == nil {
		w.pace, level = newRetry(), w.log.Warn
	}
	wait := w.pace.NextBackOff()
	if aside {
		wait = min(wait, asideMax)
	}
	level("a backend does not accept data; it is retried until it does, the hub and the edges keep what comes",
		zap.Stringer("signal", w.signal), zap.Int("items", items), zap.Duration("retry_in", wait), zap.Error(err))
	return pause(ctx, wait, func() bool { return w.answers.Load() != w.seen })
}

// halve divides arrivals by origin, at random.
func halve(arrivals []*arrival) (some, others []*arrival) {
	all := slices.Collect(maps.Keys(origins(arrivals)))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	later := make(map[hub.Origin]struct{}, len(all)/2)
	for _, origin := range all[:len(all)/2] {
		later[origin] = struct{}{}
	}
	return split(arrivals, later)
}

// extend makes a batch of what was not accepted and of what has come since.
func (w *worker) extend(left []*arrival) *batch {
	b := batchOf(left)
	for !w.full(b, 2) {
		a := w.parking.pop(nil)
		if a == nil {
			return b
		}
		w.judge(a, b)
	}
	// It may be full of what one refused tenant has sent: something of others tells
	// whether the backend is away.
	there := origins(b.arrivals)
	for before := len(there); len(there) < before+probes && !w.full(b, 3); {
		a := w.parking.pop(there)
		if a == nil {
			break
		}
		there[a.key.Origin] = struct{}{}
		w.judge(a, b)
	}
	return b
}

// reject keeps a copy of the message, with the reason, in the rejected stream.
// It returns false only when the partition ended before the hub had it.
func (w *worker) reject(a *arrival, reason error) bool {
	w.log.Error("a frame is rejected; it is kept in the stream "+hub.RejectedStream,
		zap.Stringer("origin", a.key.Origin), zap.Stringer("lane", a.key.Lane),
		zap.Uint64("number", a.header.Number), zap.Uint32("items", a.header.Items), zap.Error(reason))
	subject := hub.RejectedSubject(w.signal, a.key.Origin)
	if a.key.Origin == (hub.Origin{}) {
		subject = hub.RejectedSubject(w.signal, hub.Origin{Cluster: "unknown", Node: "unknown"})
	}
	kept := w.untilDone(a.share.ctx, "a rejected frame cannot be kept on the hub; trying again", func(ctx context.Context) error {
		_, err := w.js.PublishMsg(ctx, &nats.Msg{
			Subject: subject,
			Header:  nats.Header{hub.ReasonHeader: {oneLine(reason)}, hub.DestinationHeader: {w.destination.name}},
			Data:    a.msg.Data,
		}, jetstream.WithRetryAttempts(0))
		switch {
		case errors.Is(err, nats.ErrMaxPayload):
			return nil // cannot be kept; it has been counted and logged
		case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
			// The hub has lost the stream, or it has no leader for a moment.
			streams := w.core.config.Streams
			streams.Leave = true
			return errors.Join(err, hub.EnsureRejected(ctx, w.js, streams))
		}
		return err
	})
	if kept && a.replay == "" { // it was counted the first time
		w.telemetry.rejected(a, reason)
	}
	return kept
}

// refuse keeps a frame that goes no further in the rejected stream and counts it.
func (w *worker) refuse(a *arrival, reason error, cause frame.Cause) {
	if !w.reject(a, reason) {
		a.discard()
		return
	}
	if a.replay != "" { // named as lost, and stays so
		a.settle(a.share.ledger.Replayed(a.key, a.header.Number, 0, time.Now()))
	} else if a.late { // named as lost it was already
		a.settle(a.share.ledger.Return(a.key, a.header.Number, 0, time.Now()))
	} else {
		a.settle(a.share.ledger.Refuse(a.key, a.header.Number, cause, time.Now()))
	}
}

// accept notes that the exporters have taken frames.
func (w *worker) accept(arrivals []*arrival) {
	now := time.Now()
	for _, a := range arrivals {
		w.telemetry.delivered(a, now)
		if a.replay != "" {
			a.settle(a.share.ledger.Replayed(a.key, a.header.Number, uint64(a.header.Items), now))
		} else if a.late {
			a.settle(a.share.ledger.Return(a.key, a.header.Number, uint64(a.header.Items), now))
		} else {
			a.settle(a.share.ledger.Accept(a.key, a.header.Number, now))
		}
	}
}
