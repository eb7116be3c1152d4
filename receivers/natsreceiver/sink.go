package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// logsConsumer takes log records.
type logsConsumer = consumer.Logs

// sink takes one signal's telemetry.
type sink struct {
	// deliver decodes the frames of several arrivals and hands what is in them over,
	// as one piece. When one does not decode, nothing is handed over and at is which;
	// else at is -1.
	deliver func(ctx context.Context, arrivals []*arrival) (at int, err error)
	// memory estimates what a byte of OTLP takes while it is delivered: decoded, and
	// once or twice more in the exporter's hands.
	memory int64
}

// Decoded as pdata, OTLP takes 2.4 times its bytes for logs, 5.0 for metrics and 3.3
// for traces (BenchmarkDecodedMemory).
var pdataMemory = map[frame.Signal]int64{frame.Logs: 4, frame.Metrics: 7, frame.Traces: 5}

// stamp writes on a resource where it came from. The subject is the truth: the hub
// checked that this edge may publish on it.
func (a *arrival) stamp(resource pcommon.Resource) {
	attributes := resource.Attributes()
	attributes.PutStr(direct.ClusterAttribute, a.key.Origin.Cluster)
	attributes.PutStr(direct.NodeAttribute, a.key.Origin.Node)
	if a.class == frame.Backlog {
		attributes.PutStr(direct.LaneAttribute, frame.Backlog.String())
	} else {
		attributes.Remove(direct.LaneAttribute)
	}
}

// buffers hold the OTLP bytes of a frame while they are decoded: what comes of it
// shares nothing with them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooledBytes is the largest buffer that is kept for another frame.
const maxPooledBytes = 4 << 20

// decode calls use with the OTLP bytes of a frame.
func (a *arrival) decode(use func(otlp []byte) error) error {
	buffer := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= maxPooledBytes {
			buffers.Put(buffer)
		}
	}()
	otlp, err := a.decompress((*buffer)[:0])
	if err != nil {
		return err
	}
	*buffer = otlp
	if err := a.dense(otlp); err != nil {
		return err
	}
	if err := use(otlp); err != nil {
		return fmt.Errorf("%w: %w", errNoRequest, err)
	}
	return nil
}

// decompress appends the OTLP bytes of a frame.
func (a *arrival) decompress(dst []byte) ([]byte, error) {
	codec, err := frame.CodecByID(a.header.Codec)
	if err != nil {
		return dst, err
	}
	if dst, err = codec.Decode(dst, a.payload, int(a.header.Uncompressed)); err != nil {
		return dst, fmt.Errorf("decode %s payload: %w", a.header.Codec, err)
	}
	return dst, nil
}

// errNoRequest is a frame whose payload is no OTLP export request.
var errNoRequest = errors.New("the frame holds no OTLP request: undecodable")

func logsTo(next consumer.Logs) sink {
	return sink{memory: pdataMemory[frame.Logs], deliver: func(ctx context.Context, arrivals []*arrival) (int, error) {
		all := plog.NewLogs()
		for i, a := range arrivals {
			err := a.decode(func(otlp []byte) error {
				one, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
				if err != nil {
					return err
				}
				for _, resource := range one.ResourceLogs().All() {
					a.stamp(resource.Resource())
				}
				one.ResourceLogs().MoveAndAppendTo(all.ResourceLogs())
				return nil
			})
			if err != nil {
				return i, err
			}
		}
		return -1, next.ConsumeLogs(ctx, all)
	}}
}

func metricsTo(next consumer.Metrics) sink {
	return sink{memory: pdataMemory[frame.Metrics], deliver: func(ctx context.Context, arrivals []*arrival) (int, error) {
		all := pmetric.NewMetrics()
		for i, a := range arrivals {
			err := a.decode(func(otlp []byte) error {
				one, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
				if err != nil {
					return err
				}
				for _, resource := range one.ResourceMetrics().All() {
					a.stamp(resource.Resource())
				}
				one.ResourceMetrics().MoveAndAppendTo(all.ResourceMetrics())
				return nil
			})
			if err != nil {
				return i, err
			}
		}
		return -1, next.ConsumeMetrics(ctx, all)
	}}
}

func tracesTo(next consumer.Traces) sink {
	return sink{memory: pdataMemory[frame.Traces], deliver: func(ctx context.Context, arrivals []*arrival) (int, error) {
		all := ptrace.NewTraces()
		for i, a := range arrivals {
			err := a.decode(func(otlp []byte) error {
				one, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
				if err != nil {
					return err
				}
				for _, resource := range one.ResourceSpans().All() {
					a.stamp(resource.Resource())
				}
				one.ResourceSpans().MoveAndAppendTo(all.ResourceSpans())
				return nil
			})
			if err != nil {
				return i, err
			}
		}
		return -1, next.ConsumeTraces(ctx, all)
	}}
}

// judgeError finds out what an error of the pipeline means for each origin.
func judgeError(err error, arrivals []*arrival) attempt {
	if isPermanent(err) {
		return attempt{err: err, permanent: true}
	}
	failed := make(map[hub.Origin]struct{})
	if partial := (*direct.PartialError)(nil); errors.As(err, &partial) {
		for _, i := range partial.Failed {
			failed[arrivals[i].key.Origin] = struct{}{}
		}
		return attempt{err: err, failed: failed}
	}
	if !collectFailed(err, failed) || len(failed) == 0 {
		return attempt{err: err}
	}
	known := origins(arrivals)
	for origin := range failed {
		if _, ok := known[origin]; !ok { // a processor changed the names: whose it is cannot be told
			return attempt{err: err}
		}
	}
	return attempt{err: err, failed: failed}
}

// collectFailed adds the origins of what an error says is still to be sent. It
// returns false when the error does not say, so that it may be all. A pipeline with
// several exporters returns all their errors: where one of them refuses for good, it
// shows only by itself, in a smaller attempt, of which frames.
func collectFailed(err error, failed map[hub.Origin]struct{}) bool {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if !collectFailed(one, failed) {
				return false
			}
		}
		return true
	case consumererror.Logs:
		for _, r := range e.Data().ResourceLogs().All() {
			addOrigin(r.Resource(), failed)
		}
		return true
	case consumererror.Metrics:
		for _, r := range e.Data().ResourceMetrics().All() {
			addOrigin(r.Resource(), failed)
		}
		return true
	case consumererror.Traces:
		for _, r := range e.Data().ResourceSpans().All() {
			addOrigin(r.Resource(), failed)
		}
		return true
	case interface{ Unwrap() error }:
		return e.Unwrap() != nil && collectFailed(e.Unwrap(), failed)
	}
	return false
}

func addOrigin(resource pcommon.Resource, failed map[hub.Origin]struct{}) {
	cluster, _ := resource.Attributes().Get(direct.ClusterAttribute)
	node, _ := resource.Attributes().Get(direct.NodeAttribute)
	failed[hub.Origin{Cluster: cluster.Str(), Node: node.Str()}] = struct{}{}
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
