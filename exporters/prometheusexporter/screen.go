package prometheusexporter

import (
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Reasons for which a data point is refused before it is sent, because
// Prometheus has no form for it.
const (
	reasonTemporality    = "unspecified_temporality"
	reasonHistogramScale = "histogram_scale"
	reasonBuckets        = "invalid_histogram"
	reasonLabelName      = "invalid_label_name"
	reasonMetricName     = "invalid_metric_name"
	reasonMetricType     = "unknown_metric_type"
)

// nameOf returns what the family of a metric is called in Prometheus, or why it cannot be
// translated.
func (t *translation) nameOf(m pmetric.Metric) (name, reason string) {
	temporality, known := temporalityOf(m)
	if !known {
		return "", reasonMetricType
	}
	if temporality == pmetric.AggregationTemporalityUnspecified {
		return "", reasonTemporality
	}
	name = m.Name()
	if !t.scraped {
		name = t.metricName(m)
	}
	if name == "" {
		return "", reasonMetricName
	}
	return name, ""
}

// temporalityOf returns cumulative for what has none.
func temporalityOf(m pmetric.Metric) (temporality pmetric.AggregationTemporality, known bool) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().AggregationTemporality(), true
	case pmetric.MetricTypeHistogram:
		return m.Histogram().AggregationTemporality(), true
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().AggregationTemporality(), true
	case pmetric.MetricTypeGauge, pmetric.MetricTypeSummary:
		return pmetric.AggregationTemporalityCumulative, true
	}
	return 0, false
}

func isDelta(m pmetric.Metric) bool {
	temporality, _ := temporalityOf(m)
	return temporality == pmetric.AggregationTemporalityDelta
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
