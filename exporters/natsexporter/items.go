package natsexporter

import (
	"iter"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// timeRange is the first and last item time of a batch, unix nanoseconds; both
// 0 when no item has a time.
type timeRange struct{ first, last int64 }

func (r *timeRange) add(t pcommon.Timestamp) {
	if t != 0 {
		r.extend(timeRange{int64(t), int64(t)})
	}
}

func (r *timeRange) extend(other timeRange) {
	if other.first != 0 && (r.first == 0 || other.first < r.first) {
		r.first = other.first
	}
	r.last = max(r.last, other.last)
}

// logTimes takes the time a record was observed where it has none of its own.
func logTimes(ld plog.Logs) (r timeRange) {
	for _, resource := range ld.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if t := record.Timestamp(); t != 0 {
					r.add(t)
				} else {
					r.add(record.ObservedTimestamp())
				}
			}
		}
	}
	return r
}

// traceTimes takes when spans ended, which is when they were sent.
func traceTimes(td ptrace.Traces) (r timeRange) {
	for _, resource := range td.ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				r.add(span.EndTimestamp())
			}
		}
	}
	return r
}

func metricTimes(md pmetric.Metrics) (r timeRange) {
	for metric := range metrics(md) {
		switch metric.Type() {
		case pmetric.MetricTypeGauge:
			addTimes(&r, metric.Gauge().DataPoints().All())
		case pmetric.MetricTypeSum:
			addTimes(&r, metric.Sum().DataPoints().All())
		case pmetric.MetricTypeHistogram:
			addTimes(&r, metric.Histogram().DataPoints().All())
		case pmetric.MetricTypeExponentialHistogram:
			addTimes(&r, metric.ExponentialHistogram().DataPoints().All())
		case pmetric.MetricTypeSummary:
			addTimes(&r, metric.Summary().DataPoints().All())
		}
	}
	return r
}

func addTimes[P interface{ Timestamp() pcommon.Timestamp }](r *timeRange, points iter.Seq2[int, P]) {
	for _, point := range points {
		r.add(point.Timestamp())
	}
}

func metrics(md pmetric.Metrics) iter.Seq[pmetric.Metric] {
	return func(yield func(pmetric.Metric) bool) {
		for _, resource := range md.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					if !yield(metric) {
						return
					}
				}
			}
		}
	}
}
