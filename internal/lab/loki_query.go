package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"time"
)

// lokiPageEntries is the most Loki is asked for at once; its limit is 50,000.
const lokiPageEntries = 20000

// ErrTooManyAtOnce says that more entries share one timestamp than fit a page.
var ErrTooManyAtOnce = errors.New("more entries with the same timestamp than fit a page")

// LogEntry is one log line as Loki returns it.
type LogEntry struct {
	Labels   map[string]string // the stream's labels; shared between entries
	Metadata map[string]string // structured metadata
	Time     int64             // Unix nanoseconds
	Line     string
}

// Entries returns every entry that a log query (a selector, or more) yields with
// from ≤ time < to, in order of time.
func (l *Loki) Entries(ctx context.Context, query string, from, to time.Time) ([]LogEntry, error) {
	var all []LogEntry
	for start := from.UnixNano(); ; {
		page, err := l.page(ctx, query, start, to.UnixNano())
		if err != nil {
			return nil, fmt.Errorf("query loki: %w", err)
		}
		if len(page) < lokiPageEntries {
			return append(all, page...), nil
		}
		// Entries of the last timestamp may go on beyond this page: take them
		// all with the next.
		last := page[len(page)-1].Time
		keep := sort.Search(len(page), func(i int) bool { return page[i].Time >= last })
		if keep == 0 {
			return nil, fmt.Errorf("query loki: %w: %d at %d", ErrTooManyAtOnce, len(page), last)
		}
		all = append(all, page[:keep]...)
		start = last
	}
}

func (l *Loki) page(ctx context.Context, query string, start, end int64) ([]LogEntry, error) {
	body, err := get(ctx, l.URL+"/loki/api/v1/query_range", url.Values{
		"query":     {query},
		"start":     {strconv.FormatInt(start, 10)},
		"end":       {strconv.FormatInt(end, 10)},
		"limit":     {strconv.Itoa(lokiPageEntries)},
		"direction": {"forward"},
	}, http.Header{"X-Loki-Response-Encoding-Flags": {"categorize-labels"}})
	if err != nil {
		return nil, err
	}
	var data struct {
		Result []struct {
			Stream map[string]string    `json:"stream"`
			Values [][3]json.RawMessage `json:"values"`
		} `json:"result"`
	}
	if err := decode(body, &data); err != nil {
		return nil, err
	}
	var page []LogEntry
	for _, s := range data.Result {
		for _, v := range s.Values {
			e, err := lokiEntry(s.Stream, v)
			if err != nil {
				return nil, err
			}
			page = append(page, e)
		}
	}
	sort.SliceStable(page, func(i, j int) bool { return page[i].Time < page[j].Time })
	return page, nil
}

// lokiEntry reads [time, line, {structuredMetadata, parsed}].
func lokiEntry(labels map[string]string, v [3]json.RawMessage) (LogEntry, error) {
	e := LogEntry{Labels: labels}
	var stamp string
	if err := json.Unmarshal(v[0], &stamp); err != nil {
		return e, fmt.Errorf("time of an entry: %w", err)
	}
	var err error
	if e.Time, err = strconv.ParseInt(stamp, 10, 64); err != nil {
		return e, fmt.Errorf("time of an entry: %w", err)
	}
	if err := json.Unmarshal(v[1], &e.Line); err != nil {
		return e, fmt.Errorf("line of an entry: %w", err)
	}
	if v[2] != nil {
		var extra struct {
			StructuredMetadata map[string]string `json:"structuredMetadata"`
		}
		if err := json.Unmarshal(v[2], &extra); err != nil {
			return e, fmt.Errorf("metadata of an entry: %w", err)
		}
		e.Metadata = extra.StructuredMetadata
	}
	return e, nil
}

// Metric evaluates a metric query (count_over_time and the like) at one time.
func (l *Loki) Metric(ctx context.Context, query string, at time.Time) ([]Series, error) {
	body, err := get(ctx, l.URL+"/loki/api/v1/query", url.Values{
		"query": {query}, "time": {strconv.FormatInt(at.UnixNano(), 10)},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("query loki: %w", err)
	}
	return readSeries(body)
}

// MetricRange evaluates a metric query over a range.
func (l *Loki) MetricRange(ctx context.Context, query string, from, to time.Time, step time.Duration) ([]Series, error) {
	body, err := get(ctx, l.URL+"/loki/api/v1/query_range", url.Values{
		"query": {query}, "start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(to.UnixNano(), 10)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("query loki: %w", err)
	}
	return readSeries(body)
}

// LabelValues returns the values of a label seen with from ≤ time < to.
func (l *Loki) LabelValues(ctx context.Context, label string, from, to time.Time) ([]string, error) {
	body, err := get(ctx, l.URL+"/loki/api/v1/label/"+url.PathEscape(label)+"/values", url.Values{
		"start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(to.UnixNano(), 10)},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("query loki: %w", err)
	}
	var values []string
	return values, decode(body, &values)
}
