package lokiexporter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/bytesize"
)

// counter returns a counter of the exporter by its one attribute; "" holds the
// value without one.
func (r running) counter(t *testing.T, name, attribute string) map[string]int64 {
	t.Helper()
	values := make(map[string]int64)
	m, err := r.telemetry.GetMetric(name)
	if err != nil {
		return values // nothing counted yet
	}
	for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
		var value string
		for _, kv := range point.Attributes.ToSlice() {
			require.Equal(t, attribute, string(kv.Key))
			value = kv.Value.AsString()
		}
		values[value] += point.Value
	}
	return values
}

func (r running) sent(t *testing.T) int64 {
	return r.counter(t, "longhaul_loki_entries_sent", "")[""]
}

func (r running) rejected(t *testing.T) map[string]int64 {
	return r.counter(t, "longhaul_loki_entries_rejected", "reason")
}

// fake answers pushes by a function and remembers what it took.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	pushes int
	taken  []string // lines
	header http.Header

	labels   map[string]string            // of the stream, by line
	metadata map[string]map[string]string // of the entry, by line
}

func serve(t *testing.T, answer func(n int, lines []string, w http.ResponseWriter)) *fake {
	t.Helper()
	f := &fake{labels: make(map[string]string), metadata: make(map[string]map[string]string)}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // its settings, which it does not show
			http.NotFound(w, r)
			return
		}
		compressed, _ := io.ReadAll(r.Body)
		raw, err := snappy.Decode(nil, compressed)
		if err != nil {
			panic(err)
		}
		var message push.PushRequest
		if err := message.Unmarshal(raw); err != nil {
			panic(err)
		}
		var lines []string
		for _, s := range message.Streams {
			for _, e := range s.Entries {
				lines = append(lines, e.Line)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pushes++
		f.header = r.Header
		recorder := httptest.NewRecorder()
		answer(f.pushes, lines, recorder)
		for k, v := range recorder.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
		if recorder.Code/100 == 2 {
			f.taken = append(f.taken, lines...)
			for _, s := range message.Streams {
				for _, e := range s.Entries {
					f.labels[e.Line], f.metadata[e.Line] = s.Labels, metadataOf(e)
				}
			}
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func quick(cfg *Config) {
	cfg.Retry = deliver.RetryConfig{InitialInterval: time.Millisecond, MaxInterval: 2 * time.Millisecond, MaxElapsedTime: 100 * time.Millisecond}
}

func logsOf(streams int, lines ...string) plog.Logs {
	logs := plog.NewLogs()
	for i := range streams {
		scope := addLogs(logs, map[string]any{"service.name": fmt.Sprint("s", i)})
		for k, line := range lines {
			addRecord(scope, time.Now().Add(time.Duration(k)), line)
		}
	}
	return logs
}

func TestOverloadIsWaitedOut(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		for _, status := range []int{429, 500, 502, 503, 504} {
			server := serve(t, func(n int, _ []string, w http.ResponseWriter) {
				if n <= 2 {
					w.WriteHeader(status)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
			exp := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.Retry.MaxElapsedTime = time.Minute })
			require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(1, "a", "b")))
			require.Equal(t, []string{"a", "b"}, server.taken, "status %d", status)
			require.Equal(t, int64(2), exp.sent(t))
			require.Empty(t, exp.rejected(t))
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		var times []time.Time
		server := serve(t, func(n int, _ []string, w http.ResponseWriter) {
			times = append(times, time.Now())
			if n == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
		exp := start(t, server.URL, func(cfg *Config) { quick(cfg); cfg.Retry.MaxElapsedTime = time.Minute })
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(1, "a")))
		require.GreaterOrEqual(t, times[1].Sub(times[0]), time.Second)
	})
}

func TestWhatIsNotTakenIsRetryable(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		for _, status := range []int{401, 403, 404, 405, 429, 503} {
			server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(status) })
			exp := start(t, server.URL, quick)
			err := exp.ConsumeLogs(context.Background(), logsOf(1, "a"))
			require.ErrorIs(t, err, deliver.ErrUnavailable, "status %d", status)
			require.False(t, consumererror.IsPermanent(err), "status %d", status)
			require.Empty(t, exp.rejected(t))
			require.Zero(t, exp.sent(t))
		}
		closed := httptest.NewServer(http.NotFoundHandler())
		closed.Close()
		exp := start(t, closed.URL, quick)
		err := exp.ConsumeLogs(context.Background(), logsOf(1, "a"))
		require.ErrorIs(t, err, deliver.ErrUnavailable)
		require.False(t, consumererror.IsPermanent(err))
	})
}

func TestAHangingServerDoesNotHoldTheCall(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
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
		require.ErrorIs(t, exp.ConsumeLogs(context.Background(), logsOf(1, "a")), deliver.ErrUnavailable)
	})
}

func TestARefusalIsNeverRepeatedAndTheRestCounts(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(n int, _ []string, w http.ResponseWriter) {
			http.Error(w, strings.TrimSpace(old), http.StatusBadRequest) // three of them
		})
		exp := start(t, server.URL, quick)
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(1, "a", "b", "c", "d", "e")))
		require.Equal(t, 1, server.pushes)
		require.Equal(t, map[string]int64{"greater_than_max_sample_age": 3}, exp.rejected(t))
		require.Equal(t, int64(2), exp.sent(t))
	})
}

func TestARefusalOfEverythingIsPermanent(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		for status, reason := range map[int]string{400: "other", 413: "request_too_large", 422: "status_422"} {
			server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { http.Error(w, "no", status) })
			exp := start(t, server.URL, quick)
			err := exp.ConsumeLogs(context.Background(), logsOf(1, "a"))
			require.True(t, consumererror.IsPermanent(err), "status %d: %v", status, err)
			require.Equal(t, 1, server.pushes)
			require.Equal(t, map[string]int64{reason: 1}, exp.rejected(t))
		}
	})
}

func TestATooLargeRequestIsHalved(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, lines []string, w http.ResponseWriter) {
			if len(lines) > 2 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
		exp := start(t, server.URL, quick)
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(1, "1", "2", "3", "4", "5", "6", "7")))
		require.Equal(t, []string{"1", "2", "3", "4", "5", "6", "7"}, server.taken)
		require.Equal(t, int64(7), exp.sent(t))
	})
}

func TestARepeatedCallDoesNotSendAgainWhatWasTaken(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		down := true
		server := serve(t, func(n int, lines []string, w http.ResponseWriter) {
			switch {
			case lines[0] == "refused":
				http.Error(w, "no", http.StatusBadRequest)
			case n > 3 && down:
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		})
		exp := start(t, server.URL, func(cfg *Config) { // a request holds two records of 60 KiB
			quick(cfg)
			cfg.MaxLineSize, cfg.MaxRequestSize = bytesize.KiB, 129*bytesize.KiB
		})
		logs := logsOf(5, "a", "b")
		for _, r := range logs.ResourceLogs().All() {
			for _, record := range r.ScopeLogs().At(0).LogRecords().All() {
				record.Attributes().PutStr("pad", strings.Repeat("x", 60<<10))
			}
		}
		logs.ResourceLogs().At(1).ScopeLogs().At(0).LogRecords().RemoveIf(func(r plog.LogRecord) bool { return r.Body().Str() == "b" })
		logs.ResourceLogs().At(1).ScopeLogs().At(0).LogRecords().At(0).Body().SetStr("refused")
		logs.ResourceLogs().At(1).ScopeLogs().At(0).LogRecords().At(0).Attributes().PutStr("more", strings.Repeat("x", 3<<10)) // and one more does not fit
		for range 3 {
			require.ErrorIs(t, exp.ConsumeLogs(context.Background(), logs), deliver.ErrUnavailable)
		}
		require.Equal(t, []string{"a", "b", "a", "b"}, server.taken)
		down = false
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		require.Equal(t, []string{"a", "b", "a", "b", "a", "b", "a", "b"}, server.taken, "the entries of four streams, each once")
		require.Equal(t, map[string]int64{"other": 1}, exp.rejected(t))
		require.Equal(t, int64(8), exp.sent(t))

		require.NoError(t, exp.ConsumeLogs(context.Background(), logs), "a new call with the same content is sent")
		require.Len(t, server.taken, 16)
	})
}

func TestTenantAndHeadersAreSent(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) })
		exp := start(t, server.URL, func(cfg *Config) { cfg.Tenant.Default = "restaurants" })
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(1, "a")))
		require.Equal(t, "restaurants", server.header.Get("X-Scope-OrgID"))
		require.Equal(t, "application/x-protobuf", server.header.Get("Content-Type"))
		require.Equal(t, "snappy", server.header.Get("Content-Encoding"))
	})
}

func TestNothingIsSentForNothing(t *testing.T) {
	exp := start(t, "http://127.0.0.1:1", quick)
	require.NoError(t, exp.ConsumeLogs(context.Background(), plog.NewLogs()))
}

func TestACancelledCallReturnsItsReason(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
		exp := start(t, server.URL, nil)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := exp.ConsumeLogs(ctx, logsOf(1, "a"))
		require.True(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
		require.False(t, consumererror.IsPermanent(err))
	})
}

// The rest is asked of a real Loki.

func TestHoursOldEntriesLandBesideNewOnes(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, withTimeSharding)
		exp := start(t, loki.url, nil)
		now := time.Now()
		logs := plog.NewLogs()
		scope := addLogs(logs, map[string]any{"k8s.cluster.name": "late"})
		for i, age := range []time.Duration{0, 72 * time.Hour, 24 * time.Hour, 6 * time.Hour, time.Minute} {
			addRecord(scope, now.Add(-age), fmt.Sprint(i))
		}
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		require.Equal(t, int64(5), exp.sent(t))
		require.Empty(t, exp.rejected(t))
		var lines []string
		for _, entry := range loki.query(t, `{cluster="late"}`, now.Add(-100*time.Hour), now.Add(time.Minute)) {
			lines = append(lines, entry.line)
		}
		require.ElementsMatch(t, []string{"0", "1", "2", "3", "4"}, lines)
	})
}

func TestRefusalsOfARealLokiAreCountedExactly(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, "  shard_streams: {enabled: false}\n")
		exp := start(t, loki.url, func(cfg *Config) { cfg.LateData.Mode = lateNative }) // which it is not
		now := time.Now()
		consume := func(ages map[string][]time.Duration) error {
			logs := plog.NewLogs()
			for name, list := range ages {
				scope := addLogs(logs, map[string]any{"k8s.cluster.name": "c", "service.name": name})
				for i, age := range list {
					addRecord(scope, now.Add(-age), fmt.Sprint(name, " ", i))
				}
			}
			return exp.ConsumeLogs(context.Background(), logs)
		}
		require.NoError(t, consume(map[string][]time.Duration{"one": {0}, "two": {0}}))
		require.Equal(t, int64(2), exp.sent(t))

		// In one request, Loki would answer 204 to this unless "one" came last.
		for i := range 5 {
			require.NoError(t, consume(map[string][]time.Duration{"one": {5 * time.Hour, 4*time.Hour + time.Duration(i), time.Minute - time.Duration(i)}, "two": {time.Second - time.Duration(i)}}))
		}
		require.Equal(t, map[string]int64{"too_far_behind": 10}, exp.rejected(t))
		require.Equal(t, int64(12), exp.sent(t))

		require.NoError(t, consume(map[string][]time.Duration{"one": {300 * time.Hour, 200 * time.Hour, 5 * time.Hour, 2 * time.Minute}, "three": {-time.Hour, 3 * time.Minute}}))
		require.Equal(t, map[string]int64{"too_far_behind": 11, "greater_than_max_sample_age": 2, "too_far_in_future": 1}, exp.rejected(t))
		require.Equal(t, int64(14), exp.sent(t))

		err := consume(map[string][]time.Duration{"one": {300 * time.Hour, 300 * time.Hour, 400 * time.Hour}})
		require.True(t, consumererror.IsPermanent(err), "%v", err)
		require.Equal(t, int64(5), exp.rejected(t)["greater_than_max_sample_age"])

		entries := loki.query(t, `{cluster="c"}`, now.Add(-500*time.Hour), now.Add(time.Minute))
		require.Len(t, entries, 14, "what was counted as sent is there")
	})
}

func TestStreamLimitsDoNotLoseInSilence(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, "  max_global_streams_per_user: 2\n")
		exp := start(t, loki.url, quick)
		now := time.Now()
		logs := plog.NewLogs()
		for i := range 4 {
			addRecord(addLogs(logs, map[string]any{"service.name": fmt.Sprint("s", i)}), now, "x")
		}
		err := exp.ConsumeLogs(context.Background(), logs)
		require.ErrorIs(t, err, deliver.ErrUnavailable, "a limit is no reason to lose data")
		require.ErrorContains(t, err, "maximum active stream limit exceeded")
		require.Equal(t, int64(2), exp.sent(t))
		require.Empty(t, exp.rejected(t))
	})
}

func TestHardEntriesAreTakenByARealLoki(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		t.Parallel()
		loki := startLoki(t, withTimeSharding)
		exp := start(t, loki.url, nil)
		now := time.Now()
		logs := plog.NewLogs()
		weird := "quote\" back\\slash \x00 \x07 \x7f \u00a0 \u2028 \U0001F600 \xff tab\t"
		scope := addLogs(logs, map[string]any{"k8s.cluster.name": "hard", "service.name": weird, "k8s.container.name": strings.Repeat("ü", 3000)})
		big := addRecord(scope, now, strings.Repeat("x", 300<<10))
		big.Attributes().PutStr("huge", strings.Repeat("y", 100<<10))
		odd := addRecord(scope, now.Add(1), "odd names")
		for _, name := range []string{"", "_", "___", "1a", "a.b", "a_b", "a__b", "ü", "__reserved__", "level", "cluster"} {
			odd.Attributes().PutStr(name, "value of "+name)
		}
		many := addRecord(scope, now.Add(2), "many")
		for i := range 300 {
			many.Attributes().PutInt(fmt.Sprint("a", i), int64(i))
		}
		for range 3 {
			addRecord(scope, now.Add(3), "said three times")
		}
		empty := addRecord(scope, now.Add(4), "")
		empty.Attributes().PutStr("a", "b")
		require.NoError(t, exp.ConsumeLogs(context.Background(), logs))
		require.Empty(t, exp.rejected(t))
		require.Equal(t, map[string]int64{"line": 1, "metadata": 2}, exp.counter(t, "longhaul_loki_entries_cut", "part"))

		entries := loki.query(t, `{cluster="hard"}`, now.Add(-time.Minute), now.Add(time.Minute))
		require.Len(t, entries, 7)
		for _, entry := range entries {
			require.Equal(t, strings.ReplaceAll(weird, "\xff", "?"), entry.labels["service_name"])
			switch entry.line {
			case "odd names":
				require.Equal(t, "value of level", entry.metadata["level_2"])
				require.Equal(t, "value of 1a", entry.metadata["key_1a"])
			case "said three times":
			case "many", "":
			default:
				require.Contains(t, entry.line, "…[cut: ")
			}
		}
	})
}

func TestManyStreamsShareRequests(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) })
		exp := start(t, server.URL, nil)
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(50, "a")))
		require.NoError(t, exp.ConsumeLogs(context.Background(), logsOf(50, "b")))
		require.Equal(t, 2, server.pushes)
	})
}

func TestAnAnswerThatIsNotReadWholeIsAskedForAgainInHalves(t *testing.T) {
	eachWay(t, func(t *testing.T, start func(*testing.T, string, func(*Config)) running) {
		server := serve(t, func(_ int, lines []string, w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			var all []string // Loki tells about all of them, at length
			for range lines {
				all = append(all, "1 errors like: "+strings.TrimSpace(oldOne)+strings.Repeat(" ", longestReply/4))
			}
			_, _ = io.WriteString(w, strings.Join(all, "; "))
		})
		exp := start(t, server.URL, quick)
		err := exp.ConsumeLogs(context.Background(), logsOf(1, "1", "2", "3", "4", "5", "6"))
		require.True(t, consumererror.IsPermanent(err), "%v", err)
		require.Equal(t, 3, server.pushes)
		require.Equal(t, map[string]int64{"greater_than_max_sample_age": 6}, exp.rejected(t))
	})
}
