package frames

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/frame"
)

const corpusDir = "../../../" + CorpusDir

func decode(t *testing.T, raw []byte) (frame.Header, []byte) {
	t.Helper()
	h, payload, n, err := frame.Parse(raw)
	require.NoError(t, err)
	require.Len(t, raw, n)
	codec, err := frame.CodecByID(h.Codec)
	require.NoError(t, err)
	otlp, err := codec.Decode(nil, payload, int(h.Uncompressed))
	require.NoError(t, err)
	return h, otlp
}

// Whoever gets the data can read from it which frame it was, in every signal.
func TestAFrameCarriesItsNumbersInItsData(t *testing.T) {
	maker, err := NewMaker(corpusDir, DefaultSizes)
	require.NoError(t, err)
	at := time.Now()
	round, err := maker.Round(at)
	require.NoError(t, err)
	numbers := Numbers{
		Origin: 8999, Life: 3, Epoch: 0x1234567890abcdef, Lane: 7, Number: 1<<33 + 5, Floor: 1 << 33, Before: 99,
		Written: at.Add(123 * time.Millisecond), Skew: -time.Minute,
	}
	for signal, templates := range round {
		for _, template := range templates {
			raw, _ := template.AppendFrame(nil, nil, &numbers)
			h, otlp := decode(t, raw)
			require.Equal(t, numbers.Epoch, h.Epoch)
			require.Equal(t, numbers.Number, h.Number)
			require.Equal(t, numbers.Before, h.Before)
			require.Equal(t, numbers.Written.Add(-time.Minute).UnixNano(), h.Last)
			items, found := readMarker(t, signal, otlp)
			require.EqualValues(t, h.Items, items)
			require.WithinDuration(t, numbers.Written, found.Written, time.Millisecond)
			found.Written = time.Time{}
			require.Equal(t, Marker{Signal: signal, Origin: 8999, Life: 3, Lane: 7, Number: 1<<33 + 5, Samples: uint16(template.Samples)}, found)

			again, _ := template.AppendFrame(nil, nil, &numbers)
			require.Equal(t, raw, again, "a frame that is sent again is the same")
		}
	}
}

func readMarker(t *testing.T, signal frame.Signal, otlp []byte) (items int, m Marker) {
	t.Helper()
	var err error
	switch signal {
	case frame.Logs:
		logs, parse := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
		require.NoError(t, parse)
		resource := logs.ResourceLogs().At(logs.ResourceLogs().Len() - 1)
		m, err = ParseLine([]byte(resource.ScopeLogs().At(0).LogRecords().At(0).Body().Str()))
		items = logs.LogRecordCount()
	case frame.Metrics:
		metrics, parse := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
		require.NoError(t, parse)
		metric := metrics.ResourceMetrics().At(metrics.ResourceMetrics().Len() - 1).ScopeMetrics().At(0).Metrics().At(0)
		require.Equal(t, MarkerMetric, metric.Name())
		point := metric.Gauge().DataPoints().At(0)
		label, _ := point.Attributes().Get(MarkerLabel)
		m, err = ParseSample(label.Str(), point.DoubleValue(), point.Timestamp().AsTime().UnixMilli())
		items = metrics.DataPointCount()
	case frame.Traces:
		traces, parse := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
		require.NoError(t, parse)
		span := traces.ResourceSpans().At(traces.ResourceSpans().Len() - 1).ScopeSpans().At(0).Spans().At(0)
		require.Equal(t, MarkerSpan, span.Name())
		trace, id := span.TraceID(), span.SpanID()
		m, err = ParseSpan(trace[:], id[:], uint64(span.StartTimestamp()))
		items = traces.SpanCount()
	}
	require.NoError(t, err)
	return items, m
}

func BenchmarkFrame(b *testing.B) {
	maker, err := NewMaker(corpusDir, DefaultSizes)
	require.NoError(b, err)
	round, err := maker.Round(time.Now())
	require.NoError(b, err)
	for _, signal := range frame.Signals {
		b.Run(signal.String(), func(b *testing.B) {
			template := round[signal][0]
			var dst, scratch []byte
			for b.Loop() {
				dst, scratch = template.AppendFrame(dst[:0], scratch, &Numbers{Number: 1, Lane: 1})
			}
			b.ReportMetric(float64(len(dst)), "B/frame")
			b.ReportMetric(float64(template.OTLP), "OTLP-B/frame")
			b.ReportMetric(float64(template.Items), "items/frame")
		})
	}
}

func BenchmarkRound(b *testing.B) {
	maker, err := NewMaker(corpusDir, DefaultSizes)
	require.NoError(b, err)
	for b.Loop() {
		_, err := maker.Round(time.Now())
		require.NoError(b, err)
	}
}
