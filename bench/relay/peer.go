package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// requestsAtOnce are more than the gateway's cores.
const requestsAtOnce = 32

var exportMethod = map[frame.Signal]string{
	frame.Logs:    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
	frame.Metrics: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	frame.Traces:  "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}

// packed hands gRPC messages that are compressed already: what an edge's exporter
// does is not measured here.
type packed struct{}

func (packed) Name() string { return "zstd" }

func (packed) Compress(w io.Writer) (io.WriteCloser, error) { return passing{w}, nil }

// Decompress makes nothing of an answer: whether all arrived is seen at the sinks.
func (packed) Decompress(io.Reader) (io.Reader, error) { return strings.NewReader(""), nil }

type passing struct{ io.Writer }

func (passing) Close() error { return nil }

type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

func init() { encoding.RegisterCompressor(packed{}) }

// peer lets the gateway take the same telemetry by OTLP.
func (w *world) peer(ctx context.Context) (turn, error) {
	t := make(turn)
	for _, signal := range frame.Signals {
		if *w.frames[signal] == 0 {
			continue
		}
		f, err := w.send(ctx, signal)
		if err != nil {
			return t, fmt.Errorf("gateway, %s: %w", signal, err)
		}
		t[signal] = f
	}
	return t, nil
}

func (w *world) send(ctx context.Context, signal frame.Signal) (f *figures, err error) {
	s, err := w.newScene(signal)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.sink.Close()) }()
	say("making %d requests of %s", *w.frames[signal], signal)
	requests, err := s.requests()
	if err != nil {
		return nil, err
	}
	gateway, address, err := s.newGateway()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, gateway.Stop()) }()
	if err := gateway.Start(ctx); err != nil {
		return nil, err
	}
	if err := lab.Pause(ctx, startTime); err != nil {
		return nil, err
	}
	u, err := lab.UsageOf(gateway.PID())
	if err != nil {
		return nil, err
	}
	client, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.UseCompressor(packed{}.Name())))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return s.measure(ctx, gateway, u.CPU, func(ctx context.Context) error {
		sending, ctx := errgroup.WithContext(ctx)
		sending.SetLimit(requestsAtOnce)
		for i := range requests {
			sending.Go(func() error {
				var answer []byte
				return client.Invoke(ctx, exportMethod[signal], &requests[i], &answer)
			})
		}
		return sending.Wait()
	})
}

func (s *scene) newGateway() (p *lab.Process, address string, err error) {
	otlp, err := lab.FreePort()
	if err != nil {
		return nil, "", err
	}
	metrics, err := lab.FreePort()
	if err != nil {
		return nil, "", err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics)
	return lab.NewProcess(lab.Spec{
		Name:   "gateway",
		Binary: s.peerBinary,
		Args:   []string{"--config", filepath.Join(s.checkout, peerModule, "config.yaml")},
		Env: []string{
			fmt.Sprintf("PEER_OTLP_PORT=%d", otlp), fmt.Sprintf("PEER_METRICS_PORT=%d", metrics),
			"PEER_SINK=" + s.sink.URL, "PEER_JAEGER=" + s.sink.GRPC, "PEER_JAEGER_COMPRESSION=" + s.jaegerCompression,
		},
		LogFile: filepath.Join(s.dir, "peer", s.signal.String()+".log"),
		Ready:   func(ctx context.Context) error { _, err := lab.ReadMetrics(ctx, url); return err },
	}), fmt.Sprintf("127.0.0.1:%d", otlp), nil
}

// requests are all frames as an edge collector would send them: with cluster and
// node in the data, compressed as the frames are.
func (s *scene) requests() ([][]byte, error) {
	var all [][]byte
	decoder, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		return nil, err
	}
	err = s.each(func(node int, t *frames.Template, n *frames.Numbers) error {
		otlp, err := decoder.Decode(nil, t.AppendPayload(nil, n), t.OTLP)
		if err != nil {
			return err
		}
		if otlp, err = stamp(s.signal, otlp, originOf(node)); err != nil {
			return err
		}
		request, err := frame.CodecFor(s.signal).Encode(nil, otlp)
		all = append(all, request)
		return err
	})
	return all, err
}

// stamp names cluster and node on every resource. Of a scraped target's other
// attributes only job and instance are left: the gateway makes labels of them all.
func stamp(signal frame.Signal, otlp []byte, o hub.Origin) ([]byte, error) {
	on := func(resource pcommon.Resource) {
		resource.Attributes().PutStr("k8s.cluster.name", o.Cluster)
		resource.Attributes().PutStr("k8s.node.name", o.Node)
	}
	switch signal {
	case frame.Logs:
		logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
		if err != nil {
			return nil, err
		}
		for _, r := range logs.ResourceLogs().All() {
			on(r.Resource())
		}
		return (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	case frame.Metrics:
		metrics, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
		if err != nil {
			return nil, err
		}
		for _, r := range metrics.ResourceMetrics().All() {
			for _, name := range []string{"server.address", "server.port", "url.scheme"} {
				r.Resource().Attributes().Remove(name)
			}
			on(r.Resource())
		}
		return (&pmetric.ProtoMarshaler{}).MarshalMetrics(metrics)
	}
	traces, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
	if err != nil {
		return nil, err
	}
	for _, r := range traces.ResourceSpans().All() {
		on(r.Resource())
	}
	return (&ptrace.ProtoMarshaler{}).MarshalTraces(traces)
}

// relayConfig is longhaul-relay's own configuration.
const relayConfig = "relay/config/relay.yaml"

// jaegerCompression reads how longhaul-relay compresses what it sends to Jaeger: it
// makes much of the cost of a span, and has nothing to do with who sends it.
func jaegerCompression(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var config struct {
		Exporters map[string]struct {
			Compression string `yaml:"compression"`
		} `yaml:"exporters"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	jaeger, found := config.Exporters["otlp_grpc/jaeger"]
	if !found {
		return "", fmt.Errorf("%s has no exporter otlp_grpc/jaeger", path)
	}
	if jaeger.Compression == "" {
		return "gzip", nil // the exporter's default
	}
	return jaeger.Compression, nil
}
