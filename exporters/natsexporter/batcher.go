package natsexporter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

// errShutdown is what a caller gets whose data came after the exporter's end.
var errShutdown = errors.New("the nats exporter is shut down")

// batcher collects the callers of one signal into frames. OTLP requests are
// merged by appending their bytes: the concatenation of two protobuf messages is
// their merge, and a request's only field is the repeated list of resources
// (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
type batcher struct {
	signal    frame.Signal
	config    *Config
	codec     frame.Codec
	telemetry *telemetry
	log       *zap.Logger

	mu     sync.Mutex
	open   *batch
	closed bool

	sealed  chan *batch // to write, in order; unbuffered: callers wait
	writing sync.WaitGroup
	payload []byte // the writer's, used again for every frame
}

// batch is one frame to be. done is closed after err is set.
type batch struct {
	otlp  []byte
	items int
	times timeRange
	timer *time.Timer
	eager bool // it has enough items and waits only a moment
	done  chan struct{}
	err   error
}

func newBatcher(signal frame.Signal, config *Config, telemetry *telemetry, log *zap.Logger) *batcher {
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		panic(err) // the codec is part of this program
	}
	return &batcher{signal: signal, config: config, codec: codec, telemetry: telemetry, log: log}
}

func (b *batcher) start(sp *spool.Spool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = false
	sealed := make(chan *batch)
	b.sealed = sealed
	b.writing.Go(func() {
		for full := range sealed {
			full.err = b.write(context.Background(), sp, full.otlp, full.items, full.times)
			if full.err != nil {
				b.telemetry.refused(b.signal, full.items)
			}
			close(full.done)
		}
	})
}

// shutdown writes the open batch and waits until it is durable.
func (b *batcher) shutdown() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.seal(b.open)
		close(b.sealed)
	}
	b.mu.Unlock()
	b.writing.Wait()
}

// add puts a request into the open batch and waits until that is durable. When
// ctx ends first the data may be durable all the same.
func (b *batcher) add(ctx context.Context, otlp []byte, items int, times timeRange) error {
	mine, err := b.join(otlp, items, times)
	if err != nil {
		return err
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the spool: %w", ctx.Err())
	}
}

func (b *batcher) join(otlp []byte, items int, times timeRange) (*batch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.sealed == nil {
		b.telemetry.refused(b.signal, items)
		return nil, errShutdown
	}
	if b.open != nil && len(b.open.otlp)+len(otlp) > int(b.config.Batch.MaxBytes) {
		b.seal(b.open)
	}
	if b.open == nil {
		fresh := &batch{times: times, done: make(chan struct{})}
		fresh.timer = time.AfterFunc(b.config.Batch.Delay, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.seal(fresh)
		})
		b.open = fresh
	}
	mine := b.open
	mine.otlp = append(mine.otlp, otlp...)
	mine.items += items
	mine.times.extend(times)
	if mine.items >= b.config.Batch.MaxItems || len(mine.otlp) >= int(b.config.Batch.MaxBytes) {
		b.seal(mine)
	} else if mine.items >= b.config.Batch.EagerItems && !mine.eager {
		mine.eager = true
		mine.timer.Reset(min(eagerDelay, b.config.Batch.Delay))
	}
	return mine, nil
}

// seal hands the batch to the writer, if it is the open one. It blocks, with the
// lock held, while the writer is busy with the batch before: nobody may overtake.
func (b *batcher) seal(full *batch) {
	if full == nil || b.open != full {
		return
	}
	full.timer.Stop()
	b.open = nil
	b.sealed <- full
}

// write makes a frame of a batch and appends it to the spool. A frame too large
// for the hub is split; a single item that is too large is counted as lost.
func (b *batcher) write(ctx context.Context, sp *spool.Spool, otlp []byte, items int, times timeRange) error {
	payload, err := b.codec.Encode(b.payload[:0], otlp)
	b.payload = payload
	if err != nil {
		return fmt.Errorf("encode %d %s items: %w", items, b.signal, err)
	}
	if len(payload)+frame.HeaderSize+frame.TrailerSize > int(b.config.Ship.MaxFrameBytes) {
		return b.writeHalves(ctx, sp, otlp, items)
	}
	header := frame.Header{
		Codec: b.codec.ID(), Signal: b.signal, Class: frame.Live, Items: uint32(items),
		First: times.first, Last: times.last, Uncompressed: uint32(len(otlp)),
	}
	if _, err = sp.Append(ctx, header, payload); err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	b.telemetry.spooled(b.signal, items, len(otlp), len(payload)+frame.HeaderSize+frame.TrailerSize)
	return nil
}

func (b *batcher) writeHalves(ctx context.Context, sp *spool.Spool, otlp []byte, items int) error {
	if items == 1 {
		sp.Lose(b.signal, frame.TooLarge, 1)
		b.telemetry.lost(b.signal, 1)
		b.log.Error("an item is too large for the hub and is lost; it is counted (raise ship::max_frame_bytes and the hub's max_payload to keep such items)",
			zap.Stringer("signal", b.signal), zap.Int("otlp_bytes", len(otlp)), zap.Stringer("max_frame_bytes", b.config.Ship.MaxFrameBytes))
		return nil
	}
	halves, err := split(b.signal, otlp, items)
	if err != nil {
		return fmt.Errorf("split %d %s items: %w", items, b.signal, err)
	}
	for _, half := range halves {
		if err := b.write(ctx, sp, half.otlp, half.items, half.times); err != nil {
			return err
		}
	}
	return nil
}
