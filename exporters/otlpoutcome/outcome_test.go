package otlpoutcome

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// jaeger is a server of OTLP/gRPC that answers as told.
type jaeger struct {
	ptraceotlp.UnimplementedGRPCServer
	calls  atomic.Int32
	answer func(ctx context.Context, call int) (ptraceotlp.ExportResponse, error)
}

func (j *jaeger) Export(ctx context.Context, _ ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	return j.answer(ctx, int(j.calls.Add(1)))
}

func serve(t *testing.T, answer func(ctx context.Context, call int) (ptraceotlp.ExportResponse, error)) (*jaeger, string) {
	t.Helper()
	j := &jaeger{answer: answer}
	server := grpc.NewServer()
	ptraceotlp.RegisterGRPCServer(server, j)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return j, listener.Addr().String()
}

// start starts an exporter as the relay's configuration does.
func start(t *testing.T, factory exporter.Factory, more map[string]any) (exporter.Traces, *componenttest.Telemetry) {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(factory.Type())
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	set.Logger = zap.NewNop() // what is not logged is counted all the same
	cfg := factory.CreateDefaultConfig()
	conf := map[string]any{
		"tls": map[string]any{"insecure": true}, "compression": "none", "timeout": "10s",
		"sending_queue":    map[string]any{"enabled": false},
		"retry_on_failure": map[string]any{"enabled": true, "initial_interval": "10ms", "max_interval": "50ms", "max_elapsed_time": "1s"},
	}
	for key, value := range more {
		conf[key] = value
	}
	require.NoError(t, confmap.NewFromStringMap(conf).Unmarshal(cfg))
	require.NoError(t, confmap.Validate(cfg))
	traces, err := factory.CreateTraces(context.Background(), set, cfg)
	require.NoError(t, err)
	require.NoError(t, traces.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() {
		require.NoError(t, traces.Shutdown(context.Background()))
		require.NoError(t, telemetry.Shutdown(context.Background()))
	})
	return traces, telemetry
}

func overGRPC(t *testing.T, endpoint string, more map[string]any) (exporter.Traces, *componenttest.Telemetry) {
	t.Helper()
	conf := map[string]any{"endpoint": endpoint}
	for key, value := range more {
		conf[key] = value
	}
	return start(t, NewFactory(otlpexporter.NewFactory()), conf)
}

func spans(n int) ptrace.Traces {
	td := ptrace.NewTraces()
	list := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for range n {
		list.AppendEmpty().SetName("s")
	}
	return td
}

func rejected(t *testing.T, telemetry *componenttest.Telemetry) (n int64) {
	t.Helper()
	m, err := telemetry.GetMetric("longhaul_otlp_items_rejected")
	if err != nil {
		return 0
	}
	for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
		n += p.Value
	}
	return n
}

func TestWhatTheDataIsNotToBlameForIsRetryable(t *testing.T) {
	for code, permanent := range map[codes.Code]bool{
		codes.Unauthenticated: false, codes.PermissionDenied: false, codes.Unimplemented: false, codes.NotFound: false, codes.ResourceExhausted: false,
		codes.Unavailable: false, codes.InvalidArgument: true, codes.Internal: true,
	} {
		t.Run(code.String(), func(t *testing.T) {
			_, endpoint := serve(t, func(context.Context, int) (ptraceotlp.ExportResponse, error) {
				return ptraceotlp.NewExportResponse(), status.Error(code, "no")
			})
			traces, _ := overGRPC(t, endpoint, nil)
			err := traces.ConsumeTraces(context.Background(), spans(1))
			require.Error(t, err)
			require.Equal(t, permanent, consumererror.IsPermanent(err), "%v", err)
			require.ErrorContains(t, err, "no")
		})
	}
}

func TestATooLargeRequestIsRefusedForGood(t *testing.T) {
	_, endpoint := serve(t, func(context.Context, int) (ptraceotlp.ExportResponse, error) {
		return ptraceotlp.NewExportResponse(), nil
	})
	traces, _ := overGRPC(t, endpoint, nil)
	td := spans(1)
	td.ResourceSpans().At(0).Resource().Attributes().PutStr("large", string(make([]byte, 5<<20)))
	err := traces.ConsumeTraces(context.Background(), td)
	require.True(t, consumererror.IsPermanent(err), "%v", err)
}

func TestRetryInfoIsWaitedFor(t *testing.T) {
	var first, second time.Time
	server, endpoint := serve(t, func(_ context.Context, call int) (ptraceotlp.ExportResponse, error) {
		if call == 1 {
			first = time.Now()
			st, err := status.New(codes.ResourceExhausted, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(300 * time.Millisecond)})
			if err != nil {
				panic(err)
			}
			return ptraceotlp.NewExportResponse(), st.Err()
		}
		second = time.Now()
		return ptraceotlp.NewExportResponse(), nil
	})
	traces, _ := overGRPC(t, endpoint, map[string]any{"retry_on_failure": map[string]any{"enabled": true, "max_elapsed_time": "30s"}})
	require.NoError(t, traces.ConsumeTraces(context.Background(), spans(1)))
	require.Equal(t, int32(2), server.calls.Load())
	require.GreaterOrEqual(t, second.Sub(first), 300*time.Millisecond)
}

func TestAHangingServerIsGivenBackAsRetryable(t *testing.T) {
	_, endpoint := serve(t, func(ctx context.Context, _ int) (ptraceotlp.ExportResponse, error) {
		<-ctx.Done()
		return ptraceotlp.NewExportResponse(), ctx.Err()
	})
	traces, _ := overGRPC(t, endpoint, map[string]any{"timeout": "50ms", "retry_on_failure": map[string]any{"enabled": true, "initial_interval": "10ms", "max_interval": "20ms", "max_elapsed_time": "200ms"}})
	err := traces.ConsumeTraces(context.Background(), spans(1))
	require.Error(t, err)
	require.False(t, consumererror.IsPermanent(err), "%v", err)
}

func TestAServerThatIsAwayIsGivenBackAsRetryable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	endpoint := listener.Addr().String()
	require.NoError(t, listener.Close())
	traces, _ := overGRPC(t, endpoint, nil)
	err = traces.ConsumeTraces(context.Background(), spans(1))
	require.Error(t, err)
	require.False(t, consumererror.IsPermanent(err), "%v", err)
}

func partialResponse() ptraceotlp.ExportResponse {
	response := ptraceotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedSpans(2)
	response.PartialSuccess().SetErrorMessage("two spans without a name")
	return response
}

func TestSpansOfPartialSuccessAreCounted(t *testing.T) {
	_, endpoint := serve(t, func(context.Context, int) (ptraceotlp.ExportResponse, error) { return partialResponse(), nil })
	traces, telemetry := overGRPC(t, endpoint, nil)
	require.NoError(t, traces.ConsumeTraces(context.Background(), spans(5)))
	require.Equal(t, int64(2), rejected(t, telemetry))
}

func TestOverHTTPTheSame(t *testing.T) {
	var code atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, err := partialResponse().MarshalProto()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(int(code.Load()))
		_, _ = w.Write(body)
	}))
	defer server.Close()
	traces, telemetry := start(t, NewFactory(otlphttpexporter.NewFactory()), map[string]any{"endpoint": server.URL})
	for status, permanent := range map[int32]bool{401: false, 403: false, 404: false, 400: true} {
		code.Store(status)
		err := traces.ConsumeTraces(context.Background(), spans(1))
		require.Error(t, err)
		require.Equal(t, permanent, consumererror.IsPermanent(err), "%d: %v", status, err)
	}
	code.Store(http.StatusOK)
	require.NoError(t, traces.ConsumeTraces(context.Background(), spans(5)))
	require.Equal(t, int64(2), rejected(t, telemetry))
}

func TestOldNamesOfTheTypesGoOnWorking(t *testing.T) {
	for _, upstream := range []exporter.Factory{otlpexporter.NewFactory(), otlphttpexporter.NewFactory()} {
		ours := NewFactory(upstream)
		require.Equal(t, upstream.Type(), ours.Type())
		require.Equal(t, upstream.(aliased).DeprecatedAlias(), ours.(aliased).DeprecatedAlias())
		require.NotEqual(t, component.Type{}, ours.(aliased).DeprecatedAlias())
	}
}
