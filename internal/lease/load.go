package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/hub"
)

// loader reads the bucket for claims that were made at about the same time in one go.
type loader struct {
	scan sync.Mutex // one reads at a time
	mu   sync.Mutex
	next *load // what the next reading is for
}

type load struct {
	claims []*Claim
	found  []map[string][]byte // by claim
	err    error
	done   bool
}

// Load calls each with every stored watermark of this partition's origins, of all
// destinations, as the owner before left them.
func (c *Claim) Load(ctx context.Context, each func(key string, value []byte)) error {
	l := &c.m.loader
	l.mu.Lock()
	if l.next == nil {
		l.next = &load{}
	}
	mine, index := l.next, len(l.next.claims)
	mine.claims = append(mine.claims, c)
	mine.found = append(mine.found, make(map[string][]byte))
	l.mu.Unlock()

	l.scan.Lock()
	if !mine.done {
		l.mu.Lock()
		l.next = nil // whoever comes from now on may have claimed later than this reading begins
		l.mu.Unlock()
		mine.err = c.m.load(ctx, mine)
		mine.done = true
	}
	l.scan.Unlock()
	if mine.err != nil {
		return fmt.Errorf("load watermarks: %w", mine.err)
	}
	for key, value := range mine.found[index] {
		each(key, value)
	}
	return nil
}

// errBehind: the hub server that answered lags behind.
var errBehind = errors.New("the hub server that answers does not know yet who owns the partition")

func (m *Member) load(ctx context.Context, l *load) error {
	bucket, err := m.js.KeyValue(ctx, hub.CustodyBucket)
	if err != nil {
		return err
	}
	for {
		if err = m.readAll(ctx, bucket, l); !errors.Is(err, errBehind) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// readAll reads the bucket once. The owner before wrote nothing after the claims'
// owner keys, so a reading that has these has all.
func (m *Member) readAll(ctx context.Context, bucket jetstream.KeyValue, l *load) error {
	watcher, err := bucket.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // a leftover subscription ends with the connection
	known := make(map[part]uint64)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case entry, ok := <-watcher.Updates():
			if !ok {
				return errors.New("interrupted")
			}
			if entry == nil {
				for _, c := range l.claims {
					if lost, revision := c.token(); !lost && known[c.part] < revision {
						return errBehind
					}
				}
				return nil
			}
			if count, partition, ok := hub.ParseOwnerKey(entry.Key()); ok {
				known[part{count, partition}] = entry.Revision()
				continue
			}
			_, origin, _, err := hub.ParseDestinationKey(entry.Key())
			if err != nil {
				continue // no watermark
			}
			for i, c := range l.claims {
				if c.Owns(origin) {
					l.found[i][entry.Key()] = entry.Value()
				}
			}
		}
	}
}
