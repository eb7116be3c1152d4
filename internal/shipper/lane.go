package shipper

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/spool"
)

const (
	retryMin  = 250 * time.Millisecond
	retryMax  = 30 * time.Second
	readBytes = 1 << 20 // read ahead from the spool, per lane
)

// errRewind ends a round of shipping because the cursor has moved back.
var errRewind = errors.New("publish again from an earlier frame")

// errDisputed ends a round of shipping because the relay says that another ships
// the same spool.
var errDisputed = errors.New("another collector ships a copy of this spool")

// lane ships one lane of the spool in order. Its goroutine alone moves the cursor.
type lane struct {
	*Shipper
	name   frame.Lane
	orders chan order
	cancel context.CancelFunc // lanes.mu guards it, and told
	told   *[frame.NumCauses]uint64

	shipped    atomic.Uint64             // highest number the hub acknowledged, all before it too
	confirmed  atomic.Uint64             // what the relay last said
	sealed     atomic.Bool               // nothing is appended to it any more
	pending    atomic.Bool               // a live lane: has something to publish now
	since      atomic.Pointer[time.Time] // a live lane: when it last had something unsent and the hub had taken nothing since
	fresh      bool                      // begun by this process: the relay cannot know more of it
	generation uint64                    // part of the message id; one more at every rewind
	rewound    time.Time                 // last rewind at the relay's request
	positioned uint64                    // the connect for which the relay's word was waited for
	saved      laneState                 // owned by saveState

	mu        sync.Mutex
	stream    string    // identity of the hub's store that the shipped frames went to
	allowance Allowance // of a sealed lane
}

// order is the relay's word on this lane.
type order struct {
	confirmed, resend uint64
	stream            string
}

// flight is a frame on its way.
type flight struct {
	number       uint64
	items, bytes int
	sent         time.Time
	ack          jetstream.PubAckFuture
	paced        bool // counted in the sealed lanes' window
}

func (l *lane) streamName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

// run ships until ctx is done: wait for the link, learn where the relay stands,
// ship until something goes wrong, wait, again.
func (l *lane) run(ctx context.Context) {
	retry := &backoff.ExponentialBackOff{
		InitialInterval: retryMin, MaxInterval: retryMax, Multiplier: 2, RandomizationFactor: 0.5,
	}
	retry.Reset()
	for ctx.Err() == nil {
		if l.link.wait(ctx) != nil {
			return
		}
		if connect := l.link.connects.Load(); l.positioned != connect {
			if !l.fresh || l.shipped.Load() > 0 {
				l.position(ctx)
			}
			l.positioned = connect
		}
		before := l.shipped.Load()
		err := l.ship(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, spool.ErrUnknownLane): // the spool has let it go
			return
		case errors.Is(err, errRewind), errors.Is(err, errDisputed):
			retry.Reset()
			continue
		case l.shipped.Load() > before:
			retry.Reset() // it got somewhere; the next try may be soon
		}
		wait := retry.NextBackOff()
		l.log.Warn("shipping interrupted; frames stay in the spool and are published again",
			zap.Stringer("lane", l.name), zap.Duration("retry_in", wait), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// position waits for the relay's answer to the hello, so that what it already
// has is not published again.
func (l *lane) position(ctx context.Context) {
	timer := time.NewTimer(positionWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case o := <-l.orders:
		_ = l.obey(o) // nothing is in flight: moving the cursor is all there is to do
	case <-timer.C:
	}
}

// voyage is one round of shipping: from the cursor on until something ends it.
type voyage struct {
	*lane
	next      uint64
	ahead     []spool.Record // read and not yet published
	flying    []flight       // published and not yet acknowledged, in order
	inFlight  int            // bytes
	window    int            // bytes, of a live lane
	announced bool           // the spool said that there is something to read
	wait      *waiter
}

// ship publishes from the cursor on until ctx is done, a publish fails, or the
// relay asks for an earlier frame. It begins with a single frame, so that a hub
// that is full, or gone again, costs the link one frame a try and not a window.
func (l *lane) ship(ctx context.Context) error {
	v := &voyage{lane: l, next: l.shipped.Load() + 1, window: 1, wait: l.newWaiter(ctx)}
	l.allow(func(a *Allowance) { a.Again() })
	defer v.wait.stop()
	defer v.end()
	for {
		news, disputed := l.lanes.news(), l.link.disputed() != ""
		if disputed && len(v.flying) == 0 {
			return errDisputed
		}
		allowed := !disputed && l.mayShip(l)
		if allowed {
			if err := v.read(ctx); err != nil {
				return err
			}
			if err := v.publish(); err != nil {
				return err
			}
		}
		if err := v.await(ctx, news); err != nil {
			return err
		}
	}
}

// allow changes the lane's allowance.
func (l *lane) allow(change func(*Allowance)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.allowance)
}

// room says whether a sealed lane may have one more frame on the hub.
func (l *lane) room(number uint64) (is bool) {
	l.allow(func(a *Allowance) { is = a.Room(number) })
	return is
}

// end lets go of the sealed lanes' window.
func (v *voyage) end() {
	for _, f := range v.flying {
		if f.paced {
			v.pace.give(f.bytes)
		}
	}
	v.lanes.announce()
}

func (v *voyage) read(ctx context.Context) error {
	if len(v.ahead) > 0 || v.inFlight >= v.window && !v.sealed.Load() {
		return nil
	}
	records, err := v.spool.Read(v.name, v.next, min(readBytes, v.config.WindowBytes))
	if err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	v.ahead = records
	if v.announced && len(records) == 0 {
		// What was there has been evicted or was found corrupt since. Not a tight loop:
		select {
		case <-ctx.Done():
		case <-time.After(retryMin):
		}
	}
	v.announced = false
	return nil
}

func (v *voyage) publish() error {
	for len(v.ahead) > 0 {
		sealed := v.sealed.Load()
		bytes := len(v.ahead[0].Bytes)
		if v.inFlight > 0 && (v.window == 1 || !sealed && v.inFlight+bytes > v.window) {
			break
		}
		if sealed && (!v.mayShip(v.lane) || !v.room(v.ahead[0].Number) || !v.pace.take(bytes)) {
			break
		}
		f, err := v.lane.publish(v.ahead[0])
		if err != nil {
			if sealed {
				v.pace.give(bytes)
			}
			return err
		}
		if f.paced = sealed; sealed {
			v.allow(func(a *Allowance) { a.Published(f.number, f.sent) })
		}
		v.flying, v.inFlight, v.ahead = append(v.flying, f), v.inFlight+f.bytes, v.ahead[1:]
		v.next = f.number + 1
	}
	if pending := len(v.ahead) > 0 || v.inFlight >= v.window; !v.sealed.Load() && v.pending.Swap(pending) && !pending {
		v.lanes.announce()
	}
	return nil
}

// await waits for the next thing to happen and deals with it.
func (v *voyage) await(ctx context.Context, news <-chan struct{}) error {
	var acked <-chan *jetstream.PubAck
	var failed <-chan error
	if len(v.flying) > 0 {
		acked, failed = v.flying[0].ack.Ok(), v.flying[0].ack.Err()
	}
	var more <-chan struct{}
	if len(v.ahead) == 0 && v.inFlight < v.window && !v.sealed.Load() {
		more = v.wait.ready(v.next)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-acked:
		v.acknowledged(time.Now())
	case err := <-failed:
		v.generation++ // those behind it may have arrived; the ids must not stand in the way
		return fmt.Errorf("publish frame %d: %w", v.flying[0].number, err)
	case o := <-v.orders:
		if v.obey(o) {
			return errRewind
		}
		if v.shipped.Load() >= v.next { // confirmed beyond what was read: skip
			v.ahead, v.next = nil, v.shipped.Load()+1
		}
	case <-more:
		v.wait.waiting = false
		v.announced = true
	case <-news:
	}
	return nil
}

// acknowledged takes the hub's word for the first frame on the way.
func (v *voyage) acknowledged(now time.Time) {
	f := v.flying[0]
	v.flying, v.inFlight = v.flying[1:], v.inFlight-f.bytes
	v.window = v.config.WindowBytes
	took := now.Sub(f.sent)
	paced := 0
	if f.paced {
		v.pace.give(f.bytes)
		paced = f.bytes
	}
	v.pace.learn(paced, took, now)
	v.setShipped(max(f.number, v.shipped.Load()))
	v.observer.Shipped(v.name.Signal, f.items, f.bytes, took)
	v.took(now)
	if f.paced {
		v.lanes.announce() // another sealed lane may have its turn, or room in the window
	}
}

// setShipped moves the cursor.
func (l *lane) setShipped(number uint64) {
	l.shipped.Store(number)
	l.spool.Acknowledged(l.name, number)
}

// waiter turns spool.Wait into a channel. At most one wait is under way.
type waiter struct {
	ask     chan uint64
	fired   chan struct{}
	waiting bool
	cancel  context.CancelFunc
	group   sync.WaitGroup
}

func (l *lane) newWaiter(ctx context.Context) *waiter {
	ctx, cancel := context.WithCancel(ctx)
	w := &waiter{ask: make(chan uint64, 1), fired: make(chan struct{}, 1), cancel: cancel}
	w.group.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case from := <-w.ask:
				if l.spool.Wait(ctx, l.name, from) != nil {
					return
				}
				w.fired <- struct{}{} // has room: the next ask comes after it was received
			}
		}
	})
	return w
}

// ready gives a channel on which a signal arrives once the spool holds a durable
// frame from a number on, or held one that has gone since.
func (w *waiter) ready(from uint64) <-chan struct{} {
	if !w.waiting {
		w.waiting = true
		w.ask <- from
	}
	return w.fired
}

func (w *waiter) stop() {
	w.cancel()
	w.group.Wait()
}

// publish sends one frame. Its header is written once and for all; what the
// spool has lost or let go since travels in message headers.
func (l *lane) publish(r spool.Record) (flight, error) {
	id := l.spool.Epoch().String() + "/" + l.name.String() + "/" + strconv.FormatUint(r.Number, 10)
	if l.generation > 0 {
		id += "#" + strconv.FormatUint(l.generation, 36)
	}
	msg := &nats.Msg{
		Subject: hub.FrameSubject(l.name.Signal, l.config.Origin),
		Header:  nats.Header{jetstream.MsgIDHeader: []string{id}},
		Data:    r.Bytes,
	}
	floor, lost := l.spool.Floor(l.name)
	// The first frame held tells its floor in any case: a relay that has forgotten
	// what it confirmed would wait for the frames before it.
	if floor > r.Header.Floor && (lost != r.Header.Lost || floor >= r.Number) {
		msg.Header[hub.FloorHeader] = []string{strconv.FormatUint(min(floor, r.Number), 10)}
		msg.Header[hub.LostHeader] = []string{formatLost(lost)}
	}
	if l.sealed.Load() && r.Header.Class != frame.Backlog {
		msg.Header[hub.ClassHeader] = []string{frame.Backlog.String()}
	}
	ack, err := l.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
	if err != nil {
		return flight{}, fmt.Errorf("publish frame %d: %w", r.Number, err)
	}
	return flight{number: r.Number, items: int(r.Header.Items), bytes: len(r.Bytes), sent: time.Now(), ack: ack}, nil
}

func formatLost(lost [frame.NumCauses]uint64) string {
	texts := make([]string, len(lost))
	for i, count := range lost {
		texts[i] = strconv.FormatUint(count, 10)
	}
	return strings.Join(texts, ",")
}

// obey moves the cursor where the relay's word wants it, and says whether that
// was back, over frames that may be in flight.
func (l *lane) obey(o order) (back bool) {
	shipped := l.shipped.Load()
	l.mu.Lock()
	replaced := o.stream != "" && l.stream != "" && o.stream != l.stream
	if o.stream != "" {
		l.stream = o.stream
	}
	l.mu.Unlock()
	switch {
	case o.confirmed > shipped:
		l.setShipped(o.confirmed)
		l.lanes.announce()
		return false
	case replaced && o.confirmed < shipped:
		l.log.Warn("the hub has a new store; frames it had and did not deliver are published again",
			zap.Stringer("lane", l.name), zap.Uint64("from", o.confirmed+1), zap.Uint64("to", shipped))
		l.rewind(o.confirmed + 1)
		return true
	case o.resend > 0 && o.resend <= shipped && time.Since(l.rewound) >= rewindInterval:
		l.log.Info("the relay misses frames; they are published again",
			zap.Stringer("lane", l.name), zap.Uint64("from", o.resend), zap.Uint64("to", shipped))
		l.rewind(max(o.resend, o.confirmed+1))
		return true
	}
	return false
}

func (l *lane) rewind(from uint64) {
	l.generation++
	l.rewound = time.Now()
	l.setShipped(from - 1)
	l.lanes.announce()
}
