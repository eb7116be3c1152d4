package otlpoutcome

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configgrpc"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exporterhelper/xexporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// sender sends requests over a connection of its own, which is made of the same
// configuration as upstream's. Timeout, retries and telemetry (otelcol_exporter_…)
// are the collector's own too: it is an exporter built with exporterhelper, whose
// requests are not made of pdata.
type sender struct {
	component.Component // exporterhelper's

	signal   *signal
	cfg      *otlpexporter.Config
	set      exporter.Settings
	rejected func(items int64)
	through  func(context.Context) error // exporterhelper's chain, which ends in invoke
	conn     *grpc.ClientConn
}

func newSender(ctx context.Context, set exporter.Settings, cfg *otlpexporter.Config, of *signal, rejected func(int64)) (*sender, error) {
	s := &sender{signal: of, cfg: cfg, set: set, rejected: rejected}
	options := []exporterhelper.Option{
		exporterhelper.WithTimeout(cfg.TimeoutConfig),
		exporterhelper.WithRetry(cfg.RetryConfig),
		exporterhelper.WithStart(s.start),
		exporterhelper.WithShutdown(s.shutdown),
		exporterhelper.WithAttrs(endpoint(cfg)...),
	}
	var err error
	switch of {
	case tracesSignal:
		var e exporter.Traces
		e, err = xexporterhelper.NewTracesRequest(ctx, set, requestOf[ptrace.Traces], s.invoke, options...)
		s.Component, s.through = e, func(ctx context.Context) error { return e.ConsumeTraces(ctx, ptrace.NewTraces()) }
	case metricsSignal:
		var e exporter.Metrics
		e, err = xexporterhelper.NewMetricsRequest(ctx, set, requestOf[pmetric.Metrics], s.invoke, options...)
		s.Component, s.through = e, func(ctx context.Context) error { return e.ConsumeMetrics(ctx, pmetric.NewMetrics()) }
	default:
		var e exporter.Logs
		e, err = xexporterhelper.NewLogsRequest(ctx, set, requestOf[plog.Logs], s.invoke, options...)
		s.Component, s.through = e, func(ctx context.Context) error { return e.ConsumeLogs(ctx, plog.NewLogs()) }
	}
	return s, err
}

// endpoint is what upstream adds to the attributes of its telemetry.
func endpoint(cfg *otlpexporter.Config) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(cfg.ClientConfig.Endpoint)
	if err != nil {
		return []attribute.KeyValue{attribute.String("server.address", cfg.ClientConfig.Endpoint)}
	}
	all := []attribute.KeyValue{attribute.String("server.address", host)}
	if number, err := strconv.Atoi(port); err == nil {
		all = append(all, attribute.Int("server.port", number))
	}
	return all
}

func (s *sender) start(ctx context.Context, host component.Host) (err error) {
	agent := fmt.Sprintf("%s/%s (%s/%s)", s.set.BuildInfo.Description, s.set.BuildInfo.Version, runtime.GOOS, runtime.GOARCH)
	s.conn, err = s.cfg.ClientConfig.ToClientConn(ctx, host.GetExtensions(), s.set.TelemetrySettings,
		configgrpc.WithGrpcDialOption(grpc.WithUserAgent(agent)))
	return err
}

func (s *sender) shutdown(context.Context) error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// send sends a request until there is an answer or the time for it is over.
func (s *sender) send(ctx context.Context, r *request) error {
	return outcome(s.through(context.WithValue(ctx, requestKey{}, r)))
}

// requestKey is how a request gets into exporterhelper's chain, whose entrance is for pdata.
type requestKey struct{}

func requestOf[T any](ctx context.Context, _ T) (xexporterhelper.Request, error) {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return nil, errors.New("no request in the context")
	}
	return r, nil
}

func (r *request) ItemsCount() int { return r.body.items }

func (r *request) BytesSize() int { return r.body.size }

// MergeSplit is for queues, of which there is none.
func (r *request) MergeSplit(context.Context, int, exporterhelper.RequestSizerType, xexporterhelper.Request) ([]xexporterhelper.Request, error) {
	return []xexporterhelper.Request{r}, nil
}

// invoke makes one attempt.
func (s *sender) invoke(ctx context.Context, r xexporterhelper.Request) error {
	if s.conn == nil {
		return errors.New("otlp exporter not started")
	}
	var answer response
	err := s.conn.Invoke(ctx, s.signal.method, r.(*request).body.list, &answer,
		grpc.ForceCodecV2(rawCodec{}), grpc.WaitForReady(s.cfg.ClientConfig.WaitForReady))
	if err != nil {
		return retryable(err)
	}
	if answer.message != "" || answer.rejected != 0 {
		s.set.Logger.Warn("Partial success response", zap.String("message", answer.message), zap.Int64(s.signal.dropped, answer.rejected))
		s.rejected(answer.rejected)
	}
	return nil
}

// retryable tells, as upstream does, by the status what is final and what is to be
// tried again, and when.
func retryable(err error) error {
	st := status.Convert(err)
	var info *errdetails.RetryInfo
	for _, detail := range st.Details() {
		if is, ok := detail.(*errdetails.RetryInfo); ok {
			info = is
			break
		}
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
	case codes.ResourceExhausted:
		if info == nil {
			return consumererror.NewPermanent(err)
		}
	default:
		return consumererror.NewPermanent(err)
	}
	if delay := info.GetRetryDelay().AsDuration(); delay != 0 {
		return exporterhelper.NewThrottleRetry(err, delay)
	}
	return err
}

// response is what matters of an Export…ServiceResponse: its partial_success.
type response struct {
	rejected int64
	message  string
}

func readResponse(b []byte) (found response, err error) {
	r := otlpwire.Read(b)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		partial := otlpwire.Read(r.Bytes())
		for partial.Next() {
			switch partial.Number {
			case 1:
				found.rejected = int64(partial.Varint())
			case 2:
				found.message = string(partial.Bytes())
			}
		}
		if partial.Err() != nil {
			return found, partial.Err()
		}
	}
	return found, r.Err()
}

// rawCodec passes requests on as they are.
type rawCodec struct{}

// Name is empty so that the content type is the same as upstream's: application/grpc.
func (rawCodec) Name() string { return "" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	list, ok := v.(mem.BufferSlice)
	if !ok {
		return nil, fmt.Errorf("a request of type %T", v)
	}
	return list, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) (err error) {
	answer, ok := v.(*response)
	if !ok {
		return fmt.Errorf("a response of type %T", v)
	}
	*answer, err = readResponse(data.Materialize())
	return err
}
