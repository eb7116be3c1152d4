package prometheusexporter

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"pgregory.net/rapid"
)

// countsOf are the counts of a native histogram's buckets by Prometheus's index.
func countsOf(h *histogram.Histogram) (positive, negative map[int32]uint64) {
	positive, negative = make(map[int32]uint64), make(map[int32]uint64)
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Count > 0 {
			positive[b.Index] += b.Count
		}
	}
	for it := h.NegativeBucketIterator(); it.Next(); {
		if b := it.At(); b.Count > 0 {
			negative[b.Index] += b.Count
		}
	}
	return positive, negative
}

// expected counts buckets one by one: OTLP's bucket i of scale s, (base^i,
// base^(i+1)], is in Prometheus's bucket (i >> (s-schema)) + 1.
func expected(b buckets, down int32) map[int32]uint64 {
	counts := make(map[int32]uint64)
	for i, n := range b.counts {
		if n > 0 {
			counts[(b.offset+int32(i))>>down+1] += n
		}
	}
	return counts
}

func TestEveryExponentialHistogramIsANativeOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pmetric.NewExponentialHistogramDataPoint()
		drawExponential(t, p, 20)
		p.SetZeroThreshold(rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "threshold"))
		e := readExponential(p)
		h := e.native()
		require.NoError(t, h.Validate())
		require.Equal(t, min(p.Scale(), 8), h.Schema)
		require.Equal(t, p.Count(), h.Count)
		require.Equal(t, p.Sum(), h.Sum)
		require.Equal(t, p.ZeroCount(), h.ZeroCount)
		if p.ZeroThreshold() > 0 {
			require.Equal(t, p.ZeroThreshold(), h.ZeroThreshold)
		} else {
			require.Equal(t, zeroThreshold, h.ZeroThreshold)
		}
		positive, negative := countsOf(h)
		require.Equal(t, expected(e.positive, p.Scale()-h.Schema), positive)
		require.Equal(t, expected(e.negative, p.Scale()-h.Schema), negative)
	})
}

func TestExponentialHistogramsAddUpBucketByBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := pmetric.NewExponentialHistogramDataPoint(), pmetric.NewExponentialHistogramDataPoint()
		drawExponential(t, a, 20)
		drawExponential(t, b, 20)
		sum := readExponential(a)
		require.True(t, sum.add(readExponential(b)))
		require.Equal(t, a.Count()+b.Count(), sum.count)
		require.Equal(t, a.ZeroCount()+b.ZeroCount(), sum.zeros)
		require.LessOrEqual(t, sum.scale, min(a.Scale(), b.Scale(), 8))
		require.NoError(t, sum.native().Validate())
		got, _ := countsOf(sum.native())
		want := make(map[int32]uint64)
		for _, p := range []pmetric.ExponentialHistogramDataPoint{a, b} {
			for at, n := range expected(readExponential(p).positive, p.Scale()-sum.scale) {
				want[at] += n
			}
		}
		require.Equal(t, want, got)
		require.Equal(t, b.Positive().BucketCounts().AsRaw(), readExponential(b).positive.counts, "the other one stays as it is")
	})
}

func TestSumsOfHistogramsStaySmall(t *testing.T) {
	one := func(scale, offset int32) *exponential {
		return &exponential{scale: scale, count: 1, positive: buckets{offset, []uint64{1}}}
	}
	sum := one(8, -100_000)
	require.True(t, sum.add(one(8, 100_000)))
	require.LessOrEqual(t, len(sum.positive.counts), maxBuckets)
	require.Equal(t, uint64(2), sum.count)
	require.NoError(t, sum.native().Validate())
	require.False(t, one(-4, math.MinInt32).add(one(-4, math.MaxInt32-2)), "no measurement makes such")
}

func TestValuesWithinAWiderZeroBucketAreCountedThere(t *testing.T) {
	sum := &exponential{scale: 0, count: 3, positive: buckets{-3, []uint64{1, 1, 1}}} // up to 0.25, 0.5, 1
	require.True(t, sum.add(&exponential{scale: 0, count: 5, zeros: 5, zeroThreshold: 0.5}))
	require.Equal(t, uint64(7), sum.zeros)
	require.Equal(t, buckets{-1, []uint64{1}}, sum.positive)
	require.NoError(t, sum.native().Validate())
}
