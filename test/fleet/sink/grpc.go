package sink

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // what OTLP exporters compress with
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

const (
	traceService = "opentelemetry.proto.collector.trace.v1.TraceService"
	traceExport  = "/" + traceService + "/Export"
)

// raw keeps gRPC from decoding messages: they are walked as they came.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (s *Sink) prepareGRPC() (err error) {
	if s.options.Jaeger != "" {
		s.jaeger, err = grpc.NewClient(s.options.Jaeger, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
		if err != nil {
			return fmt.Errorf("connect to Jaeger: %w", err)
		}
	}
	s.grpc = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(maxRequest))
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: traceService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Export",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.export(ctx, decode)
			},
		}},
	}, s)
	return nil
}

func (s *Sink) export(ctx context.Context, decode func(any) error) (any, error) {
	var message, reply []byte
	if err := decode(&message); err != nil {
		return nil, err
	}
	if s.away.Load() {
		s.refused.Add(1)
		return nil, status.Error(codes.Unavailable, "the backend is away")
	}
	batch, err := takeOTLPTraces(message)
	if err != nil {
		s.complain(fmt.Errorf("OTLP traces: %w", err))
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if s.jaeger != nil {
		if err := s.jaeger.Invoke(ctx, traceExport, &message, &reply); err != nil {
			return nil, err
		}
	}
	batch.At, batch.Bytes = time.Now(), len(message)
	s.options.Taken(batch)
	return &reply, nil
}
