package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"
)

// Series is one time series of a query's answer.
type Series struct {
	Labels     map[string]string
	Samples    []Sample
	Histograms []HistogramSample // native histograms
}

// Sample is a value at a time.
type Sample struct {
	Time  int64 // Unix milliseconds
	Value float64
}

// HistogramSample is a native histogram at a time, in Prometheus's JSON form.
type HistogramSample struct {
	Time  int64 // Unix milliseconds
	Count float64
	Sum   float64
	JSON  json.RawMessage
}

// Query evaluates an expression at one time. A range selector such as
// up[1h] gives the raw samples.
func (p *Prometheus) Query(ctx context.Context, expression string, at time.Time) ([]Series, error) {
	body, err := postForm(ctx, p.URL+"/api/v1/query", url.Values{"query": {expression}, "time": {seconds(at)}})
	if err != nil {
		return nil, fmt.Errorf("query prometheus: %w", err)
	}
	return readSeries(body)
}

// QueryRange evaluates an expression over a range of time.
func (p *Prometheus) QueryRange(ctx context.Context, expression string, from, to time.Time, step time.Duration) ([]Series, error) {
	body, err := postForm(ctx, p.URL+"/api/v1/query_range", url.Values{
		"query": {expression}, "start": {seconds(from)}, "end": {seconds(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
	if err != nil {
		return nil, fmt.Errorf("query prometheus: %w", err)
	}
	return readSeries(body)
}

// RawSamples returns every stored sample of the series a selector matches, with
// from < time ≤ to, as written: no interpolation, no staleness markers.
func (p *Prometheus) RawSamples(ctx context.Context, selector string, from, to time.Time) ([]Series, error) {
	window := max(to.Sub(from).Milliseconds(), 1)
	return p.Query(ctx, fmt.Sprintf("%s[%dms]", selector, window), to)
}

// SeriesLabels returns the label sets of the series a selector matches.
func (p *Prometheus) SeriesLabels(ctx context.Context, selector string, from, to time.Time) ([]map[string]string, error) {
	body, err := postForm(ctx, p.URL+"/api/v1/series", url.Values{"match[]": {selector}, "start": {seconds(from)}, "end": {seconds(to)}})
	if err != nil {
		return nil, fmt.Errorf("query prometheus: %w", err)
	}
	var sets []map[string]string
	return sets, decode(body, &sets)
}

// Exemplar is an exemplar and the series it belongs to.
type Exemplar struct {
	SeriesLabels map[string]string
	Labels       map[string]string // trace_id and the like
	Value        float64
	Time         int64 // Unix milliseconds
}

// Exemplars returns the exemplars stored for a selector.
func (p *Prometheus) Exemplars(ctx context.Context, selector string, from, to time.Time) ([]Exemplar, error) {
	body, err := postForm(ctx, p.URL+"/api/v1/query_exemplars", url.Values{"query": {selector}, "start": {seconds(from)}, "end": {seconds(to)}})
	if err != nil {
		return nil, fmt.Errorf("query prometheus: %w", err)
	}
	var data []struct {
		SeriesLabels map[string]string `json:"seriesLabels"`
		Exemplars    []struct {
			Labels    map[string]string `json:"labels"`
			Value     string            `json:"value"`
			Timestamp json.Number       `json:"timestamp"`
		} `json:"exemplars"`
	}
	if err := decode(body, &data); err != nil {
		return nil, err
	}
	var all []Exemplar
	for _, s := range data {
		for _, e := range s.Exemplars {
			ms, err := milliseconds(e.Timestamp)
			if err != nil {
				return nil, err
			}
			value, err := strconv.ParseFloat(e.Value, 64)
			if err != nil {
				return nil, fmt.Errorf("value of an exemplar: %w", err)
			}
			all = append(all, Exemplar{SeriesLabels: s.SeriesLabels, Labels: e.Labels, Value: value, Time: ms})
		}
	}
	return all, nil
}

// readSeries reads a vector, a matrix or a scalar.
func readSeries(body []byte) ([]Series, error) {
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	if err := decode(body, &data); err != nil {
		return nil, err
	}
	if data.ResultType == "scalar" {
		s, err := readSample(data.Result)
		return []Series{{Samples: []Sample{s}}}, err
	}
	var rows []struct {
		Metric     map[string]string `json:"metric"`
		Value      json.RawMessage   `json:"value"`
		Values     []json.RawMessage `json:"values"`
		Histogram  json.RawMessage   `json:"histogram"`
		Histograms []json.RawMessage `json:"histograms"`
	}
	if err := json.Unmarshal(data.Result, &rows); err != nil {
		return nil, fmt.Errorf("understand a %s: %w", data.ResultType, err)
	}
	all := make([]Series, 0, len(rows))
	for _, row := range rows {
		s := Series{Labels: row.Metric}
		if row.Value != nil {
			row.Values = append(row.Values, row.Value)
		}
		if row.Histogram != nil {
			row.Histograms = append(row.Histograms, row.Histogram)
		}
		for _, raw := range row.Values {
			v, err := readSample(raw)
			if err != nil {
				return nil, err
			}
			s.Samples = append(s.Samples, v)
		}
		for _, raw := range row.Histograms {
			h, err := readHistogram(raw)
			if err != nil {
				return nil, err
			}
			s.Histograms = append(s.Histograms, h)
		}
		all = append(all, s)
	}
	return all, nil
}

// readPair reads [seconds, X].
func readPair(raw json.RawMessage, x any) (ms int64, err error) {
	var stamp json.Number
	pair := []any{&stamp, x}
	if err := json.Unmarshal(raw, &pair); err != nil {
		return 0, fmt.Errorf("understand a sample: %w", err)
	}
	return milliseconds(stamp)
}

func readSample(raw json.RawMessage) (Sample, error) {
	var text string
	ms, err := readPair(raw, &text)
	if err != nil {
		return Sample{}, err
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return Sample{}, fmt.Errorf("value of a sample: %w", err)
	}
	return Sample{Time: ms, Value: value}, nil
}

func readHistogram(raw json.RawMessage) (HistogramSample, error) {
	var h HistogramSample
	var err error
	if h.Time, err = readPair(raw, &h.JSON); err != nil {
		return h, err
	}
	var totals struct{ Count, Sum string }
	if err := json.Unmarshal(h.JSON, &totals); err != nil {
		return h, fmt.Errorf("understand a histogram: %w", err)
	}
	if h.Count, err = strconv.ParseFloat(totals.Count, 64); err != nil {
		return h, fmt.Errorf("count of a histogram: %w", err)
	}
	if h.Sum, err = strconv.ParseFloat(totals.Sum, 64); err != nil {
		return h, fmt.Errorf("sum of a histogram: %w", err)
	}
	return h, nil
}

// seconds is a time as the API takes it, exact to the millisecond.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// milliseconds reads seconds with up to three decimals exactly.
func milliseconds(n json.Number) (int64, error) {
	f, err := n.Float64()
	if err != nil {
		return 0, fmt.Errorf("time of a sample: %w", err)
	}
	return int64(math.Round(f * 1000)), nil
}
