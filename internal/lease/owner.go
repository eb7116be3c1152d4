package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/internal/hub"
)

// claimsAtOnce bounds how many partitions are taken at the same time.
const claimsAtOnce = 16

// errBusy: the key is being written at this moment; the server does not say by whom.
var errBusy = errors.New("the owner key is being written at this moment")

// writeOwner writes an owner key if its revision is still the one given; 0: if there
// is none. The error is ErrLost if it is another.
func (m *Member) writeOwner(ctx context.Context, p part, value ownerValue, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	body, _ := json.Marshal(value) // strings and a time
	ack, err := m.js.Publish(ctx, hub.KeySubject(hub.OwnerKey(p.count, p.partition)), body,
		jetstream.WithExpectLastSequencePerSubject(revision), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, fmt.Errorf("write who owns partition %s: %w", p, refusal(err))
	}
	return ack.Sequence, nil
}

// The server's words for a condition on a sequence that does not hold, and for one
// that cannot be told yet.
const (
	codeWrongSequence        jetstream.ErrorCode = 10071
	codeWrongSequenceAtOnce  jetstream.ErrorCode = 10164
	codeTooManyBatchesAtOnce jetstream.ErrorCode = 10210
)

// refusal says what a refused write means.
func refusal(err error) error {
	var refused jetstream.JetStreamError
	if !errors.As(err, &refused) || refused.APIError() == nil {
		return err
	}
	switch refused.APIError().ErrorCode {
	case codeWrongSequence:
		return ErrLost
	case codeWrongSequenceAtOnce, codeTooManyBatchesAtOnce:
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}

// readOwner asks the leader of the bucket's stream, which knows best.
func (m *Member) readOwner(ctx context.Context, p part) (at owner, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	entry, err := hub.LastInBucket(ctx, m.js, hub.OwnerKey(p.count, p.partition))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return owner{}, false, nil
	}
	if err != nil {
		return owner{}, false, fmt.Errorf("read who owns partition %s: %w", p, err)
	}
	var value ownerValue
	_ = json.Unmarshal(entry.Value, &value) // what cannot be read is nobody's
	return owner{value.ID, entry.Revision}, true, nil
}

func (m *Member) me() ownerValue {
	return ownerValue{ID: m.id, Name: m.set.Name, At: time.Now()}
}

// claimAll takes up to want of the free partitions.
func (m *Member) claimAll(ctx context.Context, v *view, free []part, want int) {
	var group errgroup.Group
	group.SetLimit(claimsAtOnce)
	for _, p := range free[:want] {
		group.Go(func() error {
			revision, err := m.writeOwner(ctx, p, m.me(), v.owners[p].revision)
			if err != nil { // another was quicker, or the hub is away: the next look tells
				m.log.Debug("partition not taken", zap.Stringer("partition", p), zap.Error(err))
				return nil
			}
			m.begin(ctx, p, revision)
			return nil
		})
	}
	_ = group.Wait() // they return none
	m.tell()
}

// begin has a partition served that was just taken.
func (m *Member) begin(ctx context.Context, p part, revision uint64) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &Claim{m: m, part: p, revision: revision, certain: true, cancel: cancel, done: make(chan struct{}), reset: make(map[string]bool)}
	m.mu.Lock()
	m.claims[p] = c
	m.mu.Unlock()
	m.log.Info("partition taken", zap.Stringer("partition", p))
	m.serving.Go(func() {
		m.serve(ctx, c)
		close(c.done)
		m.end(c)
	})
}

// end forgets a claim that is not served any more.
func (m *Member) end(c *Claim) {
	m.mu.Lock()
	over := c.releasing || c.lost
	if c.lost {
		delete(m.claims, c.part)
	}
	m.mu.Unlock()
	if !over {
		m.release(c) // serve gave up by itself; another may do better
	}
	m.wakeUp()
}

// release gives a partition on, once serve has returned or had its time.
func (m *Member) release(c *Claim) {
	m.mu.Lock()
	if c.releasing || c.lost {
		m.mu.Unlock()
		return
	}
	c.releasing = true
	m.mu.Unlock()
	c.cancel(ErrReleased)
	m.serving.Go(func() {
		timer := time.NewTimer(releaseTime)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
			m.log.Warn("a partition is given on although its last delivery has not ended; what was delivered and not stored comes again", zap.Stringer("partition", c.part))
		}
		ctx, cancel := context.WithTimeout(context.Background(), requestTime)
		defer cancel()
		_, revision := c.token()
		if _, err := m.writeOwner(ctx, c.part, ownerValue{At: time.Now()}, revision); err != nil && !errors.Is(err, ErrLost) {
			m.log.Debug("partition not given on; it runs out", zap.Stringer("partition", c.part), zap.Error(err))
		}
		m.lose(c)
		m.log.Info("partition given on", zap.Stringer("partition", c.part))
		m.wakeUp()
	})
}

// stopAll gives everything on.
func (m *Member) stopAll() {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	for _, c := range m.claimed() {
		m.release(c)
	}
}

// leave removes the member key: the others need not wait for it to run out.
func (m *Member) leave(ctx context.Context) {
	for _, c := range m.claimed() {
		m.lose(c)
	}
	if !m.hasBucket() || !m.js.Conn().IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	stream, err := m.js.Stream(ctx, custodyStream)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(hub.KeySubject(hub.MemberKey(m.id))))
	}
	if err != nil {
		m.log.Debug("the member key is not removed; it runs out", zap.Error(err))
	}
}
