package otlpoutcome

import (
	"fmt"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// signal is what differs between the signals in what is otherwise the same.
type signal struct {
	name    string // as the collector has it
	method  string // of the server
	dropped string // how upstream's log names the items of partial_success
	// item checks a Span, LogRecord or Metric, its own fields only, and returns how
	// many items upstream counts it as.
	item func(message []byte) (int, error)
}

var (
	tracesSignal = &signal{
		name: "traces", method: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
		dropped: "dropped_spans", item: checkSpan,
	}
	metricsSignal = &signal{
		name: "metrics", method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
		dropped: "dropped_data_points", item: checkMetric,
	}
	logsSignal = &signal{
		name: "logs", method: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
		dropped: "dropped_log_records", item: checkLogRecord,
	}
)

// count checks a ScopeSpans, ScopeLogs or ScopeMetrics message and returns the number
// of its items. One frame that a server cannot read would have it refuse the whole
// request; what is malformed deeper than this is left to the server, and then to be
// found by smaller requests.
func (s *signal) count(scope []byte) (items int, err error) {
	r := otlpwire.Read(scope)
	for r.Next() {
		switch r.Number {
		case 1, 3: // scope, schema_url
			r.Bytes()
		case scopesItems:
			n, err := s.item(r.Bytes())
			if err != nil {
				return items, err
			}
			items += n
		}
	}
	return items, r.Err()
}

func checkSpan(message []byte) (int, error) {
	r := otlpwire.Read(message)
	for r.Next() {
		var err error
		switch r.Number {
		case 1:
			err = checkID("trace_id", r.Bytes(), 16)
		case 2:
			err = checkID("span_id", r.Bytes(), 8)
		case 4:
			err = checkID("parent_span_id", r.Bytes(), 8)
		case 3, 5, 9, 11, 13, 15:
			r.Bytes()
		case 6, 10, 12, 14:
			r.Varint()
		case 7, 8:
			r.Fixed64()
		case 16:
			r.Fixed32()
		}
		if err != nil {
			return 0, err
		}
	}
	return 1, r.Err()
}

func checkLogRecord(message []byte) (int, error) {
	r := otlpwire.Read(message)
	for r.Next() {
		var err error
		switch r.Number {
		case 9:
			err = checkID("trace_id", r.Bytes(), 16)
		case 10:
			err = checkID("span_id", r.Bytes(), 8)
		case 3, 5, 6, 12:
			r.Bytes()
		case 2, 7:
			r.Varint()
		case 1, 11:
			r.Fixed64()
		case 8:
			r.Fixed32()
		}
		if err != nil {
			return 0, err
		}
	}
	return 1, r.Err()
}

// checkMetric counts data points, as upstream does.
func checkMetric(message []byte) (points int, err error) {
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1, 2, 3, 12:
			r.Bytes()
		case 5, 7, 9, 10, 11: // the kinds, of which the last counts
			points = 0
			data := otlpwire.Read(r.Bytes())
			for data.Next() {
				if data.Number == 1 {
					data.Bytes()
					points++
				}
			}
			if data.Err() != nil {
				return 0, data.Err()
			}
		}
	}
	return points, r.Err()
}

// checkID is for what servers refuse as malformed: an ID of another length.
func checkID(name string, id []byte, length int) error {
	if len(id) != 0 && len(id) != length {
		return fmt.Errorf("%w: a %s of %d bytes", otlpwire.ErrMalformed, name, len(id))
	}
	return nil
}
