package sink

import (
	"bytes"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/longhaul/longhaul/exporters/lokiexporter"
	"github.com/longhaul/longhaul/exporters/prometheusexporter"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const cluster = "store-00042"

// account gathers what a sink says it took.
type account struct {
	mu      sync.Mutex
	batches []Batch
}

func (a *account) take(b Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches = append(a.batches, b)
}

func (a *account) total(t *testing.T, signal frame.Signal) (items int, sightings []Sighting) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.batches {
		if b.Signal == signal {
			items += b.Items
			sightings = append(sightings, b.Sightings...)
		}
	}
	return items, sightings
}

func newSink(t *testing.T) (*Sink, *account) {
	t.Helper()
	a := &account{}
	s, err := New(Options{Taken: a.take})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, a
}

// one makes the OTLP of a frame.
func one(t *testing.T, signal frame.Signal) (otlp []byte, template *frames.Template) {
	t.Helper()
	maker, err := frames.NewMaker("../../../"+frames.CorpusDir, frames.DefaultSizes)
	require.NoError(t, err)
	round, err := maker.Round(time.Now())
	require.NoError(t, err)
	template = round[signal][0]
	payload := template.AppendPayload(nil, &frames.Numbers{Origin: 42, Life: 1, Lane: 2, Number: 77, Written: time.Now()})
	codec, err := frame.CodecByID(frame.OTLPZstd)
	require.NoError(t, err)
	otlp, err = codec.Decode(nil, payload, template.OTLP)
	require.NoError(t, err)
	return otlp, template
}

func (a *account) requireFrame(t *testing.T, template *frames.Template, named string) {
	t.Helper()
	items, sightings := a.total(t, template.Signal)
	require.Equal(t, template.Samples, items)
	require.Len(t, sightings, 1)
	require.WithinDuration(t, time.Now(), sightings[0].Written, time.Minute)
	sightings[0].Written = time.Time{}
	require.Equal(t, Sighting{frames.Marker{
		Signal: template.Signal, Origin: 42, Life: 1, Lane: 2, Number: 77, Samples: uint16(template.Samples),
	}, named}, sightings[0])
}

// Every item that the relay's exporters send is counted, and the marker is found.
func TestWhatTheRelaysExportersSendIsCounted(t *testing.T) {
	t.Run("loki", func(t *testing.T) {
		s, a := newSink(t)
		factory := lokiexporter.NewFactory()
		config := factory.CreateDefaultConfig().(*lokiexporter.Config)
		config.Endpoint = s.URL
		e, err := factory.CreateLogs(t.Context(), exportertest.NewNopSettings(factory.Type()), config)
		start(t, e, err)
		otlp, template := one(t, frame.Logs)
		logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
		require.NoError(t, err)
		for _, r := range logs.ResourceLogs().All() {
			r.Resource().Attributes().PutStr(clusterAttribute, cluster)
		}
		require.NoError(t, e.ConsumeLogs(t.Context(), logs))
		a.requireFrame(t, template, cluster)
	})
	t.Run("prometheus", func(t *testing.T) {
		s, a := newSink(t)
		factory := prometheusexporter.NewFactory()
		config := factory.CreateDefaultConfig().(*prometheusexporter.Config)
		config.Endpoint = s.URL + "/api/v1/write"
		e, err := factory.CreateMetrics(t.Context(), exportertest.NewNopSettings(factory.Type()), config)
		start(t, e, err)
		otlp, template := one(t, frame.Metrics)
		metrics, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
		require.NoError(t, err)
		for _, r := range metrics.ResourceMetrics().All() {
			r.Resource().Attributes().PutStr(clusterAttribute, cluster)
		}
		require.NoError(t, e.ConsumeMetrics(t.Context(), metrics))
		a.requireFrame(t, template, cluster)
	})
	t.Run("otlp", func(t *testing.T) {
		s, a := newSink(t)
		factory := otlpexporter.NewFactory()
		config := factory.CreateDefaultConfig().(*otlpexporter.Config)
		config.ClientConfig.Endpoint = s.GRPC
		config.ClientConfig.TLS.Insecure = true
		config.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
		e, err := factory.CreateTraces(t.Context(), exportertest.NewNopSettings(factory.Type()), config)
		start(t, e, err)
		otlp, template := one(t, frame.Traces)
		traces, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
		require.NoError(t, err)
		for _, r := range traces.ResourceSpans().All() {
			r.Resource().Attributes().PutStr(clusterAttribute, cluster)
		}
		require.NoError(t, e.ConsumeTraces(t.Context(), traces))
		a.requireFrame(t, template, cluster)
	})
}

func start(t *testing.T, e component.Component, err error) {
	t.Helper()
	require.NoError(t, err)
	require.NoError(t, e.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, e.Shutdown(t.Context())) })
}

// A gateway sends its logs to Loki as OTLP.
func TestLogsByOTLPAreCounted(t *testing.T) {
	s, a := newSink(t)
	otlp, template := one(t, frame.Logs)
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/otlp/v1/logs", bytes.NewReader(encoder.EncodeAll(otlp, nil)))
	require.NoError(t, err)
	request.Header.Set("Content-Encoding", "zstd")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	a.requireFrame(t, template, "")
}

// A sink that is away takes nothing, and says so to whoever sends.
func TestNothingIsTakenWhileAway(t *testing.T) {
	s, a := newSink(t)
	s.SetAway(true)
	response, err := http.Post(s.URL+"/api/v1/write", "application/x-protobuf", bytes.NewReader(nil))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.EqualValues(t, 1, s.Refused())
	require.Empty(t, a.batches)
}

// A request that is not what its address takes is refused and remembered.
func TestARequestThatCannotBeReadIsTrouble(t *testing.T) {
	s, a := newSink(t)
	response, err := http.Post(s.URL+"/loki/api/v1/push", "application/x-protobuf", bytes.NewReader([]byte("\x03\x08\xff\xff\xff")))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.ErrorIs(t, s.Trouble(), errWire)
	require.Empty(t, a.batches)
}

func FuzzTakers(f *testing.F) {
	f.Add([]byte("\x0a\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		// Whatever comes in, an error and no panic.
		_, _ = takeLoki(message)
		_, _, _, _ = takeWrite2(message, nil)
		_, _ = takeWrite1(message)
		_, _ = takeOTLPLogs(message)
		_, _ = takeOTLPTraces(message)
	})
}
