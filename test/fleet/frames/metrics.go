package frames

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// The names under which a Prometheus receiver's metrics are known.
const (
	scrapeScope = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver"
	scrapedType = "prometheus.type"
)

// startedBefore is how long the scraped programs have run.
const startedBefore = 26 * time.Hour

type metricsPrototype struct {
	metrics pmetric.Metrics
	samples int // of Prometheus: a summary has several
}

// newMetrics makes of a page what a Prometheus receiver makes of it.
func newMetrics(p page, job string) (*metricsPrototype, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(p.text))
	if err != nil {
		return nil, fmt.Errorf("scrape of %s: %w", p.job, err)
	}
	m := &metricsPrototype{metrics: pmetric.NewMetrics()}
	resource := m.metrics.ResourceMetrics().AppendEmpty()
	describeTarget(resource.Resource().Attributes(), job)
	scope := resource.ScopeMetrics().AppendEmpty()
	scope.Scope().SetName(scrapeScope)
	for _, name := range sortedNames(families) {
		if err := m.add(scope.Metrics().AppendEmpty(), families[name]); err != nil {
			return nil, fmt.Errorf("scrape of %s: %w", p.job, err)
		}
	}
	return m, nil
}

func sortedNames(families map[string]*dto.MetricFamily) []string {
	names := make([]string, 0, len(families))
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func describeTarget(attributes pcommon.Map, job string) {
	attributes.PutStr("service.name", job)
	attributes.PutStr("service.instance.id", "10.42.0.7:9100")
	attributes.PutStr("server.address", "10.42.0.7")
	attributes.PutStr("server.port", "9100")
	attributes.PutStr("url.scheme", "http")
}

func (m *metricsPrototype) add(to pmetric.Metric, family *dto.MetricFamily) error {
	to.SetName(family.GetName())
	to.SetDescription(family.GetHelp())
	kind := family.GetType()
	var points pmetric.NumberDataPointSlice
	switch kind {
	case dto.MetricType_COUNTER:
		to.Metadata().PutStr(scrapedType, "counter")
		sum := to.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		points = sum.DataPoints()
	case dto.MetricType_GAUGE, dto.MetricType_UNTYPED:
		to.Metadata().PutStr(scrapedType, map[bool]string{true: "gauge", false: "unknown"}[kind == dto.MetricType_GAUGE])
		points = to.SetEmptyGauge().DataPoints()
	case dto.MetricType_SUMMARY:
		to.Metadata().PutStr(scrapedType, "summary")
		to.SetEmptySummary()
	default:
		return fmt.Errorf("%s is a %s, which this does not translate", family.GetName(), kind)
	}
	for _, metric := range family.GetMetric() {
		if kind == dto.MetricType_SUMMARY {
			m.addSummary(to.Summary().DataPoints().AppendEmpty(), metric)
			continue
		}
		point := points.AppendEmpty()
		point.SetDoubleValue(metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue())
		setLabels(point.Attributes(), metric)
		m.samples++
	}
	return nil
}

func (m *metricsPrototype) addSummary(point pmetric.SummaryDataPoint, metric *dto.Metric) {
	summary := metric.GetSummary()
	point.SetCount(summary.GetSampleCount())
	point.SetSum(summary.GetSampleSum())
	for _, q := range summary.GetQuantile() {
		value := point.QuantileValues().AppendEmpty()
		value.SetQuantile(q.GetQuantile())
		value.SetValue(q.GetValue())
	}
	setLabels(point.Attributes(), metric)
	m.samples += len(summary.GetQuantile()) + 2
}

func setLabels(attributes pcommon.Map, metric *dto.Metric) {
	for _, label := range metric.GetLabel() {
		attributes.PutStr(label.GetName(), label.GetValue())
	}
}

// stamp says that everything was scraped at a time.
func (m *metricsPrototype) stamp(at time.Time) (oldest time.Time) {
	now, start := pcommon.NewTimestampFromTime(at), pcommon.NewTimestampFromTime(at.Add(-startedBefore).Truncate(startedBefore))
	for _, metric := range m.metrics.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		switch metric.Type() {
		case pmetric.MetricTypeSum:
			for _, point := range metric.Sum().DataPoints().All() {
				point.SetTimestamp(now)
				point.SetStartTimestamp(start)
			}
		case pmetric.MetricTypeGauge:
			for _, point := range metric.Gauge().DataPoints().All() {
				point.SetTimestamp(now)
			}
		case pmetric.MetricTypeSummary:
			for _, point := range metric.Summary().DataPoints().All() {
				point.SetTimestamp(now)
				point.SetStartTimestamp(start)
			}
		}
	}
	return at
}

func (m *metricsPrototype) count() (items, samples int) {
	return m.metrics.DataPointCount(), m.samples
}

func (m *metricsPrototype) marshal() ([]byte, error) {
	return (&pmetric.ProtoMarshaler{}).MarshalMetrics(m.metrics)
}

// marker is a metric of one more target, the same in all frames. Its series is that
// of the origin and lane; the value has the number.
func (m *metricsPrototype) marker() ([]byte, error) {
	marked := pmetric.NewMetrics()
	resource := marked.ResourceMetrics().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", markerProgram) // no more: target_info is made of the rest
	scope := resource.ScopeMetrics().AppendEmpty()
	scope.Scope().SetName(scrapeScope)
	metric := scope.Metrics().AppendEmpty()
	metric.SetName(MarkerMetric)
	metric.Metadata().PutStr(scrapedType, "gauge")
	point := metric.SetEmptyGauge().DataPoints().AppendEmpty()
	point.SetTimestamp(placeholderTime)
	point.SetDoubleValue(placeholderValue)
	point.Attributes().PutStr(MarkerLabel, placeholderLane)
	return (&pmetric.ProtoMarshaler{}).MarshalMetrics(marked)
}
