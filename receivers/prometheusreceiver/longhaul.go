package prometheusreceiver

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// What is ours in this package and not a cut: see README.md.

// lastDelivery is how long Shutdown lets a scrape that has been read be
// delivered: ample for a spool, and no wait for a backend that is away.
const lastDelivery = 2 * time.Second

var errStopped = errors.New("the receiver was stopped before the scrape was delivered")

// stoppable is the next consumer until stop: Prometheus's scrape manager waits
// for deliveries without a limit of its own.
type stoppable struct {
	consumer.Metrics
	stopped context.Context
	stop    context.CancelCauseFunc
}

func newStoppable(next consumer.Metrics) *stoppable {
	s := &stoppable{Metrics: next}
	s.stopped, s.stop = context.WithCancelCause(context.Background())
	return s
}

// ConsumeMetrics implements consumer.Metrics.
func (s *stoppable) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stopped, func() { cancel(context.Cause(s.stopped)) })()
	return s.Metrics.ConsumeMetrics(ctx, md)
}

// newLogHandler writes Prometheus's log lines to the collector's log, without
// stack traces. That a directory of target files is not there is said once for
// each and not every five minutes: on most nodes nobody put any.
func newLogHandler(core zapcore.Core) slog.Handler {
	return logHandler{
		Handler: zapslog.NewHandler(core, zapslog.AddStacktraceAt(slog.Level(math.MaxInt))),
		said:    &sync.Map{},
	}
}

const noFileWatch = "Error adding file watch"

type logHandler struct {
	slog.Handler
	said *sync.Map // directories
}

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if record.Message == noFileWatch {
		var path string
		record.Attrs(func(a slog.Attr) bool {
			if a.Key == "path" {
				path = a.Value.String()
			}
			return path == ""
		})
		if _, said := h.said.LoadOrStore(path, true); said {
			return nil
		}
		record.Level = slog.LevelWarn
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs), h.said}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name), h.said}
}
