package edge

import (
	"crypto/rand"
	"encoding/json"
	"math"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const (
	helloInterval = 30 * time.Second
	watchInterval = time.Second
	saveInterval  = 2 * time.Second
	spoolMaxBytes = 2 << 30
)

// Node is one collector.
type Node struct {
	fleet  *Fleet
	link   *link
	place  int // in the link
	index  int // in the fleet
	origin hub.Origin

	mu        sync.Mutex
	life      uint8
	epoch     frame.Epoch
	instance  string
	skew      time.Duration
	lanes     []*lane  // oldest first
	live      [4]*lane // by signal
	outage    [4]bool  // the live lane was sealed and the hub has taken nothing since
	pace      pace
	up        bool
	upSince   time.Time
	disputed  bool
	saved     map[frame.Lane]uint64 // shipped, as a restart would find it
	turn      int                   // of the scraped targets
	plan      *Plan                 // that nextFrame is for
	nextFrame [4]time.Time
	nextHello time.Time
	nextWatch time.Time
	nextSave  time.Time
	scratch   []byte
}

func (n *Node) init() {
	n.epoch, n.instance = frame.NewEpoch(), rand.Text()
	n.lanes, n.saved, n.pace.inFlight = nil, nil, 0
	for _, signal := range frame.Signals {
		n.addLane(frame.Lane{Signal: signal, Seq: 1})
	}
}

func (n *Node) addLane(name frame.Lane) {
	l := newLane(name)
	n.lanes = append(n.lanes, l)
	n.live[name.Signal] = l
	n.fleet.book.Lives(n.index, name)
}

// tick does what is due and says when it wants to be called again.
func (n *Node) tick(now time.Time) (next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next = n.produce(now)
	if !now.Before(n.nextWatch) {
		n.watch(now)
		n.nextWatch = now.Add(watchInterval)
	}
	if n.up && !now.Before(n.nextHello) {
		n.hello(now)
	}
	n.pump(now)
	return earlier(next, n.nextWatch)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// produce writes the frames that are due.
func (n *Node) produce(now time.Time) (next time.Time) {
	plan, round := n.fleet.plan.Load(), n.fleet.round.Load()
	next = now.Add(time.Hour)
	for _, signal := range frame.Signals {
		interval := plan.Every[signal]
		if interval <= 0 {
			continue
		}
		if n.plan != plan {
			n.nextFrame[signal] = now.Add(mathrand.N(interval))
		}
		for !now.Before(n.nextFrame[signal]) {
			due := n.nextFrame[signal]
			n.fleet.lag(now.Sub(due))
			n.write(signal, (*round)[signal], now)
			n.nextFrame[signal] = due.Add(interval)
		}
		next = earlier(next, n.nextFrame[signal])
	}
	n.plan = plan
	return next
}

func (n *Node) write(signal frame.Signal, templates []*frames.Template, at time.Time) {
	n.turn++
	t := templates[(n.index+n.turn)%len(templates)]
	if signal == frame.Metrics { // each target once a turn
		l := n.live[signal]
		t = templates[(l.end()+uint64(l.name.Seq)+uint64(n.index))%uint64(len(templates))]
	}
	l := n.live[signal]
	number := l.write(t, at)
	n.fleet.book.Wrote(n.index, n.life, l.name, number, 1, t.Samples)
}

// watch seals what the hub does not take, and gives up waiting for answers.
func (n *Node) watch(now time.Time) {
	for _, l := range n.lanes {
		if l.inFlight > 0 && now.Sub(l.sent) > publishTimeout {
			n.failed(l, now)
		}
		l.allowance.Tick(l.shipped, now)
	}
	for _, signal := range frame.Signals {
		if n.stalled(n.live[signal], now) && !n.outage[signal] {
			n.seal(signal)
			n.outage[signal] = true
		}
	}
	if now.After(n.nextSave) {
		n.nextSave = now.Add(saveInterval)
		n.saved = make(map[frame.Lane]uint64, len(n.lanes))
		for _, l := range n.lanes {
			n.saved[l.name] = l.shipped
		}
	}
}

func (n *Node) stalled(l *lane, now time.Time) bool {
	if !l.unsent() {
		l.since = time.Time{}
		return false
	}
	if l.since.IsZero() {
		l.since = now
	}
	return now.Sub(l.since) >= n.fleet.options.SealAfter
}

// seal ends the live lane of a signal.
func (n *Node) seal(signal frame.Signal) {
	old := n.live[signal]
	if old.end() == 1 {
		return // the spool seals no lane that never held a frame
	}
	old.sealed = true
	n.addLane(frame.Lane{Signal: signal, Seq: old.name.Seq + 1})
	n.nextHello = time.Time{}
	n.fleet.sealed.Add(1)
}

// connected is called once the hub has answered.
func (n *Node) connected() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.up, n.upSince = true, now
	n.fleet.book.Linked(n.index, now)
	n.pace.reset()
	for _, l := range n.lanes {
		l.retry, l.notBefore = 0, time.Time{}
		l.positioned = l.fresh && l.shipped == 0
	}
	n.hello(now)
	n.pump(now)
}

func (n *Node) disconnected() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = false
	for _, l := range n.lanes {
		if l.inFlight > 0 { // those may have arrived; their ids must not stand in the way
			l.generation++
		}
		l.restart(l.shipped+1, &n.pace)
	}
}

// pump publishes what may go now.
func (n *Node) pump(now time.Time) {
	if !n.up || n.disputed {
		return
	}
	for _, l := range n.live {
		if l != nil {
			n.ship(l, now)
		}
	}
	for _, l := range n.lanes {
		if l.sealed && n.mayShip(l) {
			n.ship(l, now)
		}
	}
}

// mayShip says whether a sealed lane has its turn.
func (n *Node) mayShip(l *lane) bool {
	if current := n.live[l.name.Signal]; current.next < current.end() || current.inFlight >= windowBytes {
		return false
	}
	for _, other := range n.lanes {
		if other.sealed && other.name.Signal == l.name.Signal && other.name.Seq < l.name.Seq && other.unsent() {
			return false
		}
	}
	return true
}

func (n *Node) ship(l *lane, now time.Time) {
	if now.Before(l.notBefore) {
		return
	}
	if !l.positioned {
		if now.Sub(n.upSince) < positionWait {
			return
		}
		l.positioned = true
	}
	for l.next < l.end() {
		bytes := l.held[l.next-l.floor].template.PayloadBytes() + frame.HeaderSize + frame.TrailerSize
		if l.inFlight > 0 && (!l.open || !l.sealed && l.inFlight+bytes > windowBytes) {
			return
		}
		if l.sealed && (!l.allowance.Room(l.next) || !n.pace.room(bytes)) {
			return
		}
		if !n.publish(l, bytes, now) {
			return
		}
		if l.inFlight == 0 {
			l.sent = now
		}
		l.inFlight += bytes
		if l.sealed {
			l.paced += bytes
			n.pace.inFlight += bytes
			l.allowance.Published(l.next, now)
		}
		l.next++
	}
}

// publish sends the frame that is next. It says whether there was a link.
func (n *Node) publish(l *lane, bytes int, now time.Time) bool {
	r := &l.held[l.next-l.floor]
	numbers := frames.Numbers{
		Origin: uint32(n.index), Life: n.life, Epoch: n.epoch, Lane: l.name.Seq, Number: l.next,
		Floor: r.floor, Before: r.before, Written: time.Unix(0, r.written), Skew: n.skew,
	}
	return n.link.send(func(to []byte) []byte {
		to = append(to, "HPUB "...)
		to = append(to, hub.FrameSubject(l.name.Signal, n.origin)...)
		to = append(append(append(to, ' '), n.link.inbox...), '.')
		to = appendReply(to, n.place, l, l.next, bytes, now)
		header := n.header(l, r)
		to = append(to, ' ')
		to = strconv.AppendInt(to, int64(len(header)), 10)
		to = append(to, ' ')
		to = strconv.AppendInt(to, int64(len(header)+bytes), 10)
		to = append(append(to, "\r\n"...), header...)
		to, n.scratch = r.template.AppendFrame(to, n.scratch, &numbers)
		return append(to, "\r\n"...)
	})
}

// header are the message headers of a frame: internal/shipper's.
func (n *Node) header(l *lane, r *record) []byte {
	to := append(make([]byte, 0, 128), "NATS/1.0\r\nNats-Msg-Id: "...)
	to = append(to, n.epoch.String()...)
	to = append(append(append(to, '/'), l.name.String()...), '/')
	to = strconv.AppendUint(to, l.next, 10)
	if l.generation > 0 {
		to = strconv.AppendUint(append(to, '#'), l.generation, 36)
	}
	if l.floor > r.floor && l.floor >= l.next {
		to = append(append(to, "\r\n"+hub.FloorHeader+": "...), strconv.FormatUint(min(l.floor, l.next), 10)...)
		to = append(to, "\r\n"+hub.LostHeader+": 0,0,0,0,0,0,0,0"...)
	}
	if l.sealed {
		to = append(append(to, "\r\n"+hub.ClassHeader+": "...), frame.Backlog.String()...)
	}
	return append(to, "\r\n\r\n"...)
}

// acknowledged handles the hub's answer to a publish.
func (n *Node) acknowledged(a ack) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.lane(a.lane)
	if l == nil || a.generation != l.generation {
		return
	}
	now := time.Now()
	if a.failed {
		n.failed(l, now)
		return
	}
	took := now.Sub(time.UnixMilli(a.sent))
	l.inFlight = max(0, l.inFlight-a.bytes)
	paced := min(l.paced, a.bytes) // what was published before the lane was sealed is not
	l.paced -= paced
	n.pace.give(paced)
	n.pace.learn(paced, took, now)
	switch {
	case a.number <= l.shipped: // the relay's word was faster
	case a.number == l.shipped+1:
		l.advance(a.number)
	default:
		l.acked = insert(l.acked, a.number)
	}
	l.open, l.retry, l.sent = true, 0, now
	if !l.sealed {
		wasStalled := n.stalled(l, now)
		l.since = time.Time{}
		n.outage[l.name.Signal] = false
		if wasStalled {
			n.seal(l.name.Signal)
		}
	}
	n.pump(now)
}

// failed begins again behind what the hub has acknowledged, after a while.
func (n *Node) failed(l *lane, now time.Time) {
	l.generation++
	l.restart(l.shipped+1, &n.pace)
	l.retry = min(retryMax, max(retryMin, l.retry*2))
	l.notBefore = now.Add(l.retry/2 + mathrand.N(l.retry))
}

func (n *Node) lane(name frame.Lane) *lane {
	for _, l := range n.lanes {
		if l.name == name {
			return l
		}
	}
	return nil
}

// heard handles the relay's word.
func (n *Node) heard(body []byte) {
	confirmation, epoch, err := custody.ParseConfirmation(body)
	if err != nil {
		n.fleet.unread.Add(1)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if epoch != n.epoch {
		return
	}
	n.fleet.confirmations.Add(1)
	if n.disputed = confirmation.Conflict != ""; n.disputed {
		n.fleet.disputes.Add(1)
		return
	}
	now := time.Now()
	for _, accepted := range confirmation.Lanes {
		name, err := frame.ParseLane(accepted.Lane)
		if err != nil {
			continue
		}
		if l := n.lane(name); l != nil {
			n.obey(l, accepted, now)
		}
	}
	n.pump(now)
}

func (n *Node) obey(l *lane, accepted custody.Accepted, now time.Time) {
	if accepted.Confirmed > 0 {
		n.fleet.book.Confirmed(n.index, n.life, l.name, accepted.Confirmed)
		l.confirm(accepted.Confirmed)
		l.allowance.Confirmed(accepted.Confirmed, now)
	}
	l.positioned = true
	replaced := accepted.Stream != "" && l.stream != "" && accepted.Stream != l.stream
	if accepted.Stream != "" {
		l.stream = accepted.Stream
	}
	switch {
	case replaced && accepted.Confirmed < l.shipped:
		n.rewind(l, accepted.Confirmed+1, now)
	case accepted.Resend > 0 && accepted.Resend <= l.shipped && now.Sub(l.rewound) >= rewindInterval:
		n.rewind(l, max(accepted.Resend, accepted.Confirmed+1), now)
	}
	if l.sealed && len(l.held) == 0 {
		n.pace.give(l.paced)
		n.lanes = deleteLane(n.lanes, l)
	}
}

// rewind publishes again from a number on.
func (n *Node) rewind(l *lane, from uint64, now time.Time) {
	l.generation++
	l.rewound = now
	l.restart(max(from, l.floor), &n.pace)
	n.fleet.rewinds.Add(1)
}

func deleteLane(lanes []*lane, gone *lane) []*lane {
	kept := make([]*lane, 0, len(lanes))
	for _, l := range lanes {
		if l != gone {
			kept = append(kept, l)
		}
	}
	return kept
}

// hello says what the spool holds.
func (n *Node) hello(now time.Time) {
	n.nextHello = now.Add(helloInterval*3/4 + mathrand.N(helloInterval/2))
	h := custody.Hello{
		Version: custody.Version, Epoch: n.epoch.String(), Release: "fleet", Instance: n.instance, SpoolMaxBytes: spoolMaxBytes,
	}
	lost := make([]uint64, frame.NumCauses)
	for _, l := range n.lanes {
		class := frame.Live
		if l.sealed {
			class = frame.Backlog
		}
		h.Lanes = append(h.Lanes, custody.HelloLane{
			Lane: l.name.String(), Class: class.String(), Floor: l.floor, Next: l.end(), Before: l.before, Shipped: l.shipped, Lost: lost,
		})
		for _, r := range l.held {
			h.SpoolBytes += int64(r.template.PayloadBytes() + frame.HeaderSize + frame.TrailerSize)
		}
		if l.unsent() {
			oldest := l.held[max(l.shipped+1, l.floor)-l.floor]
			h.OldestUnsentSeconds = math.Max(h.OldestUnsentSeconds, now.Sub(time.Unix(0, oldest.written)).Seconds())
		}
	}
	body, err := json.Marshal(h)
	if err != nil {
		return // a struct of numbers and strings always can be
	}
	n.fleet.hellos.Add(1)
	n.link.send(func(to []byte) []byte {
		to = append(append(to, "PUB "...), hub.HelloSubject(n.origin)...)
		to = strconv.AppendInt(append(to, ' '), int64(len(body)), 10)
		return append(append(append(to, "\r\n"...), body...), "\r\n"...)
	})
}
