package dashboards

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// patience is how long a query may take to return data. The collectors scrape
// themselves every 30 s, and a rate needs two scrapes.
const patience = 3 * time.Minute

// grafana stands for what Grafana does to a query.
type grafana struct {
	w      *world
	values map[string]string // of the dashboard's variables
}

// fill puts values for variables into a query.
func (g *grafana) fill(query string) string {
	values := map[string]string{
		"__rate_interval": "2m", // four times the data source's timeInterval
		"__range":         "15m",
		"__auto":          "1m",
	}
	for name, value := range g.values {
		values[name] = value
	}
	return regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`).ReplaceAllStringFunc(query, func(use string) string {
		if value, found := values[strings.Trim(use, "${}")]; found {
			return value
		}
		return use
	})
}

// points returns the numbers a metric query gives.
func (g *grafana) points(ctx context.Context, q target) ([]float64, error) {
	now, expr := time.Now(), g.fill(q.Expr)
	var series []lab.Series
	var err error
	switch {
	case q.Datasource.Type == "loki":
		series, err = g.w.loki.MetricRange(ctx, expr, now.Add(-5*time.Minute), now, 15*time.Second)
	case q.Instant:
		series, err = g.w.prometheus.Query(ctx, expr, now)
	default:
		series, err = g.w.prometheus.QueryRange(ctx, expr, now.Add(-5*time.Minute), now, 15*time.Second)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var points []float64
	for _, s := range series {
		for _, p := range s.Samples {
			if !math.IsNaN(p.Value) {
				points = append(points, p.Value)
			}
		}
	}
	return points, nil
}

// run runs a query of any kind and says how much it returned.
func (g *grafana) run(ctx context.Context, p panel, q target) (int, error) {
	switch {
	case q.Datasource.Type == "jaeger":
		traces, err := g.traces(ctx, q)
		return len(traces), err
	case p.Type == "logs":
		entries, err := g.w.loki.Entries(ctx, g.fill(q.Expr), time.Now().Add(-5*time.Minute), time.Now())
		return len(entries), err
	default:
		points, err := g.points(ctx, q)
		return len(points), err
	}
}

// traces is a search in Jaeger. Grafana turns "key=value" into JSON.
func (g *grafana) traces(ctx context.Context, q target) ([]lab.Span, error) {
	tags := map[string]string{}
	for _, pair := range strings.Fields(g.fill(q.Tags)) {
		key, value, _ := strings.Cut(pair, "=")
		tags[key] = value
	}
	asJSON, err := json.Marshal(tags)
	if err != nil {
		return nil, err
	}
	body, err := get(ctx, g.w.jaeger.URL+"/api/traces?"+url.Values{
		"service": {g.fill(q.Service)}, "tags": {string(asJSON)}, "limit": {"20"}, "lookback": {"1h"},
	}.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data []struct {
			TraceID string `json:"traceID"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var spans []lab.Span
	for _, trace := range answer.Data {
		spans = append(spans, lab.Span{TraceID: trace.TraceID})
	}
	return spans, nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// options are the values Grafana offers for a variable.
func (g *grafana) options(ctx context.Context, v variable) ([]string, error) {
	m := labelValues.FindStringSubmatch(v.Query)
	if m == nil {
		return nil, fmt.Errorf("%s: the test does not know the query %q", v.Name, v.Query)
	}
	selector, label, now := g.fill(m[1]), m[2], time.Now()
	var found []string
	if v.Datasource.Type == "loki" {
		series, err := g.w.loki.Metric(ctx, "sum by ("+label+") (count_over_time("+selector+"[1h]))", now)
		if err != nil {
			return nil, err
		}
		for _, s := range series {
			found = append(found, s.Labels[label])
		}
	} else {
		series, err := g.w.prometheus.SeriesLabels(ctx, selector, now.Add(-time.Hour), now)
		if err != nil {
			return nil, err
		}
		for _, labels := range series {
			found = append(found, labels[label])
		}
	}
	if v.Regex != "" {
		pattern, err := regexp.Compile(strings.Trim(v.Regex, "/"))
		if err != nil {
			return nil, err
		}
		for i, value := range found {
			found[i] = ""
			if m := pattern.FindStringSubmatch(value); m != nil {
				found[i] = m[len(m)-1]
			}
		}
	}
	slices.Sort(found)
	found = slices.DeleteFunc(slices.Compact(found), func(s string) bool { return s == "" })
	return found, nil
}

// disappointed is set by the first check that patience did not help: those that
// follow wait a moment only, so that a broken pipeline does not take an hour.
var disappointed bool

// eventually repeats until check is content or patience is over.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	end := time.Now().Add(patience)
	if disappointed {
		end = time.Now().Add(5 * time.Second)
	}
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil { // not that of the query that was cut short
			last = err
		}
		select {
		case <-ctx.Done():
			disappointed = true
			t.Errorf("%s: %v", what, last)
			return
		case <-time.After(2 * time.Second):
		}
	}
}

// selections are the values people choose: all and one of each, or each cluster
// in turn.
func selections(t *testing.T, w *world, d dashboard) []*grafana {
	t.Helper()
	all := []*grafana{{w: w, values: map[string]string{}}}
	for _, v := range d.Templating.List {
		switch v.Type {
		case "datasource":
		case "textbox":
			for _, g := range all {
				g.values[v.Name] = ""
			}
		case "query":
			all = choose(t, d, v, all)
		default:
			t.Fatalf("%s: variable %s has the type %s, which the test does not know", d.file, v.Name, v.Type)
		}
	}
	return all
}

func choose(t *testing.T, d dashboard, v variable, all []*grafana) []*grafana {
	t.Helper()
	var next []*grafana
	for _, g := range all {
		var options []string
		eventually(t, fmt.Sprintf("%s: variable %s with %v", d.file, v.Name, g.values), func(ctx context.Context) (err error) {
			options, err = g.options(ctx, v)
			want := 1
			if v.Name == "cluster" {
				want = 2 // both of the world
			}
			if err == nil && len(options) < want {
				err = fmt.Errorf("offers %q", options)
			}
			return err
		})
		if len(options) == 0 {
			t.FailNow()
		}
		if v.IncludeAll {
			g.values[v.Name] = v.AllValue
			next = append(next, g)
			options = options[:0] // all is the start, and enough
		}
		for _, option := range options {
			if v.Name != "cluster" && option != options[0] {
				break
			}
			if v.Name == "cluster" && !fed(option) {
				continue
			}
			one := &grafana{w: g.w, values: map[string]string{v.Name: option}}
			for name, value := range g.values {
				if name != v.Name {
					one.values[name] = value
				}
			}
			next = append(next, one)
		}
	}
	return next
}

// fed says whether a cluster has nodes with the whole application on them.
func fed(cluster string) bool {
	return slices.ContainsFunc(edges, func(e edge) bool { return e.cluster == cluster })
}

func TestEveryQueryReturnsData(t *testing.T) {
	w := theWorld(t)
	for _, d := range load(t) {
		for _, g := range selections(t, w, d) {
			for _, p := range d.Panels {
				for _, q := range p.Targets {
					what := fmt.Sprintf("%s: %s (%s) with %v", d.file, p.Title, q.RefID, g.values)
					eventually(t, what, func(ctx context.Context) error {
						n, err := g.run(ctx, p, q)
						if err == nil && n == 0 {
							err = fmt.Errorf("no data: %s", g.fill(q.Expr+q.Service))
						}
						return err
					})
				}
			}
		}
	}
}

// zero marks a query that has nothing to say in a healthy run and then answers 0.
const zero = "or on() vector(0)"

var metricName = regexp.MustCompile(`\b((?:longhaul|otelcol|http|system)_[a-z0-9_]+)(?:[{\[)]| offset)`)

// A query that answers 0 for want of data would also answer 0 for a name that
// does not exist. Every name in it must be an instrument of the programs, or be
// there.
func TestQueriesThatFallBackToZeroNameRealMetrics(t *testing.T) {
	w := theWorld(t)
	declared := instruments(t)
	for _, d := range load(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				if !strings.Contains(q.Expr, zero) {
					continue
				}
				names := metricName.FindAllStringSubmatch(q.Expr, -1)
				if len(names) == 0 {
					t.Errorf("%s: %s: no metric found in %s", d.file, p.Title, q.Expr)
				}
				for _, m := range names {
					name := m[1]
					if declared[name] {
						continue
					}
					eventually(t, d.file+": "+p.Title, func(ctx context.Context) error {
						series, err := w.prometheus.SeriesLabels(ctx, name, w.began, time.Now())
						if err == nil && len(series) == 0 {
							err = fmt.Errorf("%s is neither in Prometheus nor an instrument of the programs", name)
						}
						return err
					})
				}
			}
		}
	}
}

// instruments are the names under which the counters of our components, those too
// that can fall, appear in Prometheus.
func instruments(t *testing.T) map[string]bool {
	t.Helper()
	literal := regexp.MustCompile(`(counter|observed|Int64Counter|Int64UpDownCounter)\("(longhaul_[a-z_]+)"`)
	names := map[string]bool{}
	for _, root := range []string{"../../exporters", "../../receivers"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range literal.FindAllStringSubmatch(string(source), -1) {
				if m[1] == "Int64UpDownCounter" {
					names[m[2]] = true
				} else {
					names[m[2]+"_total"] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}
