package prometheusexporter

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// zeroThreshold is that of a histogram that tells none: Prometheus's own choice
// for OTLP, which is smaller than the smallest bucket.
const zeroThreshold = 1e-128

// exponential is the state of an exponential histogram.
type exponential struct {
	scale              int32
	count, zeros       uint64
	sum                float64
	zeroThreshold      float64 // 0 if not told
	positive, negative buckets
}

// buckets are dense: counts[i] is that of bucket offset+i, which holds what is
// above base^(offset+i) and up to base^(offset+i+1), base being 2^(2^-scale).
type buckets struct {
	offset int32
	counts []uint64
}

// exponentials translates exponential histograms to native ones.
func (t *translation) exponentials(m pmetric.Metric) {
	name := t.family.name
	delta := m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	for _, p := range m.ExponentialHistogram().DataPoints().All() {
		if reason := refuseExponential(p); reason != "" {
			t.refused.add(reason, 1, m.Name())
			continue
		}
		if !t.readPdata(p.Attributes(), m.Name()) {
			continue
		}
		t.seen(p.Timestamp())
		s, at := t.one(name), milliseconds(p.Timestamp())
		now := readExponential(p)
		if delta && !p.Flags().NoRecordedValue() {
			grown, reason := t.deltaExponential(s, p, now)
			if reason != "" {
				t.refused.add(reason, 1, m.Name())
				continue
			}
			if grown.zero != 0 {
				zero := exponential{scale: grown.value.scale, zeroThreshold: grown.value.zeroThreshold}
				s.histograms = append(s.histograms, histogramSample{grown.start, grown.zero, zero.native()})
			}
			s.histograms = append(s.histograms, histogramSample{grown.start, at, grown.value.native()})
		} else {
			h := now.native()
			if p.Flags().NoRecordedValue() {
				h.Sum, h.Count = stale, value.StaleNaN
			}
			s.histograms = append(s.histograms, histogramSample{milliseconds(p.StartTimestamp()), at, h})
		}
		if p.Exemplars().Len() > 0 {
			s.exemplars = append(s.exemplars, exemplarsOf(p.Exemplars())...)
		}
	}
}

func refuseExponential(p pmetric.ExponentialHistogramDataPoint) string {
	if p.Scale() < histogram.ExponentialSchemaMin {
		return reasonHistogramScale
	}
	for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{p.Positive(), p.Negative()} {
		if int64(b.Offset())+int64(b.BucketCounts().Len()) >= math.MaxInt32 {
			return reasonBuckets
		}
	}
	return ""
}

func readExponential(p pmetric.ExponentialHistogramDataPoint) *exponential {
	return &exponential{
		scale: p.Scale(), count: p.Count(), zeros: p.ZeroCount(), sum: p.Sum(), zeroThreshold: p.ZeroThreshold(),
		positive: buckets{p.Positive().Offset(), p.Positive().BucketCounts().AsRaw()},
		negative: buckets{p.Negative().Offset(), p.Negative().BucketCounts().AsRaw()},
	}
}

// native is the histogram as Prometheus has it, exactly, or at Prometheus's finest
// resolution where that is coarser: buckets fall together then, counts stay.
// Smallest and largest value have no place in it.
func (e *exponential) native() *histogram.Histogram {
	scale := min(e.scale, histogram.ExponentialSchemaMax)
	h := &histogram.Histogram{
		// Prometheus finds out itself whether the counter was reset.
		CounterResetHint: histogram.UnknownCounterReset,
		Schema:           scale,
		ZeroThreshold:    e.zeroThreshold,
		ZeroCount:        e.zeros,
		Count:            e.count,
		Sum:              e.sum,
	}
	if h.ZeroThreshold == 0 {
		h.ZeroThreshold = zeroThreshold
	}
	h.PositiveSpans, h.PositiveBuckets = e.positive.spans(e.scale - scale)
	h.NegativeSpans, h.NegativeBuckets = e.negative.spans(e.scale - scale)
	return h
}

// maxGap is how many empty buckets are written out rather than skipped.
const maxGap = 2

// spans writes buckets as Prometheus does, of which 2^down fall together. Bucket i
// of OTLP is above base^i, that of Prometheus up to base^i, so they differ by one.
func (b *buckets) spans(down int32) (spans []histogram.Span, deltas []int64) {
	var last, index int32 // Prometheus's
	var count, lastCount int64
	flush := func() {
		if count == 0 {
			return
		}
		gap := index - last - 1
		switch {
		case len(spans) == 0:
			spans = append(spans, histogram.Span{Offset: index})
		case gap > maxGap:
			spans = append(spans, histogram.Span{Offset: gap})
		default:
			for range gap {
				deltas = append(deltas, -lastCount)
				lastCount = 0
			}
			spans[len(spans)-1].Length += uint32(gap)
		}
		spans[len(spans)-1].Length++
		deltas = append(deltas, count-lastCount)
		last, lastCount, count = index, count, 0
	}
	for i, n := range b.counts {
		if at := (b.offset+int32(i))>>down + 1; at != index {
			flush()
			index = at
		}
		count += int64(n)
	}
	flush()
	return spans, deltas
}

// maxBuckets bounds what a histogram grows to as deltas are added: above it the
// resolution is halved. The OpenTelemetry SDKs do with 160.
const maxBuckets = 640

// add adds the counts of another histogram. It returns false when no resolution
// holds both, which no real measurement makes.
func (e *exponential) add(other *exponential) bool {
	o := other.clone()
	scale := min(e.scale, o.scale, histogram.ExponentialSchemaMax)
	for {
		e.coarsen(scale)
		o.coarsen(scale)
		if e.positive.width(&o.positive) <= maxBuckets && e.negative.width(&o.negative) <= maxBuckets {
			break
		}
		if scale == histogram.ExponentialSchemaMin {
			return false
		}
		scale--
	}
	e.zeroThreshold = max(e.zeroThreshold, o.zeroThreshold)
	e.positive.add(&o.positive)
	e.negative.add(&o.negative)
	e.count += o.count
	e.sum += o.sum
	e.zeros += o.zeros
	e.zeros += e.positive.fold(e.scale, e.zeroThreshold) + e.negative.fold(e.scale, e.zeroThreshold)
	return true
}

func (e *exponential) clone() *exponential {
	c := *e
	c.positive.counts = slices.Clone(e.positive.counts)
	c.negative.counts = slices.Clone(e.negative.counts)
	return &c
}

func (e *exponential) coarsen(scale int32) {
	if down := e.scale - scale; down > 0 {
		e.positive.coarsen(down)
		e.negative.coarsen(down)
		e.scale = scale
	}
}

func (b *buckets) coarsen(down int32) {
	if len(b.counts) == 0 {
		return
	}
	first := b.offset >> down
	for i, n := range b.counts {
		at := (b.offset+int32(i))>>down - first
		b.counts[i] = 0
		b.counts[at] += n
	}
	last := (b.offset + int32(len(b.counts)) - 1) >> down
	b.offset, b.counts = first, b.counts[:last-first+1]
}

// trim drops empty buckets at both ends.
func (b *buckets) trim() {
	for len(b.counts) > 0 && b.counts[len(b.counts)-1] == 0 {
		b.counts = b.counts[:len(b.counts)-1]
	}
	for len(b.counts) > 0 && b.counts[0] == 0 {
		b.counts, b.offset = b.counts[1:], b.offset+1
	}
}

// width is how many buckets both together need.
func (b *buckets) width(other *buckets) int64 {
	b.trim()
	other.trim()
	if len(b.counts) == 0 || len(other.counts) == 0 {
		return int64(len(b.counts) + len(other.counts))
	}
	from := min(int64(b.offset), int64(other.offset))
	to := max(int64(b.offset)+int64(len(b.counts)), int64(other.offset)+int64(len(other.counts)))
	return to - from
}

// add adds the counts of other, which width found to fit.
func (b *buckets) add(other *buckets) {
	if len(other.counts) == 0 {
		return
	}
	if len(b.counts) == 0 {
		*b = buckets{other.offset, slices.Clone(other.counts)}
		return
	}
	if before := b.offset - other.offset; before > 0 {
		b.counts = append(make([]uint64, before, int(before)+len(b.counts)), b.counts...)
		b.offset = other.offset
	}
	if end := int(other.offset-b.offset) + len(other.counts); end > len(b.counts) {
		b.counts = append(b.counts, make([]uint64, end-len(b.counts))...)
	}
	for i, n := range other.counts {
		b.counts[int(other.offset-b.offset)+i] += n
	}
}

// fold takes out the buckets that lie within the zero threshold and returns how
// many values they hold.
func (b *buckets) fold(scale int32, threshold float64) (values uint64) {
	if threshold <= 0 {
		return 0
	}
	for i := range b.counts {
		upper := math.Exp2(float64(b.offset+int32(i)+1) * math.Exp2(-float64(scale)))
		if upper > threshold {
			break
		}
		values += b.counts[i]
		b.counts[i] = 0
	}
	b.trim()
	return values
}
