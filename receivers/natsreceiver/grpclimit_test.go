package natsreceiver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"google.golang.org/grpc"

	"github.com/longhaul/longhaul/exporters/otlpoutcome"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// jaeger is an OTLP/gRPC server with the limit that servers have unless they are told:
// messages of up to 4 MiB.
type jaeger struct {
	ptraceotlp.UnimplementedGRPCServer
	mu    sync.Mutex
	spans map[string]int
}

func (j *jaeger) Export(_ context.Context, r ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, resource := range r.Traces().ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				j.spans[span.Name()]++
			}
		}
	}
	return ptraceotlp.NewExportResponse(), nil
}

func (j *jaeger) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.spans)
}

func startJaeger(t *testing.T) (*jaeger, string) {
	t.Helper()
	j, server := &jaeger{spans: make(map[string]int)}, grpc.NewServer()
	ptraceotlp.RegisterGRPCServer(server, j)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // until Stop
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return j, listener.Addr().String()
}

// encodeSpans makes a frame of spans that weigh much decoded and little on the wire.
func encodeSpans(t *testing.T, number uint64, spans, spanBytes int) []byte {
	t.Helper()
	td := ptrace.NewTraces()
	list := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for i := range spans {
		span := list.AppendEmpty()
		span.SetName(fmt.Sprint(number, "/", i))
		span.Attributes().PutStr("weight", strings.Repeat("x", spanBytes))
	}
	otlp, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
	if err != nil {
		t.Fatal(err)
	}
	codec := frame.CodecFor(frame.Traces)
	payload, err := codec.Encode(nil, otlp)
	if err != nil {
		t.Fatal(err)
	}
	return frame.Append(nil, &frame.Header{
		Codec: codec.ID(), Signal: frame.Traces, Class: frame.Live, Lane: 1, Items: uint32(spans), Epoch: epoch,
		Number: number, Floor: 1, Before: (number - 1) * uint64(spans), Uncompressed: uint32(len(otlp)), PayloadLen: uint32(len(payload)),
	}, payload)
}

// Many frames make one delivery by their compressed size. What a server refuses as one
// message of more than 4 MiB it has to get in smaller ones.
func TestADeliveryLargerThanAServerTakesArrivesInSmallerOnes(t *testing.T) {
	h, tel := startHub(t), componenttest.NewTelemetry()
	j, endpoint := startJaeger(t)
	exporters := otlpoutcome.NewFactory(otlpexporter.NewFactory())
	config := exporters.CreateDefaultConfig()
	err := confmap.NewFromStringMap(map[string]any{
		"endpoint": endpoint, "tls": map[string]any{"insecure": true},
		"sending_queue": map[string]any{"enabled": false}, "retry_on_failure": map[string]any{"enabled": false},
	}).Unmarshal(config)
	if err != nil {
		t.Fatal(err)
	}
	exporter, err := exporters.CreateTraces(t.Context(), exportertest.NewNopSettings(exporters.Type()), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := exporter.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := exporter.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})

	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	relay := defaultConfig()
	relay.Connection.URLs = h.ClientURL()
	relay.Streams.MaxBytes, relay.Streams.Partitions = 256<<20, 1
	r, err := NewFactory().CreateTraces(t.Context(), set, relay, exporter)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the relay reads", func() bool { return reads(r.(*core)) == 1 })

	js := r.(*core).js
	const frames, spans = 24, 29 // each as large as an edge makes them
	for n := uint64(1); n <= frames; n++ {
		msg := &nats.Msg{Subject: hub.FrameSubject(frame.Traces, store1), Data: encodeSpans(t, n, spans, 100<<10)}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all spans are delivered", func() bool { return j.count() == frames*spans })
	eventually(t, "the hub is empty", func() bool {
		stream, err := js.Stream(t.Context(), hub.StreamName(frame.Traces))
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, n := range j.spans {
		if n != 1 {
			t.Errorf("span %s arrived %d times", name, n)
		}
	}
	if lost := sum(t, tel, "longhaul_lost_items"); len(lost) != 0 {
		t.Errorf("named as lost: %v", lost)
	}
	stream, err := js.Stream(t.Context(), hub.RejectedStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d frames are rejected", n)
	}
}
