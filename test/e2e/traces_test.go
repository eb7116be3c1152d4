package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/longhaul/longhaul/internal/lab"
)

// parallelRequests are under way at a time: an acknowledgement waits for the
// batch it is part of.
const parallelRequests = 8

// traceSender sends recorded requests to a collector, in turn by gRPC and HTTP.
// A collector killed inside Between has acknowledged everything it was sent, so
// it must not lose any of it, and nothing needs to be sent twice.
type traceSender struct {
	grpc ptraceotlp.GRPCClient
	http string

	gate  sync.RWMutex // read: a request is under way; write: none is
	acked atomic.Int64
}

func newTraceSender(t *testing.T, c *lab.Collector) *traceSender {
	t.Helper()
	conn, err := grpc.NewClient(c.OTLPGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &traceSender{grpc: ptraceotlp.NewGRPCClient(conn), http: c.OTLPHTTP + "/v1/traces"}
}

// send spreads the requests over the duration and returns when all of them are
// acknowledged.
func (s *traceSender) send(ctx context.Context, requests []ptraceotlp.ExportRequest, over time.Duration) error {
	senders, ctx := errgroup.WithContext(ctx)
	senders.SetLimit(parallelRequests)
	pause := over / time.Duration(len(requests))
	for i, request := range requests {
		senders.Go(func() error {
			if err := s.sendOne(ctx, request, i%2 == 0); err != nil {
				return fmt.Errorf("request %d of %d: %w", i+1, len(requests), err)
			}
			return nil
		})
		select {
		case <-ctx.Done():
			return senders.Wait()
		case <-time.After(pause):
		}
	}
	return senders.Wait()
}

func (s *traceSender) sendOne(ctx context.Context, request ptraceotlp.ExportRequest, useGRPC bool) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var err error
	if useGRPC {
		_, err = s.grpc.Export(ctx, request, grpc.WaitForReady(true))
	} else {
		err = s.post(ctx, request)
	}
	if err == nil {
		s.acked.Add(1)
	}
	return err
}

func (s *traceSender) post(ctx context.Context, request ptraceotlp.ExportRequest) error {
	body, err := request.MarshalProto()
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Close = true // the collector is killed: no connection survives to the next request
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}

// Between runs f while no request is under way and at least one has been
// acknowledged.
func (s *traceSender) Between(f func() error) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.acked.Load() == 0 {
		return errors.New("nothing was acknowledged yet")
	}
	return f()
}

// spanID identifies a span in what was sent and what was found.
type spanID struct{ trace, span, service, name string }

// sentSpans lists the spans of the requests.
func sentSpans(requests []ptraceotlp.ExportRequest) map[spanID]int {
	sent := make(map[spanID]int)
	for _, request := range requests {
		forEachSpan(request.Traces(), func(service string, span ptrace.Span) {
			sent[spanID{span.TraceID().String(), span.SpanID().String(), service, span.Name()}]++
		})
	}
	return sent
}

// sentBetween returns the start times of the first and the last span.
func sentBetween(requests []ptraceotlp.ExportRequest) (first, last time.Time) {
	for _, request := range requests {
		forEachSpan(request.Traces(), func(_ string, span ptrace.Span) {
			at := span.StartTimestamp().AsTime()
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		})
	}
	return first, last
}

func forEachSpan(td ptrace.Traces, visit func(service string, span ptrace.Span)) {
	for _, rs := range td.ResourceSpans().All() {
		service, _ := rs.Resource().Attributes().Get("service.name")
		for _, ss := range rs.ScopeSpans().All() {
			for _, span := range ss.Spans().All() {
				visit(service.AsString(), span)
			}
		}
	}
}

// foundSpans reads back every span of the cluster from Jaeger.
func foundSpans(ctx context.Context, j *lab.Jaeger, cluster string, from, to time.Time) (map[spanID]int, error) {
	spans, err := j.AllSpans(ctx, from.Add(-time.Hour), to.Add(time.Hour))
	if err != nil {
		return nil, err
	}
	found := make(map[spanID]int)
	for _, s := range spans {
		if s.Resource["k8s.cluster.name"] == cluster {
			trace := strings.Repeat("0", 32-len(s.TraceID)) + s.TraceID
			found[spanID{trace, s.SpanID, s.Service, s.Operation}]++
		}
	}
	return found, nil
}
