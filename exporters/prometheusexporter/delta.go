package prometheusexporter

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Prometheus knows counters only, so points of delta temporality are added up to
// one, per series. A point tells of an interval. Points whose intervals follow one
// another continue a counter; where there is a gap before an interval, a new
// counter begins at zero, with a sample that says so, because what is missing may
// still come from a backlog, and then continues the counter before the gap. So an
// increase over any time is the sum of the deltas in it, in whatever order they
// came.
//
// What is known of a series lives in memory. A relay that does not know a series
// begins a new counter, which Prometheus sees as a reset.
//
// A call that fails changes nothing: its repetition adds up from the same state to
// the same samples.

// Reasons for which a delta point is refused.
const (
	// reasonDeltaDuplicate: the whole interval was added before.
	reasonDeltaDuplicate = "delta_duplicate"
	// reasonDeltaOverlap: a part of the interval was, and which cannot be told.
	reasonDeltaOverlap = "delta_overlap"
	// reasonDeltaLate: an interval before the last one of a sum that can fall,
	// which is a level and not a counter.
	reasonDeltaLate = "delta_late"
	// reasonDeltaState: more series than delta::max_series.
	reasonDeltaState = "delta_too_many_series"
	// reasonDeltaInvalid: no time, a time before its start, no number, or buckets
	// that cannot be added.
	reasonDeltaInvalid = "delta_invalid"
)

const (
	// sameTime is how far apart the end of one interval and the start of the
	// next may be for one to follow the other. SDKs give the same time for both.
	sameTime = pcommon.Timestamp(time.Second)
	// maxCounters is how many counters of a series are known: one per gap that
	// may still be filled. The one not added to for longest is forgotten.
	maxCounters = 8
	// sweepEvery is how often series that have ended are looked for.
	sweepEvery = time.Minute
)

// accumulator holds what deltas added up to, for all calls.
type accumulator struct {
	maxSeries int64
	maxAge    time.Duration
	size      atomic.Int64 // series, those of unfinished calls included

	mu     sync.Mutex
	groups map[uint64]*deltaGroup
	swept  time.Time
}

// deltaGroup holds the series of one resource. One call at a time has it.
type deltaGroup struct {
	key    uint64
	taken  chan struct{} // holds one while a call has the group
	gone   bool          // forgotten
	used   time.Time
	swept  time.Time
	series map[deltaKey]*deltaSeries
}

// deltaKey is a hash of 128 bits of a series' labels.
type deltaKey struct{ a, b uint64 }

type deltaSeries struct {
	counters []counter // by time, not overlapping
	used     time.Time
}

// counter is one that began at zero, and what was added to it.
type counter struct {
	from, to pcommon.Timestamp // what is covered by this one and those before it without a gap
	start    pcommon.Timestamp // 0 if unknown
	fresh    bool              // its first sample needs one before it that says zero
	turn     uint64            // when it was added to

	number      float64
	classic     *classic
	exponential *exponential
}

func (c *counter) clone() counter {
	copied := *c
	if c.classic != nil {
		one := *c.classic
		one.counts, one.bounds = slices.Clone(one.counts), slices.Clone(one.bounds)
		copied.classic = &one
	}
	if c.exponential != nil {
		copied.exponential = c.exponential.clone()
	}
	return copied
}

func newAccumulator(cfg DeltaConfig) *accumulator {
	return &accumulator{maxSeries: int64(cfg.MaxSeries), maxAge: cfg.MaxAge, groups: make(map[uint64]*deltaGroup), swept: time.Now()}
}

// accumulation is what one call does. It has the groups of its series until it is
// committed or undone.
type accumulation struct {
	owner   *accumulator
	groups  map[uint64]*deltaGroup
	group   *deltaGroup // of the resource being translated
	changed map[*deltaGroup]map[deltaKey]*deltaSeries
	begun   []begunCounter
	added   int64 // series
	now     time.Time
	turn    uint64
}

// begunCounter is a counter that a call began.
type begunCounter struct {
	group *deltaGroup
	key   deltaKey
	counter
}

// begin takes the groups with the keys given, waiting for calls that have them.
func (a *accumulator) begin(ctx context.Context, keys []uint64) (*accumulation, error) {
	t := &accumulation{
		owner: a, groups: make(map[uint64]*deltaGroup, len(keys)),
		changed: make(map[*deltaGroup]map[deltaKey]*deltaSeries), now: time.Now(),
	}
	a.sweep(t.now)
	slices.Sort(keys) // all calls take them in the same order
	for _, key := range slices.Compact(keys) {
		g, err := a.take(ctx, key)
		if err != nil {
			t.undo()
			return nil, err
		}
		t.groups[key] = g
	}
	t.turn = uint64(t.now.UnixNano())
	return t, nil
}

func (a *accumulator) take(ctx context.Context, key uint64) (*deltaGroup, error) {
	for {
		a.mu.Lock()
		g := a.groups[key]
		if g == nil {
			g = &deltaGroup{key: key, taken: make(chan struct{}, 1), series: make(map[deltaKey]*deltaSeries), used: time.Now(), swept: time.Now()}
			a.groups[key] = g
		}
		a.mu.Unlock()
		select {
		case g.taken <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another call with the same series: %w", context.Cause(ctx))
		}
		if !g.gone {
			return g, nil
		}
		<-g.taken
	}
}

// sweep forgets groups that have ended, now and then.
func (a *accumulator) sweep(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) < sweepEvery {
		return
	}
	a.swept = now
	for key, g := range a.groups {
		select {
		case g.taken <- struct{}{}:
			if now.Sub(g.used) > a.maxAge {
				g.gone = true
				a.size.Add(-int64(len(g.series)))
				delete(a.groups, key)
			}
			<-g.taken
		default: // in use
		}
	}
}

// commit keeps what the call added up.
func (t *accumulation) commit() {
	for g, changed := range t.changed {
		for key, s := range changed {
			g.series[key] = s
		}
		g.used = t.now
		if t.now.Sub(g.swept) > sweepEvery {
			g.swept = t.now
			for key, s := range g.series {
				if t.now.Sub(s.used) > t.owner.maxAge {
					delete(g.series, key)
					t.owner.size.Add(-1)
				}
			}
		}
	}
	t.added = 0
	t.release()
}

// undo forgets what the call added up. It keeps where counters began: the server
// may have stored their samples and failed after that, and the repetition has to
// begin the same ones, whatever other calls bring meanwhile.
func (t *accumulation) undo() {
	for _, b := range t.begun {
		s := b.group.series[b.key]
		if s == nil {
			s = &deltaSeries{}
			b.group.series[b.key] = s
			t.added--
		}
		s.used, b.group.used = t.now, t.now
		i, _ := slices.BinarySearchFunc(s.counters, b.to, byEnd)
		s.counters = slices.Insert(s.counters, i, b.counter)
		s.bound()
	}
	t.owner.size.Add(-t.added)
	t.release()
}

func byEnd(c counter, to pcommon.Timestamp) int { return compare(int64(c.to), int64(to)) }

func (t *accumulation) release() {
	for _, g := range t.groups {
		<-g.taken
	}
	t.groups, t.changed, t.begun = nil, nil, nil
}

// series returns what is known of a series, to be changed; nil if there is no
// room for another.
func (t *accumulation) series(key deltaKey) *deltaSeries {
	changed := t.changed[t.group]
	if changed == nil {
		changed = make(map[deltaKey]*deltaSeries)
		t.changed[t.group] = changed
	}
	if s := changed[key]; s != nil {
		return s
	}
	known := t.group.series[key]
	s := &deltaSeries{used: t.now}
	if known == nil {
		if t.owner.size.Add(1) > t.owner.maxSeries {
			t.owner.size.Add(-1)
			return nil
		}
		t.added++
	} else {
		for i := range known.counters {
			s.counters = append(s.counters, known.counters[i].clone())
		}
	}
	changed[key] = s
	return s
}

// place finds the counter that an interval continues, or begins one.
func (t *accumulation) place(key deltaKey, from, to pcommon.Timestamp) (s *deltaSeries, c *counter, reason string) {
	if to == 0 || from > to {
		return nil, nil, reasonDeltaInvalid
	}
	if s = t.series(key); s == nil {
		return nil, nil, reasonDeltaState
	}
	next, _ := slices.BinarySearchFunc(s.counters, to, byEnd)
	if from == 0 || from == to { // not told: it follows what is known
		from = to
		if next > 0 {
			from = s.counters[next-1].to
		}
	}
	if next < len(s.counters) {
		switch later := &s.counters[next]; {
		case from >= later.from: // and to <= later.to
			return nil, nil, reasonDeltaDuplicate
		case to <= later.from+sameTime:
			// before it
		case from+sameTime >= later.from:
			return nil, nil, reasonDeltaDuplicate
		default:
			return nil, nil, reasonDeltaOverlap
		}
	}
	if next > 0 && from <= s.counters[next-1].to+sameTime {
		c = &s.counters[next-1]
		c.to = to
		return s, c, ""
	}
	// Another counter before it is known, which this one must not seem to go on.
	begun := counter{from: from, to: from, start: from, fresh: next > 0}
	if from == to {
		begun.start, begun.fresh = 0, false
	} else {
		t.begun = append(t.begun, begunCounter{t.group, key, begun})
	}
	begun.to = to
	s.counters = slices.Insert(s.counters, next, begun)
	return s, &s.counters[next], ""
}

// settle is called when a counter got what place found it for.
func (s *deltaSeries) settle(c *counter, turn uint64) {
	c.turn, c.fresh = turn, false
	i := slices.IndexFunc(s.counters, func(o counter) bool { return o.to == c.to })
	if i+1 < len(s.counters) && s.counters[i+1].from <= c.to+sameTime {
		s.counters[i+1].from = c.from // the gap is filled: this one cannot grow any more
		s.counters = slices.Delete(s.counters, i, i+1)
	}
	s.bound()
}

// bound forgets the counter not added to for longest if there are too many.
func (s *deltaSeries) bound() {
	if len(s.counters) > maxCounters {
		oldest := 0
		for i := range s.counters {
			if s.counters[i].turn < s.counters[oldest].turn {
				oldest = i
			}
		}
		s.counters = slices.Delete(s.counters, oldest, oldest+1)
	}
}

// level finds the value of a sum that can fall: there is one, without gaps.
func (t *accumulation) level(key deltaKey, from, to pcommon.Timestamp) (s *deltaSeries, c *counter, reason string) {
	if to == 0 {
		return nil, nil, reasonDeltaInvalid
	}
	if s = t.series(key); s == nil {
		return nil, nil, reasonDeltaState
	}
	if len(s.counters) == 0 {
		s.counters = []counter{{from: from, start: from}}
	}
	c = &s.counters[0]
	if to <= c.to {
		return nil, nil, reasonDeltaLate
	}
	c.to = to
	return s, c, ""
}

// next numbers the points, so that the counter not added to for longest is known.
func (t *accumulation) next() uint64 {
	t.turn++
	return t.turn
}

var deltaSeed, otherSeed = maphash.MakeSeed(), maphash.MakeSeed()

func (t *translation) keyOf(s *series, kind byte) deltaKey {
	var a, b maphash.Hash
	a.SetSeed(deltaSeed)
	b.SetSeed(otherSeed)
	_ = a.WriteByte(kind)
	for _, l := range s.labels {
		for _, text := range [2]string{t.texts[l.name], t.texts[l.value]} {
			_, _ = a.WriteString(text)
			_ = a.WriteByte(0)
			_, _ = b.WriteString(text)
			_ = b.WriteByte(0)
		}
	}
	return deltaKey{b.Sum64(), a.Sum64()}
}

// deltaKeys returns the groups of the resources that have delta temporality.
func deltaKeys(resourceLabels []resourceLabel, p *part) ([]uint64, error) {
	var keys []uint64
	for i := range p.resources {
		of := &p.resources[i]
		found, err := of.hasDelta()
		if err != nil {
			return nil, &sourceError{of.source, err}
		}
		if found {
			target := targetOf(resourceLabels, of.attributes)
			keys = append(keys, target.groupKey(p.tenant))
		}
	}
	return keys, nil
}

// groupKey is a hash of the tenant and the labels that all series of a resource have.
func (of *target) groupKey(tenant string) uint64 {
	var h maphash.Hash
	h.SetSeed(deltaSeed)
	for _, text := range []string{tenant, of.job, of.instance} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	for _, l := range of.promoted {
		_, _ = h.WriteString(l.Name)
		_ = h.WriteByte(0)
		_, _ = h.WriteString(l.Value)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

func (of *resource) hasDelta() (found bool, err error) {
	err = of.metrics(func(m *metricMessage) error {
		found = found || m.isDelta()
		return nil
	})
	return found, err
}
