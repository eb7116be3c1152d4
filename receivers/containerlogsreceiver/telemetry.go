package containerlogsreceiver

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// telemetry are the receiver's own metrics. Line counters advance when the
// pipeline has accepted the lines, so what is read again is not counted twice.
type telemetry struct {
	lines       metric.Int64Counter
	bytes       metric.Int64Counter
	malformed   metric.Int64Counter
	split       metric.Int64Counter
	invalidUTF8 metric.Int64Counter
	dropped     metric.Int64Counter
	limited     metric.Int64Counter
	skipped     metric.Int64Counter
	abandoned   metric.Int64Counter
	readErrors  metric.Int64Counter
	files       metric.Int64Gauge
}

func newTelemetry(provider metric.MeterProvider) (*telemetry, error) {
	meter := provider.Meter(ScopeName)
	var problems []error
	counter := func(name, unit, help string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(help))
		problems = append(problems, err)
		return c
	}
	t := &telemetry{
		lines: counter("longhaul_containerlogs_lines", "{line}",
			"Container log lines the pipeline has accepted."),
		bytes: counter("longhaul_containerlogs_bytes", "By",
			"Bytes of container log text (bodies) the pipeline has accepted."),
		malformed: counter("longhaul_containerlogs_malformed", "{line}",
			"Accepted lines that were neither CRI nor json-file; handed on as they are, with the time they were read."),
		split: counter("longhaul_containerlogs_truncated_lines", "{line}",
			"Accepted records that are a piece of a line longer than max_line_bytes, or whose end never came."),
		invalidUTF8: counter("longhaul_containerlogs_invalid_utf8", "{line}",
			"Accepted lines in which bytes that are not UTF-8 were replaced by U+FFFD."),
		dropped: counter("longhaul_containerlogs_dropped_lines", "{line}",
			"Lines lost because the pipeline refused their batch for good (a permanent error)."),
		limited: counter("longhaul_containerlogs_limited_lines", "{line}",
			"Lines that rate_limit left out, by namespace and container; a joined stack trace counts as one."),
		skipped: counter("longhaul_containerlogs_skipped_bytes", "By",
			"Bytes of old log lines that the very first start left unread (start_at)."),
		abandoned: counter("longhaul_containerlogs_abandoned_bytes", "By",
			"Bytes of deleted log files that were closed unread, because more than 1 GiB of such files was held open."),
		readErrors: counter("longhaul_containerlogs_read_errors", "{error}",
			"Failed attempts to open, inspect or read a log file or directory; each is tried again."),
	}
	var err error
	t.files, err = meter.Int64Gauge("longhaul_containerlogs_files", metric.WithUnit("{file}"),
		metric.WithDescription("Log files held open."))
	return t, errors.Join(append(problems, err)...)
}

// countLimited counts lines left out, once they count as read.
func (t *telemetry) countLimited(ctx context.Context, all []leftOut) {
	for _, l := range all {
		t.limited.Add(ctx, l.lines, metric.WithAttributes(
			attribute.String(attributeNamespace, strings.ToValidUTF8(l.namespace, "\uFFFD")),
			attribute.String(attributeContainer, strings.ToValidUTF8(l.container, "\uFFFD"))))
	}
}

func addSome(ctx context.Context, counter metric.Int64Counter, n int64) {
	if n > 0 {
		counter.Add(ctx, n)
	}
}
