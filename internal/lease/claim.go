package lease

import (
	"context"
	"errors"
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
	m         *Member
	count     int
	partition int
}

// Count is the number of partitions that this is one of.
func (c *Claim) Count() int { return c.count }

// Partition is from 0 to Count-1.
func (c *Claim) Partition() int { return c.partition }

// Owns says whether an origin falls into this partition.
func (c *Claim) Owns(o hub.Origin) bool { return hub.Partition(o, c.count) == c.partition }

// Held says whether the lease is certainly still this relay's, by a clock that
// goes on while the process is stopped. Ask before every request to a backend and
// every confirmation. While the hub cannot be reached it becomes false, and true
// again later unless the partition was lost.
func (c *Claim) Held() bool { return false }

// WaitHeld returns nil as soon as the lease is Held, else ErrLost or ctx's error.
func (c *Claim) WaitHeld(ctx context.Context) error { return errNotYet }

// Load calls each with every stored watermark of this partition's origins, of all
// destinations, as the owner before left them.
func (c *Claim) Load(ctx context.Context, each func(key string, value []byte)) error {
	return errNotYet
}

// Store writes records, each only while this relay owns the partition, and says
// which of them are durable. The error is ErrLost when it does not own it any more.
// One call at a time.
func (c *Claim) Store(ctx context.Context, records []Record) (stored []bool, err error) {
	return nil, errNotYet
}

// Purge removes keys and their history.
func (c *Claim) Purge(ctx context.Context, keys []string) error { return errNotYet }

// Consumer is the consumer of this partition of a signal for a destination, ready
// to read. The first time it is set back to what was acknowledged: what the owner
// before had in its hands comes again, in its place.
func (c *Claim) Consumer(ctx context.Context, signal frame.Signal, destination string) (jetstream.Consumer, error) {
	return nil, errNotYet
}

// Through is the sequence of the last frame in the signal's stream now.
func (c *Claim) Through(ctx context.Context, signal frame.Signal) (uint64, error) {
	return 0, errNotYet
}

// Past says whether no frame of this partition up to that sequence of the signal's
// stream is left that the destination has not acknowledged.
func (c *Claim) Past(ctx context.Context, signal frame.Signal, destination string, through uint64) (bool, error) {
	return false, errNotYet
}

// StoreIdentity names the hub's present store of a signal: when its stream was
// made, in nanoseconds, base 36. "" when not known.
func (c *Claim) StoreIdentity(signal frame.Signal) string { return "" }

// OnStoreLost has f called whenever the bucket or a stream was made anew: all
// watermarks must be written again.
func (c *Claim) OnStoreLost(f func()) {}

var errNotYet = errors.New("not yet")
