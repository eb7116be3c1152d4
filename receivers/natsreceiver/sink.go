package natsreceiver

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/hub"
)

// sink hands the telemetry of several frames to one signal's pipeline, as one
// piece. Each content is the OTLP of one frame, with where it came from.
type sink func(ctx context.Context, contents []content) error

type content struct {
	origin hub.Origin
	otlp   []byte
}

// stamp writes the origin on a resource. The subject is the truth: the hub
// checked that this edge may publish on it.
func stamp(resource pcommon.Resource, o hub.Origin) {
	resource.Attributes().PutStr("k8s.cluster.name", o.Cluster)
	resource.Attributes().PutStr("k8s.node.name", o.Node)
}

func undecodable(err error) error {
	return consumererror.NewPermanent(fmt.Errorf("the frame holds no OTLP request: %w", err))
}

func logsTo(next consumer.Logs) sink {
	return func(ctx context.Context, contents []content) error {
		all := plog.NewLogs()
		for _, c := range contents {
			one, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(c.otlp)
			if err != nil {
				return undecodable(err)
			}
			for _, resource := range one.ResourceLogs().All() {
				stamp(resource.Resource(), c.origin)
			}
			one.ResourceLogs().MoveAndAppendTo(all.ResourceLogs())
		}
		return next.ConsumeLogs(ctx, all)
	}
}

func metricsTo(next consumer.Metrics) sink {
	return func(ctx context.Context, contents []content) error {
		all := pmetric.NewMetrics()
		for _, c := range contents {
			one, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(c.otlp)
			if err != nil {
				return undecodable(err)
			}
			for _, resource := range one.ResourceMetrics().All() {
				stamp(resource.Resource(), c.origin)
			}
			one.ResourceMetrics().MoveAndAppendTo(all.ResourceMetrics())
		}
		return next.ConsumeMetrics(ctx, all)
	}
}

func tracesTo(next consumer.Traces) sink {
	return func(ctx context.Context, contents []content) error {
		all := ptrace.NewTraces()
		for _, c := range contents {
			one, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(c.otlp)
			if err != nil {
				return undecodable(err)
			}
			for _, resource := range one.ResourceSpans().All() {
				stamp(resource.Resource(), c.origin)
			}
			one.ResourceSpans().MoveAndAppendTo(all.ResourceSpans())
		}
		return next.ConsumeTraces(ctx, all)
	}
}

// isPermanent says whether trying again is in vain. A pipeline with several
// exporters returns all their errors: it is in vain only when it is for each.
func isPermanent(err error) bool {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		if !consumererror.IsPermanent(err) {
			return false
		}
		for _, one := range e.Unwrap() {
			if !isPermanent(one) {
				return false
			}
		}
		return true
	case interface{ Unwrap() error }:
		// A permanent error is final even where it wraps a list; a plain wrapper is looked through.
		if inner := e.Unwrap(); inner != nil && !markedPermanent(err) {
			return isPermanent(inner)
		}
	}
	return consumererror.IsPermanent(err)
}

// markedPermanent says whether err itself, not something within it, is the
// collector's permanent error.
func markedPermanent(err error) bool {
	inner, ok := err.(interface{ Unwrap() error })
	return ok && consumererror.IsPermanent(err) && !consumererror.IsPermanent(inner.Unwrap())
}
