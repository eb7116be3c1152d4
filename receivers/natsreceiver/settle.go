package natsreceiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

const (
	// settleInterval is how often watermarks are written: it bounds what a crash of the
	// relay delivers twice. When more than storeFree spools are active, one spool's are
	// written every storePace at most, and less often the more there are: a relay
	// writes storeRate values a second, as an average.
	settleInterval = 200 * time.Millisecond
	storePace      = time.Second
	storeFree      = 200
	storeRate      = 2000
	// activeFor is how long a spool counts as active after a write.
	activeFor = 10 * time.Second
	// forgetInterval is how often it is looked for spools that nobody hears of any more.
	forgetInterval = time.Hour
	// crowdedAtOnce bounds how many spools are removed from the hub each settleInterval
	// because their origin has too many.
	crowdedAtOnce = 20
	// inProgressInterval keeps frames that wait for a backend from being delivered again.
	inProgressInterval = hub.AckWait / 3
	storeTimeout       = 10 * time.Second
)

// settler ends what the workers have delivered of one partition: it stores the
// watermarks of all destinations, then acknowledges to the hub, then confirms to
// the edges.
type settler struct {
	*partition

	mu       sync.Mutex
	pending  map[*share]map[custody.Spool][]owed       // to acknowledge once durable
	announce map[custody.Spool]map[frame.Lane]struct{} // confirmed further since they were told
	active   int64                                     // of this partition, as counted in core.active
}

// owed is an acknowledgement that waits for a watermark to be durable.
type owed struct {
	reply   string
	lane    frame.Lane
	number  uint64
	version uint64
}

// What a message's reply subject understands, as in the client's jetstream package.
var (
	ack        = []byte("+ACK")
	inProgress = []byte("+WPI")
)

func newSettler(p *partition) *settler {
	s := &settler{
		partition: p, pending: make(map[*share]map[custody.Spool][]owed),
		announce: make(map[custody.Spool]map[frame.Lane]struct{}),
	}
	for _, one := range p.shares {
		s.pending[one] = make(map[custody.Spool][]owed)
	}
	return s
}

// settle acknowledges the arrival as soon as what became of it is durable: its
// number, and the version that the ledger gave.
func (a *arrival) settle(version uint64) {
	s, id, of := a.share.settler, a.key.Spool(), a.share
	a.letGo()
	one := owed{a.msg.Reply, a.key.Lane, a.header.Number, version}
	if a.replay != "" {
		one.number = 0 // whatever its lane has come to by now, if it is known
	}
	if version == 0 && of.ledger.Due(a.key, one.number, 0) { // a repeat of what is durable
		s.acknowledge(one)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[of][id] = append(s.pending[of][id], one)
}

// drop takes the message off the hub although its frame was not delivered: the
// edge still has the frame.
func (a *arrival) drop() {
	a.letGo()
	a.share.sent(a.share.nc.Publish(a.msg.Reply, ack))
}

// giveBack returns the message to the hub, to come again after a while.
func (a *arrival) giveBack(after time.Duration) {
	a.letGo()
	a.share.sent(a.share.nc.Publish(a.msg.Reply, fmt.Appendf(nil, `-NAK {"delay": %d}`, after)))
}

func (s *settler) acknowledge(one owed) { s.sent(s.nc.Publish(one.reply, ack)) }

func (p *partition) sent(err error) {
	if err != nil { // the link is down: the hub delivers the message again
		p.log.Debug("acknowledgement not sent", zap.Error(err))
	}
}

func (s *settler) run(ctx context.Context) {
	settle := time.NewTicker(settleInterval)
	defer settle.Stop()
	announce := time.NewTicker(s.confirmInterval())
	defer announce.Stop()
	forget := time.NewTicker(forgetInterval)
	defer forget.Stop()
	inProgress := time.NewTicker(inProgressInterval)
	defer inProgress.Stop()
	for {
		select {
		case <-ctx.Done():
			s.inactive()
			return
		case <-settle.C:
			s.settleAll(ctx, s.pace())
		case <-announce.C:
			s.announceAll()
		case <-inProgress.C:
			s.keepAlive()
		case <-forget.C:
			s.forget(ctx)
		}
	}
}

// inactive takes the partition's spools off the relay's active ones.
func (s *settler) inactive() {
	s.core.active.Add(-s.active)
	s.active = 0
}

// last stores and tells what was delivered in the last moment.
func (s *settler) last() {
	ctx, cancel := context.WithTimeout(context.Background(), deliverGrace)
	defer cancel()
	s.settleAll(ctx, 0)
	s.inactive()
	s.announceAll()
	_ = s.nc.FlushWithContext(ctx) // the hub may be away; then the acknowledgements are lost and the numbers catch the repeats
}

func (c *core) confirmInterval() time.Duration {
	interval := c.destinations[0].config.ConfirmInterval
	for _, d := range c.destinations {
		interval = min(interval, d.config.ConfirmInterval)
	}
	return interval
}

// pace is the least time between two writes of one spool's watermarks.
func (c *core) pace() time.Duration {
	active := c.active.Load()
	if active <= storeFree {
		return 0
	}
	return max(storePace, time.Duration(active)*time.Second/storeRate)
}

// settleAll stores watermarks, acknowledges what they cover, and notes what is to
// be confirmed.
func (s *settler) settleAll(ctx context.Context, pace time.Duration) {
	now := time.Now()
	s.crowded(ctx)
	var active int64
	var records []record
	for _, one := range s.shares {
		for _, r := range one.ledger.Dirty(now, pace, 0) {
			records = append(records, record{one, r})
		}
		active += int64(one.ledger.Active(now, activeFor))
	}
	s.core.active.Add(active - s.active)
	s.active = active
	records = s.withOthers(records, now)
	err := s.store(ctx, records)
	if err != nil && ctx.Err() == nil && !errors.Is(err, lease.ErrLost) {
		s.log.Warn("watermarks cannot be stored; edges keep their data until they are", zap.Int("partition", s.claim.Partition()), zap.Error(err))
	}
}

// record is one destination's state of a spool.
type record struct {
	of *share
	custody.Record
}

// withOthers adds, for spools that are new, the records of the destinations that
// have not had anything of them: the hub is to say of all of them that they were
// there when the spool began. One spool's records stand side by side.
func (s *settler) withOthers(records []record, now time.Time) []record {
	if len(s.shares) == 1 {
		return records
	}
	met := false
	for _, r := range records {
		for _, one := range s.shares {
			if !one.ledger.Knows(r.Spool) {
				one.ledger.Meet(r.Spool, now)
				met = true
			}
		}
	}
	if met {
		for _, one := range s.shares {
			for _, r := range one.ledger.Dirty(now, storePace, 0) {
				records = append(records, record{one, r})
			}
		}
	}
	slices.SortStableFunc(records, func(a, b record) int {
		return strings.Compare(a.Spool.Origin.String()+a.Spool.Epoch.String(), b.Spool.Origin.String()+b.Spool.Epoch.String())
	})
	return records
}

// store writes watermarks and ends what they make durable. Those that fail are
// dirty still and are written the next time.
func (s *settler) store(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
	values := make([]lease.Record, len(records))
	for i, r := range records {
		values[i] = lease.Record{Key: hub.DestinationKey(r.of.dest.name, r.Spool.Origin, r.Spool.Epoch), Value: r.Value}
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, err := s.claim.Store(bounded, values)
	for i, ok := range stored {
		if !ok {
			continue
		}
		confirmed, reports := records[i].of.ledger.Stored(records[i].Record)
		s.news(records[i].Spool, confirmed)
		records[i].of.report(reports)
		s.acknowledgeStored(records[i].of, records[i].Spool)
	}
	return err
}

// acknowledgeStored acknowledges what is durable of a spool.
func (s *settler) acknowledgeStored(of *share, id custody.Spool) {
	s.mu.Lock()
	var due, rest []owed
	for _, one := range s.pending[of][id] {
		if of.ledger.Due(custody.Key{Origin: id.Origin, Epoch: id.Epoch, Lane: one.lane}, one.number, one.version) {
			due = append(due, one)
		} else {
			rest = append(rest, one)
		}
	}
	if len(rest) > 0 {
		s.pending[of][id] = rest
	} else {
		delete(s.pending[of], id)
	}
	s.mu.Unlock()
	for _, one := range due {
		s.acknowledge(one)
	}
}

// news notes lanes whose origin is to be told.
func (s *settler) news(id custody.Spool, confirmed []custody.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range confirmed {
		lanes, ok := s.announce[id]
		if !ok {
			lanes = make(map[frame.Lane]struct{})
			s.announce[id] = lanes
		}
		lanes[key.Lane] = struct{}{}
	}
}

// forget removes the watermarks of spools that nobody has heard of for a month.
func (s *settler) forget(ctx context.Context) {
	for _, one := range s.shares {
		gone := one.ledger.Forget(time.Now())
		if len(gone) == 0 {
			continue
		}
		for _, id := range gone {
			s.log.Info("nothing was heard of a spool for a month; its watermarks are removed", zap.Stringer("origin", id.Origin), zap.Stringer("epoch", id.Epoch))
		}
		s.purge(ctx, one, gone)
	}
}

// crowded removes what ledgers have forgotten of origins that have too much.
func (s *settler) crowded(ctx context.Context) {
	for _, one := range s.shares {
		gone := one.ledger.Crowded(crowdedAtOnce)
		if len(gone.Spools) == 0 && len(gone.Lanes) == 0 {
			continue
		}
		s.telemetry.forgotten(one.dest.name, &gone)
		if len(gone.Spools) > 0 {
			if s.core.notices.spools.due() {
				s.log.Warn("an origin has had more spools than are kept track of; the watermarks of those that nothing was heard of for longest are removed: "+
					"does its spool directory outlive a restart? (longhaul_relay_spools_forgotten_total counts them)",
					zap.Stringer("origin", gone.Spools[0].Origin), zap.Stringer("epoch", gone.Spools[0].Epoch), zap.Int("most", custody.MaxSpools))
			}
			s.purge(ctx, one, gone.Spools)
		}
		if len(gone.Lanes) > 0 && s.core.notices.lanes.due() {
			s.log.Warn("a spool has more lanes than are kept track of; frames of those that are forgotten may be delivered twice (longhaul_relay_lanes_forgotten_total counts them)",
				zap.Stringer("origin", gone.Lanes[0].Origin), zap.Stringer("epoch", gone.Lanes[0].Epoch), zap.Stringer("lane", gone.Lanes[0].Lane), zap.Int("most", custody.MaxLanes))
		}
	}
}

// purge removes what is kept of spools that a ledger has forgotten.
func (s *settler) purge(ctx context.Context, of *share, gone []custody.Spool) {
	keys := make([]string, len(gone))
	for i, id := range gone {
		keys[i] = hub.DestinationKey(of.dest.name, id.Origin, id.Epoch)
		of.suspects.gone(id)
		s.mu.Lock()
		delete(s.pending[of], id)
		s.mu.Unlock()
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	err := s.claim.Purge(bounded, keys)
	cancel()
	if err != nil { // the next owner finds them and tries again
		s.log.Warn("watermarks cannot be removed", zap.Error(err))
	}
}

// announceAll tells every origin with news how far it is confirmed, all its lanes
// in one message.
func (s *settler) announceAll() {
	if !s.claim.Held() {
		return
	}
	s.mu.Lock()
	news := s.announce
	s.announce = make(map[custody.Spool]map[frame.Lane]struct{})
	s.mu.Unlock()
	for id, lanes := range news {
		if s.instances.Conflicting(id, time.Now()) {
			continue // a number means two different frames; nobody may delete for it
		}
		accepted := make([]custody.Accepted, 0, len(lanes))
		for lane := range lanes {
			if confirmed, known := s.confirmed(custody.Key{Origin: id.Origin, Epoch: id.Epoch, Lane: lane}); known {
				accepted = append(accepted, custody.Accepted{Lane: lane.String(), Confirmed: confirmed, Stream: s.storeOf(lane.Signal)})
			}
		}
		s.tell(id, custody.Confirmation{Lanes: accepted})
	}
}

// ask tells the edge at once to publish again from a number on.
func (s *settler) ask(key custody.Key, from uint64) {
	confirmed, _ := s.confirmed(key)
	s.tell(key.Spool(), custody.Confirmation{Lanes: []custody.Accepted{{
		Lane: key.Lane.String(), Confirmed: confirmed, Resend: from, Stream: s.storeOf(key.Lane.Signal),
	}}})
}

// storeOf names the hub's present store of a signal; "" when no destination reads it.
func (s *settler) storeOf(signal frame.Signal) string {
	for _, d := range s.destinations {
		if d.outlets[signal] != nil {
			return s.claim.StoreIdentity(signal)
		}
	}
	return ""
}

// answer tells an origin at once, which is then not due for news.
func (s *settler) answer(id custody.Spool, c custody.Confirmation) {
	s.mu.Lock()
	delete(s.announce, id)
	s.mu.Unlock()
	s.tell(id, c)
}

func (s *settler) tell(id custody.Spool, c custody.Confirmation) {
	if !s.claim.Held() {
		return // another relay's word may count by now
	}
	c.Version, c.Epoch = custody.Version, id.Epoch.String()
	body, err := json.Marshal(c)
	if err == nil {
		err = s.nc.Publish(hub.CustodySubject(id.Origin), body)
	}
	if err != nil { // said again in answer to the edge's next hello
		s.log.Debug("confirmation not sent", zap.Stringer("origin", id.Origin), zap.Error(err))
	}
}

// keepAlive tells the hub that the frames in hand are being worked on.
func (s *settler) keepAlive() {
	for _, one := range s.shares {
		for _, reply := range one.hands.older(time.Now().Add(-inProgressInterval / 2)) {
			_ = s.nc.Publish(reply, inProgress) // fails when the link is down; then the hub delivers again
		}
	}
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
