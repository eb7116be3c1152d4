package dashboards

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/longhaul/longhaul/internal/lab"
)

// provisioned is the part of Grafana's provisioning that links signals.
type provisioned struct {
	Datasources []datasource `yaml:"datasources"`
}

type datasource struct {
	UID      string `yaml:"uid"`
	Type     string `yaml:"type"`
	URL      string `yaml:"url"`
	JSONData struct {
		DerivedFields []struct {
			Name          string `yaml:"name"`
			MatcherType   string `yaml:"matcherType"`
			MatcherRegex  string `yaml:"matcherRegex"`
			URL           string `yaml:"url"`
			DatasourceUID string `yaml:"datasourceUid"`
		} `yaml:"derivedFields"`
		Exemplars []struct {
			Name          string `yaml:"name"`
			DatasourceUID string `yaml:"datasourceUid"`
		} `yaml:"exemplarTraceIdDestinations"`
		TracesToLogs    spanLink `yaml:"tracesToLogsV2"`
		TracesToMetrics spanLink `yaml:"tracesToMetrics"`
	} `yaml:"jsonData"`
}

type spanLink struct {
	DatasourceUID string `yaml:"datasourceUid"`
	Tags          []struct{ Key, Value string }
	CustomQuery   bool   `yaml:"customQuery"`
	Query         string `yaml:"query"`
	Queries       []struct{ Name, Query string }
}

// dataSources reads the provisioning as Grafana does: $NAME and ${NAME} come from
// the environment, $$ is a $.
func dataSources(t *testing.T) map[string]datasource {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "provisioning/datasources/longhaul.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"LOKI_URL": "http://loki", "PROMETHEUS_URL": "http://prometheus", "JAEGER_URL": "http://jaeger"}
	text := regexp.MustCompile(`\$\$|\$\{?\w+\}?`).ReplaceAllStringFunc(string(raw), func(use string) string {
		if use == "$$" {
			return "$"
		}
		value, found := environment[strings.Trim(use, "${}")]
		if !found {
			t.Errorf("the provisioning uses %s, which the compose file does not set", use)
		}
		return value
	})
	var p provisioned
	if err := yaml.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	byUID := map[string]datasource{}
	for _, d := range p.Datasources {
		if d.UID != d.Type || !strings.HasPrefix(d.URL, "http://") {
			t.Errorf("data source %+v: want a uid like its type, and an address", d)
		}
		byUID[d.UID] = d
	}
	for _, uid := range []string{"loki", "prometheus", "jaeger"} {
		if _, found := byUID[uid]; !found {
			t.Fatalf("no data source %s", uid)
		}
	}
	return byUID
}

func TestLogLinesLeadToTheirTraces(t *testing.T) {
	w, loki := theWorld(t), dataSources(t)["loki"]
	fields := loki.JSONData.DerivedFields
	if len(fields) != 2 {
		t.Fatalf("%d derived fields", len(fields))
	}
	for _, f := range fields {
		if f.DatasourceUID != "jaeger" || f.URL != "${__value.raw}" {
			t.Errorf("%s leads to %s by %q", f.Name, f.DatasourceUID, f.URL)
		}
		eventually(t, "derived field "+f.Name, func(ctx context.Context) error {
			entries, err := w.loki.Entries(ctx, `{namespace="shop"}`, w.began, time.Now())
			if err != nil {
				return err
			}
			for _, e := range entries {
				id := ""
				if f.MatcherType == "label" {
					for name, value := range e.Metadata {
						if regexp.MustCompile("^(?:" + f.MatcherRegex + ")$").MatchString(name) {
							id = value
						}
					}
				} else if m := regexp.MustCompile(f.MatcherRegex).FindStringSubmatch(e.Line); m != nil {
					id = m[1]
				}
				if id != "" && traceExists(ctx, w, id) == nil {
					return nil
				}
			}
			return fmt.Errorf("none of %d lines led to a trace", len(entries))
		})
	}
}

func traceExists(ctx context.Context, w *world, id string) error {
	_, err := get(ctx, w.jaeger.URL+"/api/traces/"+id) // 404 when there is none
	return err
}

func TestExemplarsLeadToTheirTraces(t *testing.T) {
	w, prometheus := theWorld(t), dataSources(t)["prometheus"]
	destinations := prometheus.JSONData.Exemplars
	if len(destinations) != 1 || destinations[0].DatasourceUID != "jaeger" {
		t.Fatalf("exemplars lead to %+v", destinations)
	}
	panels := 0
	for _, d := range load(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				if !q.Exemplar {
					continue
				}
				panels++
				g := &grafana{w: w, values: map[string]string{"cluster": "store-0001", "service": ".+"}}
				eventually(t, d.file+": exemplars of "+p.Title, func(ctx context.Context) error {
					exemplars, err := w.prometheus.Exemplars(ctx, g.fill(q.Expr), w.began, time.Now())
					if err != nil {
						return err
					}
					for _, e := range exemplars {
						if id := e.Labels[destinations[0].Name]; id != "" && traceExists(ctx, w, id) == nil {
							return nil
						}
					}
					return fmt.Errorf("none of %d exemplars led to a trace", len(exemplars))
				})
			}
		}
	}
	if panels == 0 {
		t.Error("no panel shows exemplars")
	}
}

// tags are what Grafana puts in the place of ${__tags}: those of the span and its
// resource that the link names.
func tags(link spanLink, span lab.Span) string {
	var pairs []string
	for _, tag := range link.Tags {
		for _, from := range []map[string]any{span.Resource, span.Tags} {
			if value, found := from[tag.Key]; found {
				pairs = append(pairs, fmt.Sprintf("%s=%q", tag.Value, value))
				break
			}
		}
	}
	return strings.Join(pairs, ", ")
}

// spanOf waits for a span of the application's.
func spanOf(t *testing.T, w *world, service string) lab.Span {
	t.Helper()
	var span lab.Span
	eventually(t, "a span of "+service, func(ctx context.Context) error {
		spans, err := w.jaeger.Spans(ctx, service, w.began, time.Now())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(spans, func(s lab.Span) bool { return s.Service == service })
		if i < 0 {
			return errors.New("none yet")
		}
		span = spans[i]
		return nil
	})
	return span
}

func TestSpansLeadToTheirLogsAndMetrics(t *testing.T) {
	w, jaeger := theWorld(t), dataSources(t)["jaeger"]
	logs, metrics := jaeger.JSONData.TracesToLogs, jaeger.JSONData.TracesToMetrics
	if logs.DatasourceUID != "loki" || !logs.CustomQuery || metrics.DatasourceUID != "prometheus" || len(metrics.Queries) == 0 {
		t.Fatalf("links of spans: %+v, %+v", logs, metrics)
	}
	for _, service := range []string{"storefront", "orders", "payments"} {
		span := spanOf(t, w, service)
		query := strings.NewReplacer("${__tags}", tags(logs, span), "${__trace.traceId}", span.TraceID).Replace(logs.Query)
		eventually(t, "logs of a span of "+service, func(ctx context.Context) error {
			entries, err := w.loki.Entries(ctx, query, w.began, time.Now())
			if err == nil && len(entries) == 0 {
				err = fmt.Errorf("no lines: %s", query)
			}
			return err
		})
		for _, m := range metrics.Queries {
			g := &grafana{w: w, values: map[string]string{"__tags": tags(metrics, span)}}
			q := target{Expr: m.Query, Datasource: source{Type: "prometheus"}}
			eventually(t, m.Name+" of "+service, func(ctx context.Context) error {
				points, err := g.points(ctx, q)
				if err == nil && len(points) == 0 {
					err = fmt.Errorf("no data: %s", g.fill(m.Query))
				}
				return err
			})
		}
	}
}
