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

	sealed  chan *batch // to encode, in order; unbuffered: callers wait
	working sync.WaitGroup
}

// batch is one frame to be. done is closed after err is set.
type batch struct {
	part
	timer  *time.Timer
	eager  bool // it has enough items and waits only a moment
	frames []encoded
	done   chan struct{}
	err    error
}

// encoded is what a batch is written as: one frame, mostly.
type encoded struct {
	header   frame.Header
	payload  []byte
	tooLarge bool // for the hub: an item to be counted as lost
}

func newBatcher(signal frame.Signal, config *Config, telemetry *telemetry, log *zap.Logger) *batcher {
	return &batcher{signal: signal, config: config, codec: frame.CodecFor(signal), telemetry: telemetry, log: log}
}

func (b *batcher) start(sp *spool.Spool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = false
	sealed := make(chan *batch)
	b.sealed = sealed
	// While one batch is synced the next is encoded: each has its payload buffer.
	written := make(chan *batch)
	buffers := make(chan []byte, 2)
	buffers <- nil
	buffers <- nil
	b.working.Go(func() {
		defer close(written)
		for full := range sealed {
			full.frames, full.err = b.encode(nil, <-buffers, full.part)
			written <- full
		}
	})
	b.working.Go(func() {
		for full := range written {
			if full.err == nil {
				full.err = b.write(context.Background(), sp, full.frames)
			}
			if full.err != nil {
				b.telemetry.refused(b.signal, full.items)
			}
			close(full.done)
			buffers <- full.buffer()
		}
	})
}

// buffer is the batch's payload buffer, to be used again.
func (b *batch) buffer() []byte {
	if len(b.frames) == 1 {
		return b.frames[0].payload
	}
	return nil // a batch that was split: rare, and its parts are small
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
	b.working.Wait()
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
		fresh := &batch{part: part{times: times}, done: make(chan struct{})}
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

// seal hands the batch on to be encoded, if it is the open one. It blocks, with the
// lock held, while the batches before are encoded and written: nobody may overtake.
func (b *batcher) seal(full *batch) {
	if full == nil || b.open != full {
		return
	}
	full.timer.Stop()
	b.open = nil
	b.sealed <- full
}

// encode appends the frames of p. One too large for the hub, a relay or a backend is
// split. The first payload is written into buffer.
func (b *batcher) encode(frames []encoded, buffer []byte, p part) ([]encoded, error) {
	header := frame.Header{
		Codec: b.codec.ID(), Signal: b.signal, Class: frame.Live, Items: uint32(p.items),
		First: p.times.first, Last: p.times.last, Uncompressed: uint32(len(p.otlp)),
	}
	if len(p.otlp) <= int(maxBatchBytes) && p.items <= frame.MaxItems || p.items <= 1 && len(p.otlp) <= frame.MaxRequest {
		payload, err := b.codec.Encode(buffer[:0], p.otlp)
		if err != nil {
			return frames, fmt.Errorf("encode %d %s items: %w", p.items, b.signal, err)
		}
		if len(payload)+frame.HeaderSize+frame.TrailerSize <= int(b.config.Ship.MaxFrameBytes) {
			return append(frames, encoded{header: header, payload: payload}), nil
		}
	}
	if p.items <= 1 {
		return append(frames, encoded{header: header, tooLarge: true}), nil
	}
	halves, err := split(b.signal, p.otlp, p.items)
	if err != nil {
		return frames, fmt.Errorf("split %d %s items: %w", p.items, b.signal, err)
	}
	for _, half := range halves {
		if frames, err = b.encode(frames, nil, half); err != nil {
			return frames, err
		}
	}
	return frames, nil
}

// write appends a batch's frames to the spool and counts as lost what fits in none.
func (b *batcher) write(ctx context.Context, sp *spool.Spool, frames []encoded) error {
	for _, f := range frames {
		items, otlpBytes := int(f.header.Items), int(f.header.Uncompressed)
		if f.tooLarge {
			sp.Lose(b.signal, frame.TooLarge, uint64(items))
			b.telemetry.lost(b.signal, items)
			b.log.Error("an item is too large for a frame and is lost; it is counted (up to max_otlp_bytes, raise ship::max_frame_bytes and the hub's max_payload to keep such items)",
				zap.Stringer("signal", b.signal), zap.Int("otlp_bytes", otlpBytes), zap.Stringer("max_frame_bytes", b.config.Ship.MaxFrameBytes), zap.Int("max_otlp_bytes", frame.MaxRequest))
			continue
		}
		if _, err := sp.Append(ctx, f.header, f.payload); err != nil {
			return fmt.Errorf("write to the spool: %w", err)
		}
		b.telemetry.spooled(b.signal, items, otlpBytes, len(f.payload)+frame.HeaderSize+frame.TrailerSize)
	}
	return nil
}
