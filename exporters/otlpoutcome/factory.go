// Package otlpoutcome gives upstream's OTLP exporters, which serve Jaeger, the
// manners the relay needs of its exporters. The edges delete what an exporter
// accepted or refused for good, so it must not do either lightly:
//   - An operator's mistake (credentials, rights, a wrong path) is no refusal of the
//     data: where upstream gives up, the error is made retryable, and the relay
//     delivers again until the mistake is corrected.
//   - The same for RESOURCE_EXHAUSTED without a time to come again, by which servers
//     also mean a quota; unless it says that the message is too large.
//   - What a server accepted only in part (partial_success) is counted:
//     longhaul_otlp_items_rejected. Upstream only logs it.
//
// Over gRPC and without a queue they take the requests of frames as well as pdata
// (direct.Consumer): splice.go writes the origin on the resources of a request and
// leaves all other bytes as they are, pack.go makes requests of the size that servers
// take, send.go sends them with upstream's configuration, and direct.go makes one
// answer of the servers'.
//
// All else is upstream's: types, configuration, retries.
package otlpoutcome

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/longhaul/longhaul/internal/direct"
)

const scopeName = "github.com/longhaul/longhaul/exporters/otlpoutcome"

// NewFactory returns upstream's factory with the outcomes put right.
func NewFactory(upstream exporter.Factory) exporter.Factory {
	f := exporter.NewFactory(upstream.Type(), upstream.CreateDefaultConfig,
		exporter.WithTraces(func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Traces, error) {
			next, beside, err := create(ctx, set, cfg, tracesSignal, upstream.CreateTraces)
			if err != nil || beside == nil {
				return traces{next}, err
			}
			return directTraces{traces{next}, beside}, nil
		}, upstream.TracesStability()),
		exporter.WithMetrics(func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Metrics, error) {
			next, beside, err := create(ctx, set, cfg, metricsSignal, upstream.CreateMetrics)
			if err != nil || beside == nil {
				return metrics{next}, err
			}
			return directMetrics{metrics{next}, beside}, nil
		}, upstream.MetricsStability()),
		exporter.WithLogs(func(ctx context.Context, set exporter.Settings, cfg component.Config) (exporter.Logs, error) {
			next, beside, err := create(ctx, set, cfg, logsSignal, upstream.CreateLogs)
			if err != nil || beside == nil {
				return logs{next}, err
			}
			return directLogs{logs{next}, beside}, nil
		}, upstream.LogsStability()),
	)
	// The old names of the types go on working, with upstream's warning.
	if old, ok := upstream.(aliased); ok {
		f.(aliased).SetDeprecatedAlias(old.DeprecatedAlias())
	}
	return f
}

type aliased interface {
	DeprecatedAlias() component.Type
	SetDeprecatedAlias(component.Type)
}

// create makes upstream's exporter and, where its configuration lets requests be sent
// as they are, what does that.
func create[E component.Component](ctx context.Context, set exporter.Settings, cfg component.Config, of *signal,
	upstream func(context.Context, exporter.Settings, component.Config) (E, error),
) (next E, beside *directly, err error) {
	counter, err := set.MeterProvider.Meter(scopeName).Int64Counter("longhaul_otlp_items_rejected",
		metric.WithDescription("Log records, data points and spans that an OTLP server refused for good while it accepted the rest of the request (partial_success) or of the frame."))
	if err != nil {
		return next, nil, fmt.Errorf("create metrics: %w", err)
	}
	attributes := metric.WithAttributes(attribute.String("exporter", set.ID.String()), attribute.String("signal", of.name))
	rejected := func(n int64) { counter.Add(context.Background(), n, attributes) }
	counting := set
	counting.Logger = set.Logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return partial{core, rejected}
	}))
	if next, err = upstream(ctx, counting, cfg); err != nil {
		return next, nil, err
	}
	grpc, ok := cfg.(*otlpexporter.Config)
	if !ok || grpc.QueueConfig.HasValue() {
		return next, nil, nil // a queue holds pdata, and takes it before the server has it
	}
	sender, err := newSender(ctx, set, grpc, of, rejected)
	if err != nil {
		return next, nil, err
	}
	return next, newDirectly(next, sender), nil
}

type (
	traces  struct{ exporter.Traces }
	metrics struct{ exporter.Metrics }
	logs    struct{ exporter.Logs }

	// Those that take requests as they are too: Start and Shutdown are of both.
	directTraces struct {
		traces
		*directly
	}
	directMetrics struct {
		metrics
		*directly
	}
	directLogs struct {
		logs
		*directly
	}
)

func (e traces) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	return outcome(e.Traces.ConsumeTraces(ctx, td))
}

func (e metrics) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	return outcome(e.Metrics.ConsumeMetrics(ctx, md))
}

func (e logs) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	return outcome(e.Logs.ConsumeLogs(ctx, ld))
}

var (
	_ consumer.Traces  = traces{}
	_ consumer.Metrics = metrics{}
	_ consumer.Logs    = logs{}

	_ direct.Consumer = directTraces{}
	_ direct.Consumer = directMetrics{}
	_ direct.Consumer = directLogs{}
)

// ErrNotTaken is wrapped by errors that upstream takes for final and that are not:
// the server may take the data later.
var ErrNotTaken = errors.New("the server did not take the request, because of how it or the exporter is set up or for want of room; the data is kept and sent again")

// outcome makes a permanent error retryable where the data is not to blame. The
// text of the error is kept, what says that it is permanent is not.
func outcome(err error) error {
	if err == nil || !consumererror.IsPermanent(err) || !mistake(err) {
		return err
	}
	return fmt.Errorf("%w: %s", ErrNotTaken, err)
}

func mistake(err error) bool {
	st, found := statusOf(err)
	if !found {
		return false
	}
	switch st.Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.NotFound:
		return true
	case codes.ResourceExhausted:
		return !strings.Contains(st.Message(), "larger than max")
	}
	return false
}

// statusOf finds a status anywhere in an error.
func statusOf(err error) (*status.Status, bool) {
	var with interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &with) {
		return nil, false
	}
	return with.GRPCStatus(), true
}

// partial is a log that counts the items of partial_success in what upstream says.
type partial struct {
	zapcore.Core
	count func(int64)
}

func (p partial) With(fields []zapcore.Field) zapcore.Core {
	return partial{p.Core.With(fields), p.count}
}

// Enabled is true for warnings, which are counted even where they are not logged.
func (p partial) Enabled(level zapcore.Level) bool {
	return level >= zapcore.WarnLevel || p.Core.Enabled(level)
}

func (p partial) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Level >= zapcore.WarnLevel {
		return checked.AddCore(entry, p)
	}
	return p.Core.Check(entry, checked)
}

func (p partial) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if strings.HasPrefix(entry.Message, "Partial success") {
		for _, f := range fields {
			switch f.Key {
			case "dropped_spans", "dropped_data_points", "dropped_log_records":
				p.count(f.Integer)
			}
		}
	}
	if !p.Core.Enabled(entry.Level) {
		return nil
	}
	return p.Core.Write(entry, fields)
}
