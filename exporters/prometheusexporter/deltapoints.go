package prometheusexporter

import (
	"math"
	"slices"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// grown is a counter after a delta was added: the value of its sample.
type grown[V any] struct {
	start int64 // unix milliseconds; 0 if unknown
	zero  int64 // when a sample has to say that the counter began; 0 if it need not
	value V
}

func grow[V any](c *counter, value V) grown[V] {
	g := grown[V]{start: milliseconds(c.start), value: value}
	// Just after the start: a counter may have ended at it.
	if at := g.start + 1; c.fresh && c.start != 0 && at < milliseconds(c.to) {
		g.zero = at
	}
	return g
}

// deltaNumber adds up a delta and gives the series the sample. It returns false,
// having counted the point, if it is refused.
func (t *translation) deltaNumber(s *series, p *point, m *metricMessage) bool {
	refuse := func(reason string) bool {
		t.refused.add(reason, 1, m.name)
		return false
	}
	v := p.value
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return refuse(reasonDeltaInvalid)
	}
	place := t.delta.place
	if !m.monotonic {
		place = t.delta.level
	}
	state, c, reason := place(t.keyOf(s, 'n'), p.start, p.at)
	if reason != "" {
		return refuse(reason)
	}
	c.number += v
	g := grow(c, c.number)
	state.settle(c, t.delta.next())
	if g.zero != 0 {
		s.floats = append(s.floats, floatSample{g.start, g.zero, 0})
	}
	s.floats = append(s.floats, floatSample{g.start, milliseconds(p.at), g.value})
	return true
}

func (t *translation) deltaClassic(count *series, p pmetric.HistogramDataPoint, now *classic) (grown[*classic], string) {
	none := grown[*classic]{}
	if math.IsNaN(now.sum) || math.IsInf(now.sum, 0) {
		return none, reasonDeltaInvalid
	}
	state, c, reason := t.delta.place(t.keyOf(count, 'c'), p.StartTimestamp(), p.Timestamp())
	if reason != "" {
		return none, reason
	}
	if had := c.classic; had == nil || had.hasSum != now.hasSum || len(had.counts) != len(now.counts) || !slices.Equal(had.bounds, now.bounds) {
		if had != nil { // other buckets: another counter
			c.fresh, c.start = true, p.StartTimestamp()
		}
		c.classic = &classic{hasSum: now.hasSum, counts: make([]uint64, len(now.counts)), bounds: slices.Clone(now.bounds)}
	}
	c.classic.count += now.count
	c.classic.sum += now.sum
	for i, n := range now.counts {
		c.classic.counts[i] += n
	}
	written := c.clone()
	g := grow(c, written.classic)
	state.settle(c, t.delta.next())
	return g, ""
}

func (t *translation) deltaExponential(s *series, p pmetric.ExponentialHistogramDataPoint, now *exponential) (grown[*exponential], string) {
	none := grown[*exponential]{}
	if math.IsNaN(now.sum) || math.IsInf(now.sum, 0) {
		return none, reasonDeltaInvalid
	}
	if !now.clone().add(now) {
		return none, reasonBuckets
	}
	state, c, reason := t.delta.place(t.keyOf(s, 'e'), p.StartTimestamp(), p.Timestamp())
	if reason != "" {
		return none, reason
	}
	switch {
	case c.exponential == nil:
		c.exponential = now
	case !c.exponential.add(now): // too far apart: another counter
		c.fresh, c.start, c.exponential = true, p.StartTimestamp(), now
	}
	written := c.clone()
	g := grow(c, written.exponential)
	state.settle(c, t.delta.next())
	return g, ""
}
