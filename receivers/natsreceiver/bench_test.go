package natsreceiver

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// benchFrames makes frames as edges do: by number and origin, each origin with an
// epoch of its own and one lane, numbered from 1.
func benchFrames(b *testing.B, signal frame.Signal, origins, numbers, items int) (frames [][][]byte) {
	b.Helper()
	codec := frame.CodecFor(signal)
	for number := range uint64(numbers) {
		otlp := benchOTLP(b, signal, items, int(number))
		payload, err := codec.Encode(nil, otlp)
		if err != nil {
			b.Fatal(err)
		}
		var all [][]byte
		for i := range origins {
			all = append(all, frame.Append(nil, &frame.Header{
				Codec: codec.ID(), Signal: signal, Class: frame.Live, Lane: 1, Items: uint32(items), Epoch: epoch + frame.Epoch(i),
				Number: number + 1, Floor: 1, Before: number * uint64(items), Uncompressed: uint32(len(otlp)), Last: time.Now().UnixNano(),
			}, payload))
		}
		frames = append(frames, all)
	}
	return frames
}

func benchOTLP(b testing.TB, signal frame.Signal, items, salt int) (otlp []byte) {
	b.Helper()
	var err error
	const perResource = 25
	switch signal {
	case frame.Logs:
		logs := plog.NewLogs()
		var records plog.LogRecordSlice
		for i := range items {
			if i%perResource == 0 {
				r := logs.ResourceLogs().AppendEmpty()
				for key, value := range map[string]string{"k8s.namespace.name": "shop", "k8s.pod.name": fmt.Sprint("kitchen-display-7d9c5b6f4-", i), "k8s.container.name": "app", "service.name": "kitchen-display"} {
					r.Resource().Attributes().PutStr(key, value)
				}
				records = r.ScopeLogs().AppendEmpty().LogRecords()
			}
			record := records.AppendEmpty()
			record.SetTimestamp(1767225600000000000)
			record.SetObservedTimestamp(1767225600000000000)
			record.SetSeverityNumber(plog.SeverityNumberInfo)
			record.Attributes().PutStr("log.iostream", "stdout")
			record.Body().SetStr(fmt.Sprintf("2026-01-01T00:00:%02d.%03dZ INFO order %d accepted at register %d, total %d.%02d, tickets %d", i%60, i%1000, salt*1000+i, i%7, i%90, i%100, i%5))
		}
		otlp, err = (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	case frame.Metrics:
		metrics := pmetric.NewMetrics()
		r := metrics.ResourceMetrics().AppendEmpty()
		r.Resource().Attributes().PutStr("service.name", "node")
		scope := r.ScopeMetrics().AppendEmpty()
		for i := range items {
			m := scope.Metrics().AppendEmpty()
			m.SetName(fmt.Sprint("node_metric_", i/4))
			p := m.SetEmptyGauge().DataPoints().AppendEmpty()
			p.SetTimestamp(1767225600000000000)
			p.SetDoubleValue(float64(salt*i) / 7)
			p.Attributes().PutStr("device", fmt.Sprint("sd", i%4))
			p.Attributes().PutStr("mountpoint", "/var/lib")
		}
		otlp, err = (&pmetric.ProtoMarshaler{}).MarshalMetrics(metrics)
	case frame.Traces:
		traces := ptrace.NewTraces()
		r := traces.ResourceSpans().AppendEmpty()
		r.Resource().Attributes().PutStr("service.name", "orders")
		scope := r.ScopeSpans().AppendEmpty()
		for i := range items {
			span := scope.Spans().AppendEmpty()
			span.SetName("POST /orders")
			span.SetTraceID(pcommon.TraceID{byte(i), byte(salt), 1})
			span.SetSpanID(pcommon.SpanID{byte(i), 1})
			span.SetStartTimestamp(1767225600000000000)
			span.SetEndTimestamp(1767225600000000000)
			span.Attributes().PutStr("http.request.method", "POST")
			span.Attributes().PutStr("http.route", "/orders")
			span.Attributes().PutInt("http.response.status_code", 200)
		}
		otlp, err = (&ptrace.ProtoMarshaler{}).MarshalTraces(traces)
	}
	if err != nil {
		b.Fatal(err)
	}
	return otlp
}

// BenchmarkDeliver is the path of a frame through the relay without the hub: from
// the message to the exporters' hands and the ledger.
func BenchmarkDeliver(b *testing.B) {
	for _, c := range []struct {
		signal frame.Signal
		items  int
	}{{frame.Logs, 50}, {frame.Logs, 1000}, {frame.Metrics, 200}, {frame.Metrics, 2000}} {
		b.Run(fmt.Sprintf("%s/%d", c.signal, c.items), func(b *testing.B) { benchmarkDeliver(b, c.signal, c.items) })
	}
}

func benchmarkDeliver(b *testing.B, signal frame.Signal, items int) {
	to, taken := discard(b, signal)
	const numbers = 20
	origins := max(1, 20_000/items)
	frames := benchFrames(b, signal, origins, numbers, items)
	subjects := make([]string, origins)
	for i := range subjects {
		subjects[i] = hub.StoredSubject(signal, hub.Origin{Cluster: fmt.Sprintf("store-%04d", i), Node: "a"}, 16)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		o, p := unconnected(b, signal, to)
		r := &reader{share: p.shares[0], signal: signal, out: o, sources: make(map[string]*source)}
		w := o.workers[0]
		b.StartTimer()
		for _, number := range frames {
			for i, data := range number {
				if err := r.route(b.Context(), &nats.Msg{Subject: subjects[i], Data: data}); err != nil {
					b.Fatal(err)
				}
				n += items
			}
			batch := &batch{}
			for a := w.in.pop(); a != nil; a = w.in.pop() {
				w.judge(a, batch)
			}
			if result := w.attempt(b.Context(), batch.arrivals); result.err != nil || result.undecodable != nil {
				b.Fatal(result.err, result.undecodable)
			}
			w.accept(batch.arrivals)
		}
		b.StopTimer()
		p.discardAll()
		b.StartTimer()
	}
	if *taken != n {
		b.Fatalf("%d items arrived of %d", *taken, n)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
}

func discard(b *testing.B, signal frame.Signal) (sink, *int) {
	taken := new(int)
	switch signal {
	case frame.Logs:
		next, err := consumer.NewLogs(func(_ context.Context, ld plog.Logs) error { *taken += ld.LogRecordCount(); return nil })
		if err != nil {
			b.Fatal(err)
		}
		return logsTo(next), taken
	default:
		next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error { *taken += md.DataPointCount(); return nil })
		if err != nil {
			b.Fatal(err)
		}
		return metricsTo(next), taken
	}
}

// BenchmarkDecodedMemory measures what a byte of OTLP takes when decoded, for decodedBytes.
func BenchmarkDecodedMemory(b *testing.B) {
	for _, signal := range frame.Signals {
		b.Run(signal.String(), func(b *testing.B) {
			otlp := benchOTLP(b, signal, 2000, 1)
			kept := make([]any, 0, b.N)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for range b.N {
				switch signal {
				case frame.Logs:
					one, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
					if err != nil {
						b.Fatal(err)
					}
					kept = append(kept, one)
				case frame.Traces:
					one, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
					if err != nil {
						b.Fatal(err)
					}
					kept = append(kept, one)
				default:
					one, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
					if err != nil {
						b.Fatal(err)
					}
					kept = append(kept, one)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N)/float64(len(otlp)), "B/B")
			runtime.KeepAlive(kept)
		})
	}
}
