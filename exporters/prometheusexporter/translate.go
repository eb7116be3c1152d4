package prometheusexporter

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	// typeKey is where the Prometheus receiver notes the type a family was
	// exposed with. Its presence tells that a metric was scraped.
	typeKey = "prometheus.type"
	// receiverScope is the scope of scraped metrics that name none themselves.
	receiverScope = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver"
)

// origin says how metrics came to be, which decides how they are named.
type origin int

const (
	// instrumented by OpenTelemetry: named by Prometheus's rules for OTLP, with
	// unit and type suffixes.
	instrumented origin = iota
	// scraped: names and labels are Prometheus's already.
	scraped
	// scrapedWithScope: likewise, and otel_scope_* were labels.
	scrapedWithScope
	origins
)

func originOf(scope pmetric.ScopeMetrics) origin {
	switch {
	case !isScraped(scope):
		return instrumented
	case scope.Scope().Name() == receiverScope:
		return scraped
	}
	return scrapedWithScope
}

func isScraped(scope pmetric.ScopeMetrics) bool {
	for _, m := range scope.Metrics().All() {
		if _, found := m.Metadata().Get(typeKey); found {
			return true
		}
	}
	return false
}

func (o origin) settings(promoted map[string]string) prometheusremotewrite.Settings {
	return prometheusremotewrite.Settings{
		ExternalLabels:                       promoted,
		AddMetricSuffixes:                    o == instrumented,
		AllowUTF8:                            o != instrumented,
		LabelNamePreserveMultipleUnderscores: o != instrumented,
		PromoteScopeMetadata:                 o == scrapedWithScope,
	}
}

// translator turns metrics into series. It changes nothing of md that it does
// not change back.
type translator struct {
	labels []resourceLabel // by label name
}

type resourceLabel struct{ label, attribute string }

func newTranslator(cfg *Config) translator {
	var t translator
	for attribute, label := range cfg.ResourceLabels {
		if label != "" {
			t.labels = append(t.labels, resourceLabel{label, attribute})
		}
	}
	slices.SortFunc(t.labels, func(a, b resourceLabel) int { return strings.Compare(a.label, b.label) })
	return t
}

func (t *translator) series(ctx context.Context, md pmetric.Metrics) ([]*series, error) {
	all := newCollector()
	var first error
	for _, resource := range md.ResourceMetrics().All() {
		promoted := t.promote(resource.Resource().Attributes(), all)
		for o := range origins {
			if err := t.translate(ctx, resource, o, promoted, all); err != nil && first == nil {
				first = err
			}
		}
	}
	return all.sorted(), first
}

// promote sets the labels that all series of a resource get.
func (t *translator) promote(attributes pcommon.Map, to *collector) map[string]string {
	byName := make(map[string]string, len(t.labels))
	to.promoted = to.promoted[:0]
	for _, l := range t.labels {
		if value, found := attributes.Get(l.attribute); found {
			if text := strings.ToValidUTF8(value.AsString(), "\uFFFD"); text != "" {
				byName[l.label] = text
				to.promoted = append(to.promoted, labels.Label{Name: l.label, Value: text})
			}
		}
	}
	return byName
}

// translate hands the scopes of one origin to the upstream translator, which
// takes whole pmetric.Metrics: they are moved into one of their own and back.
func (t *translator) translate(ctx context.Context, resource pmetric.ResourceMetrics, o origin, promoted map[string]string, to *collector) error {
	md := pmetric.NewMetrics()
	view := md.ResourceMetrics().AppendEmpty()
	var moved []int
	for i, scope := range resource.ScopeMetrics().All() {
		if scope.Metrics().Len() > 0 && originOf(scope) == o {
			moved = append(moved, i)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	to.scraped, to.types = o != instrumented, nil
	if to.scraped {
		to.types = make(map[string]model.MetricType)
	}
	for _, i := range moved {
		scope := resource.ScopeMetrics().At(i)
		for _, m := range scope.Metrics().All() {
			if exposed, found := m.Metadata().Get(typeKey); found && to.scraped {
				to.types[m.Name()] = model.MetricType(exposed.Str())
			}
		}
		scope.MoveTo(view.ScopeMetrics().AppendEmpty())
	}
	resource.Resource().Attributes().CopyTo(view.Resource().Attributes())
	view.Resource().Attributes().RemoveIf(func(name string, _ pcommon.Value) bool {
		return slices.ContainsFunc(t.labels, func(l resourceLabel) bool { return l.attribute == name })
	})

	converter := prometheusremotewrite.NewPrometheusConverter(to)
	_, err := converter.FromMetrics(ctx, md, o.settings(promoted))

	for k, i := range moved {
		view.ScopeMetrics().At(k).MoveTo(resource.ScopeMetrics().At(i))
	}
	return err
}
