package prometheusexporter

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// edgeLink stands for edge and relay: while the link is cut, scrapes wait in a
// backlog.
type edgeLink struct {
	consumer.Metrics
	mu      sync.Mutex
	cut     bool
	live    int
	backlog []pmetric.Metrics
	errs    []error
}

func (l *edgeLink) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, resource := range md.ResourceMetrics().All() {
		resource.Resource().Attributes().PutStr("k8s.cluster.name", "store-0001")
	}
	if l.cut {
		kept := pmetric.NewMetrics()
		md.CopyTo(kept)
		for _, resource := range kept.ResourceMetrics().All() {
			resource.Resource().Attributes().PutStr(laneKey, "backlog")
		}
		l.backlog = append(l.backlog, kept)
		return nil
	}
	l.live++
	if err := l.Metrics.ConsumeMetrics(ctx, md); err != nil {
		l.errs = append(l.errs, err)
	}
	return nil
}

// wait lets some scrapes pass.
func (l *edgeLink) wait(t *testing.T, scrapes int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		require.Empty(t, l.errs)
		return l.live + len(l.backlog)
	}
	until := count() + scrapes
	require.Eventually(t, func() bool { return count() >= until }, time.Minute, 20*time.Millisecond)
}

func (l *edgeLink) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

// An outage is no end of a series: what the edge scraped meanwhile comes later, and
// nothing in the middle says that the series ended. When its target is gone, it
// ends with a marker at once.
func TestABackFilledOutageIsNoEndOfASeriesAndARemovedTargetIs(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, lateData)
	exp := start(t, prometheus.writeURL(), nil)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", textFormat)
		fmt.Fprint(w, "# TYPE orders_total counter\norders_total 5\n"+
			"# TYPE took histogram\ntook_bucket{le=\"1\"} 2\ntook_bucket{le=\"+Inf\"} 3\ntook_sum 4\ntook_count 3\n")
	}))
	t.Cleanup(page.Close)
	targets := filepath.Join(t.TempDir(), "targets.json")
	write := func(content string) {
		require.NoError(t, os.WriteFile(targets+".new", []byte(content), 0o600))
		require.NoError(t, os.Rename(targets+".new", targets))
	}
	write(fmt.Sprintf(`[{"targets": [%q]}]`, page.Listener.Addr().String()))
	link := &edgeLink{Metrics: exp}
	began := time.Now()
	scrape(t, fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"+
		"- {job_name: shop, file_sd_configs: [{files: [%q], refresh_interval: 1s}]}\n", targets), link)

	link.wait(t, 2)
	link.setCut(true)
	link.wait(t, 3)
	link.setCut(false)
	link.wait(t, 2) // live first
	for _, md := range link.backlog {
		require.NoError(t, exp.ConsumeMetrics(context.Background(), md))
	}
	stored := func() map[string][]float64 {
		values := make(map[string][]float64)
		for _, s := range prometheus.read(t, began.Add(-time.Minute), time.Now().Add(time.Minute), "orders_total|took_.+") {
			values[labelsOf(s)["__name__"]+labelsOf(s)["le"]] = valuesOf(s)
		}
		return values
	}
	filled := stored()
	require.Len(t, filled, 5)
	for name, values := range filled {
		require.GreaterOrEqual(t, len(values), 7, name)
		for _, v := range values {
			require.False(t, isStale(v), name)
		}
	}
	require.Equal(t, 1, prometheus.count(t, "orders_total", time.Now()))

	write(`[]`)
	require.Eventually(t, func() bool {
		for _, values := range stored() {
			if !isStale(values[len(values)-1]) {
				return false
			}
		}
		return true
	}, time.Minute, 100*time.Millisecond)
	for name, values := range stored() {
		for _, v := range values[:len(values)-1] {
			require.False(t, isStale(v), "%s ends once, and at its end", name)
		}
	}
	require.Zero(t, prometheus.count(t, "orders_total", time.Now()), "at once, not after five minutes")
	require.Empty(t, exp.rejected(t))
}

// count returns how many series a query has at a time.
func (s *prometheusServer) count(t *testing.T, query string, at time.Time) int {
	t.Helper()
	seconds := strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)
	resp, err := http.Get(s.url + "/api/v1/query?" + url.Values{"query": {query}, "time": {seconds}}.Encode())
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []json.RawMessage `json:"result"`
		} `json:"data"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return len(answer.Data.Result)
}

// A cluster that is gone without a word leaves no marker: its series end when a
// query no longer looks back that far, five minutes after the last sample.
func TestAClusterThatIsGoneEndsByLookingBack(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, lateData)
	exp := start(t, prometheus.writeURL(), nil)
	last := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	for ago := range 3 {
		at := last.Add(-time.Duration(2-ago) * 15 * time.Second)
		require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesAt("gone", map[time.Time]float64{at: 1})))
	}
	require.Equal(t, 1, prometheus.count(t, "gone", last.Add(5*time.Minute-time.Second)))
	require.Zero(t, prometheus.count(t, "gone", last.Add(5*time.Minute+time.Second)))
	// And what comes late after all makes it whole.
	require.NoError(t, exp.ConsumeMetrics(context.Background(), gaugesAt("gone", map[time.Time]float64{last.Add(4 * time.Minute): 2, last.Add(8 * time.Minute): 3})))
	require.Equal(t, 1, prometheus.count(t, "gone", last.Add(6*time.Minute)))
	require.Equal(t, 1, prometheus.count(t, "gone", last.Add(12*time.Minute)))
}

// Deltas on a real Prometheus: an outage with live data first, a late start, and
// what a query makes of it.
func TestBackFilledDeltasOnARealPrometheus(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, lateData)
	exp := start(t, prometheus.writeURL(), nil)
	now := time.Now().Truncate(time.Second)
	began := now.Add(-30 * time.Minute)
	sum := 0.0
	consume := func(minute int) {
		value := uint64(minute%7 + 1)
		sum += float64(value)
		md := deltas(0, 0, value)
		from, to := began.Add(time.Duration(minute)*time.Minute), began.Add(time.Duration(minute+1)*time.Minute)
		setInterval(md, from, to)
		require.NoError(t, exp.ConsumeMetrics(context.Background(), md))
	}
	for minute := range 5 {
		consume(minute)
	}
	for minute := 15; minute < 25; minute++ { // live, and the backlog beside it
		consume(minute)
		consume(minute - 10)
	}
	require.Empty(t, exp.rejected(t))
	for _, s := range prometheus.read(t, began, now, "orders_total|classic_count|classic_bucket") {
		if labels := labelsOf(s); labels["le"] == "1" {
			continue
		}
		samples := make(map[int64]float64)
		for _, sample := range s.Samples {
			samples[sample.Timestamp] = sample.Value
		}
		require.Equal(t, sum, increase(samples), labelsOf(s))
		require.Len(t, samples, 26, "25 points and one new beginning")
	}
	native := prometheus.read(t, began, now, "native")
	require.Len(t, native, 1)
	counts := make(map[int64]float64)
	for _, h := range native[0].Histograms {
		counts[h.Timestamp] = float64(h.ToIntHistogram().Count)
	}
	require.Equal(t, sum, increase(counts))
}
