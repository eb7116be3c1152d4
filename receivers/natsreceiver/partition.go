package natsreceiver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

// partition is a part of the fleet's origins while this relay owns it: for each
// destination a share, and the settler that stores, acknowledges and confirms.
type partition struct {
	*core
	claim   *lease.Claim
	shares  []*share
	settler *settler

	ctx     context.Context // of reading: ends when the partition is given on or lost
	lost    context.Context // of deliveries: ends when it is lost, or the grace is over
	abandon context.CancelFunc

	ready   atomic.Bool // watermarks are loaded
	ended   atomic.Bool // begin nothing more
	mu      sync.Mutex
	running int           // deliveries under way that hold frames of it
	idle    chan struct{} // closed when running comes to 0 after the end
}

// share is one destination's part of a partition.
type share struct {
	*partition
	dest     *destination
	log      *zap.Logger
	ledger   *custody.Ledger
	suspects *suspects
	hands    hands
	// parkedMost bounds the arrivals of it, of one signal, that one worker's parking
	// holds, so that the hub goes on to hand out what is of others.
	parkedMost int
}

func newPartition(c *core, claim *lease.Claim) *partition {
	p := &partition{core: c, claim: claim, idle: make(chan struct{})}
	p.lost, p.abandon = context.WithCancel(context.Background())
	partitions := 1
	if claim != nil {
		partitions = claim.Count()
	}
	for _, d := range c.destinations {
		s := &share{partition: p, dest: d, log: d.log, ledger: custody.NewLedgerOf(d.signals(), d.config.Start == lease.StartNow)}
		s.suspects = newSuspects(s)
		s.parkedMost = max(1, hub.MaxInHands(partitions)/2/d.config.Deliver.Workers)
		p.shares = append(p.shares, s)
	}
	p.settler = newSettler(p)
	return p
}

// run reads the partition until ctx is done. Then what is being delivered is
// finished and stored, unless the partition is another's already: then nothing of
// it is stored, acknowledged or confirmed.
func (p *partition) run(ctx context.Context) {
	defer p.abandon()
	p.ctx = ctx
	if !p.untilDone(ctx, "watermarks cannot be read; trying again", p.load) {
		return
	}
	var reading, settling sync.WaitGroup
	for _, s := range p.shares {
		for signal, out := range s.dest.outlets {
			r := &reader{share: s, signal: signal, out: out, sources: make(map[string]*source)}
			reading.Go(func() { r.run(ctx) })
		}
		reading.Go(func() { s.suspects.run(ctx) })
		reading.Go(func() { s.tellGaps(ctx) })
	}
	p.ready.Store(true)
	settled, done := context.WithCancel(context.WithoutCancel(ctx))
	settling.Go(func() { p.settler.run(settled) })

	<-ctx.Done()
	p.end()
	lost := errors.Is(context.Cause(ctx), lease.ErrLost)
	if lost {
		p.abandon()
	} else {
		p.finish()
	}
	reading.Wait()
	done()
	settling.Wait()
	if !lost {
		p.settler.last()
	}
	p.discardAll()
}

// load reads the watermarks. Without them every frame would be delivered again.
func (p *partition) load(ctx context.Context) error {
	now, loaded := time.Now(), 0
	shares := make(map[string]*share)
	for _, s := range p.shares {
		shares[s.dest.name] = s
	}
	err := p.claim.Load(ctx, func(key string, value []byte) {
		destination, origin, epoch, err := hub.ParseDestinationKey(key)
		if err == nil {
			s, ok := shares[destination]
			if !ok {
				return // of a destination that another relay's configuration names
			}
			err = s.ledger.Load(custody.Spool{Origin: origin, Epoch: epoch}, value, now)
		}
		if err != nil {
			p.log.Error("watermarks cannot be read; that spool's frames may be delivered twice", zap.String("key", key), zap.Error(err))
			return
		}
		loaded++
	})
	if err != nil {
		return err
	}
	p.seed(now)
	p.log.Debug("watermarks loaded", zap.Int("partition", p.claim.Partition()), zap.Int("of", p.claim.Count()), zap.Int("values", loaded))
	return nil
}

// seed tells destinations that were added of the spools that others know.
func (p *partition) seed(now time.Time) {
	known := make(map[custody.Spool][]*custody.Ledger)
	for _, s := range p.shares {
		for _, id := range s.ledger.Spools() {
			known[id] = append(known[id], s.ledger)
		}
	}
	if len(p.shares) == 1 {
		return
	}
	for id, knowing := range known {
		for _, s := range p.shares {
			s.ledger.Seed(id, without(knowing, s.ledger), now)
		}
	}
}

func without(ledgers []*custody.Ledger, one *custody.Ledger) (others []*custody.Ledger) {
	for _, l := range ledgers {
		if l != one {
			others = append(others, l)
		}
	}
	return others
}

// others returns the ledgers of the other destinations.
func (s *share) others() (others []*custody.Ledger) {
	for _, other := range s.shares {
		if other != s {
			others = append(others, other.ledger)
		}
	}
	return others
}

// confirmed is up to where all destinations that read a lane's signal have it.
func (p *partition) confirmed(key custody.Key) (number uint64, known bool) {
	for _, s := range p.shares {
		if s.dest.outlets[key.Lane.Signal] == nil {
			continue
		}
		n, ok := s.ledger.Confirmed(key)
		if !ok {
			return 0, known || number > 0
		}
		if !known || n < number {
			number, known = n, true
		}
	}
	return number, known
}

// storeAgain writes all watermarks again.
func (p *partition) storeAgain() {
	for _, s := range p.shares {
		s.ledger.StoreAgain()
	}
}

// enter begins a delivery that holds frames of the partition; false: it is not this
// relay's any more.
func (p *partition) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended.Load() {
		return false
	}
	p.running++
	return true
}

func (p *partition) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	if p.running == 0 && p.ended.Load() {
		close(p.idle)
	}
}

// end lets no delivery begin any more, and lets go of what waits.
func (p *partition) end() {
	p.mu.Lock()
	p.ended.Store(true)
	if p.running == 0 {
		close(p.idle)
	}
	p.mu.Unlock()
	for _, d := range p.destinations {
		for _, o := range d.outlets {
			for _, a := range o.purge(p) {
				a.discard()
			}
		}
	}
}

// finish waits for the deliveries that are under way, for a while.
func (p *partition) finish() {
	grace := time.NewTimer(deliverGrace)
	defer grace.Stop()
	select {
	case <-p.idle:
	case <-grace.C:
		p.abandon()
		p.log.Warn("a delivery takes longer than a partition may be kept; it is cut short, and delivered again by the relay that takes the partition over",
			zap.Int("partition", p.claim.Partition()))
	case <-p.delivering.Done():
	}
}

func (p *partition) discardAll() {
	for _, s := range p.shares {
		s.core.handled.Add(-s.hands.clear())
	}
}

// hands are a share's arrivals, a list.
type hands struct {
	mu    sync.Mutex
	first *arrival
	last  *arrival
	n     int64
	done  bool
}

func (h *hands) add(a *arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.before = h.last
	if h.last != nil {
		h.last.after = a
	} else {
		h.first = a
	}
	h.last = a
	h.n++
}

// remove reports whether the arrival was there.
func (h *hands) remove(a *arrival) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		return false
	}
	if a.before != nil {
		a.before.after = a.after
	} else {
		h.first = a.after
	}
	if a.after != nil {
		a.after.before = a.before
	} else {
		h.last = a.before
	}
	a.before, a.after = nil, nil
	h.n--
	return true
}

// clear forgets all and returns how many they were.
func (h *hands) clear() (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
	n, h.n = h.n, 0
	h.first, h.last = nil, nil
	return n
}

// older returns where to answer those that were read before a time.
func (h *hands) older(than time.Time) (replies []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := h.first; a != nil && a.since < than.UnixNano(); a = a.after {
		replies = append(replies, a.msg.Reply)
	}
	return replies
}

func (s *share) hold(a *arrival) {
	a.since = time.Now().UnixNano()
	s.hands.add(a)
	s.handled.Add(1)
}

// letGo ends the relay's hold on an arrival.
func (a *arrival) letGo() {
	a.out.frames.giveBack(a.bytes)
	a.giveBackLoan()
	if a.share.hands.remove(a) {
		a.share.handled.Add(-1)
	}
}

// discard lets go of an arrival without a word: the hub delivers it to the next
// owner of its partition.
func (a *arrival) discard() { a.letGo() }
