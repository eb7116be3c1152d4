package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// backend is what several relays deliver numbered frames to. It plays the part of
// the receiver: a frame is delivered if its number is the next one, skipped if it
// was delivered before.
type backend struct {
	mu        sync.Mutex
	delivered map[hub.Origin][]int
	twice     int
	rewound   int
	stores    int
}

func newBackend() *backend { return &backend{delivered: make(map[hub.Origin][]int)} }

// take delivers a frame. false: one before it is missing.
func (b *backend) take(o hub.Origin, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.delivered[o]
	switch {
	case n <= len(before):
		b.twice++ // another relay delivered it and could not store that
	case n == len(before)+1:
		b.delivered[o] = append(before, n)
	default:
		b.rewound++
		return false
	}
	return true
}

func (b *backend) have() (frames int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, numbers := range b.delivered {
		frames += len(numbers)
	}
	return frames
}

// complete requires frames 1 to n of every origin, in order and without a hole.
func (b *backend) complete(t *testing.T, origins, n int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.delivered, origins)
	for o, numbers := range b.delivered {
		require.Len(t, numbers, n, o)
	}
	t.Logf("%d delivered in order, %d twice, %d stored, %d times set back", origins*n, b.twice, b.stores, b.rewound)
}

// read delivers what comes for a claim.
func (b *backend) read(ctx context.Context, c *Claim) {
	marks := make(map[string]int)
	for c.Load(ctx, func(key string, value []byte) { marks[key], _ = strconv.Atoi(string(value)) }) != nil {
		if ctx.Err() != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for ctx.Err() == nil && c.WaitHeld(ctx) == nil {
		consumer, err := c.Consumer(ctx, frame.Logs, hub.DefaultDestination)
		for err == nil && ctx.Err() == nil && c.Held() {
			err = b.round(ctx, c, consumer, marks)
		}
		// The lease itself sets the consumer back where a relay begins to read. This is for
		// what was lost on the way when the link or a server went.
		for err != nil && ctx.Err() == nil && c.Rewind(ctx, frame.Logs, hub.DefaultDestination) != nil {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (b *backend) round(ctx context.Context, c *Claim, consumer jetstream.Consumer, marks map[string]int) error {
	batch, err := consumer.Fetch(50, jetstream.FetchMaxWait(time.Second))
	if err != nil {
		return err
	}
	var taken []jetstream.Msg
	var records []Record
	var hole error
	for msg := range batch.Messages() {
		if !c.Held() {
			return nil
		}
		stored, err := hub.ParseStoredSubject(msg.Subject())
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(msg.Data()))
		if err != nil {
			return err
		}
		if k := key(stored.Origin); n > marks[k] {
			if !b.take(stored.Origin, n) {
				hole = errHole
				continue
			}
			marks[k] = n
			records = append(records, Record{k, msg.Data()})
		}
		taken = append(taken, msg)
	}
	if err := batch.Error(); err != nil {
		return err
	}
	for len(records) > 0 {
		_, err := c.Store(ctx, last(records))
		if err == nil {
			break
		}
		if errors.Is(err, ErrLost) || ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrReleased) {
			return err
		}
		if ctx.Err() != nil {
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			_, err = c.Store(final, last(records))
			cancel()
			if err != nil {
				return err
			}
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.mu.Lock()
	b.stores += len(records)
	b.mu.Unlock()
	for _, msg := range taken {
		if err := msg.Ack(); err != nil {
			return err
		}
	}
	return hole
}

var errHole = errors.New("a frame is missing")

// last keeps the last record of each key: a batch may write a key once.
func last(records []Record) []Record {
	index := make(map[string]int)
	var kept []Record
	for _, r := range records {
		if i, ok := index[r.Key]; ok {
			kept[i] = r
			continue
		}
		index[r.Key] = len(kept)
		kept = append(kept, r)
	}
	return kept
}

// edges publish numbered frames of some origins until they are stopped, each
// number once and after the one before was taken.
type edges struct {
	js      jetstream.JetStream
	origins int
	stop    context.CancelFunc
	done    chan struct{}
	n       int // rounds published
}

func startEdges(t *testing.T, js jetstream.JetStream, origins int, pace time.Duration) *edges {
	ctx, stop := context.WithCancel(context.Background())
	e := &edges{js: js, origins: origins, stop: stop, done: make(chan struct{})}
	t.Cleanup(func() { stop(); <-e.done })
	go func() {
		defer close(e.done)
		for ; ctx.Err() == nil; e.n++ {
			for i := range origins {
				e.publish(origin(i), e.n+1)
			}
			time.Sleep(pace)
		}
	}()
	return e
}

// publish repeats until the hub has it: with the number as message id, which the hub
// takes once.
func (e *edges) publish(o hub.Origin, n int) {
	for {
		_, err := e.js.Publish(context.Background(), hub.FrameSubject(frame.Logs, o), fmt.Append(nil, n),
			jetstream.WithRetryAttempts(0), jetstream.WithMsgID(fmt.Sprintf("%s %d", o, n)))
		if err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// end stops publishing and returns how many frames of each origin there are.
func (e *edges) end() int {
	e.stop()
	<-e.done
	return e.n
}
