package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// exporter serves the scrapes of one exporter of the corpus, each once; before
// the next is released it answers 503.
type exporter struct {
	name   string
	server *httptest.Server

	mu       sync.Mutex
	pages    [][]byte
	released int
	served   int
	// done counts the pages whose scrape is over: the collector scrapes a
	// target again only after it has handed on the scrape before.
	done int
}

func newExporter(t *testing.T, name string, pages [][]byte) *exporter {
	e := &exporter{name: name, pages: pages}
	e.server = httptest.NewServer(e)
	t.Cleanup(e.server.Close)
	return e
}

func (e *exporter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = e.served
	if e.served == e.released {
		http.Error(w, "no page yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(e.pages[e.served])
	e.served++
}

// release lets the next page be scraped.
func (e *exporter) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.released++
}

// settled returns nil when every released page has been scraped and handed on.
func (e *exporter) settled() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done < e.released {
		return fmt.Errorf("%s: %d of %d pages scraped and handed on", e.name, e.done, e.released)
	}
	return nil
}

func allSettled(exporters []*exporter) error {
	var errs []error
	for _, e := range exporters {
		errs = append(errs, e.settled())
	}
	return errors.Join(errs...)
}

// writeScrapeFile tells the collector to scrape the exporters every second.
func writeScrapeFile(t *testing.T, dir string, exporters []*exporter) {
	t.Helper()
	var b strings.Builder
	for _, e := range exporters {
		fmt.Fprintf(&b, "- targets: [%q]\n  labels: {job: %q, __scrape_interval__: 1s, __scrape_timeout__: 1s}\n",
			strings.TrimPrefix(e.server.URL, "http://"), e.name)
	}
	tmp := filepath.Join(dir, "exporters.tmp")
	require.NoError(t, os.WriteFile(tmp, []byte(b.String()), 0o644))
	require.NoError(t, os.Rename(tmp, filepath.Join(dir, "exporters.yaml")))
}

// parsePage reads a page with Prometheus's own parser: value by series.
func parsePage(t *testing.T, page []byte) map[string]float64 {
	t.Helper()
	parser, err := textparse.New(page, "text/plain", labels.NewSymbolTable(), textparse.ParserOptions{})
	require.NoError(t, err)
	values := make(map[string]float64)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return values
		}
		require.NoError(t, err)
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := parser.Series()
		var l labels.Labels
		parser.Labels(&l)
		key := seriesKey(l.Map())
		require.NotContains(t, values, key)
		values[key] = value
	}
}

// added are the labels that say where a series was scraped.
var added = []string{"cluster", "node", "job", "instance"}

// seriesKey writes a series without the labels that were added on the way.
// Bounds are numbers: 1, 1.0 and 1e0 are the same one. An empty label is none:
// Prometheus, scraping the page itself, would not keep it either.
func seriesKey(series map[string]string) string {
	l := maps.Clone(series)
	for _, name := range added {
		delete(l, name)
	}
	maps.DeleteFunc(l, func(_, value string) bool { return value == "" })
	for _, bound := range []string{"le", "quantile"} {
		if f, err := strconv.ParseFloat(l[bound], 64); err == nil {
			l[bound] = strconv.FormatFloat(f, 'g', -1, 64)
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&b, "%s=%q ", name, l[name])
	}
	return b.String()
}

// sample is one value of one page, comparable: NaN equals NaN.
type sample struct {
	series string
	page   int
	value  string
}

func comparable64(v float64) string {
	if math.IsNaN(v) {
		return "NaN"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// sentSamples lists the samples of the pages.
func (e *exporter) sentSamples(t *testing.T) map[sample]int {
	t.Helper()
	sent := make(map[sample]int)
	for i, page := range e.pages {
		for series, value := range parsePage(t, page) {
			sent[sample{series, i, comparable64(value)}]++
		}
	}
	return sent
}

// foundSamples reads back the samples that come from the exporter's pages: all
// of the job but the scraper's own.
func (e *exporter) foundSamples(t *testing.T, p *lab.Prometheus, cluster string, from time.Time) (map[sample]int, error) {
	t.Helper()
	series, err := p.RawSamples(t.Context(), fmt.Sprintf(`{cluster=%q, job=%q}`, cluster, e.name), from.Add(-time.Minute), time.Now().Add(time.Minute))
	if err != nil {
		return nil, err
	}
	times := scrapeTimes(series)
	found := make(map[sample]int)
	for _, s := range series {
		if isScrapeReport(s.Labels["__name__"]) {
			continue
		}
		require.Equal(t, "node-a", s.Labels["node"], "%v", s.Labels)
		require.Equal(t, strings.TrimPrefix(e.server.URL, "http://"), s.Labels["instance"], "%v", s.Labels)
		require.Empty(t, s.Histograms, "%v", s.Labels)
		for _, v := range s.Samples {
			// A time nobody scraped at gives no page of e.pages.
			found[sample{seriesKey(s.Labels), slices.Index(times, v.Time), comparable64(v.Value)}]++
		}
	}
	return found, nil
}

// scrapeTimes are the times of the scrapes that succeeded.
func scrapeTimes(series []lab.Series) []int64 {
	var times []int64
	for _, s := range series {
		if s.Labels["__name__"] != "up" {
			continue
		}
		for _, v := range s.Samples {
			if v.Value == 1 {
				times = append(times, v.Time)
			}
		}
	}
	slices.Sort(times)
	return times
}

// isScrapeReport says whether the scraper itself, not the page, made a series.
func isScrapeReport(name string) bool {
	return name == "up" || name == "target_info" || strings.HasPrefix(name, "scrape_")
}
