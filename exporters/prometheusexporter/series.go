package prometheusexporter

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// series is all that one call brings for one set of labels, in order of time.
type series struct {
	labels     labels.Labels
	family     string
	metadata   metadata.Metadata
	floats     []floatSample
	histograms []histogramSample
	exemplars  []exemplar.Exemplar
}

type floatSample struct {
	start, at int64 // unix milliseconds; start 0 if unknown
	value     float64
}

type histogramSample struct {
	start, at int64
	value     *histogram.Histogram
}

// collector gathers what the upstream translator makes. It is the appender the
// translator writes to, for one resource after another.
type collector struct {
	list   []*series
	byHash map[uint64][]*series

	// Of the resource being translated:
	promoted []labels.Label              // labels every series gets
	scraped  bool                        // by a Prometheus receiver
	types    map[string]model.MetricType // of scraped families, as exposed

	builder *labels.Builder
}

func newCollector() *collector {
	return &collector{
		byHash:  make(map[uint64][]*series),
		builder: labels.NewBuilder(labels.EmptyLabels()),
	}
}

var _ storage.AppenderV2 = (*collector)(nil)

// Append implements storage.AppenderV2.
func (c *collector) Append(_ storage.SeriesRef, ls labels.Labels, start, at int64, value float64,
	h *histogram.Histogram, _ *histogram.FloatHistogram, opts storage.AppendV2Options,
) (storage.SeriesRef, error) {
	if exposed, found := c.types[opts.MetricFamilyName]; found {
		opts.Metadata.Type = exposed
	}
	s := c.series(c.relabel(ls, opts.Metadata.Type), opts)
	if h != nil {
		s.histograms = append(s.histograms, histogramSample{start, at, h})
	} else {
		s.floats = append(s.floats, floatSample{start, at, value})
	}
	s.exemplars = append(s.exemplars, opts.Exemplars...)
	return 0, nil
}

// Commit implements storage.AppenderV2.
func (*collector) Commit() error { return nil }

// Rollback implements storage.AppenderV2.
func (*collector) Rollback() error { return nil }

func (c *collector) series(ls labels.Labels, opts storage.AppendV2Options) *series {
	hash := ls.Hash()
	for _, s := range c.byHash[hash] {
		if labels.Equal(s.labels, ls) {
			return s
		}
	}
	s := &series{labels: ls, family: opts.MetricFamilyName, metadata: opts.Metadata}
	c.byHash[hash] = append(c.byHash[hash], s)
	c.list = append(c.list, s)
	return s
}

// relabel makes of the translator's labels what a Prometheus that scrapes with
// the promoted labels as target labels would store: where a sample has a label
// of the same name it is kept as exported_<name>; and the bounds of scraped
// histograms and summaries are written as Prometheus writes them.
//
// The translator has set the promoted labels already where they were free.
func (c *collector) relabel(ls labels.Labels, kind model.MetricType) labels.Labels {
	changed := false
	change := func() *labels.Builder {
		if !changed {
			changed = true
			c.builder.Reset(ls)
		}
		return c.builder
	}
	for _, promoted := range c.promoted {
		if own := ls.Get(promoted.Name); own != promoted.Value {
			name := promoted.Name
			for change().Get(name) != "" {
				name = "exported_" + name
			}
			if own != "" {
				change().Set(name, own)
			}
			change().Set(promoted.Name, promoted.Value)
		}
	}
	if c.scraped {
		// The receiver names the family, the exposition the sample.
		const info = "_info"
		if name := ls.Get(model.MetricNameLabel); kind == model.MetricTypeInfo && !strings.HasSuffix(name, info) {
			change().Set(model.MetricNameLabel, name+info)
		}
		for _, bound := range []struct {
			label string
			kind  model.MetricType
		}{{model.BucketLabel, model.MetricTypeHistogram}, {model.QuantileLabel, model.MetricTypeSummary}} {
			if kind != bound.kind {
				continue
			}
			text := ls.Get(bound.label)
			if number, err := strconv.ParseFloat(text, 64); err == nil {
				if canonical := labels.FormatOpenMetricsFloat(number); canonical != text {
					change().Set(bound.label, canonical)
				}
			}
		}
	}
	if !changed {
		return ls
	}
	return c.builder.Labels()
}

// sorted returns the series with their samples in order of time, each once.
func (c *collector) sorted() []*series {
	for _, s := range c.list {
		s.floats = inOrder(s.floats, floatSample.time, func(a, b floatSample) bool {
			return a.at == b.at && math.Float64bits(a.value) == math.Float64bits(b.value)
		})
		s.histograms = inOrder(s.histograms, histogramSample.time, func(a, b histogramSample) bool {
			return a.at == b.at && a.value.Equals(b.value)
		})
		slices.SortStableFunc(s.exemplars, func(a, b exemplar.Exemplar) int { return compare(a.Ts, b.Ts) })
	}
	return c.list
}

func (s floatSample) time() int64     { return s.at }
func (s histogramSample) time() int64 { return s.at }

// inOrder sorts samples by time and drops those that say the same again, as
// target_info does once per scope.
func inOrder[S any](samples []S, at func(S) int64, same func(a, b S) bool) []S {
	byTime := func(a, b S) int { return compare(at(a), at(b)) }
	if !slices.IsSortedFunc(samples, byTime) {
		slices.SortStableFunc(samples, byTime)
	}
	return slices.CompactFunc(samples, same)
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *series) name() string { return strings.Clone(s.labels.Get(model.MetricNameLabel)) }
