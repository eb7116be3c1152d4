package prometheusexporter

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// fake answers writes by a function and remembers them.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	writes   int
	tenants  []string // by write
	versions []string // of remote write, by write
	second   []*writev2.Request
	first    []*prompb.WriteRequest
}

// write is a request as a fake sees it.
type write struct {
	n       int // from 1
	version string
	tenant  string
	samples int
}

// serve starts a fake. What answer leaves unsaid is a success, with the headers
// of 2.0 if the request was.
func serveWrites(t *testing.T, answer func(write, http.ResponseWriter)) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // it tells nothing of itself
			http.NotFound(w, r)
			return
		}
		compressed, _ := io.ReadAll(r.Body)
		raw, err := snappy.Decode(nil, compressed)
		if err != nil {
			panic(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.writes++
		in := write{n: f.writes, version: r.Header.Get(remote.RemoteWriteVersionHeader), tenant: r.Header.Get("X-Scope-OrgID")}
		f.tenants = append(f.tenants, in.tenant)
		f.versions = append(f.versions, in.version)
		recorder := httptest.NewRecorder()
		if in.version == remote.RemoteWriteVersion20HeaderValue {
			request := &writev2.Request{}
			if err := request.Unmarshal(raw); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf;proto=io.prometheus.write.v2.Request" {
				panic(fmt.Sprint(err, r.Header))
			}
			f.second = append(f.second, request)
			for _, s := range request.Timeseries {
				in.samples += len(s.Samples) + len(s.Histograms)
			}
			remote.WriteResponseStats{Samples: in.samples}.SetHeaders(recorder)
		} else {
			request := &prompb.WriteRequest{}
			if err := proto.Unmarshal(raw, request); err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
				panic(fmt.Sprint(err, r.Header))
			}
			f.first = append(f.first, request)
			for _, s := range request.Timeseries {
				in.samples += len(s.Samples) + len(s.Histograms)
			}
		}
		answer(in, recorder)
		for k, v := range recorder.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}))
	t.Cleanup(f.Close)
	return f
}

// decode2 reads a request of remote write 2.0.
func decode2(t require.TestingT, body io.Reader) *writev2.Request {
	compressed, err := io.ReadAll(body)
	require.NoError(t, err)
	raw, err := snappy.Decode(nil, compressed)
	require.NoError(t, err)
	request := &writev2.Request{}
	require.NoError(t, request.Unmarshal(raw))
	return request
}

func quick(cfg *Config) {
	cfg.Retry = deliver.RetryConfig{InitialInterval: time.Millisecond, MaxInterval: 2 * time.Millisecond, MaxElapsedTime: 100 * time.Millisecond}
}

// gaugesOf makes n series of one sample each, without a target_info.
func gaugesOf(n int) pmetric.Metrics {
	md := pmetric.NewMetrics()
	scope := addMetrics(md, map[string]any{"k8s.cluster.name": "c"})
	for i := range n {
		addGauge(scope, fmt.Sprintf("g%d", i), time.Now(), float64(i))
	}
	return md
}

func (r running) sent(t *testing.T) int64 {
	return r.counter(t, "longhaul_prometheus_samples_sent")[""]
}

func (r running) rejected(t fataler) map[string]int64 {
	return r.counter(t, "longhaul_prometheus_samples_rejected")
}

func TestOverloadIsWaitedOut(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504} {
		server := serveWrites(t, func(in write, w http.ResponseWriter) {
			if in.n <= 2 {
				w.WriteHeader(status)
			}
		})
		exp := start(t, server.URL, quick)
		require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(3)))
		require.Equal(t, 3, server.writes)
		require.Equal(t, int64(3), exp.sent(t))
		require.Empty(t, exp.rejected(t))
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	var times []time.Time
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		times = append(times, time.Now())
		if in.n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	exp := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.Retry.MaxElapsedTime = 5 * time.Second })
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(1)))
	require.GreaterOrEqual(t, times[1].Sub(times[0]), time.Second)
}

func TestWhatIsNotTakenIsRetryable(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405, 429, 503} {
		server := serveWrites(t, func(_ write, w http.ResponseWriter) { w.WriteHeader(status) })
		exp := start(t, server.URL, quick)
		err := exp.ConsumeMetrics(context.Background(), gaugesOf(1))
		require.ErrorIs(t, err, deliver.ErrUnavailable, "status %d", status)
		require.False(t, consumererror.IsPermanent(err))
		require.Zero(t, exp.sent(t))
		require.Empty(t, exp.rejected(t))
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	exp := start(t, closed.URL, quick)
	require.ErrorIs(t, exp.ConsumeMetrics(context.Background(), gaugesOf(1)), deliver.ErrUnavailable)
}

func TestAHangingServerDoesNotHoldTheCall(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	exp := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.Timeout = 20 * time.Millisecond })
	require.ErrorIs(t, exp.ConsumeMetrics(context.Background(), gaugesOf(1)), deliver.ErrUnavailable)
}

func TestAServerOfOldIsSpokenToInItsProtocol(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter){
		"415":                        func(w http.ResponseWriter) { http.Error(w, "unsupported", http.StatusUnsupportedMediaType) },
		"204 that confirmed nothing": func(w http.ResponseWriter) { clear(w.Header()); w.WriteHeader(http.StatusNoContent) },
	} {
		t.Run(name, func(t *testing.T) {
			updated := false
			server := serveWrites(t, func(in write, w http.ResponseWriter) {
				if in.version == "2.0.0" && !updated {
					refuse(w)
				}
			})
			exp := start(t, server.URL, quick)
			for range 3 {
				require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(2)))
			}
			require.Equal(t, []string{"2.0.0", "0.1.0", "0.1.0", "0.1.0"}, server.versions, "it is remembered")
			require.Equal(t, int64(6), exp.sent(t))
			require.Empty(t, exp.rejected(t))

			updated = true
			exp.Metrics.(*prometheusExporter).speak1Until.Store(time.Now().UnixNano())
			require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(2)))
			require.Equal(t, "2.0.0", server.versions[4], "2.0 is tried again later")

			strict := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.Protocol = Protocol2 })
			updated = false
			err := strict.ConsumeMetrics(context.Background(), gaugesOf(2))
			require.ErrorIs(t, err, errNotUnderstood)
			require.False(t, consumererror.IsPermanent(err))
		})
	}
}

func TestAPartialWriteIsCountedAndNeverRepeated(t *testing.T) {
	server := serveWrites(t, func(_ write, w http.ResponseWriter) {
		remote.WriteResponseStats{Samples: 7}.SetHeaders(w)
		http.Error(w, messages["too_old"]+"\n"+messages["duplicate"]+"\n"+messages["too_old"], http.StatusBadRequest)
	})
	exp := start(t, server.URL, quick)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(10)))
	require.Equal(t, 1, server.writes)
	require.Equal(t, int64(7), exp.sent(t))
	require.Equal(t, map[string]int64{"too_old": 2, "duplicate": 1}, exp.rejected(t))
}

func TestARefusalOfEverythingIsPermanent(t *testing.T) {
	for status, reason := range map[int]string{400: "other", 413: "request_too_large", 409: "status_409"} {
		server := serveWrites(t, func(_ write, w http.ResponseWriter) {
			clear(w.Header())
			http.Error(w, "no", status)
		})
		exp := start(t, server.URL, quick)
		err := exp.ConsumeMetrics(context.Background(), gaugesOf(1))
		require.True(t, consumererror.IsPermanent(err), "status %d: %v", status, err)
		require.Equal(t, 1, server.writes)
		require.Equal(t, map[string]int64{reason: 1}, exp.rejected(t))
	}
}

func TestATooLargeRequestIsHalved(t *testing.T) {
	taken := 0
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		if in.samples > 2 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		taken += in.samples
	})
	exp := start(t, server.URL, quick)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesOf(7)))
	require.Equal(t, 7, taken)
	require.Equal(t, int64(7), exp.sent(t))
}

func TestARepeatedCallDoesNotSendAgainWhatWasTaken(t *testing.T) {
	down := true
	taken := 0
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		switch {
		case in.n > 2 && down:
			w.WriteHeader(http.StatusServiceUnavailable)
		case in.n == 1:
			remote.WriteResponseStats{Samples: in.samples - 1}.SetHeaders(w)
			http.Error(w, messages["too_old"], http.StatusBadRequest)
			taken += in.samples
		default:
			taken += in.samples
		}
	})
	exp := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.MaxRequestSize = 64 << 10 })
	md := gaugesOf(6000)
	points := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	unspecified := points.AppendEmpty()
	unspecified.SetName("unspecified")
	unspecified.SetEmptySum().DataPoints().AppendEmpty()
	repeat := func() error { // the caller decodes anew each time
		copied := pmetric.NewMetrics()
		md.CopyTo(copied)
		return exp.ConsumeMetrics(context.Background(), copied)
	}
	for range 3 {
		require.ErrorIs(t, repeat(), deliver.ErrUnavailable)
	}
	down = false
	require.NoError(t, repeat())
	require.Equal(t, 6000, taken)
	require.Equal(t, int64(5999), exp.sent(t))
	require.Equal(t, map[string]int64{"too_old": 1, "unspecified_temporality": 1}, exp.rejected(t))

	require.NoError(t, repeat())
	require.Equal(t, 12000, taken, "a new call with the same content is sent")
}

func TestEverythingAMetricHasIsWritten(t *testing.T) {
	server := serveWrites(t, func(write, http.ResponseWriter) {})
	exp := start(t, server.URL, nil)
	md, now := pmetric.NewMetrics(), time.UnixMilli(1795473620776)
	scope := addMetrics(md, map[string]any{"service.name": "api"})
	m := scope.Metrics().AppendEmpty()
	m.SetName("orders")
	m.SetDescription("Orders taken.")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range 2 { // out of order
		p := sum.DataPoints().AppendEmpty()
		p.SetIntValue(int64(7 - i))
		p.SetTimestamp(pcommon.NewTimestampFromTime(now.Add(-time.Duration(i) * time.Second)))
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(now.Add(-time.Hour)))
	}
	e := sum.DataPoints().At(0).Exemplars().AppendEmpty()
	e.SetDoubleValue(1.5)
	e.SetTimestamp(pcommon.NewTimestampFromTime(now))
	e.SetTraceID(pcommon.TraceID{1})
	e.SetSpanID(pcommon.SpanID{2})
	require.NoError(t, exp.ConsumeMetrics(context.Background(), md))

	request := server.second[0]
	require.Len(t, request.Timeseries, 1)
	s := request.Timeseries[0]
	meta, err := s.ToMetadata(request.Symbols)
	require.NoError(t, err)
	require.Equal(t, "Orders taken.", meta.Help)
	require.Equal(t, "counter", string(meta.Type))
	at := now.UnixMilli()
	require.Equal(t, []writev2.Sample{
		{Value: 6, Timestamp: at - 1000, StartTimestamp: at - 3600_000},
		{Value: 7, Timestamp: at, StartTimestamp: at - 3600_000},
	}, s.Samples)
	require.Len(t, s.Exemplars, 1)
	var refs []string
	for _, ref := range s.Exemplars[0].LabelsRefs {
		refs = append(refs, request.Symbols[ref])
	}
	require.Equal(t, []string{"span_id", "0200000000000000", "trace_id", "01000000000000000000000000000000"}, refs)
	require.Equal(t, at, s.Exemplars[0].Timestamp)

	old := start(t, server.URL, func(cfg *Config) { cfg.Protocol = Protocol1 })
	require.NoError(t, old.ConsumeMetrics(context.Background(), md))
	require.Equal(t, []prompb.Sample{{Value: 6, Timestamp: at - 1000}, {Value: 7, Timestamp: at}}, server.first[0].Timeseries[0].Samples)
	require.Equal(t, []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "orders_total", Help: "Orders taken."}}, server.first[0].Metadata)
	require.Len(t, server.first[0].Timeseries[0].Exemplars, 1)
}

func TestWhatPrometheusHasNoFormForIsCounted(t *testing.T) {
	server := serveWrites(t, func(write, http.ResponseWriter) {})
	exp := start(t, server.URL, nil)
	md := gaugesOf(1)
	metrics := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	add := func(name string) pmetric.Metric {
		m := metrics.AppendEmpty()
		m.SetName(name)
		return m
	}
	delta := add("delta").SetEmptySum()
	delta.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	delta.DataPoints().AppendEmpty()
	delta.DataPoints().AppendEmpty()
	deltaHistogram := add("delta_histogram").SetEmptyHistogram()
	deltaHistogram.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	deltaHistogram.DataPoints().AppendEmpty()
	deltaExponential := add("delta_exponential").SetEmptyExponentialHistogram()
	deltaExponential.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	deltaExponential.DataPoints().AppendEmpty()
	add("unspecified").SetEmptySum().DataPoints().AppendEmpty()
	coarse := add("coarse").SetEmptyExponentialHistogram()
	coarse.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	coarse.DataPoints().AppendEmpty().SetScale(-5)
	coarse.DataPoints().AppendEmpty().SetScale(-4) // its neighbour is kept
	nameless := add("nameless").SetEmptyGauge()
	nameless.DataPoints().AppendEmpty().Attributes().PutStr("___", "x")
	nameless.DataPoints().AppendEmpty()
	add("").SetEmptyGauge().DataPoints().AppendEmpty()
	add("no points").SetEmptyGauge()
	require.NoError(t, exp.ConsumeMetrics(context.Background(), md))
	require.Equal(t, map[string]int64{
		"delta_invalid": 4, "unspecified_temporality": 1, "histogram_scale": 1, "invalid_label_name": 1, "invalid_metric_name": 1,
	}, exp.rejected(t))
	require.Equal(t, int64(3), exp.sent(t))

	only := pmetric.NewMetrics()
	sum := addMetrics(only, nil).Metrics().AppendEmpty()
	sum.SetName("unspecified")
	sum.SetEmptySum().DataPoints().AppendEmpty()
	err := exp.ConsumeMetrics(context.Background(), only)
	require.True(t, consumererror.IsPermanent(err), "%v", err)
	require.Equal(t, 1, server.writes)
}

func TestTheCallersMetricsStayWhole(t *testing.T) {
	server := serveWrites(t, func(_ write, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	exp := start(t, server.URL, quick)
	md := pmetric.NewMetrics()
	scope := addMetrics(md, edge())
	addGauge(scope, "a", time.Now(), 1)
	second := md.ResourceMetrics().At(0).ScopeMetrics().AppendEmpty()
	addGauge(second, "b", time.Now(), 1)
	second.Metrics().At(0).Metadata().PutStr(typeKey, "gauge")
	before := pmetric.NewMetrics()
	md.CopyTo(before)
	require.Error(t, exp.ConsumeMetrics(context.Background(), md))
	marshaler := pmetric.JSONMarshaler{}
	want, err := marshaler.MarshalMetrics(before)
	require.NoError(t, err)
	got, err := marshaler.MarshalMetrics(md)
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}

func TestNothingIsSentForNothing(t *testing.T) {
	exp := start(t, "http://127.0.0.1:1", quick)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), pmetric.NewMetrics()))
}

// The rest is asked of a real Prometheus.

func gaugesAt(name string, values map[time.Time]float64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	scope := addMetrics(md, map[string]any{"k8s.cluster.name": "c"})
	for at, v := range values {
		addGauge(scope, name, at, v)
	}
	return md
}

func TestRefusalsOfARealPrometheusAreCountedExactly(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	for protocol, config := range map[Protocol]string{
		Protocol2: "storage: {tsdb: {out_of_order_time_window: 1h}}\n",
		Protocol1: "storage: {tsdb: {out_of_order_time_window: 1h}}\n", // refuses whole requests
	} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			prometheus := startPrometheus(t, config)
			exp := start(t, prometheus.writeURL(), func(cfg *Config) { cfg.Protocol = protocol })
			consume := func(md pmetric.Metrics) error { return exp.ConsumeMetrics(context.Background(), md) }
			require.NoError(t, consume(gaugesAt("a", map[time.Time]float64{now: 1})))
			require.NoError(t, consume(gaugesAt("a", map[time.Time]float64{
				now.Add(-100 * time.Hour): 1, now.Add(-2 * time.Hour): 2, now.Add(-30 * time.Minute): 3,
				now: 99, now.Add(time.Second): 4, now.Add(time.Hour): 5,
			})))
			require.Equal(t, map[string]int64{"too_old": 2, "duplicate": 1, "too_far_in_future": 1}, exp.rejected(t))
			require.Equal(t, int64(3), exp.sent(t))

			md := gaugesAt("b", map[time.Time]float64{now: 1})
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().At(0).Attributes().PutStr("bad", "\xff")
			if err := consume(md); protocol == Protocol2 {
				require.True(t, consumererror.IsPermanent(err), "%v", err)
				require.Equal(t, int64(1), exp.rejected(t)["invalid_labels"])
			}

			stored := prometheus.read(t, now.Add(-200*time.Hour), now.Add(2*time.Hour), "a")
			require.Len(t, stored, 1)
			require.Equal(t, []float64{3, 1, 4}, valuesOf(stored[0]), "what was counted as sent is there")
		})
	}
}

func TestHoursOldSamplesLandBesideNewOnes(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, lateData)
	exp := start(t, prometheus.writeURL(), nil)
	now := time.Now().Truncate(time.Millisecond)
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesAt("a", map[time.Time]float64{now: 3})))
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesAt("a", map[time.Time]float64{now.Add(-71 * time.Hour): 1, now.Add(-6 * time.Hour): 2})))
	require.Empty(t, exp.rejected(t))
	require.Equal(t, []float64{1, 2, 3}, valuesOf(prometheus.read(t, now.Add(-100*time.Hour), now, "a")[0]))
}

func TestExponentialHistogramsAreStoredExactly(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, lateData)
	now := time.Now().Truncate(time.Millisecond)
	for _, protocol := range []Protocol{Protocol2, Protocol1} {
		exp := start(t, prometheus.writeURL(), func(cfg *Config) { cfg.Protocol = protocol })
		name := "latency_" + strings.ReplaceAll(string(protocol), ".", "_")
		md := pmetric.NewMetrics()
		m := addMetrics(md, map[string]any{"k8s.cluster.name": "c"}).Metrics().AppendEmpty()
		m.SetName(name)
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(now))
		p.SetScale(3)
		p.SetCount(21)
		p.SetSum(12.25)
		p.SetZeroCount(2)
		p.Positive().SetOffset(-2)
		p.Positive().BucketCounts().FromRaw([]uint64{1, 0, 0, 0, 0, 7, 4})
		p.Negative().SetOffset(1)
		p.Negative().BucketCounts().FromRaw([]uint64{3, 4})
		stale := h.DataPoints().AppendEmpty()
		stale.SetTimestamp(pcommon.NewTimestampFromTime(now.Add(time.Second)))
		stale.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		require.NoError(t, exp.ConsumeMetrics(context.Background(), md))
		require.Empty(t, exp.rejected(t))

		stored := prometheus.read(t, now.Add(-time.Minute), now.Add(time.Minute), name)
		require.Len(t, stored, 1)
		require.Len(t, stored[0].Histograms, 2)
		got := stored[0].Histograms[0].ToIntHistogram()
		require.Equal(t, now.UnixMilli(), stored[0].Histograms[0].Timestamp)
		require.Equal(t, int32(3), got.Schema)
		require.Equal(t, uint64(21), got.Count)
		require.Equal(t, 12.25, got.Sum)
		require.Equal(t, uint64(2), got.ZeroCount)
		// OTLP's bucket i of scale s is (base^i, base^(i+1)]; Prometheus's bucket
		// i is (base^(i-1), base^i].
		buckets := make(map[string]uint64)
		for it := got.PositiveBucketIterator(); it.Next(); {
			if b := it.At(); b.Count > 0 {
				buckets[fmt.Sprint("+", b.Index)] = b.Count
			}
		}
		for it := got.NegativeBucketIterator(); it.Next(); {
			if b := it.At(); b.Count > 0 {
				buckets[fmt.Sprint("-", b.Index)] = b.Count
			}
		}
		require.Equal(t, map[string]uint64{"+-1": 1, "+4": 7, "+5": 4, "-2": 3, "-3": 4}, buckets)
		require.True(t, isStale(stored[0].Histograms[1].Sum))
	}
}
