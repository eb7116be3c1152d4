package otlpoutcome

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configcompression"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/longhaul/longhaul/internal/direct"
)

// discard is a server that takes everything and looks at nothing, so that what is
// measured is the exporter and the transport.
func discard(b *testing.B) (endpoint string) {
	return listen(b, func(*grpc.Server) {}, grpc.MaxRecvMsgSize(64<<20), grpc.ForceServerCodecV2(unread{}),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			if err := stream.RecvMsg(nil); err != nil {
				return err
			}
			return stream.SendMsg(nil)
		}))
}

type unread struct{}

var _ encoding.CodecV2 = unread{}

func (unread) Name() string { return "" }

func (unread) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

func (unread) Unmarshal(mem.BufferSlice, any) error { return nil }

// BenchmarkTraces sends what the relay coalesces of many frames of traces, both ways:
// from the requests of frames to the server's acceptance. The CPU time is the whole
// process's, the idle server included.
func BenchmarkTraces(b *testing.B) {
	all := pieces(recorded(b))[:60]
	spans := byPdata(b, all).SpanCount()
	factory := NewFactory(otlpexporter.NewFactory())
	cfg := factory.CreateDefaultConfig().(*otlpexporter.Config)
	cfg.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
	cfg.ClientConfig.Compression = configcompression.Type("none")
	cfg.ClientConfig.TLS.Insecure = true
	cfg.ClientConfig.Endpoint = discard(b)
	e, err := factory.CreateTraces(context.Background(), exportertest.NewNopSettings(factory.Type()), cfg)
	require.NoError(b, err)
	require.NoError(b, e.Start(context.Background(), componenttest.NewNopHost()))
	b.Cleanup(func() { require.NoError(b, e.Shutdown(context.Background())) })
	for name, send := range map[string]func() error{
		"pdata": func() error {
			td := ptrace.NewTraces()
			for i := range all {
				one, err := readTraces(all[i].OTLP)
				if err != nil {
					return err
				}
				for _, r := range one.ResourceSpans().All() {
					stamp(&all[i], r.Resource())
				}
				one.ResourceSpans().MoveAndAppendTo(td.ResourceSpans())
			}
			return e.ConsumeTraces(context.Background(), td)
		},
		"direct": func() error { return e.(direct.Consumer).ConsumeOTLP(context.Background(), all) },
		"splice": func() error {
			_, err := pack(tracesSignal, all, maxRequestBytes, unanswered)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				if err := send(); err != nil {
					b.Fatal(err)
				}
			}
			total := float64(spans) * float64(b.N)
			b.ReportMetric(float64(cpuTime()-before)/total, "cpu-ns/span")
			b.ReportMetric(float64(b.Elapsed())/total, "ns/span")
		})
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
