package prometheusexporter

import (
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// names remembers names that were made of other names, across calls.
type names struct {
	labels  map[string]string // "" if it cannot be one
	units   map[string]string
	metrics map[unnamed]string
	numbers map[number]string
}

type unnamed struct {
	name, unit string
	kind       otlptranslator.MetricType
}

// number is a bucket's bound or a quantile.
type number struct {
	value     float64
	canonical bool // as Prometheus writes it: "1.0"
}

func newNames() names {
	return names{make(map[string]string), make(map[string]string), make(map[unnamed]string), make(map[number]string)}
}

// maxNames bounds what is remembered.
const maxNames = 10_000

func (n *names) forget() {
	if len(n.labels)+len(n.units)+len(n.metrics)+len(n.numbers) > maxNames {
		*n = newNames()
	}
}

func (n *names) number(value float64, canonical bool) string {
	if math.IsNaN(value) { // equal to nothing, so never found again
		return labels.FormatOpenMetricsFloat(value)
	}
	key := number{value, canonical}
	text, known := n.numbers[key]
	if !known {
		text = strconv.FormatFloat(value, 'f', -1, 64)
		if canonical {
			text = labels.FormatOpenMetricsFloat(value)
		}
		n.numbers[key] = text
	}
	return text
}

// label is the name of the label for an attribute of instrumented metrics.
func (n *names) label(key string) (string, bool) {
	name, known := n.labels[key]
	if !known {
		namer := otlptranslator.LabelNamer{}
		if made, err := namer.Build(key); err == nil {
			name = strings.Clone(made)
		}
		n.labels[strings.Clone(key)] = name
	}
	return name, name != ""
}

func (n *names) unit(unit string) string {
	if unit == "" {
		return ""
	}
	name, known := n.units[unit]
	if !known {
		namer := otlptranslator.UnitNamer{}
		name = strings.Clone(namer.Build(unit))
		n.units[strings.Clone(unit)] = name
	}
	return name
}

// metricName is the name of an instrumented metric; empty if nothing is left.
func (n *names) metricName(m *metricMessage) string {
	key := unnamed{m.name, m.unit, otlptranslator.MetricTypeUnknown}
	switch m.kind {
	case pmetric.MetricTypeGauge:
		key.kind = otlptranslator.MetricTypeGauge
	case pmetric.MetricTypeSum:
		key.kind = otlptranslator.MetricTypeNonMonotonicCounter
		if m.monotonic {
			key.kind = otlptranslator.MetricTypeMonotonicCounter
		}
	case pmetric.MetricTypeSummary:
		key.kind = otlptranslator.MetricTypeSummary
	case pmetric.MetricTypeHistogram:
		key.kind = otlptranslator.MetricTypeHistogram
	case pmetric.MetricTypeExponentialHistogram:
		key.kind = otlptranslator.MetricTypeExponentialHistogram
	}
	name, known := n.metrics[key]
	if !known {
		namer := otlptranslator.MetricNamer{WithMetricSuffixes: true}
		if made, err := namer.Build(otlptranslator.Metric{Name: key.name, Unit: key.unit, Type: key.kind}); err == nil {
			name = strings.Clone(made)
		}
		n.metrics[unnamed{strings.Clone(key.name), strings.Clone(key.unit), key.kind}] = name
	}
	return name
}
