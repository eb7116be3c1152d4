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
func (t *translation) nameOf(m *metricMessage) (name, reason string) {
	if m.kind == pmetric.MetricTypeEmpty {
		return "", reasonMetricType
	}
	if m.temporality == pmetric.AggregationTemporalityUnspecified {
		return "", reasonTemporality
	}
	name = m.name
	if !t.scraped {
		name = t.metricName(m)
	}
	if name == "" {
		return "", reasonMetricName
	}
	return name, ""
}
