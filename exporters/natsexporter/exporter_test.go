package natsexporter

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testConfig has no hub: what these tests promise holds without one.
func testConfig(t *testing.T) *Config {
	config := defaultConfig()
	config.Cluster, config.Node = "store-0001", "a"
	config.Connection.URLs = "nats://127.0.0.1:1"
	config.Spool.Directory = t.TempDir()
	config.Batch.Delay = 20 * time.Millisecond
	return config
}

type exporters struct {
	logs    exporter.Logs
	metrics exporter.Metrics
	traces  exporter.Traces
}

func start(t *testing.T, config *Config) (e exporters, stop func()) {
	t.Helper()
	set := exportertest.NewNopSettings(Type)
	set.Logger = zaptest.NewLogger(t)
	factory := NewFactory()
	var err error
	if e.logs, err = factory.CreateLogs(t.Context(), set, config); err != nil {
		t.Fatal(err)
	}
	if e.metrics, err = factory.CreateMetrics(t.Context(), set, config); err != nil {
		t.Fatal(err)
	}
	if e.traces, err = factory.CreateTraces(t.Context(), set, config); err != nil {
		t.Fatal(err)
	}
	for _, one := range []interface {
		Start(context.Context, component.Host) error
	}{e.logs, e.metrics, e.traces} {
		if err := one.Start(t.Context(), componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			err := errors.Join(e.logs.Shutdown(context.Background()), e.metrics.Shutdown(context.Background()), e.traces.Shutdown(context.Background()))
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return e, stop
}

func logs(bodies ...string) plog.Logs {
	ld := plog.NewLogs()
	records := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	for i, body := range bodies {
		record := records.AppendEmpty()
		record.Body().SetStr(body)
		record.SetTimestamp(pcommon.Timestamp(1000 + i))
	}
	return ld
}

// spooled reads a closed spool: per frame its header and OTLP.
func spooled(t *testing.T, config *Config, signal frame.Signal) (headers []frame.Header, otlp [][]byte) {
	t.Helper()
	sp, err := spool.Open(spool.Options{Dir: config.Spool.Directory})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	}()
	for from := uint64(1); ; {
		records, err := sp.Read(frame.Lane{Signal: signal, Seq: 1}, from, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			return headers, otlp
		}
		for _, r := range records {
			header, payload, _, err := frame.Parse(r.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			codec, err := frame.CodecByID(header.Codec)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := codec.Decode(nil, payload, int(header.Uncompressed))
			if err != nil {
				t.Fatal(err)
			}
			headers, otlp = append(headers, header), append(otlp, plain)
			from = r.Number + 1
		}
	}
}

func bodies(t *testing.T, otlp [][]byte) (found []string) {
	t.Helper()
	for _, plain := range otlp {
		ld, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range ld.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					found = append(found, record.Body().Str())
				}
			}
		}
	}
	return found
}

func TestAcceptedIsInTheSpoolAlsoWithoutAHub(t *testing.T) {
	config := testConfig(t)
	e, stop := start(t, config)
	if err := e.logs.ConsumeLogs(t.Context(), logs("a", "b")); err != nil {
		t.Fatal(err)
	}
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(5)
	if err := e.metrics.ConsumeMetrics(t.Context(), md); err != nil {
		t.Fatal(err)
	}
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetEndTimestamp(7)
	if err := e.traces.ConsumeTraces(t.Context(), td); err != nil {
		t.Fatal(err)
	}
	stop()
	headers, otlp := spooled(t, config, frame.Logs)
	if got := fmt.Sprint(bodies(t, otlp)); got != "[a b]" {
		t.Fatalf("the spool holds %s", got)
	}
	if h := headers[0]; h.Items != 2 || h.First != 1000 || h.Last != 1001 || h.Number != 1 {
		t.Fatalf("header %+v", h)
	}
	if headers, _ := spooled(t, config, frame.Metrics); len(headers) != 1 || headers[0].First != 5 || headers[0].Items != 1 {
		t.Fatalf("metrics: %+v", headers)
	}
	if headers, _ := spooled(t, config, frame.Traces); len(headers) != 1 || headers[0].Last != 7 || headers[0].Items != 1 {
		t.Fatalf("traces: %+v", headers)
	}
}

func TestCallersShareAFrame(t *testing.T) {
	config := testConfig(t)
	config.Batch.Delay = time.Minute
	config.Batch.MaxItems = 50
	e, stop := start(t, config)
	var callers sync.WaitGroup
	for i := range 50 {
		callers.Go(func() {
			if err := e.logs.ConsumeLogs(t.Context(), logs(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	stop()
	headers, otlp := spooled(t, config, frame.Logs)
	if len(headers) != 1 || headers[0].Items != 50 || len(bodies(t, otlp)) != 50 {
		t.Fatalf("%d frames for 50 callers; first: %+v", len(headers), headers[0])
	}
}

func TestALargeRequestDoesNotWaitForCompany(t *testing.T) {
	config := testConfig(t)
	config.Batch.Delay = time.Minute // the test would time out
	config.Batch.EagerItems = 3
	e, _ := start(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), config.Batch.Delay/2)
	defer cancel()
	if err := e.logs.ConsumeLogs(ctx, logs("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
}

func TestShutdownKeepsAnOpenBatch(t *testing.T) {
	config := testConfig(t)
	config.Batch.Delay = time.Minute
	e, stop := start(t, config)
	result := make(chan error, 1)
	go func() { result <- e.logs.ConsumeLogs(context.Background(), logs("late")) }()
	open := e.logs.(signalExporter).batch
	for waiting := true; waiting; time.Sleep(time.Millisecond) {
		open.mu.Lock()
		waiting = open.open == nil
		open.mu.Unlock()
	}
	stop()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if _, otlp := spooled(t, config, frame.Logs); fmt.Sprint(bodies(t, otlp)) != "[late]" {
		t.Fatal("the open batch is gone")
	}
	if err := e.logs.ConsumeLogs(t.Context(), logs("too late")); err == nil {
		t.Fatal("accepted after the end")
	}
}

func TestAFrameTooLargeForTheHubIsSplitAndNothingIsLost(t *testing.T) {
	config := testConfig(t)
	config.Ship.MaxFrameBytes = 16 << 10
	e, stop := start(t, config)
	var want []string
	for range 40 {
		want = append(want, noise(4<<10))
	}
	if err := e.logs.ConsumeLogs(t.Context(), logs(want...)); err != nil {
		t.Fatal(err)
	}
	stop()
	headers, otlp := spooled(t, config, frame.Logs)
	if got := bodies(t, otlp); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Fatalf("%d of %d bodies, or in another order", len(got), len(want))
	}
	for _, h := range headers {
		if size := int(h.PayloadLen) + frame.HeaderSize + frame.TrailerSize; size > 16<<10 {
			t.Errorf("a frame of %d bytes", size)
		}
	}
}

func TestAnItemTooLargeForTheHubIsCountedAndTheRestKept(t *testing.T) {
	config := testConfig(t)
	config.Ship.MaxFrameBytes = 16 << 10
	e, stop := start(t, config)
	if err := e.logs.ConsumeLogs(t.Context(), logs("before", noise(64<<10), "after")); err != nil {
		t.Fatal(err)
	}
	lost := e.logs.(signalExporter).spool.Stats().Lanes[0].Lost
	if lost[frame.TooLarge] != 1 {
		t.Fatalf("lost %v", lost)
	}
	stop()
	if _, otlp := spooled(t, config, frame.Logs); fmt.Sprint(bodies(t, otlp)) != "[before after]" {
		t.Fatalf("the spool holds %v", bodies(t, otlp))
	}
}

func TestARequestTooLargeForABackendIsSplitAndNothingIsLost(t *testing.T) {
	config := testConfig(t)
	e, stop := start(t, config)
	var want []string
	for i := range 20 { // they compress to next to nothing: the hub's limit splits none of it
		want = append(want, fmt.Sprint(i, strings.Repeat("x", 1<<20)))
	}
	if err := e.logs.ConsumeLogs(t.Context(), logs(want...)); err != nil {
		t.Fatal(err)
	}
	single := strings.Repeat("z", frame.MaxRequest-1000)
	if err := e.logs.ConsumeLogs(t.Context(), logs("before", strings.Repeat("y", frame.MaxRequest), "after", single)); err != nil {
		t.Fatal(err)
	}
	if lost := e.logs.(signalExporter).spool.Stats().Lanes[0].Lost; lost[frame.TooLarge] != 1 {
		t.Errorf("lost %v; want one item that no frame can hold", lost)
	}
	stop()
	headers, otlp := spooled(t, config, frame.Logs)
	if got := bodies(t, otlp); !slices.Equal(got, append(want, "before", "after", single)) {
		t.Fatalf("%d of %d bodies, or in another order", len(got), len(want)+3)
	}
	for _, h := range headers {
		if h.Uncompressed > 3<<20 && h.Items > 1 || h.Uncompressed > frame.MaxRequest {
			t.Errorf("a frame decodes to %d bytes, %d items", h.Uncompressed, h.Items)
		}
	}
}

func TestARequestOfVeryManyItemsIsSplitAndNothingIsLost(t *testing.T) {
	config := testConfig(t)
	e, stop := start(t, config)
	const items = frame.MaxItems + 10
	if err := e.logs.ConsumeLogs(t.Context(), logs(make([]string, items)...)); err != nil {
		t.Fatal(err)
	}
	stop()
	headers, otlp := spooled(t, config, frame.Logs)
	total := 0
	for _, h := range headers {
		total += int(h.Items)
		if h.Items > frame.MaxItems {
			t.Errorf("a frame of %d items", h.Items)
		}
	}
	if got := len(bodies(t, otlp)); total != items || got != items {
		t.Errorf("%d items in the headers, %d in the frames; want %d", total, got, items)
	}
}

// noise is text that does not compress to less than three quarters.
func noise(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return string(bytes.Map(func(r rune) rune { return '0' + r&63 }, raw))
}

func TestSplitKeepsEveryPointOfEveryKind(t *testing.T) {
	md := pmetric.NewMetrics()
	all := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	gauge := all.AppendEmpty().SetEmptyGauge()
	sum := all.AppendEmpty().SetEmptySum()
	histogram := all.AppendEmpty().SetEmptyHistogram()
	exponential := all.AppendEmpty().SetEmptyExponentialHistogram()
	summary := all.AppendEmpty().SetEmptySummary()
	for range 3 {
		gauge.DataPoints().AppendEmpty()
		sum.DataPoints().AppendEmpty()
		histogram.DataPoints().AppendEmpty()
		exponential.DataPoints().AppendEmpty()
		summary.DataPoints().AppendEmpty()
	}
	otlp, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		t.Fatal(err)
	}
	halves, err := split(frame.Metrics, otlp, 15)
	if err != nil {
		t.Fatal(err)
	}
	if halves[0].items != 7 || halves[1].items != 8 {
		t.Fatalf("%d and %d points; want 7 and 8", halves[0].items, halves[1].items)
	}
}

func TestAnUnusableSpoolDirectoryIsOneClearError(t *testing.T) {
	config := testConfig(t)
	config.Spool.Directory = "/dev/null/spool"
	e, err := NewFactory().CreateLogs(t.Context(), exportertest.NewNopSettings(Type), config)
	if err != nil {
		t.Fatal(err)
	}
	err = e.Start(t.Context(), componenttest.NewNopHost())
	if err == nil || !strings.Contains(err.Error(), "spool::directory") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("error: %v", err)
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var _ consumer.Logs = signalExporter{}
