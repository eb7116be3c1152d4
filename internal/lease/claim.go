package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// MaxPullExpiry bounds the expiry of a pull on a claim's consumers. A pull that a
// paused relay has left at the hub must be gone when another takes the partition
// over, or the hub sends frames into nothing. Pull only while Held.
const MaxPullExpiry = 2 * time.Second

// Record is a key of the custody bucket and what to keep there.
type Record struct {
	Key   string // see hub.DestinationKey
	Value []byte
}

// Claim is a partition that this relay owns: of all signals and destinations.
type Claim struct {
	m    *Member
	part part
	// cancel ends the context that serve was given; done is closed when it has returned.
	cancel context.CancelCauseFunc
	done   chan struct{}
	asking sync.Mutex // one asks whose it is at a time

	// Under the member's lock.
	revision  uint64 // of the owner key: the fencing token
	certain   bool   // it was this relay's at its last sign of life
	releasing bool
	lost      bool
	storeLost func()
	reset     map[string]bool // consumers that were set back
}

// Count is the number of partitions that this is one of.
func (c *Claim) Count() int { return c.part.count }

// Partition is from 0 to Count-1.
func (c *Claim) Partition() int { return c.part.partition }

// Owns says whether an origin falls into this partition.
func (c *Claim) Owns(o hub.Origin) bool {
	return hub.Partition(o, c.part.count) == c.part.partition
}

// Held says whether the lease is certainly still this relay's, by a clock that
// goes on while the process is stopped. Ask before every request to a backend and
// every confirmation. While the hub cannot be reached it becomes false, and true
// again later unless the partition was lost.
func (c *Claim) Held() bool {
	held, _, _ := c.m.held(c, c.m.clock.now())
	return held
}

// WaitHeld returns nil as soon as the lease is Held, else ErrLost or ctx's error.
func (c *Claim) WaitHeld(ctx context.Context) error {
	for {
		held, lost, changed := c.m.held(c, c.m.clock.now())
		switch {
		case lost:
			return ErrLost
		case held:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// over says, under the member's lock, whether the claim is lost.
func (c *Claim) over() bool { return c.lost }

// token is what the server checks.
func (c *Claim) token() (lost bool, revision uint64) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.lost, c.revision
}

// assure makes the claim certain, by writing the owner key again if there is doubt.
// The error is ErrLost, which is then noted, or says why it cannot be told.
func (c *Claim) assure(ctx context.Context) error {
	c.asking.Lock()
	defer c.asking.Unlock()
	c.m.mu.Lock()
	certain, lost, revision := c.certain, c.lost, c.revision
	c.m.mu.Unlock()
	if lost {
		return ErrLost
	}
	if certain {
		return nil
	}
	next, err := c.m.writeOwner(ctx, c.part, c.m.me(), revision)
	if errors.Is(err, ErrLost) { // it has another revision, or there is none
		at, known, readErr := c.m.readOwner(ctx, c.part)
		switch {
		case readErr != nil:
			return readErr
		case !known:
			// Either the bucket is a new one, or this relay was away while its generation
			// was read to the end and cleared away.
			layout, _, layoutErr := hub.ReadLayout(ctx, c.m.js)
			if layoutErr != nil && !errors.Is(layoutErr, jetstream.ErrKeyNotFound) {
				return layoutErr
			}
			if layoutErr != nil || layout.Count == c.part.count {
				next, err = c.m.writeOwner(ctx, c.part, c.m.me(), 0)
			}
		case at.id == c.m.id: // written by this relay; the answer was lost
			next, err = c.m.writeOwner(ctx, c.part, c.m.me(), at.revision)
		}
	}
	if errors.Is(err, ErrLost) {
		c.m.lose(c)
	}
	if err != nil {
		return err
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.revision, c.certain = next, true
	return nil
}

// doubt has the claim assured anew.
func (c *Claim) doubt() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.certain = false
}

// Consumer is the consumer of this partition of a signal for a destination, ready
// to read. The first time it is set back to what was acknowledged: what the owner
// before had in its hands comes again, in its place. It makes the stream again when
// the hub has lost it.
func (c *Claim) Consumer(ctx context.Context, signal frame.Signal, destination string) (jetstream.Consumer, error) {
	stream, name := hub.StreamName(signal), hub.PartitionConsumer(destination, c.part.count, c.part.partition)
	consumer, err := c.consumer(ctx, stream, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		if err := c.m.ensure(ctx); err != nil {
			return nil, err
		}
		consumer, err = c.consumer(ctx, stream, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open consumer %s of stream %s: %w", name, stream, err)
	}
	return consumer, nil
}

// Rewind sets the consumer back to what was acknowledged once more. Call it when
// reading was interrupted: what the hub had sent and nobody received would come
// again only after hub.AckWait, behind newer frames. What is in this relay's hands
// comes again, too.
func (c *Claim) Rewind(ctx context.Context, signal frame.Signal, destination string) error {
	stream, name := hub.StreamName(signal), hub.PartitionConsumer(destination, c.part.count, c.part.partition)
	if lost, _ := c.token(); lost {
		return ErrLost
	}
	if _, err := c.m.js.ResetConsumer(ctx, stream, name); err != nil {
		return fmt.Errorf("set consumer %s of stream %s back: %w", name, stream, err)
	}
	return nil
}

func (c *Claim) consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	key := stream + "/" + name
	c.m.mu.Lock()
	done := c.reset[key]
	c.m.mu.Unlock()
	consumer, err := c.m.js.Consumer(ctx, stream, name) // first, because the server does not say of a reset that there is no consumer
	if err != nil {
		return nil, err
	}
	if !done {
		if _, err := c.m.js.ResetConsumer(ctx, stream, name); err != nil {
			return nil, err
		}
		c.m.mu.Lock()
		c.reset[key] = true
		c.m.mu.Unlock()
	}
	return consumer, nil
}

// Through is the sequence of the last frame in the signal's stream now.
func (c *Claim) Through(ctx context.Context, signal frame.Signal) (uint64, error) {
	stream, err := c.m.js.Stream(ctx, hub.StreamName(signal))
	if err != nil {
		return 0, fmt.Errorf("ask how far stream %s is: %w", hub.StreamName(signal), err)
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// Past says whether no frame of this partition up to that sequence of the signal's
// stream is left that the destination has not acknowledged.
func (c *Claim) Past(ctx context.Context, signal frame.Signal, destination string, through uint64) (bool, error) {
	stream, name := hub.StreamName(signal), hub.PartitionConsumer(destination, c.part.count, c.part.partition)
	consumer, err := c.m.js.Consumer(ctx, stream, name)
	if err != nil {
		return false, fmt.Errorf("ask how far consumer %s of stream %s is: %w", name, stream, err)
	}
	info := consumer.CachedInfo()
	return info.AckFloor.Stream >= through || info.NumPending == 0 && info.NumAckPending == 0, nil
}

// StoreIdentity names the hub's present store of a signal: when its stream was
// made, in nanoseconds, base 36. "" when not known.
func (c *Claim) StoreIdentity(signal frame.Signal) string {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.m.stores[signal]
}

// OnStoreLost has f called whenever the bucket or a stream was made anew: all
// watermarks must be written again. f must not wait for the hub. One f a claim.
func (c *Claim) OnStoreLost(f func()) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.storeLost = f
}
