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
	// settleInterval bounds what a crash of the relay delivers twice.
	settleInterval = 200 * time.Millisecond
	// announceInterval is the least time between two confirmations to one origin.
	announceInterval = 2 * time.Second
	// inProgressInterval keeps frames that wait for a backend from being delivered again.
	inProgressInterval = hub.AckWait / 3
	storeTimeout       = 10 * time.Second
)

// settler ends what the workers have delivered: it stores the watermarks, then
// acknowledges to the hub, then confirms to the edges.
type settler struct {
	*core

	mu       sync.Mutex
	hands    map[*arrival]struct{} // read and not yet acknowledged, given back or dropped
	pending  []*arrival            // to acknowledge once their number is confirmed
	announce map[custody.Key]uint64
}

func newSettler(c *core) *settler {
	return &settler{
		core: c, hands: make(map[*arrival]struct{}),
		announce: make(map[custody.Key]uint64),
	}
}

func (s *settler) hold(a *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hands[a] = struct{}{}
}

// settle acknowledges the arrival as soon as its number is durably confirmed.
func (s *settler) settle(a *arrival) {
	s.release(a)
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
	s.tell(key.Origin, key.Epoch, []custody.Accepted{{
		Lane: key.Lane.String(), Confirmed: confirmed, Resend: from, Stream: s.storeOf(key.Lane.Signal),
	}})
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
	announce := time.NewTicker(announceInterval)
	defer announce.Stop()
	inProgress := time.NewTicker(inProgressInterval)
	defer inProgress.Stop()
	for {
		select {
		case <-ctx.Done():
			// What was delivered in the last moment is stored and told all the same.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			s.settleAll(last)
			s.announceAll()
			_ = s.nc.FlushWithContext(last) // the hub may be away; then the acknowledgements are lost and the numbers catch the repeats
			cancel()
			return
		case <-settle.C:
			s.settleAll(ctx)
		case <-announce.C:
			s.announceAll()
		case <-inProgress.C:
			s.keepAlive()
		}
	}
}

// settleAll stores watermarks and acknowledges what they cover.
func (s *settler) settleAll(ctx context.Context) {
	if err := s.store(ctx, s.ledger.Dirty()); err != nil && ctx.Err() == nil {
		s.log.Warn("watermarks cannot be stored; edges keep their data until they are", zap.Error(err))
	}
	s.mu.Lock()
	var due, rest []*arrival
	for _, a := range s.pending {
		if confirmed, _ := s.ledger.Confirmed(a.key); a.header.Number <= confirmed {
			due = append(due, a)
		} else {
			rest = append(rest, a)
		}
	}
	s.pending = rest
	s.mu.Unlock()
	for _, a := range due {
		s.letGo(a, a.msg.Ack())
	}
}

// store writes all watermarks at once and waits for the hub to have them.
func (s *settler) store(ctx context.Context, marks []custody.Watermark) error {
	if len(marks) == 0 {
		return nil
	}
	futures := make([]jetstream.PubAckFuture, 0, len(marks))
	for _, mark := range marks {
		subject := "$KV." + hub.CustodyBucket + "." + hub.CustodyKey(mark.Key.Origin, mark.Key.Epoch, mark.Key.Lane)
		future, err := s.js.PublishAsync(subject, mark.Value, jetstream.WithRetryAttempts(0))
		if err != nil {
			return fmt.Errorf("store watermark: %w", err)
		}
		futures = append(futures, future)
	}
	for i, future := range futures {
		select {
		case <-future.Ok():
			s.ledger.Stored(marks[i])
			s.mu.Lock()
			s.announce[marks[i].Key] = marks[i].Accepted
			s.mu.Unlock()
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

// announceAll tells every origin with news how far it is confirmed.
func (s *settler) announceAll() {
	s.mu.Lock()
	news := s.announce
	s.announce = make(map[custody.Key]uint64)
	s.mu.Unlock()
	type spool struct {
		origin hub.Origin
		epoch  frame.Epoch
	}
	lanes := make(map[spool][]custody.Accepted)
	for key, confirmed := range news {
		at := spool{key.Origin, key.Epoch}
		lanes[at] = append(lanes[at], custody.Accepted{
			Lane: key.Lane.String(), Confirmed: confirmed, Stream: s.storeOf(key.Lane.Signal),
		})
	}
	for at, accepted := range lanes {
		s.tell(at.origin, at.epoch, accepted)
	}
}

func (s *settler) tell(origin hub.Origin, epoch frame.Epoch, lanes []custody.Accepted) {
	body, err := json.Marshal(custody.Confirmation{Version: custody.Version, Epoch: epoch.String(), Lanes: lanes})
	if err == nil {
		err = s.nc.Publish(hub.CustodySubject(origin), body)
	}
	if err != nil { // said again in answer to the edge's next hello
		s.log.Debug("confirmation not sent", zap.Stringer("origin", origin), zap.Error(err))
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
		_ = a.msg.InProgress() // fails when it was acknowledged a moment ago, or the link is down
	}
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
