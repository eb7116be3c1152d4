package custody

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

const (
	// forgottenAfter is when a spool that nothing was heard of is forgotten.
	forgottenAfter = 30 * 24 * time.Hour
	// heardEvery is how exactly the bucket knows when a spool was heard of last.
	heardEvery = 24 * time.Hour
	// storedGaps bounds a value's size: it keeps the latest gaps of all its lanes.
	storedGaps = 512
)

// The custody bucket has one value per spool, with all its lanes: what changes
// together is written together.
type storedSpool struct {
	Heard   int64                 `json:"heard"` // Unix seconds
	Lanes   map[string]storedLane `json:"lanes,omitempty"`
	Retired map[string]uint32     `json:"retired,omitempty"` // by signal: lanes below are retired
	Gaps    []storedGap           `json:"gaps,omitempty"`
	// Signals are those that the destination read when this was written; a value
	// without is of a relay that had one destination.
	Signals []string `json:"signals,omitempty"`
}

type storedLane struct {
	Confirmed uint64   `json:"confirmed"`
	Before    uint64   `json:"before"`
	Named     []uint64 `json:"named"`
	Last      int64    `json:"last,omitempty"`
	// Seed is where another destination had the lane when this one was added,
	// until it has begun here.
	Seed *storedSeed `json:"seed,omitempty"`
}

type storedSeed struct {
	Confirmed uint64   `json:"confirmed"`
	Before    uint64   `json:"before"`
	Named     []uint64 `json:"named"`
	Last      int64    `json:"last,omitempty"`
}

type storedGap struct {
	Lane        string    `json:"lane"`
	From        uint64    `json:"from,omitempty"`
	To          uint64    `json:"to,omitempty"`
	Items       []uint64  `json:"items"`
	Recovered   []uint64  `json:"recovered,omitempty"`
	Returned    []numbers `json:"returned,omitempty"`
	Kept        bool      `json:"kept,omitempty"`
	After       int64     `json:"after,omitempty"`
	Before      int64     `json:"before,omitempty"`
	At          int64     `json:"at"` // Unix nanoseconds, as the next
	RecoveredAt int64     `json:"recovered_at,omitempty"`
	Told        bool      `json:"told,omitempty"`
	ToldBack    bool      `json:"told_back,omitempty"`
}

// Record is one spool's state to be stored.
type Record struct {
	Spool Spool
	Value []byte

	version  uint64
	heard    time.Time
	accepted map[frame.Lane]uint64
}

// Dirty returns the spools whose state is not durable and is due to be written: one
// that was not returned here within the last pace, or any while no more than free
// spools are written within a pace. So a small fleet stores at once, and a large
// one no more than a value per spool and pace.
func (l *Ledger) Dirty(now time.Time, pace time.Duration, free int) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := 0
	for _, s := range l.spools {
		if now.Sub(s.written) < pace {
			recent++
		}
	}
	var records []Record
	for id, s := range l.spools {
		if s.version == s.stored {
			continue
		}
		if now.Sub(s.written) >= pace {
			recent++
		} else if recent > free {
			continue
		}
		s.written = now
		record := Record{Spool: id, version: s.version, heard: s.heard, accepted: make(map[frame.Lane]uint64, len(s.lanes))}
		for lane, e := range s.lanes {
			if e.begun {
				record.accepted[lane] = e.number
			}
		}
		value, err := json.Marshal(s.encode(l.signals, storedGaps))
		for gaps := storedGaps / 2; err == nil && len(value) > maxValueBytes && gaps > 0; gaps /= 2 {
			value, err = json.Marshal(s.encode(l.signals, gaps))
		}
		if err != nil { // a struct of numbers and strings always marshals
			continue
		}
		record.Value = value
		records = append(records, record)
	}
	return records
}

// Active counts the spools that were written within a period, or are to be.
func (l *Ledger) Active(now time.Time, period time.Duration) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spools {
		if s.version != s.stored || now.Sub(s.written) < period {
			n++
		}
	}
	return n
}

// Stored says that a record from Dirty is durable. It returns the lanes that are
// confirmed further, and what may now be told to be lost.
func (l *Ledger) Stored(record Record) (confirmed []Key, reports []Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.spools[record.Spool]
	if !ok {
		return nil, nil
	}
	s.stored, s.heardStored = max(s.stored, record.version), record.heard
	for lane, number := range record.accepted {
		if e, ok := s.lanes[lane]; ok && e.confirmed < number {
			e.confirmed = number
			confirmed = append(confirmed, Key{record.Spool.Origin, record.Spool.Epoch, lane})
		}
	}
	due := 0
	for due < len(s.reports) && s.reports[due].version <= record.version {
		reports = append(reports, s.reports[due].report)
		due++
	}
	s.reports = append(s.reports[:0:0], s.reports[due:]...)
	return confirmed, reports
}

// StoreAgain makes every spool dirty, for a bucket that may have lost them.
func (l *Ledger) StoreAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spools {
		if s.version > 0 {
			s.version++
		}
	}
}

// encode makes the value that is stored, with the latest gaps.
func (s *spool) encode(signals []frame.Signal, most int) storedSpool {
	out := storedSpool{Heard: s.heard.Unix(), Lanes: make(map[string]storedLane), Retired: make(map[string]uint32)}
	gaps := slices.Clone(s.old)
	for lane, e := range s.lanes {
		gaps = append(gaps, e.gaps...)
		if e.begun {
			out.Lanes[lane.String()] = e.encode()
		}
	}
	for _, signal := range signals {
		out.Signals = append(out.Signals, signal.String())
	}
	for signal, below := range s.retired {
		out.Retired[signal.String()] = below
	}
	slices.SortStableFunc(gaps, func(a, b *Gap) int { return a.At.Compare(b.At) })
	gaps = gaps[max(0, len(gaps)-most):]
	for _, g := range gaps {
		out.Gaps = append(out.Gaps, g.encode())
	}
	return out
}

func (e *entry) encode() storedLane {
	out := storedLane{Confirmed: e.number, Before: e.before, Named: trim(e.named), Last: e.last}
	if e.seed != nil {
		out.Seed = &storedSeed{e.seed.number, e.seed.before, trim(e.seed.named), e.seed.last}
	}
	return out
}

func (from *storedLane) decode(fromNow bool) *entry {
	e := &entry{
		position: position{number: from.Confirmed, before: from.Before, last: from.Last},
		begun:    true, taken: from.Confirmed, confirmed: from.Confirmed,
	}
	copy(e.named[:], from.Named)
	if from.Seed != nil {
		at := position{number: from.Seed.Confirmed, before: from.Seed.Before, last: from.Seed.Last}
		copy(at.named[:], from.Seed.Named)
		e.seed, e.promised = &seed{at, fromNow}, at.number
	}
	return e
}

func (g *Gap) encode() storedGap {
	out := storedGap{
		Lane: g.Lane.String(), From: g.From, To: g.To, Items: trim(g.Items), Recovered: trim(g.Recovered),
		Returned: g.returned, Kept: g.Kept, After: g.After, Before: g.Before, At: g.At.UnixNano(),
		Told: g.told, ToldBack: g.toldBack,
	}
	if !g.RecoveredAt.IsZero() {
		out.RecoveredAt = g.RecoveredAt.UnixNano()
	}
	return out
}

func (g storedGap) decode() (*Gap, error) {
	lane, err := frame.ParseLane(g.Lane)
	if err != nil {
		return nil, err
	}
	out := &Gap{
		Lane: lane, From: g.From, To: g.To, Kept: g.Kept, After: g.After, Before: g.Before, At: time.Unix(0, g.At),
		returned: g.Returned, told: g.Told, toldBack: g.ToldBack, closed: true,
	}
	copy(out.Items[:], g.Items)
	copy(out.Recovered[:], g.Recovered)
	if g.RecoveredAt != 0 {
		out.RecoveredAt = time.Unix(0, g.RecoveredAt)
	}
	for cause := range out.Items { // whatever stands there: no more comes back than was lost
		out.Recovered[cause] = min(out.Recovered[cause], out.Items[cause])
	}
	return out, nil
}

// trim leaves off the zeros at the end.
func trim(counts Counts) []uint64 {
	n := len(counts)
	for n > 0 && counts[n-1] == 0 {
		n--
	}
	return slices.Clone(counts[:n])
}

// Load puts a spool's stored value into the ledger. A value that cannot be read
// is an error and changes nothing; a lane that is known already stays as it is.
func (l *Ledger) Load(id Spool, value []byte, now time.Time) error {
	stored, gaps, err := decode(value)
	if err != nil {
		return fmt.Errorf("watermarks of %s, epoch %s: %w", id.Origin, id.Epoch, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.spools[id]; ok {
		return nil
	}
	s := l.spool(id)
	s.version, s.stored = 1, 1
	s.heard = time.Unix(stored.Heard, 0)
	if stored.Heard == 0 || s.heard.After(now) {
		s.heard = now
	}
	s.heardStored = s.heard
	for name, from := range stored.Lanes {
		lane, err := frame.ParseLane(name)
		if err != nil {
			continue // of a later version
		}
		s.lanes[lane] = from.decode(l.fromNow)
	}
	for _, name := range stored.Signals {
		if signal, err := frame.ParseSignal(name); err == nil {
			s.signals = append(s.signals, signal)
		}
	}
	for name, below := range stored.Retired {
		if signal, err := frame.ParseSignal(name); err == nil {
			s.retired[signal] = below
		}
	}
	for _, g := range gaps {
		if e, ok := s.lanes[g.Lane]; ok {
			e.gaps = append(e.gaps, g)
		} else {
			s.old = append(s.old, g)
		}
	}
	return nil
}

func decode(value []byte) (stored storedSpool, gaps []*Gap, err error) {
	if err := json.Unmarshal(value, &stored); err != nil {
		return stored, nil, err
	}
	for _, one := range stored.Gaps {
		g, err := one.decode()
		if err != nil {
			continue // of a later version
		}
		gaps = append(gaps, g)
	}
	return stored, gaps, nil
}

// Gaps reads the gaps that a stored value holds, oldest first.
func Gaps(value []byte) ([]Gap, error) {
	_, gaps, err := decode(value)
	if err != nil {
		return nil, fmt.Errorf("watermarks: %w", err)
	}
	out := make([]Gap, len(gaps))
	for i, g := range gaps {
		out[i] = *g
	}
	return out, nil
}

// Forget removes the spools that nothing was heard of for a month and returns
// them, for their values to be removed from the bucket.
func (l *Ledger) Forget(now time.Time) (gone []Spool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, s := range l.spools {
		if now.Sub(s.heard) > forgottenAfter && !s.busy() {
			l.remove(id)
			gone = append(gone, id)
		}
	}
	return gone
}

// busy says whether frames of the spool are being delivered.
func (s *spool) busy() bool {
	for _, e := range s.lanes {
		if len(e.hands) > 0 || len(e.returning) > 0 {
			return true
		}
	}
	return false
}
