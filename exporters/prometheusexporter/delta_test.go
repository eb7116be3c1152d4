package prometheusexporter

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// store is a server of remote write 2.0 in place of the network. It keeps every
// sample, and finds fault with two values for one time.
type store struct {
	t       require.TestingT
	mu      sync.Mutex
	down    bool
	floats  map[string]map[int64]float64 // by series, by time
	counts  map[string]map[int64]float64 // of native histograms: observations
	starts  map[string]map[int64]int64
	refused bool // the next request is taken and then not answered well
}

func newStore(t require.TestingT) *store {
	return &store{t: t, floats: make(map[string]map[int64]float64), counts: make(map[string]map[int64]float64), starts: make(map[string]map[int64]int64)}
}

func (s *store) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		_ = r.Body.Close()
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: r}, nil
	}
	request := decode2(s.t, r.Body)
	samples := 0
	for _, series := range request.Timeseries {
		key := nameIn(request, series)
		for _, sample := range series.Samples {
			put(s.t, s.floats, key, sample.Timestamp, sample.Value)
			put(s.t, s.starts, key, sample.Timestamp, sample.StartTimestamp)
			samples++
		}
		for _, h := range series.Histograms {
			put(s.t, s.counts, key, h.Timestamp, float64(h.GetCountInt()))
			samples++
		}
	}
	header := http.Header{}
	header.Set("X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(samples)) // histograms are told apart elsewhere
	status := http.StatusNoContent
	if s.refused { // stored, but the answer is lost on the way
		status, s.refused = http.StatusBadGateway, false
	}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: r}, nil
}

func put[V comparable](t require.TestingT, all map[string]map[int64]V, key string, at int64, v V) {
	if all[key] == nil {
		all[key] = make(map[int64]V)
	}
	if had, found := all[key][at]; found {
		require.Equal(t, had, v, "%s at %d", key, at)
	}
	all[key][at] = v
}

// nameIn is a series' name, with its bucket if it is one.
func nameIn(request *writev2.Request, s writev2.TimeSeries) string {
	name := ""
	for i := 0; i < len(s.LabelsRefs); i += 2 {
		switch request.Symbols[s.LabelsRefs[i]] {
		case "__name__":
			name = request.Symbols[s.LabelsRefs[i+1]] + name
		case "le":
			name += " " + request.Symbols[s.LabelsRefs[i+1]]
		}
	}
	return name
}

// increase is what a query finds: the first value, and what was added since; a
// value that falls tells of a new counter.
func increase(samples map[int64]float64) float64 {
	sum, last := 0.0, 0.0
	for _, at := range slices.Sorted(maps.Keys(samples)) {
		v := samples[at]
		if v < last {
			last = 0
		}
		sum, last = sum+v-last, v
	}
	return sum
}

// startQuiet starts an exporter that sends to a store.
func startQuiet(t testing.TB, to http.RoundTripper, change func(*Config)) running {
	exp := start(t, "http://127.0.0.1:1/api/v1/write", func(cfg *Config) {
		cfg.Retry.MaxElapsedTime = 0
		cfg.Protocol = Protocol2
		cfg.ExpectedOutage = 0
		if change != nil {
			change(cfg)
		}
	})
	exp.Metrics.(*prometheusExporter).client.Transport = to
	return exp
}

var epoch = time.UnixMilli(1795473620000)

func at(seconds int) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(epoch.Add(time.Duration(seconds) * time.Second))
}

// deltas makes the same increase of a sum, a histogram and an exponential
// histogram, over an interval in seconds.
func deltas(from, to int, value uint64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	scope := addMetrics(md, map[string]any{"k8s.cluster.name": "c"})
	sum := scope.Metrics().AppendEmpty()
	sum.SetName("orders")
	sum.SetEmptySum().SetIsMonotonic(true)
	sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	p := sum.Sum().DataPoints().AppendEmpty()
	p.SetStartTimestamp(at(from))
	p.SetTimestamp(at(to))
	p.SetIntValue(int64(value))

	classic := scope.Metrics().AppendEmpty()
	classic.SetName("classic")
	classic.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	c := classic.Histogram().DataPoints().AppendEmpty()
	c.SetStartTimestamp(at(from))
	c.SetTimestamp(at(to))
	c.SetCount(value)
	c.SetSum(float64(value) / 2)
	c.ExplicitBounds().FromRaw([]float64{1, 5})
	c.BucketCounts().FromRaw([]uint64{value / 2, value - value/2, 0})

	native := scope.Metrics().AppendEmpty()
	native.SetName("native")
	native.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	n := native.ExponentialHistogram().DataPoints().AppendEmpty()
	n.SetStartTimestamp(at(from))
	n.SetTimestamp(at(to))
	n.SetCount(value)
	n.SetSum(float64(value) / 2)
	n.SetScale(int32(from % 3))
	n.Positive().SetOffset(int32(from%7) - 3)
	n.Positive().BucketCounts().FromRaw([]uint64{value / 3, value - value/3})
	return md
}

func TestDeltasAddUpToACounter(t *testing.T) {
	server := newStore(t)
	exp := startQuiet(t, server, nil)
	for i, value := range []uint64{4, 0, 6} {
		require.NoError(t, exp.ConsumeMetrics(context.Background(), deltas(10*i, 10*i+10, value)))
	}
	base := epoch.UnixMilli()
	require.Equal(t, map[int64]float64{base + 10e3: 4, base + 20e3: 4, base + 30e3: 10}, server.floats["orders_total"])
	require.Equal(t, map[int64]int64{base + 10e3: base, base + 20e3: base, base + 30e3: base}, server.starts["orders_total"])
	require.Equal(t, map[int64]float64{base + 10e3: 2, base + 20e3: 2, base + 30e3: 5}, server.floats["classic_bucket 1"])
	require.Equal(t, map[int64]float64{base + 10e3: 4, base + 20e3: 4, base + 30e3: 10}, server.floats["classic_bucket 5"])
	require.Equal(t, map[int64]float64{base + 10e3: 4, base + 20e3: 4, base + 30e3: 10}, server.floats["classic_bucket +Inf"])
	require.Equal(t, map[int64]float64{base + 10e3: 4, base + 20e3: 4, base + 30e3: 10}, server.floats["classic_count"])
	require.Equal(t, map[int64]float64{base + 10e3: 2, base + 20e3: 2, base + 30e3: 5}, server.floats["classic_sum"])
	require.Equal(t, map[int64]float64{base + 10e3: 4, base + 20e3: 4, base + 30e3: 10}, server.counts["native"])
	require.Empty(t, exp.rejected(t))
}

// A caller repeats a call that failed. Whether the server stored the data before
// it failed or not, nothing is added twice: the store finds fault with a second
// value for the same time.
func TestARepeatedCallAddsNothingTwice(t *testing.T) {
	server := newStore(t)
	exp := startQuiet(t, server, nil)
	consume := func(i int) error { return exp.ConsumeMetrics(context.Background(), deltas(10*i, 10*i+10, 5)) }
	require.NoError(t, consume(0))
	server.down = true
	for range 3 {
		require.ErrorIs(t, consume(1), deliver.ErrUnavailable)
	}
	server.down, server.refused = false, true
	require.ErrorIs(t, consume(1), deliver.ErrUnavailable, "stored, and the answer lost")
	require.NoError(t, consume(1))
	require.NoError(t, consume(2))
	for _, name := range []string{"orders_total", "classic_count"} {
		require.Equal(t, 15.0, increase(server.floats[name]), name)
	}
	require.Equal(t, 15.0, increase(server.counts["native"]))

	// What was added is known: when the relay did not learn of the success, or an
	// edge sends it again, it is told from what is new.
	require.Error(t, consume(2))
	require.Equal(t, map[string]int64{"delta_duplicate": 3}, exp.rejected(t))
	require.Equal(t, 15.0, increase(server.floats["orders_total"]))
}

// A part of the call's tenants fails, in turns; then the rest is repeated alone.
func TestATenantsDeltasAreAddedWhenItsServerTakesThem(t *testing.T) {
	servers := map[string]*store{"a": newStore(t), "b": newStore(t)}
	exp := startQuiet(t, tenants(servers), byCluster)
	for i := range 4 {
		md := pmetric.NewMetrics()
		for _, cluster := range []string{"a", "b"} {
			one := deltas(10*i, 10*i+10, 5)
			one.ResourceMetrics().At(0).Resource().Attributes().PutStr("k8s.cluster.name", cluster)
			one.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
		}
		down := servers[[]string{"a", "b"}[i%2]]
		down.down = true
		rest := requirePartial(t, exp.ConsumeMetrics(context.Background(), md))
		down.down = false
		require.NoError(t, exp.ConsumeMetrics(context.Background(), rest))
	}
	for _, server := range servers {
		require.Equal(t, 20.0, increase(server.floats["orders_total"]))
		require.Len(t, server.floats["orders_total"], 4)
	}
	require.Empty(t, exp.rejected(t))
}

type tenants map[string]*store

func (t tenants) RoundTrip(r *http.Request) (*http.Response, error) {
	return t[r.Header.Get("X-Scope-OrgID")].RoundTrip(r)
}

// Live data goes first after an outage, and the backlog follows beside it. The
// increase over all is the sum of the deltas, in whatever order the lanes come and
// whatever fails meanwhile.
func TestBackFilledDeltasAreNeitherLostNorCountedTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		server := newStore(rt)
		exp := startQuiet(t, server, nil)
		sum, lanes := drawLanes(rt)
		require.NoError(rt, exp.ConsumeMetrics(context.Background(), deltas(0, 10, 3)))
		for len(lanes) > 0 {
			i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
			next := lanes[i][0]
			server.mu.Lock()
			server.down, server.refused = rapid.IntRange(0, 4).Draw(rt, "down") == 0, rapid.IntRange(0, 4).Draw(rt, "refused") == 0
			failing := server.down || server.refused
			server.mu.Unlock()
			err := exp.ConsumeMetrics(context.Background(), deltas(next.from, next.to, next.value))
			if failing {
				require.ErrorIs(rt, err, deliver.ErrUnavailable)
				continue
			}
			require.NoError(rt, err)
			if lanes[i] = lanes[i][1:]; len(lanes[i]) == 0 {
				lanes = slices.Delete(lanes, i, i+1)
			}
		}
		require.Equal(rt, float64(sum+3), increase(server.floats["orders_total"]))
		require.Equal(rt, float64(sum+3), increase(server.floats["classic_count"]))
		require.Equal(rt, float64(sum+3), increase(server.floats["classic_bucket 5"]))
		require.InDelta(rt, float64(sum+3)/2, increase(server.floats["classic_sum"]), 1e-6)
		require.Equal(rt, float64(sum+3), increase(server.counts["native"]))
		require.Empty(rt, exp.rejected(t))
	})
}

type laneDelta struct {
	from, to int
	value    uint64
}

// drawLanes divides what is measured from second 10 on into a live lane and one
// per outage. A series that is silent for an interval leaves a hole.
func drawLanes(t *rapid.T) (sum uint64, lanes [][]laneDelta) {
	live, outage := []laneDelta(nil), []laneDelta(nil)
	out := false
	for i := range rapid.IntRange(1, 25).Draw(t, "intervals") {
		if rapid.IntRange(0, 4).Draw(t, "link") == 0 && len(lanes) < maxCounters-2 {
			if out = !out; !out && len(outage) > 0 {
				lanes, outage = append(lanes, outage), nil
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "silent") == 0 && len(lanes) < 2 {
			continue
		}
		d := laneDelta{10 + 10*i, 20 + 10*i, rapid.Uint64Range(0, 50).Draw(t, "value")}
		sum += d.value
		if out {
			outage = append(outage, d)
		} else {
			live = append(live, d)
		}
	}
	for _, lane := range [][]laneDelta{live, outage} {
		if len(lane) > 0 {
			lanes = append(lanes, lane)
		}
	}
	return sum, lanes
}

// A relay that knows nothing of a series, since it was restarted or took a
// partition over, begins a new counter. What it is given again is added at most
// twice.
func TestARestartIsACounterReset(t *testing.T) {
	server := newStore(t)
	first := startQuiet(t, server, nil)
	for i := range 5 {
		require.NoError(t, first.ConsumeMetrics(context.Background(), deltas(10*i, 10*i+10, 100)))
	}
	second := startQuiet(t, server, nil)
	require.NoError(t, second.ConsumeMetrics(context.Background(), deltas(50, 60, 7)))
	require.NoError(t, second.ConsumeMetrics(context.Background(), deltas(60, 70, 7)))
	require.Equal(t, 514.0, increase(server.floats["orders_total"]))
	base := epoch.UnixMilli()
	require.Equal(t, 7.0, server.floats["orders_total"][base+60e3])
	require.Equal(t, base+50e3, server.starts["orders_total"][base+60e3], "the start timestamp says it, too")
}

func TestOddIntervalsAreRefusedAndCounted(t *testing.T) {
	server := newStore(t)
	exp := startQuiet(t, server, nil)
	reasons := func(from, to int) map[string]int64 {
		before := exp.rejected(t)
		_ = exp.ConsumeMetrics(context.Background(), deltas(from, to, 5))
		added := make(map[string]int64)
		for reason, n := range exp.rejected(t) {
			if n -= before[reason]; n > 0 {
				added[reason] = n
			}
		}
		return added
	}
	require.Empty(t, reasons(100, 200))
	require.Equal(t, map[string]int64{"delta_duplicate": 3}, reasons(100, 200))
	require.Equal(t, map[string]int64{"delta_duplicate": 3}, reasons(120, 150))
	require.Equal(t, map[string]int64{"delta_overlap": 3}, reasons(50, 150))
	require.Equal(t, map[string]int64{"delta_invalid": 3}, reasons(300, 250))
	require.Empty(t, reasons(150, 210), "two writers of one series: it goes on")
	require.Equal(t, 10.0, increase(server.floats["orders_total"]))

	for _, value := range []float64{math.NaN(), math.Inf(1)} {
		md := deltas(210, 220, 1)
		md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetDoubleValue(value)
		_ = exp.ConsumeMetrics(context.Background(), md)
	}
	require.Equal(t, int64(5), exp.rejected(t)["delta_invalid"])
}

func TestALevelOfDeltasGoesOnOverGaps(t *testing.T) {
	server := newStore(t)
	exp := startQuiet(t, server, nil)
	consume := func(from, to int, value int64) error {
		md := pmetric.NewMetrics()
		m := addMetrics(md, map[string]any{"k8s.cluster.name": "c"}).Metrics().AppendEmpty()
		m.SetName("guests")
		m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		p := m.Sum().DataPoints().AppendEmpty()
		p.SetStartTimestamp(at(from))
		p.SetTimestamp(at(to))
		p.SetIntValue(value)
		return exp.ConsumeMetrics(context.Background(), md)
	}
	require.NoError(t, consume(0, 10, 5))
	require.NoError(t, consume(10, 20, -2))
	require.NoError(t, consume(40, 50, 4))
	require.Error(t, consume(20, 30, 1))
	base := epoch.UnixMilli()
	require.Equal(t, map[int64]float64{base + 10e3: 5, base + 20e3: 3, base + 50e3: 7}, server.floats["guests"])
	require.Equal(t, map[string]int64{"delta_late": 1}, exp.rejected(t))
}

func TestRememberedSeriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newStore(t)
		exp := startQuiet(t, server, func(cfg *Config) { cfg.Delta = DeltaConfig{MaxSeries: 3, MaxAge: time.Hour} })
		consume := func(cluster string, i int) error {
			md := deltas(10*i, 10*i+10, 5)
			md.ResourceMetrics().At(0).Resource().Attributes().PutStr("k8s.cluster.name", cluster)
			return exp.ConsumeMetrics(context.Background(), md)
		}
		require.NoError(t, consume("a", 0))
		require.ErrorContains(t, consume("b", 0), "delta_too_many_series")
		require.NoError(t, consume("a", 1), "the known ones go on")
		require.Equal(t, map[string]int64{"delta_too_many_series": 3}, exp.rejected(t))

		time.Sleep(2 * time.Hour)
		require.NoError(t, consume("b", 0), "a was forgotten")
		accumulator := exp.Metrics.(*prometheusExporter).accumulator
		require.Equal(t, int64(3), accumulator.size.Load())
		require.Len(t, accumulator.groups, 1)
		server.down = true
		require.Error(t, consume("c", 0))
		require.Equal(t, int64(3), accumulator.size.Load(), "there was no room")
	})
}

// Many calls for the same series at once: one after the other.
func TestCallsForTheSameSeriesDoNotMixUp(t *testing.T) {
	server := newStore(t)
	exp := startQuiet(t, server, nil)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), deltas(0, 10, 1)))
	var tasks sync.WaitGroup
	for lane := range 4 {
		tasks.Go(func() {
			for i := range 20 {
				from := 10 + 10*(lane*20+i)
				if err := exp.ConsumeMetrics(context.Background(), deltas(from, from+10, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tasks.Wait()
	require.Equal(t, 81.0, increase(server.floats["orders_total"]))
	require.Empty(t, exp.rejected(t))
}

// setInterval moves the points of deltas to another time.
func setInterval(md pmetric.Metrics, from, to time.Time) {
	start, end := pcommon.NewTimestampFromTime(from), pcommon.NewTimestampFromTime(to)
	metrics := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	sum := metrics.At(0).Sum().DataPoints().At(0)
	sum.SetStartTimestamp(start)
	sum.SetTimestamp(end)
	classic := metrics.At(1).Histogram().DataPoints().At(0)
	classic.SetStartTimestamp(start)
	classic.SetTimestamp(end)
	native := metrics.At(2).ExponentialHistogram().DataPoints().At(0)
	native.SetStartTimestamp(start)
	native.SetTimestamp(end)
}
