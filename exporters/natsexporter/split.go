package natsexporter

import (
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/frame"
)

// part is a piece of a batch that was too large.
type part struct {
	otlp  []byte
	items int
	times timeRange
}

// split halves an OTLP request of at least two items, in their order.
func split(signal frame.Signal, otlp []byte, items int) ([2]part, error) {
	var halves [2]part
	for i := range halves {
		keep := half{upper: i == 1, at: items / 2}
		var err error
		if halves[i], err = keep.of(signal, otlp); err != nil {
			return halves, err
		}
	}
	return halves, nil
}

// half keeps the items below or from an index, counting them as they pass.
type half struct {
	upper bool
	at    int
	seen  int
}

func (h *half) drops() bool {
	h.seen++
	return (h.seen > h.at) != h.upper
}

func (h *half) of(signal frame.Signal, otlp []byte) (p part, err error) {
	switch signal {
	case frame.Logs:
		ld, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
		if err != nil {
			return p, err
		}
		ld.ResourceLogs().RemoveIf(func(resource plog.ResourceLogs) bool {
			resource.ScopeLogs().RemoveIf(func(scope plog.ScopeLogs) bool {
				scope.LogRecords().RemoveIf(func(plog.LogRecord) bool { return h.drops() })
				return scope.LogRecords().Len() == 0
			})
			return resource.ScopeLogs().Len() == 0
		})
		p.items, p.times = ld.LogRecordCount(), logTimes(ld)
		p.otlp, err = (&plog.ProtoMarshaler{}).MarshalLogs(ld)
		return p, err
	case frame.Metrics:
		md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
		if err != nil {
			return p, err
		}
		md.ResourceMetrics().RemoveIf(func(resource pmetric.ResourceMetrics) bool {
			resource.ScopeMetrics().RemoveIf(func(scope pmetric.ScopeMetrics) bool {
				scope.Metrics().RemoveIf(h.dropsPoints)
				return scope.Metrics().Len() == 0
			})
			return resource.ScopeMetrics().Len() == 0
		})
		p.items, p.times = md.DataPointCount(), metricTimes(md)
		p.otlp, err = (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
		return p, err
	default:
		td, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
		if err != nil {
			return p, err
		}
		td.ResourceSpans().RemoveIf(func(resource ptrace.ResourceSpans) bool {
			resource.ScopeSpans().RemoveIf(func(scope ptrace.ScopeSpans) bool {
				scope.Spans().RemoveIf(func(ptrace.Span) bool { return h.drops() })
				return scope.Spans().Len() == 0
			})
			return resource.ScopeSpans().Len() == 0
		})
		p.items, p.times = td.SpanCount(), traceTimes(td)
		p.otlp, err = (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
		return p, err
	}
}

// dropsPoints drops a metric's points of the other half, and says whether none is left.
func (h *half) dropsPoints(metric pmetric.Metric) bool {
	switch metric.Type() {
	case pmetric.MetricTypeGauge:
		points := metric.Gauge().DataPoints()
		points.RemoveIf(func(pmetric.NumberDataPoint) bool { return h.drops() })
		return points.Len() == 0
	case pmetric.MetricTypeSum:
		points := metric.Sum().DataPoints()
		points.RemoveIf(func(pmetric.NumberDataPoint) bool { return h.drops() })
		return points.Len() == 0
	case pmetric.MetricTypeHistogram:
		points := metric.Histogram().DataPoints()
		points.RemoveIf(func(pmetric.HistogramDataPoint) bool { return h.drops() })
		return points.Len() == 0
	case pmetric.MetricTypeExponentialHistogram:
		points := metric.ExponentialHistogram().DataPoints()
		points.RemoveIf(func(pmetric.ExponentialHistogramDataPoint) bool { return h.drops() })
		return points.Len() == 0
	case pmetric.MetricTypeSummary:
		points := metric.Summary().DataPoints()
		points.RemoveIf(func(pmetric.SummaryDataPoint) bool { return h.drops() })
		return points.Len() == 0
	}
	return h.upper // a metric without points goes with the first half
}
