package natsreceiver

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/longhaul/longhaul/internal/frame"
)

// outlet is one signal of one destination: a pipeline, the workers that feed it,
// and their share of the memory.
type outlet struct {
	*destination
	signal  frame.Signal
	sink    sink
	workers []*worker

	frames  *budget // of frames in hands: waiting, being delivered or parked
	decoded *budget // of what is in the exporters' hands, estimated
	batch   int64   // of decoded, for one delivery
	// batchFrames bounds the frames of one delivery, so that parking has room for them.
	batchFrames int
	parked      int64 // of frames, what one worker's parking may hold, and as much for what it tries

	answers atomic.Uint64 // how often the backends took something, or refused it for good

	attributes metric.MeasurementOption // destination and signal
}

func newOutlet(d *destination, signal frame.Signal, to sink) *outlet {
	o := &outlet{destination: d, signal: signal, sink: to, attributes: metric.WithAttributeSet(attribute.NewSet(
		attribute.String("destination", d.name), attribute.String("signal", signal.String())))}
	for range d.config.Deliver.Workers {
		w := &worker{outlet: o, in: newQueue()}
		w.parking = newParking(w)
		o.workers = append(o.workers, w)
	}
	return o
}

// limit divides the outlet's memory: a quarter for frames, the rest for what is
// decoded, so that all workers can deliver at a time. Of the frames', half is out of
// the reach of parked origins.
func (o *outlet) limit(bytes int64) {
	frames, workers := max(1, bytes/4), int64(len(o.workers))
	o.parked = frames / 4 / workers
	o.batchFrames = max(1, int(o.parked/2/arrivalBytes))
	o.frames = newBudget(frames, o.parked*workers)
	o.frames.most = max(1, frames/2) // there is so much even where parking holds all it may
	o.decoded = newBudget(max(1, bytes-bytes/4), 0)
	o.batch = max(1, o.decoded.limit/workers)
}

// itemMemory is what an item takes that has next to nothing in it.
const itemMemory = 256

// decodedBytes estimates what a frame takes in memory while it is delivered.
func (o *outlet) decodedBytes(a *arrival) int64 {
	return max(o.sink.memory*int64(a.header.Uncompressed), itemMemory*int64(a.header.Items))
}

// workerOf chooses who delivers an origin's frames: always the same.
func (o *outlet) workerOf(from *source) *worker {
	return o.workers[from.hash%uint32(len(o.workers))]
}

func (o *outlet) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, w := range o.workers {
		group.Go(func() { w.run(ctx) })
		group.Go(func() { w.parking.run(ctx) })
	}
	group.Wait()
}

// purge takes what is of a partition from those that wait, and returns it.
func (o *outlet) purge(p *partition) (out []*arrival) {
	for _, w := range o.workers {
		out = append(out, w.in.purge(p)...)
		out = append(out, w.parking.purge(p)...)
	}
	return out
}
