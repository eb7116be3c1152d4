package prometheusexporter

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"gopkg.in/yaml.v3"

	"github.com/longhaul/longhaul/receivers/prometheusreceiver"
)

const (
	textFormat  = "text/plain; version=0.0.4; charset=utf-8"
	openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

// exposition serves pages to scrapers: each scraper gets the pages of a target
// one after the other, and then finds the target down.
type exposition struct {
	*httptest.Server
	mu     sync.Mutex
	pages  map[string][][]byte // by target
	served map[string]int      // by target and scraper
}

func serve(t testing.TB) *exposition {
	t.Helper()
	e := &exposition{pages: make(map[string][][]byte), served: make(map[string]int)}
	for _, target := range []string{"node", "process", "redis-a"} { // real exporters
		files, err := filepath.Glob("../../test/e2e/testdata/metrics/" + target + ".*.prom.zst")
		require.NoError(t, err)
		e.load(t, target, files)
	}
	for _, target := range []string{"odd", "openmetrics"} { // what those do not have
		files, err := filepath.Glob("testdata/exposition/" + target + ".*")
		require.NoError(t, err)
		e.load(t, target, files)
	}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *exposition) load(t testing.TB, target string, files []string) {
	t.Helper()
	require.NotEmpty(t, files, "no pages of %s", target)
	slices.Sort(files)
	for _, file := range files {
		page, err := os.ReadFile(file)
		require.NoError(t, err)
		if strings.HasSuffix(file, ".zst") {
			decoder, err := zstd.NewReader(nil)
			require.NoError(t, err)
			page, err = decoder.DecodeAll(page, nil)
			decoder.Close()
			require.NoError(t, err)
		}
		e.pages[target] = append(e.pages[target], page)
	}
}

func (e *exposition) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, scraper := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query().Get("scraper")
	e.mu.Lock()
	n := e.served[target+" "+scraper]
	e.served[target+" "+scraper]++
	e.mu.Unlock()
	if n >= len(e.pages[target]) {
		http.Error(w, "gone", http.StatusServiceUnavailable)
		return
	}
	format := textFormat
	if target == "openmetrics" {
		format = openMetrics
	}
	w.Header().Set("Content-Type", format)
	_, _ = w.Write(e.pages[target][n])
}

// allServed says whether a scraper has had every page and found every target
// down since.
func (e *exposition) allServed(scraper string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for target, pages := range e.pages {
		if e.served[target+" "+scraper] < len(pages)+2 {
			return false
		}
	}
	return true
}

// config is the scrape configuration, the same for every scraper.
func (e *exposition) config(scraper string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n")
	for _, target := range slices.Sorted(maps.Keys(e.pages)) {
		fmt.Fprintf(&b, "- job_name: %s\n  metrics_path: /%s\n  params: {scraper: [%s]}\n  static_configs: [{targets: [%q], labels: {site: harbour}}]\n",
			target, target, scraper, e.Listener.Addr().String())
	}
	return b.String()
}

// relayed stamps the origin on metrics as the relay does, remembers the times of
// their points, and hands them to the exporter.
type relayed struct {
	consumer.Metrics
	mu    sync.Mutex
	times map[int64]bool // unix milliseconds
	errs  []error
}

func (r *relayed) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range md.ResourceMetrics().All() {
		resource.Resource().Attributes().PutStr("k8s.cluster.name", "store-0001")
		resource.Resource().Attributes().PutStr("k8s.node.name", "node-a")
		for _, scope := range resource.ScopeMetrics().All() {
			for _, m := range scope.Metrics().All() {
				if m.Type() == pmetric.MetricTypeGauge {
					for _, p := range m.Gauge().DataPoints().All() {
						r.times[p.Timestamp().AsTime().UnixMilli()] = true
					}
				}
			}
		}
	}
	err := r.Metrics.ConsumeMetrics(ctx, md)
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return err
}

func (r *relayed) problems() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs
}

// seen returns the times of all points so far, while scraping goes on.
func (r *relayed) seen() map[int64]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.times)
}

// scrape starts a receiver, which stops with the test or before.
func scrape(t testing.TB, config string, to consumer.Metrics) (stop func()) {
	t.Helper()
	var raw map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(config), &raw))
	factory := prometheusreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig()
	require.NoError(t, confmap.NewFromStringMap(map[string]any{"config": raw}).Unmarshal(cfg))
	receiver, err := factory.CreateMetrics(context.Background(), receivertest.NewNopSettings(component.MustNewType("prometheus")), cfg, to)
	require.NoError(t, err)
	require.NoError(t, receiver.Start(context.Background(), componenttest.NewNopHost()))
	stop = sync.OnceFunc(func() { require.NoError(t, receiver.Shutdown(context.Background())) })
	t.Cleanup(stop)
	return stop
}

// TestScrapedMetricsAreStoredAsADirectScrapeStoresThem lets a Prometheus, and a
// Prometheus receiver with this exporter behind it, scrape the same pages, and
// compares every series that the two Prometheus servers store.
func TestScrapedMetricsAreStoredAsADirectScrapeStoresThem(t *testing.T) {
	pages := serve(t)
	began := time.Now()
	direct := startPrometheus(t, pages.config("direct")+"storage: {exemplars: {max_exemplars: 1000}}\n", "--enable-feature=exemplar-storage")
	ours := startPrometheus(t, lateData, "--enable-feature=exemplar-storage")
	exp := start(t, ours.writeURL(), nil)
	relay := &relayed{Metrics: exp, times: make(map[int64]bool)}
	scrape(t, pages.config("ours"), relay)

	require.Eventually(t, func() bool { return pages.allServed("direct") && pages.allServed("ours") }, time.Minute, 100*time.Millisecond)
	time.Sleep(time.Second) // the last scrapes are stored after they are served
	require.Empty(t, relay.problems())
	require.Empty(t, exp.counter(t, "longhaul_prometheus_samples_rejected"))

	want := index(t, direct.read(t, began.Add(-time.Minute), time.Now(), ".+"))
	got := index(t, ours.read(t, began.Add(-time.Minute), time.Now(), ".+"))
	times := relay.seen()
	for key, s := range got {
		for _, sample := range s.Samples {
			require.True(t, times[sample.Timestamp], "%s has a sample at a time that no scrape had", key)
		}
	}
	for key, s := range want {
		found, stored := got[key]
		if !stored {
			t.Errorf("missing: %s", key)
			continue
		}
		delete(got, key)
		if strings.HasPrefix(key, "scrape_duration_seconds{") {
			continue // its values are the scraper's own
		}
		if w, g := outcomes(key, valuesOf(s)), outcomes(key, valuesOf(found)); !slices.Equal(w, g) {
			t.Errorf("%s: scraped directly %x, through longhaul %x", key, w, g)
		}
	}
	for key := range got {
		if !strings.HasPrefix(key, "target_info{") {
			t.Errorf("not exposed: %s", key)
		}
	}
	t.Logf("%d series compared", len(want))

	wantExemplars, gotExemplars := direct.exemplars(t, began), ours.exemplars(t, began)
	require.Len(t, wantExemplars, 2)
	require.Equal(t, wantExemplars, gotExemplars)
}

// index finds series by their labels, without those that the relay adds.
func index(t *testing.T, all []*prompb.TimeSeries) map[string]*prompb.TimeSeries {
	t.Helper()
	byKey := make(map[string]*prompb.TimeSeries)
	for _, s := range all {
		labels := labelsOf(s, "__name__")
		if labels["cluster"] == "store-0001" {
			require.Equal(t, "node-a", labels["node"])
			delete(labels, "cluster")
			delete(labels, "node")
			// The page's own, as a scrape with target labels would keep them.
			if theirs, found := labels["exported_cluster"]; found {
				require.Equal(t, "their-cluster", theirs)
				require.Equal(t, "their-node", labels["exported_exported_node"])
				labels["cluster"], labels["node"] = theirs, labels["exported_exported_node"]
				delete(labels, "exported_cluster")
				delete(labels, "exported_exported_node")
			}
		}
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			fmt.Fprintf(&b, "%s=%q,", name, labels[name])
		}
		key := labelsOf(s)["__name__"] + "{" + b.String() + "}"
		require.NotContains(t, byKey, key)
		byKey[key] = s
	}
	return byKey
}

// outcomes are the bits of the values; how often a scraper tried a target that
// was down is left out.
func outcomes(key string, values []float64) []uint64 {
	bits := make([]uint64, len(values))
	for i, v := range values {
		bits[i] = math.Float64bits(v)
	}
	if strings.HasPrefix(key, "up{") || strings.HasPrefix(key, "scrape_") {
		return slices.Compact(bits)
	}
	return bits
}
