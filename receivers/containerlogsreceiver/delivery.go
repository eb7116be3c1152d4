package containerlogsreceiver

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"
)

// maxInFlight is how many batches are with the pipeline at the same time. The
// nats exporter holds a call until a frame is full or its delay has passed;
// several batches fill frames where one would wait.
const maxInFlight = 4

// delivery hands batches to the pipeline, each until it is accepted, and
// advances the positions in the order the batches were cut.
type delivery struct {
	next      consumer.Logs
	positions *positions
	telemetry *telemetry
	obsreport *receiverhelper.ObsReport
	logger    *zap.Logger
	timing    timing
	version   string
	maxBytes  int

	jobs chan *batch // to the workers
	free chan *batch // empty batches; its length bounds memory

	mu       sync.Mutex
	inFlight []*batch // as cut; confirmed ones leave from the front
	refusing bool     // the last attempt failed; says once what many batches meet

	dirty chan struct{} // the table is ahead of the file
}

func newDelivery(maxBytes int) *delivery {
	d := &delivery{
		maxBytes: maxBytes,
		jobs:     make(chan *batch),
		free:     make(chan *batch, maxInFlight+1),
		dirty:    make(chan struct{}, 1),
	}
	for range cap(d.free) {
		d.free <- &batch{}
	}
	return d
}

// idle is what the reader goes on with while it waits.
type idle struct {
	tick     <-chan time.Time
	onTick   func()
	signal   <-chan struct{}
	onSignal func()
}

// take waits for an empty batch; with all of them in flight, reading waits.
func (d *delivery) take(ctx context.Context, idle idle) (*batch, error) {
	for {
		select {
		case b := <-d.free:
			return b, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-idle.tick:
			idle.onTick()
		case <-idle.signal:
			idle.onSignal()
		}
	}
}

// send queues a batch, which the caller must not touch again, and waits until a
// worker has it.
func (d *delivery) send(ctx context.Context, b *batch, idle idle) error {
	d.mu.Lock()
	b.abandoned = len(d.inFlight) > 0 && d.inFlight[len(d.inFlight)-1].abandoned
	d.inFlight = append(d.inFlight, b)
	d.mu.Unlock()
	if b.abandoned { // shutting down: what comes before it will be read again
		return context.Canceled
	}
	for {
		select {
		case d.jobs <- b:
			return nil
		case <-ctx.Done():
			d.abandon(b)
			return ctx.Err()
		case <-idle.tick:
			idle.onTick()
		case <-idle.signal:
			idle.onSignal()
		}
	}
}

// abandon gives up a batch at shutdown, unless a later one was accepted or may
// still be: then it is worth another attempt, for positions cannot advance over
// it and what came after it would be delivered again.
func (d *delivery) abandon(b *batch) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, later := range slices.Backward(d.inFlight) {
		if later == b {
			b.abandoned = true
			break
		}
		if !later.abandoned {
			break
		}
	}
	return b.abandoned
}

// stuck says that a batch would not be taken at once: the pipeline refuses, or
// what came before is given up.
func (d *delivery) stuck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refusing || slices.ContainsFunc(d.inFlight, func(b *batch) bool { return b.abandoned })
}

// work delivers batches until jobs is closed. stop ends waiting between
// attempts; kill also ends an attempt.
func (d *delivery) work(stop, kill context.Context) {
	for b := range d.jobs {
		if d.deliver(stop, kill, b) {
			d.telemetry.countLimited(kill, b.leftOut)
			d.confirm(b)
		}
	}
}

// deliver returns true when the batch needs no further attempt.
func (d *delivery) deliver(stop, kill context.Context, b *batch) bool {
	if b.empty() {
		return true
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = d.timing.retryInitial, d.timing.retryMax
	for {
		logs, invalidUTF8 := b.logs(d.version)
		ctx := d.obsreport.StartLogsOp(kill)
		err := d.next.ConsumeLogs(ctx, logs)
		d.obsreport.EndLogsOp(ctx, "containerlogs", len(b.records)+len(b.notices), err)
		switch {
		case err == nil:
			d.accepted(kill, b, invalidUTF8)
			return true
		case consumererror.IsPermanent(err):
			d.telemetry.dropped.Add(kill, int64(len(b.records)))
			d.logger.Error("the pipeline refused container log lines for good; they are lost",
				zap.Int("lines", len(b.records)), zap.Error(err))
			return true
		}
		d.refused(err)
		select {
		case <-time.After(wait.NextBackOff()):
			continue
		case <-stop.Done():
		}
		if d.abandon(b) {
			return false
		}
		select {
		case <-time.After(d.timing.retryInitial):
		case <-kill.Done():
			return false
		}
	}
}

func (d *delivery) accepted(ctx context.Context, b *batch, invalidUTF8 int64) {
	d.telemetry.lines.Add(ctx, int64(len(b.records)))
	d.telemetry.bytes.Add(ctx, int64(len(b.text)))
	addSome(ctx, d.telemetry.malformed, b.malformed)
	addSome(ctx, d.telemetry.split, b.split)
	addSome(ctx, d.telemetry.invalidUTF8, invalidUTF8)
	d.mu.Lock()
	recovered := d.refusing
	d.refusing = false
	d.mu.Unlock()
	if recovered {
		d.logger.Info("the pipeline accepts container log lines again")
	}
}

func (d *delivery) refused(err error) {
	d.mu.Lock()
	said := d.refusing
	d.refusing = true
	d.mu.Unlock()
	if !said {
		d.logger.Warn("the pipeline refuses container log lines; reading waits and the same lines are tried again until it takes them", zap.Error(err))
	}
}

// confirm notes that a batch is done, and advances the positions over all
// batches that are done without a gap.
func (d *delivery) confirm(b *batch) {
	d.mu.Lock()
	b.confirmed = true
	advanced := false
	for len(d.inFlight) > 0 && d.inFlight[0].confirmed {
		done := d.inFlight[0]
		d.inFlight[0] = nil
		d.inFlight = d.inFlight[1:]
		d.positions.apply(done.marks)
		done.reset(d.maxBytes)
		d.free <- done
		advanced = true
	}
	d.mu.Unlock()
	if advanced {
		select {
		case d.dirty <- struct{}{}:
		default:
		}
	}
}

// save writes the position file whenever the table has advanced, at most every
// saveGap, until done is closed; and then once more.
func (d *delivery) save(done <-chan struct{}) {
	failing := false
	write := func() {
		err := d.positions.save()
		switch {
		case err != nil && !failing:
			d.logger.Error("cannot save read positions; after a restart lines are read again from the last saved position; tried again with the next lines", zap.Error(err))
		case err == nil && failing:
			d.logger.Info("read positions are saved again")
		}
		failing = err != nil
	}
	for {
		select {
		case <-d.dirty:
			write()
		case <-done:
			write()
			return
		}
		select {
		case <-time.After(d.timing.saveGap):
		case <-done:
			write()
			return
		}
	}
}
