package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// batchRecords bounds an atomic batch; the server's own bound is 1,000.
	batchRecords = 500
	// batchesAtOnce bounds the atomic batches of a relay that are under way; the
	// server's own bound is 50 a stream, for all relays.
	batchesAtOnce = 8
	// storeTries is how often a write is tried that the server cannot tell about at
	// this moment, and storePause the time between.
	storeTries = 20
	storePause = 25 * time.Millisecond
	// batchTime is how long the answer to a batch is waited for.
	batchTime = 10 * time.Second
)

// Store writes records, each only while this relay owns the partition, and says
// which of them are durable. The error is ErrLost when it does not own it any more.
// One call at a time.
//
// On a replicated bucket up to 500 records are one atomic batch, because there the
// server cannot check the same owner key for two writes at once. With one replica
// every record is a write of its own, which then costs less.
func (c *Claim) Store(ctx context.Context, records []Record) (stored []bool, err error) {
	stored = make([]bool, len(records))
	for try := 0; ; try++ {
		lost, revision := c.token()
		if lost {
			return stored, ErrLost
		}
		err = c.write(ctx, records, stored, revision)
		switch {
		case err == nil:
			return stored, nil
		case errors.Is(err, ErrLost): // or it was assured with another revision meanwhile
			c.doubt()
			if err := c.assure(ctx); err != nil {
				return stored, fmt.Errorf("store watermarks: %w", err)
			}
		case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
			if err := c.m.ensure(ctx); err != nil {
				return stored, fmt.Errorf("store watermarks: %w", err)
			}
		case !errors.Is(err, errBusy):
			return stored, fmt.Errorf("store watermarks: %w", err)
		}
		if try == storeTries {
			return stored, fmt.Errorf("store watermarks: %w", err)
		}
		select {
		case <-ctx.Done():
			return stored, fmt.Errorf("store watermarks: %w", context.Cause(ctx))
		case <-time.After(storePause):
		}
	}
}

// write writes what is not stored yet.
func (c *Claim) write(ctx context.Context, records []Record, stored []bool, revision uint64) error {
	var left []int
	for i := range records {
		if !stored[i] {
			left = append(left, i)
		}
	}
	c.m.mu.Lock()
	replicas := c.m.replicas
	c.m.mu.Unlock()
	if replicas == 1 {
		return c.writeEach(ctx, records, stored, left, revision)
	}
	for len(left) > 0 {
		n := min(len(left), batchRecords)
		if err := c.writeBatch(ctx, records, left[:n], revision); err != nil {
			return err
		}
		for _, i := range left[:n] {
			stored[i] = true
		}
		left = left[n:]
	}
	return nil
}

// writeBatch writes records in one piece. The server checks the owner key when it
// commits.
func (c *Claim) writeBatch(ctx context.Context, records []Record, which []int, revision uint64) error {
	select {
	case c.m.batches <- struct{}{}:
		defer func() { <-c.m.batches }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	messages := make([]*nats.Msg, 0, len(which))
	for _, i := range which {
		messages = append(messages, &nats.Msg{Subject: hub.KeySubject(records[i].Key), Data: records[i].Value, Header: nats.Header{}})
	}
	c.fence(messages[0], revision)
	bounded, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	_, err := jetstreamext.PublishMsgBatch(bounded, c.m.js, messages)
	if err != nil && ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)) {
		return fmt.Errorf("%w: %w", errBusy, err) // it may be stored: to write it again is the same
	}
	return refusal(err)
}

func (c *Claim) fence(msg *nats.Msg, revision uint64) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(revision))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, hub.KeySubject(hub.OwnerKey(c.part.count, c.part.partition)))
}

// writeEach writes records at the same time, each with the condition.
func (c *Claim) writeEach(ctx context.Context, records []Record, stored []bool, which []int, revision uint64) error {
	futures := make([]jetstream.PubAckFuture, 0, len(which))
	var failed error
	for _, i := range which {
		msg := &nats.Msg{Subject: hub.KeySubject(records[i].Key), Data: records[i].Value, Header: nats.Header{}}
		c.fence(msg, revision)
		future, err := c.m.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
		if err != nil {
			failed = err
			break
		}
		futures = append(futures, future)
	}
	for n, future := range futures {
		select {
		case <-future.Ok():
			stored[which[n]] = true
		case err := <-future.Err():
			if failed == nil || !errors.Is(failed, ErrLost) {
				failed = refusal(err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return failed
}

// Purge removes keys and their history.
func (c *Claim) Purge(ctx context.Context, keys []string) error {
	if lost, _ := c.token(); lost {
		return ErrLost
	}
	stream, err := c.m.js.Stream(ctx, custodyStream)
	for _, key := range keys {
		if err != nil {
			break
		}
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(hub.KeySubject(key)))
	}
	if err != nil {
		return fmt.Errorf("remove watermarks: %w", err)
	}
	return nil
}
