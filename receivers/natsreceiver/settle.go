package natsreceiver

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// settleInterval is how often watermarks are written: it bounds what a crash of the
	// relay delivers twice. When more than storeFree spools have something to write,
	// one spool's are written every storePace at most.
	settleInterval = 200 * time.Millisecond
	storePace      = time.Second
	storeFree      = 200
	// forgetInterval is how often it is looked for spools that nobody hears of any more.
	forgetInterval = time.Hour
	// inProgressInterval keeps frames that wait for a backend from being delivered again.
	inProgressInterval = hub.AckWait / 3
	storeTimeout       = 10 * time.Second
)

// settler ends what the workers have delivered: it stores the watermarks, then
// acknowledges to the hub, then confirms to the edges.
type settler struct {
	*core

	mu       sync.Mutex
	hands    map[*arrival]struct{}                     // read and not yet acknowledged, given back or dropped
	pending  []*arrival                                // to acknowledge once their number is confirmed
	announce map[custody.Spool]map[frame.Lane]struct{} // confirmed further since they were told
}

// What a message's reply subject understands, as in the client's jetstream package.
var (
	ack        = []byte("+ACK")
	inProgress = []byte("+WPI")
)

func newSettler(c *core) *settler {
	return &settler{
		core: c, hands: make(map[*arrival]struct{}),
		announce: make(map[custody.Spool]map[frame.Lane]struct{}),
	}
}

func (s *settler) hold(a *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hands[a] = struct{}{}
}

// settle acknowledges the arrival as soon as what became of it is durable.
func (s *settler) settle(a *arrival) {
	s.release(a)
	a.msg, a.payload = nil, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, a)
}

// drop takes the message off the hub although its frame was not delivered: the
// edge still has the frame.
func (s *settler) drop(a *arrival) {
	s.release(a)
	s.letGo(a, a.msg.Ack())
}

// giveBack returns the message to the hub, to come again after a while.
func (s *settler) giveBack(a *arrival, after time.Duration) {
	s.release(a)
	s.letGo(a, a.msg.NakWithDelay(after))
}

func (s *settler) release(a *arrival) {
	s.readers[a.reading].buffer.Release(a.bytes)
}

func (s *settler) letGo(a *arrival, err error) {
	if err != nil { // the link is down: the hub delivers the message again
		s.log.Debug("acknowledgement not sent", zap.Error(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hands, a)
}

// ask tells the edge at once to publish again from a number on.
func (s *settler) ask(key custody.Key, from uint64) {
	confirmed, _ := s.ledger.Confirmed(key)
	s.tell(key.Spool(), custody.Confirmation{Lanes: []custody.Accepted{{
		Lane: key.Lane.String(), Confirmed: confirmed, Resend: from, Stream: s.storeOf(key.Lane.Signal),
	}}})
}

func (s *settler) storeOf(signal frame.Signal) string {
	if r, ok := s.readers[signal]; ok {
		return r.storeIdentity()
	}
	return ""
}

func (s *settler) run(ctx context.Context) {
	settle := time.NewTicker(settleInterval)
	defer settle.Stop()
	announce := time.NewTicker(s.config.ConfirmInterval)
	defer announce.Stop()
	forget := time.NewTicker(forgetInterval)
	defer forget.Stop()
	inProgress := time.NewTicker(inProgressInterval)
	defer inProgress.Stop()
	for {
		select {
		case <-ctx.Done():
			// What was delivered in the last moment is stored and told all the same.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			s.settleAll(last, 0)
			s.announceAll()
			_ = s.nc.FlushWithContext(last) // the hub may be away; then the acknowledgements are lost and the numbers catch the repeats
			cancel()
			return
		case <-settle.C:
			s.settleAll(ctx, storePace)
		case <-announce.C:
			s.announceAll()
		case <-inProgress.C:
			s.keepAlive()
		case <-forget.C:
			s.forget(ctx)
		}
	}
}

// settleAll stores watermarks and acknowledges what they cover.
func (s *settler) settleAll(ctx context.Context, pace time.Duration) {
	if err := s.store(ctx, s.ledger.Dirty(time.Now(), pace, storeFree)); err != nil && ctx.Err() == nil {
		s.log.Warn("watermarks cannot be stored; edges keep their data until they are", zap.Error(err))
	}
	s.mu.Lock()
	var due, rest []*arrival
	for _, a := range s.pending {
		if s.ledger.Due(a.key, a.header.Number, a.version) {
			due = append(due, a)
		} else {
			rest = append(rest, a)
		}
	}
	s.pending = rest
	s.mu.Unlock()
	for _, a := range due {
		s.letGo(a, s.nc.Publish(a.reply, ack))
	}
}

// store writes all watermarks at once and waits for the hub to have them. Those
// that fail are dirty still and are written the next time.
func (s *settler) store(ctx context.Context, records []custody.Record) error {
	futures := make([]jetstream.PubAckFuture, 0, len(records))
	for _, record := range records {
		subject := "$KV." + hub.CustodyBucket + "." + hub.CustodyKey(record.Spool.Origin, record.Spool.Epoch)
		future, err := s.js.PublishAsync(subject, record.Value, jetstream.WithRetryAttempts(0))
		if err != nil {
			return fmt.Errorf("store watermark: %w", err)
		}
		futures = append(futures, future)
	}
	for i, future := range futures {
		select {
		case <-future.Ok():
			confirmed, reports := s.ledger.Stored(records[i])
			s.news(records[i].Spool, confirmed)
			s.report(reports)
		case err := <-future.Err():
			if ensureErr := s.ensureBucket(ctx, err); ensureErr != nil {
				return fmt.Errorf("store watermark: %w; %w", err, ensureErr)
			}
			return fmt.Errorf("store watermark: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// news notes lanes whose origin is to be told.
func (s *settler) news(id custody.Spool, confirmed []custody.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range confirmed {
		lanes, ok := s.announce[id]
		if !ok {
			lanes = make(map[frame.Lane]struct{})
			s.announce[id] = lanes
		}
		lanes[key.Lane] = struct{}{}
	}
}

// forget removes the watermarks of spools that nobody has heard of for a month.
func (s *settler) forget(ctx context.Context) {
	gone := s.ledger.Forget(time.Now())
	if len(gone) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stream, err := s.js.Stream(bounded, "KV_"+hub.CustodyBucket)
	for _, id := range gone {
		if err != nil {
			break
		}
		s.log.Info("nothing was heard of a spool for a month; its watermarks are removed", zap.Stringer("origin", id.Origin), zap.Stringer("epoch", id.Epoch))
		err = stream.Purge(bounded, jetstream.WithPurgeSubject("$KV."+hub.CustodyBucket+"."+hub.CustodyKey(id.Origin, id.Epoch)))
	}
	if err != nil { // the next relay finds them and tries again
		s.log.Warn("watermarks cannot be removed", zap.Error(err))
	}
}

// ensureBucket makes the bucket anew after the hub has lost its store; all
// watermarks are then written again.
func (s *settler) ensureBucket(ctx context.Context, cause error) error {
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := s.js.KeyValue(bounded, hub.CustodyBucket)
	if err == nil {
		return nil
	}
	s.log.Warn("the custody bucket is gone; it is made again", zap.Error(cause))
	if _, err = hub.EnsureCustody(bounded, s.js, s.config.Streams); err != nil {
		return err
	}
	s.ledger.StoreAgain()
	return nil
}

// announceAll tells every origin with news how far it is confirmed, all its lanes
// in one message.
func (s *settler) announceAll() {
	s.mu.Lock()
	news := s.announce
	s.announce = make(map[custody.Spool]map[frame.Lane]struct{})
	s.mu.Unlock()
	for id, lanes := range news {
		if s.instances.Conflicting(id, time.Now()) {
			continue // a number means two different frames; nobody may delete for it
		}
		accepted := make([]custody.Accepted, 0, len(lanes))
		for lane := range lanes {
			if confirmed, known := s.ledger.Confirmed(custody.Key{Origin: id.Origin, Epoch: id.Epoch, Lane: lane}); known {
				accepted = append(accepted, custody.Accepted{Lane: lane.String(), Confirmed: confirmed, Stream: s.storeOf(lane.Signal)})
			}
		}
		s.tell(id, custody.Confirmation{Lanes: accepted})
	}
}

// answer tells an origin at once, which is then not due for news.
func (s *settler) answer(id custody.Spool, c custody.Confirmation) {
	s.mu.Lock()
	delete(s.announce, id)
	s.mu.Unlock()
	s.tell(id, c)
}

func (s *settler) tell(id custody.Spool, c custody.Confirmation) {
	c.Version, c.Epoch = custody.Version, id.Epoch.String()
	body, err := json.Marshal(c)
	if err == nil {
		err = s.nc.Publish(hub.CustodySubject(id.Origin), body)
	}
	if err != nil { // said again in answer to the edge's next hello
		s.log.Debug("confirmation not sent", zap.Stringer("origin", id.Origin), zap.Error(err))
	}
}

// keepAlive tells the hub that the frames in hand are being worked on.
func (s *settler) keepAlive() {
	s.mu.Lock()
	hands := make([]*arrival, 0, len(s.hands))
	for a := range s.hands {
		hands = append(hands, a)
	}
	s.mu.Unlock()
	for _, a := range hands {
		_ = s.nc.Publish(a.reply, inProgress) // fails when the link is down; then the hub delivers again
	}
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
