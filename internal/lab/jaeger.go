package lab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"text/template"
	"time"
)

// jaegerMaxTraces bounds the memory store and every query. The store forgets
// its oldest trace beyond it.
const jaegerMaxTraces = 200_000

// JaegerOptions configures a Jaeger. Zero ports are chosen.
type JaegerOptions struct {
	Binary        string
	Dir           string
	QueryPort     int // HTTP query API and UI
	QueryGRPCPort int
	OTLPGRPC      int
	OTLPHTTP      int
	HealthPort    int
	// Durable keeps traces on disk (badger), so that they survive a restart;
	// otherwise they are kept in memory.
	Durable bool
}

// Jaeger is a Jaeger v2 that takes OTLP and answers queries.
type Jaeger struct {
	*Process
	URL      string // of the query API: http://127.0.0.1:port
	OTLPGRPC string // 127.0.0.1:port, plaintext
	OTLPHTTP string // http://127.0.0.1:port
}

// NewJaeger writes Jaeger's configuration; Start starts it.
func NewJaeger(o JaegerOptions) (*Jaeger, error) {
	if err := choosePorts("jaeger", &o.QueryPort, &o.QueryGRPCPort, &o.OTLPGRPC, &o.OTLPHTTP, &o.HealthPort); err != nil {
		return nil, err
	}
	config := filepath.Join(o.Dir, "jaeger.yaml")
	err := writeConfig(config, jaegerConfig, struct {
		JaegerOptions
		MaxTraces int
	}{o, jaegerMaxTraces})
	if err != nil {
		return nil, fmt.Errorf("configure jaeger: %w", err)
	}
	j := &Jaeger{
		URL:      "http://" + loopback(o.QueryPort),
		OTLPGRPC: loopback(o.OTLPGRPC),
		OTLPHTTP: "http://" + loopback(o.OTLPHTTP),
	}
	health := httpReady("http://" + loopback(o.HealthPort) + "/status")
	query := httpReady(j.URL + "/api/services")
	j.Process = NewProcess(Spec{
		Name:   "jaeger",
		Binary: o.Binary,
		Args:   []string{"--config", config},
		// Jaeger traces its own queries and sends them to port 4317, whoever
		// listens there; when nobody does, it takes 20 s to stop.
		Env:     []string{"OTEL_TRACES_SAMPLER=always_off"},
		LogFile: filepath.Join(o.Dir, "jaeger.log"),
		Ready: func(ctx context.Context) error {
			return errors.Join(health(ctx), query(ctx))
		},
	})
	return j, nil
}

var jaegerConfig = template.Must(template.New("jaeger").Parse(`service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics: {level: none}
    logs: {level: warn}
extensions:
  healthcheckv2:
    use_v2: true
    http: {endpoint: "127.0.0.1:{{.HealthPort}}"}
  jaeger_query:
    storage: {traces: main}
    http: {endpoint: "127.0.0.1:{{.QueryPort}}"}
    grpc: {endpoint: "127.0.0.1:{{.QueryGRPCPort}}"}
  jaeger_storage:
    backends:
      main:
{{- if .Durable}}
        badger:
          directories: {keys: {{printf "%q" (print .Dir "/keys")}}, values: {{printf "%q" (print .Dir "/values")}}}
          ephemeral: false
          ttl: {spans: 720h}
{{- else}}
        memory: {max_traces: {{.MaxTraces}}}
{{- end}}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:{{.OTLPGRPC}}", max_recv_msg_size_mib: 64}
      http: {endpoint: "127.0.0.1:{{.OTLPHTTP}}"}
exporters:
  jaeger_storage_exporter: {trace_storage: main}
`))

// Span is a span as Jaeger returns it.
type Span struct {
	TraceID   string // 32 hex digits
	SpanID    string // 16 hex digits
	Service   string
	Operation string
	Start     int64 // Unix microseconds
	Duration  int64 // microseconds
	Tags      map[string]any
	Resource  map[string]any // the process's tags
}

// Services returns the names of the services Jaeger has spans of.
func (j *Jaeger) Services(ctx context.Context) ([]string, error) {
	body, err := get(ctx, j.URL+"/api/services", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("query jaeger: %w", err)
	}
	var services []string
	return services, decode(body, &services)
}

// Spans returns the spans of every trace that a service takes part in and that
// began between from and to, as stored: a span stored twice comes twice.
func (j *Jaeger) Spans(ctx context.Context, service string, from, to time.Time) ([]Span, error) {
	body, err := get(ctx, j.URL+"/api/traces", url.Values{
		"service": {service},
		"start":   {strconv.FormatInt(from.UnixMicro(), 10)},
		"end":     {strconv.FormatInt(to.UnixMicro(), 10)},
		"limit":   {strconv.Itoa(jaegerMaxTraces - 1)},
		"raw":     {"true"}, // without the adjusters, one of which hides duplicates
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("query jaeger: %w", err)
	}
	return readSpans(body)
}

// AllSpans returns the spans of every trace that began between from and to, as
// stored, each trace once.
func (j *Jaeger) AllSpans(ctx context.Context, from, to time.Time) ([]Span, error) {
	services, err := j.Services(ctx)
	if err != nil {
		return nil, err
	}
	var all []Span
	seen := make(map[string]bool) // traces that came with an earlier service
	for _, service := range services {
		spans, err := j.Spans(ctx, service, from, to)
		if err != nil {
			return nil, err
		}
		fresh := make(map[string]bool)
		for _, s := range spans {
			if !seen[s.TraceID] {
				fresh[s.TraceID] = true
				all = append(all, s)
			}
		}
		for id := range fresh {
			seen[id] = true
		}
	}
	return all, nil
}

// Trace returns the spans of one trace, as stored.
func (j *Jaeger) Trace(ctx context.Context, traceID string) ([]Span, error) {
	body, err := get(ctx, j.URL+"/api/traces/"+url.PathEscape(traceID), url.Values{"raw": {"true"}}, nil)
	if err != nil {
		return nil, fmt.Errorf("query jaeger: %w", err)
	}
	return readSpans(body)
}

type jaegerTag struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

func tagMap(tags []jaegerTag) map[string]any {
	m := make(map[string]any, len(tags))
	for _, t := range tags {
		m[t.Key] = t.Value
	}
	return m
}

func readSpans(body []byte) ([]Span, error) {
	var traces []struct {
		Spans []struct {
			TraceID   string      `json:"traceID"`
			SpanID    string      `json:"spanID"`
			Operation string      `json:"operationName"`
			Start     int64       `json:"startTime"`
			Duration  int64       `json:"duration"`
			ProcessID string      `json:"processID"`
			Tags      []jaegerTag `json:"tags"`
		} `json:"spans"`
		Processes map[string]struct {
			ServiceName string      `json:"serviceName"`
			Tags        []jaegerTag `json:"tags"`
		} `json:"processes"`
	}
	if err := decode(body, &traces); err != nil {
		return nil, err
	}
	var all []Span
	for _, t := range traces {
		for _, s := range t.Spans {
			process := t.Processes[s.ProcessID]
			all = append(all, Span{
				TraceID: s.TraceID, SpanID: s.SpanID, Service: process.ServiceName, Operation: s.Operation,
				Start: s.Start, Duration: s.Duration, Tags: tagMap(s.Tags), Resource: tagMap(process.Tags),
			})
		}
	}
	return all, nil
}
