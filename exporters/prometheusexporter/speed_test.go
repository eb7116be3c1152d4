package prometheusexporter

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// taker is a server of remote write 2.0 that takes everything, in place of the
// network.
type taker struct{ bytes, requests int }

func (s *taker) RoundTrip(r *http.Request) (*http.Response, error) {
	n, err := io.Copy(io.Discard, r.Body)
	s.bytes += int(n)
	s.requests++
	header := http.Header{}
	header.Set("X-Prometheus-Remote-Write-Samples-Written", "1000000000")
	header.Set("X-Prometheus-Remote-Write-Histograms-Written", "0")
	header.Set("X-Prometheus-Remote-Write-Exemplars-Written", "0")
	return &http.Response{StatusCode: http.StatusNoContent, Header: header, Body: http.NoBody, Request: r}, err
}

// scrapes returns real exporters' pages as a Prometheus receiver brings them: the
// first scrape of each target.
func scrapes(t testing.TB) []pmetric.Metrics {
	t.Helper()
	pages := serve(t)
	for target := range pages.pages {
		if target == "odd" || target == "openmetrics" {
			delete(pages.pages, target)
		}
	}
	var mu sync.Mutex
	found := make(map[string]pmetric.Metrics)
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		mu.Lock()
		defer mu.Unlock()
		if md.ResourceMetrics().Len() == 0 || md.DataPointCount() < 20 {
			return nil // a target that is down
		}
		job, _ := md.ResourceMetrics().At(0).Resource().Attributes().Get("service.name")
		if _, known := found[job.Str()]; !known {
			copied := pmetric.NewMetrics()
			md.CopyTo(copied)
			found[job.Str()] = copied
		}
		return nil
	})
	require.NoError(t, err)
	stop := scrape(t, pages.config("bench"), next)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(found) == len(pages.pages)
	}, time.Minute, 50*time.Millisecond)
	stop()
	var all []pmetric.Metrics
	for _, target := range []string{"node", "process", "redis-a"} {
		all = append(all, found[target])
	}
	return all
}

// fleetScrapes is what a relay coalesces: scrapes of some clusters' targets, as
// decoded from frames.
func fleetScrapes(t testing.TB, clusters int) pmetric.Metrics {
	t.Helper()
	pages := scrapes(t)
	all := pmetric.NewMetrics()
	for c := range clusters {
		for _, page := range pages {
			raw, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(page)
			require.NoError(t, err)
			one, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(raw)
			require.NoError(t, err)
			for _, resource := range one.ResourceMetrics().All() {
				resource.Resource().Attributes().PutStr("k8s.cluster.name", fmt.Sprintf("store-%04d", c))
				resource.Resource().Attributes().PutStr("k8s.node.name", fmt.Sprintf("node-%d", c%3))
			}
			one.ResourceMetrics().MoveAndAppendTo(all.ResourceMetrics())
		}
	}
	return all
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkConsumeScrapes is the way through pdata, whose objects are there already.
func BenchmarkConsumeScrapes(b *testing.B) {
	md := fleetScrapes(b, 10)
	benchmark(b, func(exp running) error { return exp.ConsumeMetrics(context.Background(), md) })
}

// BenchmarkConsumeFrames is the direct way, with a delivery of frames of 40 nodes.
func BenchmarkConsumeFrames(b *testing.B) {
	pieces := fleetPieces(b, 40)
	benchmark(b, func(exp running) error { return exp.consumeOTLP(context.Background(), pieces) })
}

func benchmark(b *testing.B, consume func(running) error) {
	sink := &taker{}
	exp := startQuiet(b, sink, nil)
	require.NoError(b, consume(exp))
	samples := 0
	for _, n := range exp.counter(b, "longhaul_prometheus_samples_sent") {
		samples += int(n)
	}
	size, requests := sink.bytes, sink.requests
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	for b.Loop() {
		if err := consume(exp); err != nil {
			b.Fatal(err)
		}
	}
	// CPU time, of the collection of garbage too: a busy machine does not change it.
	used := cpuTime(b) - began
	b.ReportMetric(float64(samples)*float64(b.N)/used.Seconds(), "samples/cpu-s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/float64(samples), "cpu-ns/sample")
	b.ReportMetric(float64(size)/float64(samples), "B/sample")
	b.ReportMetric(float64(requests), "requests")
	b.ReportMetric(float64(samples), "samples")
}
