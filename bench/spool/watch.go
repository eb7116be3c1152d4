package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// watch sees every frame of log records as it comes to the hub, and tells by the
// items' times what is backlog and what is live. To the collector it is a relay
// whose backends take everything at once: it answers hellos and confirms what
// came, so that the spool is emptied as it would be.
type watch struct {
	nc       *nats.Conn
	codec    frame.Codec
	lines    int64     // of the backlog
	since    time.Time // older items are the backlog's
	done     chan struct{}
	stop     chan struct{}
	answered sync.WaitGroup

	mu       sync.Mutex
	epoch    frame.Epoch
	lanes    map[frame.Lane]*arrivals
	items    int64
	backlog  catchUp
	aged     []aged
	damaged  error
	progress int64 // items, for the progress lines
}

// arrivals are the numbers of a lane that came: all up to upTo, and some beyond.
type arrivals struct {
	upTo   uint64
	beyond map[uint64]bool
}

// note says whether number had not come before.
func (a *arrivals) note(number uint64) bool {
	if number <= a.upTo || a.beyond[number] {
		return false
	}
	a.beyond[number] = true
	for a.beyond[a.upTo+1] {
		a.upTo++
		delete(a.beyond, a.upTo)
	}
	return true
}

// aged is a live line: when it was made, and how long it took to the hub.
type aged struct {
	made time.Time
	age  time.Duration
}

// catchUp is what the emptying of the backlog came to.
type catchUp struct {
	first, last time.Time // frame
	bytes       int64
	repeated    int
}

// confirmEvery is how often the relay confirms.
const confirmEvery = 2 * time.Second

var benchOrigin = hub.Origin{Cluster: "bench", Node: "node-a"}

func newWatch(address string, lines int64) (*watch, error) {
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		return nil, err
	}
	w := &watch{codec: codec, lines: lines, since: time.Now(), done: make(chan struct{}), stop: make(chan struct{}), lanes: make(map[frame.Lane]*arrivals)}
	if w.nc, err = nats.Connect("nats://" + address); err != nil {
		return nil, err
	}
	frames, err := w.nc.Subscribe(hub.FrameSubject(frame.Logs, benchOrigin), w.take)
	if err == nil {
		err = frames.SetPendingLimits(-1, -1)
	}
	if err == nil {
		_, err = w.nc.Subscribe(hub.HelloSubject(benchOrigin), w.hello)
	}
	if err == nil {
		err = w.nc.Flush()
	}
	if err != nil {
		w.nc.Close()
		return nil, err
	}
	w.answered.Go(w.confirmRegularly)
	return w, nil
}

func (w *watch) close() {
	close(w.stop)
	w.answered.Wait()
	w.nc.Close()
}

// hello answers at once, as a relay does.
func (w *watch) hello(msg *nats.Msg) {
	hello, epoch, err := custody.ParseHello(msg.Data)
	if err == nil {
		w.mu.Lock()
		w.epoch = epoch
		for _, l := range hello.Lanes {
			if lane, err := frame.ParseLane(l.Lane); err == nil {
				w.lane(lane)
			}
		}
		w.mu.Unlock()
		err = w.confirm()
	}
	if err != nil {
		w.mu.Lock()
		w.damaged = err
		w.mu.Unlock()
	}
}

func (w *watch) lane(lane frame.Lane) *arrivals {
	a, ok := w.lanes[lane]
	if !ok {
		a = &arrivals{beyond: make(map[uint64]bool)}
		w.lanes[lane] = a
	}
	return a
}

func (w *watch) confirmRegularly() {
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		if err := w.confirm(); err != nil {
			w.mu.Lock()
			w.damaged = err
			w.mu.Unlock()
		}
	}
}

func (w *watch) confirm() error {
	w.mu.Lock()
	c := custody.Confirmation{Version: custody.Version, Epoch: w.epoch.String()}
	for lane, a := range w.lanes {
		c.Lanes = append(c.Lanes, custody.Accepted{Lane: lane.String(), Confirmed: a.upTo, Stream: "bench"})
	}
	known := w.epoch != 0
	w.mu.Unlock()
	if !known {
		return nil
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return w.nc.Publish(hub.CustodySubject(benchOrigin), body)
}

func (w *watch) take(msg *nats.Msg) {
	now := time.Now()
	h, _, err := frame.ParseHeader(msg.Data)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.damaged = err
		return
	}
	backlog := time.Unix(0, h.Last).Before(w.since)
	if !w.lane(h.LaneID()).note(h.Number) {
		if backlog {
			w.backlog.repeated++
		}
		return
	}
	if !backlog {
		w.takeLive(msg.Data, now)
		return
	}
	if w.items == 0 {
		w.backlog.first = now
	}
	w.items += int64(h.Items)
	w.backlog.bytes += int64(len(msg.Data))
	if w.items == w.lines {
		w.backlog.last = now
		close(w.done)
	}
}

// takeLive notes how old each line is.
func (w *watch) takeLive(b []byte, now time.Time) {
	h, payload, _, err := frame.Parse(b)
	if err == nil {
		var otlp []byte
		if otlp, err = w.codec.Decode(nil, payload, int(h.Uncompressed)); err == nil {
			var logs plog.Logs
			if logs, err = (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp); err == nil {
				w.noteAges(logs, now)
			}
		}
	}
	if err != nil {
		w.damaged = err
	}
}

func (w *watch) noteAges(logs plog.Logs, now time.Time) {
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				made := record.Timestamp().AsTime()
				w.aged = append(w.aged, aged{made, now.Sub(made)})
			}
		}
	}
}

// await waits until the whole backlog has come.
func (w *watch) await(ctx context.Context, limit time.Duration) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.done:
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.damaged
		case <-tick.C:
			w.mu.Lock()
			say("%d of %d lines of the backlog have come (%.0f a second), and %d live lines", w.items, w.lines, float64(w.items-w.progress)/5, len(w.aged))
			w.progress = w.items
			w.mu.Unlock()
		case <-timeout.C:
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Errorf("%d of %d lines of the backlog came within %v (--catch-up-timeout)", w.items, w.lines, limit)
		}
	}
}

func (w *watch) caughtUp() catchUp {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.backlog
}

// ages returns the ages of the live lines made between two times.
func (w *watch) ages(from, to time.Time) (ages []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.aged {
		if !line.made.Before(from) && line.made.Before(to) {
			ages = append(ages, line.age)
		}
	}
	return ages
}
