package lab

import (
	"bytes"
	"context"
	"fmt"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics is one reading of a Prometheus endpoint, by metric name. Histograms
// appear as their _sum, _count and _bucket.
type Metrics map[string][]*model.Sample

// ReadMetrics reads the endpoint at url, such as Collector.MetricsURL.
func ReadMetrics(ctx context.Context, url string) (Metrics, error) {
	body, err := get(ctx, url, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read metrics of %s: %w", url, err)
	}
	m := make(Metrics)
	for _, family := range families {
		samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{Timestamp: model.Now()}, family)
		if err != nil {
			return nil, fmt.Errorf("read metrics of %s: %w", url, err)
		}
		for _, s := range samples {
			name := string(s.Metric[model.MetricNameLabel])
			m[name] = append(m[name], s)
		}
	}
	return m, nil
}

// Sum adds up the samples of a metric whose labels include the given pairs
// (name, value, name, value…). A metric that is not there is 0.
func (m Metrics) Sum(name string, labels ...string) float64 {
	total := 0.0
	for _, s := range m[name] {
		if matches(s.Metric, labels) {
			total += float64(s.Value)
		}
	}
	return total
}

func matches(metric model.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if string(metric[model.LabelName(labels[i])]) != labels[i+1] {
			return false
		}
	}
	return true
}
