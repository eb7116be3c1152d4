package prometheusexporter

import (
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/histogram"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Reasons for which a data point is refused before it is sent, because
// Prometheus has no form for it.
const (
	reasonDelta          = "delta_temporality"
	reasonTemporality    = "unspecified_temporality"
	reasonHistogramScale = "histogram_scale"
	reasonLabelName      = "invalid_label_name"
	reasonMetricName     = "invalid_metric_name"
	reasonMetricType     = "unknown_metric_type"
)

// screen takes out of md what cannot be translated, so that the rest can be
// translated whole, and returns how many data points that were by reason. The
// upstream translator would drop them, and in places their neighbours, with an
// error that does not count.
//
// It also gives stale histograms the sum that the scrape left out; without one
// their _sum series would never end.
func screen(md pmetric.Metrics) refusals {
	refused := make(refusals)
	for _, resource := range md.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			scraped := isScraped(scope)
			scope.Metrics().RemoveIf(func(m pmetric.Metric) bool {
				if reason := refuseMetric(m, scraped); reason != "" {
					refused.add(reason, points(m), m.Name())
					return true
				}
				screenPoints(m, scraped, refused)
				return points(m) == 0
			})
		}
	}
	return refused
}

func refuseMetric(m pmetric.Metric, scraped bool) string {
	temporality := pmetric.AggregationTemporalityCumulative
	switch m.Type() {
	case pmetric.MetricTypeSum:
		temporality = m.Sum().AggregationTemporality()
	case pmetric.MetricTypeHistogram:
		temporality = m.Histogram().AggregationTemporality()
	case pmetric.MetricTypeExponentialHistogram:
		temporality = m.ExponentialHistogram().AggregationTemporality()
	case pmetric.MetricTypeEmpty:
		return reasonMetricType
	}
	switch temporality {
	case pmetric.AggregationTemporalityDelta:
		return reasonDelta
	case pmetric.AggregationTemporalityUnspecified:
		return reasonTemporality
	}
	namer := otlptranslator.MetricNamer{UTF8Allowed: scraped, WithMetricSuffixes: !scraped}
	if _, err := namer.Build(otlptranslator.Metric{Name: m.Name(), Unit: m.Unit()}); err != nil {
		return reasonMetricName
	}
	return ""
}

func screenPoints(m pmetric.Metric, scraped bool, refused refusals) {
	named := func(attributes pcommon.Map) bool {
		if labelsHaveNames(attributes, scraped) {
			return true
		}
		refused.add(reasonLabelName, 1, m.Name())
		return false
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool {
			return !named(p.Attributes())
		})
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool {
			screenExemplars(p.Exemplars())
			return !named(p.Attributes())
		})
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool {
			return !named(p.Attributes())
		})
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool {
			if p.Flags().NoRecordedValue() && !p.HasSum() {
				p.SetSum(0)
			}
			screenExemplars(p.Exemplars())
			return !named(p.Attributes())
		})
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool {
			if p.Scale() < histogram.ExponentialSchemaMin {
				refused.add(reasonHistogramScale, 1, m.Name())
				return true
			}
			screenExemplars(p.Exemplars())
			return !named(p.Attributes())
		})
	}
}

// screenExemplars takes out exemplars without a value.
func screenExemplars(exemplars pmetric.ExemplarSlice) {
	exemplars.RemoveIf(func(e pmetric.Exemplar) bool {
		return e.ValueType() == pmetric.ExemplarValueTypeEmpty
	})
}

func labelsHaveNames(attributes pcommon.Map, scraped bool) bool {
	if scraped {
		return true // they were label names before
	}
	namer := otlptranslator.LabelNamer{}
	for name := range attributes.All() {
		if _, err := namer.Build(name); err != nil {
			return false
		}
	}
	return true
}

func points(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	}
	return 0
}
