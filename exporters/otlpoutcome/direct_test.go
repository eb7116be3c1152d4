package otlpoutcome

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap/zaptest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/longhaul/longhaul/internal/direct"
)

// store is a server of OTLP/gRPC that keeps what it does not refuse.
type store struct {
	ptraceotlp.UnimplementedGRPCServer
	// refuse, if not nil, is asked about each request before it is kept.
	refuse func(ctx context.Context, call int, td ptrace.Traces) error

	mu    sync.Mutex
	calls int
	kept  []ptrace.Traces
	heads []metadata.MD
}

func (s *store) Export(ctx context.Context, r ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	head, _ := metadata.FromIncomingContext(ctx)
	s.heads = append(s.heads, head)
	if s.refuse != nil {
		if err := s.refuse(ctx, s.calls, r.Traces()); err != nil {
			return ptraceotlp.NewExportResponse(), err
		}
	}
	td := ptrace.NewTraces()
	r.Traces().CopyTo(td)
	s.kept = append(s.kept, td)
	return ptraceotlp.NewExportResponse(), nil
}

// take returns what was kept, and forgets it.
func (s *store) take() (all []ptrace.Traces) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, s.kept, s.calls = s.kept, nil, 0
	return all
}

func listen(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) (endpoint string) {
	t.Helper()
	server := grpc.NewServer(options...)
	register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

func keep(t testing.TB, s *store, options ...grpc.ServerOption) (endpoint string) {
	return listen(t, func(server *grpc.Server) { ptraceotlp.RegisterGRPCServer(server, s) }, options...)
}

// directlyTo is an exporter that takes requests, to a server.
func directlyTo(t *testing.T, endpoint string, more map[string]any) (directTraces, *componenttest.Telemetry) {
	t.Helper()
	traces, telemetry := overGRPC(t, endpoint, more)
	e, ok := traces.(directTraces)
	require.True(t, ok)
	return e, telemetry
}

// named is a piece whose spans have a name.
func named(t testing.TB, name string, n int) direct.Piece {
	td := spans(n)
	for _, span := range td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().All() {
		span.SetName(name)
	}
	return direct.Piece{OTLP: marshal(t, td), Cluster: "c", Node: name}
}

// names are those of the spans, in order, without repetitions in a row.
func names(all []ptrace.Traces) (found []string) {
	for _, r := range merged(all).ResourceSpans().All() {
		for _, s := range r.ScopeSpans().All() {
			for _, span := range s.Spans().All() {
				if len(found) == 0 || found[len(found)-1] != span.Name() {
					found = append(found, span.Name())
				}
			}
		}
	}
	return found
}

func holds(td ptrace.Traces, name string) bool {
	copied := ptrace.NewTraces()
	td.CopyTo(copied)
	for _, found := range names([]ptrace.Traces{copied}) {
		if found == name {
			return true
		}
	}
	return false
}

func TestTheSameArrivesDirectlyAsByPdata(t *testing.T) {
	server := &store{}
	e, _ := directlyTo(t, keep(t, server, grpc.MaxRecvMsgSize(64<<20)), nil) // pdata goes in one request
	all := pieces(recorded(t))
	require.NoError(t, e.ConsumeTraces(context.Background(), byPdata(t, all)))
	want := marshal(t, merged(server.take()))
	require.NoError(t, e.ConsumeOTLP(context.Background(), all))
	require.Equal(t, want, marshal(t, merged(server.take())))
	require.Equal(t, server.heads[0], server.heads[len(server.heads)-1], "user agent, content type and all headers are the same")
}

func TestAServerIsSentNoMoreThanItTakes(t *testing.T) {
	server := &store{}
	e, telemetry := directlyTo(t, keep(t, server), nil) // takes 4 MiB, as gRPC servers do
	text := strings.Repeat("x", 1000)
	var all []direct.Piece
	for i, n := range []int{10, 1000, 3000, 3000, 9000, 10} {
		all = append(all, named(t, fmt.Sprintf("%s-%d", text, i), n))
	}
	require.NoError(t, e.ConsumeOTLP(context.Background(), all))
	require.Equal(t, spansOf(t, byPdata(t, all)), spansOf(t, merged(server.take())))
	require.Equal(t, int64(16020), sum(t, telemetry, "otelcol_exporter_sent_spans"))
}

func TestDirectlyToo(t *testing.T) {
	for code, permanent := range map[codes.Code]bool{
		codes.Unauthenticated: false, codes.PermissionDenied: false, codes.Unimplemented: false, codes.NotFound: false, codes.ResourceExhausted: false,
		codes.Unavailable: false, codes.DeadlineExceeded: false, codes.Aborted: false, codes.OutOfRange: false, codes.DataLoss: false, codes.Canceled: false,
		codes.InvalidArgument: true, codes.Internal: true, codes.Unknown: true, codes.FailedPrecondition: true, codes.AlreadyExists: true,
	} {
		t.Run("what the data is not to blame for is retryable: "+code.String(), func(t *testing.T) {
			_, endpoint := serve(t, func(context.Context, int) (ptraceotlp.ExportResponse, error) {
				return ptraceotlp.NewExportResponse(), status.Error(code, "no")
			})
			e, telemetry := directlyTo(t, endpoint, map[string]any{"retry_on_failure": map[string]any{"enabled": true, "initial_interval": "10ms", "max_interval": "20ms", "max_elapsed_time": "50ms"}})
			err := e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 3)})
			require.Error(t, err)
			require.Equal(t, permanent, consumererror.IsPermanent(err), "%v", err)
			require.ErrorContains(t, err, "no")
			require.Equal(t, int64(3), sum(t, telemetry, "otelcol_exporter_send_failed_spans"))

			pdata := e.ConsumeTraces(context.Background(), spans(1))
			require.Equal(t, permanent, consumererror.IsPermanent(pdata), "by pdata: %v", pdata)
		})
	}

	t.Run("what is unavailable for a while is tried again", func(t *testing.T) {
		server := &store{refuse: func(_ context.Context, call int, _ ptrace.Traces) error {
			if call < 3 {
				return status.Error(codes.Unavailable, "not yet")
			}
			return nil
		}}
		e, _ := directlyTo(t, keep(t, server), map[string]any{"retry_on_failure": map[string]any{"enabled": true, "initial_interval": "10ms", "max_elapsed_time": "30s"}})
		require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 1)}))
		require.Equal(t, []string{"a"}, names(server.take()))
	})

	t.Run("a time to come again is waited for", func(t *testing.T) {
		var first, second time.Time
		server := &store{refuse: func(_ context.Context, call int, _ ptrace.Traces) error {
			if call > 1 {
				second = time.Now()
				return nil
			}
			first = time.Now()
			st, err := status.New(codes.ResourceExhausted, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(300 * time.Millisecond)})
			return errors.Join(err, st.Err())
		}}
		e, _ := directlyTo(t, keep(t, server), map[string]any{"retry_on_failure": map[string]any{"enabled": true, "initial_interval": "1ms", "max_elapsed_time": "30s"}})
		require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 1)}))
		require.GreaterOrEqual(t, second.Sub(first), 300*time.Millisecond)
	})

	t.Run("a server that hangs is given up for now", func(t *testing.T) {
		_, endpoint := serve(t, func(ctx context.Context, _ int) (ptraceotlp.ExportResponse, error) {
			<-ctx.Done()
			return ptraceotlp.NewExportResponse(), ctx.Err()
		})
		e, _ := directlyTo(t, endpoint, map[string]any{"timeout": "50ms", "retry_on_failure": map[string]any{"enabled": true, "initial_interval": "10ms", "max_interval": "20ms", "max_elapsed_time": "100ms"}})
		e.limit = 100 // several requests
		err := e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 2), named(t, "b", 2), named(t, "c", 2)})
		require.Error(t, err)
		require.False(t, consumererror.IsPermanent(err), "%v", err)
		var partial *direct.PartialError
		require.False(t, errors.As(err, &partial), "all is to be delivered again")
	})

	t.Run("a server that is away is no refusal", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, listener.Close())
		e, _ := directlyTo(t, listener.Addr().String(), nil)
		err = e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 1)})
		require.Error(t, err)
		require.False(t, consumererror.IsPermanent(err), "%v", err)
	})

	t.Run("spans of partial success are counted", func(t *testing.T) {
		_, endpoint := serve(t, func(context.Context, int) (ptraceotlp.ExportResponse, error) { return partialResponse(), nil })
		e, telemetry := directlyTo(t, endpoint, nil)
		require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 5)}))
		require.Equal(t, int64(2), rejected(t, telemetry))
		require.NoError(t, e.ConsumeTraces(context.Background(), spans(5)))
		require.Equal(t, int64(4), rejected(t, telemetry), "by pdata as well")
	})

	t.Run("a span that is too large is refused for good", func(t *testing.T) {
		server := &store{}
		e, _ := directlyTo(t, keep(t, server), nil)
		err := e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, strings.Repeat("x", 5<<20), 1)})
		require.True(t, consumererror.IsPermanent(err), "%v", err)
	})
}

func TestNothingIsSentWhenAPieceIsMalformed(t *testing.T) {
	server := &store{}
	e, _ := directlyTo(t, keep(t, server), nil)
	e.limit = 100
	err := e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 3), named(t, "b", 3), {OTLP: []byte("bad")}})
	var undecodable *direct.UndecodableError
	require.ErrorAs(t, err, &undecodable)
	require.Equal(t, 2, undecodable.Piece)
	require.Zero(t, server.calls)
}

func TestWhatWasAcceptedIsNotSentAgain(t *testing.T) {
	var away bool
	server := &store{}
	server.refuse = func(_ context.Context, _ int, td ptrace.Traces) error {
		if away && holds(td, "b") {
			return status.Error(codes.Unavailable, "no")
		}
		return nil
	}
	e, _ := directlyTo(t, keep(t, server), map[string]any{"retry_on_failure": map[string]any{"enabled": false}})
	e.limit = 200
	all := []direct.Piece{named(t, "a", 10), named(t, "b", 10), named(t, "c", 10), named(t, "b", 60)}
	away = true
	err := e.ConsumeOTLP(context.Background(), all)
	var partial *direct.PartialError
	require.ErrorAs(t, err, &partial)
	require.False(t, consumererror.IsPermanent(err), "%v", err)
	require.Equal(t, []int{1, 3}, partial.Failed)
	require.Equal(t, []string{"a", "c"}, names(server.take()))

	away = false
	require.NoError(t, e.ConsumeOTLP(context.Background(), all), "all of them again, as the receiver may")
	require.Equal(t, []string{"b"}, names(server.take()))
	require.NoError(t, e.ConsumeOTLP(context.Background(), all[:1]))
	require.Equal(t, []string{"a"}, names(server.take()), "what came to its end is forgotten")
}

// Two frames may say the same: what was accepted of one is not accepted of the other.
func TestAPieceThatRepeatsAnotherIsDelivered(t *testing.T) {
	var away bool
	server := &store{}
	server.refuse = func(_ context.Context, call int, _ ptrace.Traces) error {
		if away && call > 1 {
			return status.Error(codes.Unavailable, "no")
		}
		return nil
	}
	e, _ := directlyTo(t, keep(t, server), map[string]any{"retry_on_failure": map[string]any{"enabled": false}})
	e.limit = 200
	one := named(t, "a", 10)
	all := []direct.Piece{one, one, one} // a request each
	away = true
	err := e.ConsumeOTLP(context.Background(), all)
	var partial *direct.PartialError
	require.ErrorAs(t, err, &partial)
	require.Equal(t, []int{1, 2}, partial.Failed)
	require.Equal(t, 10, merged(server.take()).SpanCount())

	away = false
	require.NoError(t, e.ConsumeOTLP(context.Background(), all))
	require.Equal(t, 20, merged(server.take()).SpanCount())
	require.NoError(t, e.ConsumeOTLP(context.Background(), all))
	require.Equal(t, 30, merged(server.take()).SpanCount(), "what came to its end is forgotten")
}

func TestAPartOfAPieceThatWasAcceptedIsNotSentAgain(t *testing.T) {
	server := &store{}
	server.refuse = func(_ context.Context, call int, _ ptrace.Traces) error {
		if call == 2 {
			return status.Error(codes.Unavailable, "no")
		}
		return nil
	}
	e, _ := directlyTo(t, keep(t, server), map[string]any{"retry_on_failure": map[string]any{"enabled": false}})
	e.limit = 300
	large := named(t, "a", 100)
	err := e.ConsumeOTLP(context.Background(), []direct.Piece{large})
	require.Error(t, err)
	require.False(t, consumererror.IsPermanent(err))
	first := merged(server.take())
	require.NotZero(t, first.SpanCount())
	require.Less(t, first.SpanCount(), 100)
	server.refuse = nil
	require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{large, named(t, "b", 1)}))
	require.Equal(t, 101, first.SpanCount()+merged(server.take()).SpanCount())
}

// deliver does what the receiver does: what is refused for good among others is
// looked for by halves.
func deliverAll(t *testing.T, e directTraces, all []direct.Piece) (refused []string) {
	t.Helper()
	err := e.ConsumeOTLP(context.Background(), all)
	switch {
	case err == nil:
		return nil
	case !consumererror.IsPermanent(err):
		require.NoError(t, err)
	case len(all) == 1:
		return []string{all[0].Node}
	}
	half := len(all) / 2
	return append(deliverAll(t, e, all[:half]), deliverAll(t, e, all[half:])...)
}

func TestWhatOneServerRefusesIsFoundAndTheRestArrivesOnce(t *testing.T) {
	server := &store{refuse: func(_ context.Context, _ int, td ptrace.Traces) error {
		if holds(td, "bad") {
			return status.Error(codes.InvalidArgument, "bad")
		}
		return nil
	}}
	e, _ := directlyTo(t, keep(t, server), nil)
	e.limit = 300
	var all []direct.Piece
	var good []string
	for i := range 20 {
		name := fmt.Sprint(i)
		if i == 3 || i == 11 {
			name = "bad"
		} else {
			good = append(good, name)
		}
		all = append(all, named(t, name, 3))
	}
	err := e.ConsumeOTLP(context.Background(), all)
	var partial *direct.PartialError
	require.ErrorAs(t, err, &partial)
	require.True(t, consumererror.IsPermanent(err))
	require.Contains(t, partial.Failed, 3)
	require.Contains(t, partial.Failed, 11)
	require.Less(t, len(partial.Failed), 20)
	require.Equal(t, []string{"bad", "bad"}, deliverAll(t, e, all))
	require.ElementsMatch(t, good, names(server.take()))
}

func TestAPartOfAPieceThatIsRefusedIsCounted(t *testing.T) {
	server := &store{refuse: func(_ context.Context, call int, _ ptrace.Traces) error {
		if call == 2 {
			return status.Error(codes.InvalidArgument, "bad")
		}
		return nil
	}}
	e, telemetry := directlyTo(t, keep(t, server), nil)
	e.limit = 300
	require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 100)}))
	arrived := int64(merged(server.take()).SpanCount())
	require.Less(t, arrived, int64(100))
	require.Equal(t, 100-arrived, rejected(t, telemetry))
}

func TestTheConnectionIsAsConfigured(t *testing.T) {
	certificate, file := selfSigned(t)
	server := &store{refuse: func(ctx context.Context, _ int, _ ptrace.Traces) error {
		if head, _ := metadata.FromIncomingContext(ctx); len(head.Get("x-tenant")) != 1 || head.Get("x-tenant")[0] != "stores" {
			return status.Error(codes.Unauthenticated, "who are you")
		}
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 30*time.Minute {
			return status.Error(codes.InvalidArgument, "not the timeout that is configured")
		}
		return nil
	}}
	wire := &wire{}
	e, _ := directlyTo(t, keep(t, server, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)), grpc.StatsHandler(wire)), map[string]any{
		"tls":     map[string]any{"insecure": false, "ca_file": file},
		"headers": map[string]any{"x-tenant": "stores"}, "compression": "gzip", "timeout": "1h",
	})
	require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 10)}))
	require.Equal(t, []string{"a"}, names(server.take()))
	require.Equal(t, "gzip", wire.compression.Load())
}

// wire notes how requests were compressed.
type wire struct{ compression atomic.Value }

func (w *wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (w *wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (w *wire) HandleConn(context.Context, stats.ConnStats) {}

func (w *wire) HandleRPC(_ context.Context, s stats.RPCStats) {
	if head, ok := s.(*stats.InHeader); ok {
		w.compression.Store(head.Compression)
	}
}

// selfSigned returns a certificate for 127.0.0.1 and the file of its authority.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// sum is the value of a counter, of all its attributes together.
func sum(t *testing.T, telemetry *componenttest.Telemetry, name string) (n int64) {
	t.Helper()
	m, err := telemetry.GetMetric(name)
	require.NoError(t, err)
	for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
		n += p.Value
	}
	return n
}

func TestTelemetryIsTheSameBothWays(t *testing.T) {
	server := &store{}
	e, telemetry := directlyTo(t, keep(t, server), nil)
	require.NoError(t, e.ConsumeTraces(context.Background(), spans(2)))
	require.NoError(t, e.ConsumeOTLP(context.Background(), []direct.Piece{named(t, "a", 3)}))
	m, err := telemetry.GetMetric("otelcol_exporter_sent_spans")
	require.NoError(t, err)
	points := m.Data.(metricdata.Sum[int64]).DataPoints
	require.Len(t, points, 1, "one series")
	require.Equal(t, int64(5), points[0].Value)
}

type logStore struct {
	plogotlp.UnimplementedGRPCServer
	got plogotlp.ExportRequest
}

func (s *logStore) Export(_ context.Context, r plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	s.got = r
	response := plogotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedLogRecords(1)
	return response, nil
}

type metricStore struct {
	pmetricotlp.UnimplementedGRPCServer
	got pmetricotlp.ExportRequest
}

func (s *metricStore) Export(_ context.Context, r pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	s.got = r
	response := pmetricotlp.NewExportResponse()
	response.PartialSuccess().SetRejectedDataPoints(1)
	return response, nil
}

func TestLogsAndMetricsGoDirectlyToo(t *testing.T) {
	logs, metrics := &logStore{}, &metricStore{}
	endpoint := listen(t, func(server *grpc.Server) {
		plogotlp.RegisterGRPCServer(server, logs)
		pmetricotlp.RegisterGRPCServer(server, metrics)
	})
	factory := NewFactory(otlpexporter.NewFactory())
	cfg := factory.CreateDefaultConfig().(*otlpexporter.Config)
	cfg.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
	cfg.ClientConfig.Endpoint, cfg.ClientConfig.TLS.Insecure = endpoint, true
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(factory.Type())
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	set.Logger = zaptest.NewLogger(t)
	toLogs, err := factory.CreateLogs(context.Background(), set, cfg)
	require.NoError(t, err)
	toMetrics, err := factory.CreateMetrics(context.Background(), set, cfg)
	require.NoError(t, err)
	for e, request := range map[component.Component][]byte{toLogs: logsRequest(t), toMetrics: metricsRequest(t)} {
		require.NoError(t, e.Start(context.Background(), componenttest.NewNopHost()))
		require.NoError(t, e.(direct.Consumer).ConsumeOTLP(context.Background(), pieces([][]byte{request})))
		require.NoError(t, e.Shutdown(context.Background()))
	}
	require.Equal(t, 2, logs.got.Logs().LogRecordCount())
	require.Equal(t, 6, metrics.got.Metrics().DataPointCount())
	node, _ := logs.got.Logs().ResourceLogs().At(0).Resource().Attributes().Get(direct.NodeAttribute)
	require.Equal(t, "n0", node.Str())
	require.Equal(t, int64(2), sum(t, telemetry, "otelcol_exporter_sent_log_records"))
	require.Equal(t, int64(6), sum(t, telemetry, "otelcol_exporter_sent_metric_points"))
	require.Equal(t, int64(2), rejected(t, telemetry))
	require.NoError(t, telemetry.Shutdown(context.Background()))
}

func TestRequestsAreNotTakenPastAQueueOrOverHTTP(t *testing.T) {
	for name, make := range map[string]func() (exporter.Factory, component.Config){
		"queue": func() (exporter.Factory, component.Config) {
			factory := NewFactory(otlpexporter.NewFactory())
			cfg := factory.CreateDefaultConfig().(*otlpexporter.Config) // with a queue
			cfg.ClientConfig.Endpoint = "127.0.0.1:1"
			return factory, cfg
		},
		"http": func() (exporter.Factory, component.Config) {
			factory := NewFactory(otlphttpexporter.NewFactory())
			cfg := factory.CreateDefaultConfig().(*otlphttpexporter.Config)
			cfg.ClientConfig.Endpoint = "http://127.0.0.1:1"
			return factory, cfg
		},
	} {
		factory, cfg := make()
		for _, create := range []func() (any, error){
			func() (any, error) {
				return factory.CreateTraces(context.Background(), exportertest.NewNopSettings(factory.Type()), cfg)
			},
			func() (any, error) {
				return factory.CreateMetrics(context.Background(), exportertest.NewNopSettings(factory.Type()), cfg)
			},
			func() (any, error) {
				return factory.CreateLogs(context.Background(), exportertest.NewNopSettings(factory.Type()), cfg)
			},
		} {
			e, err := create()
			require.NoError(t, err)
			_, ok := e.(direct.Consumer)
			require.False(t, ok, name)
		}
	}
}
