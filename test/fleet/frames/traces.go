package frames

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

type tracesPrototype struct {
	traces ptrace.Traces
	newest time.Time // end of the last span, as stamped
	salt   uint64    // what the trace ids differ by from the recorded ones
}

// newTraces takes so many spans from the recordings, from a request on.
func newTraces(c corpus, from, items int) *tracesPrototype {
	p := &tracesPrototype{traces: ptrace.NewTraces()}
	for request := from; items > 0; request++ {
		for _, resource := range c.traces[request%len(c.traces)].ResourceSpans().All() {
			if items == 0 {
				break
			}
			to := p.traces.ResourceSpans().AppendEmpty()
			resource.Resource().CopyTo(to.Resource())
			for _, scope := range resource.ScopeSpans().All() {
				toScope := to.ScopeSpans().AppendEmpty()
				scope.Scope().CopyTo(toScope.Scope())
				for _, span := range scope.Spans().All() {
					if items == 0 {
						break
					}
					span.CopyTo(toScope.Spans().AppendEmpty())
					p.newest = later(p.newest, span.EndTimestamp().AsTime())
					items--
				}
			}
		}
	}
	return p
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (p *tracesPrototype) spans(each func(ptrace.Span)) {
	for _, resource := range p.traces.ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				each(span)
			}
		}
	}
}

// stamp moves the spans in time so that the last ends at a time, and makes other
// traces of them.
func (p *tracesPrototype) stamp(at time.Time) (oldest time.Time) {
	by, salt := at.Sub(p.newest), rand.Uint64()
	move := func(t pcommon.Timestamp) pcommon.Timestamp { return pcommon.Timestamp(int64(t) + int64(by)) }
	oldest = at
	p.spans(func(span ptrace.Span) {
		span.SetStartTimestamp(move(span.StartTimestamp()))
		span.SetEndTimestamp(move(span.EndTimestamp()))
		if start := span.StartTimestamp().AsTime(); start.Before(oldest) {
			oldest = start
		}
		for _, event := range span.Events().All() {
			event.SetTimestamp(move(event.Timestamp()))
		}
		id := span.TraceID()
		binary.LittleEndian.PutUint64(id[:8], binary.LittleEndian.Uint64(id[:8])^p.salt^salt)
		span.SetTraceID(id)
	})
	p.newest, p.salt = at, salt
	return oldest
}

func (p *tracesPrototype) count() (items, samples int) {
	n := p.traces.SpanCount()
	return n, n
}

func (p *tracesPrototype) marshal() ([]byte, error) {
	return (&ptrace.ProtoMarshaler{}).MarshalTraces(p.traces)
}

// marker is one more span of the first resource; its ids have the numbers.
func (p *tracesPrototype) marker() ([]byte, error) {
	marked := ptrace.NewTraces()
	resource := marked.ResourceSpans().AppendEmpty()
	p.traces.ResourceSpans().At(0).Resource().CopyTo(resource.Resource())
	span := resource.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	span.SetName(MarkerSpan)
	span.SetKind(ptrace.SpanKindInternal)
	span.SetTraceID([16]byte([]byte(placeholderTrace)))
	span.SetSpanID([8]byte([]byte(placeholderSpan)))
	span.SetStartTimestamp(placeholderTime)
	span.SetEndTimestamp(placeholderTime)
	return (&ptrace.ProtoMarshaler{}).MarshalTraces(marked)
}
