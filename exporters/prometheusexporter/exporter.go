// Package prometheusexporter sends metrics to Prometheus by remote write: 2.0,
// and 1.0 with servers that speak no other.
//
// The translation is that of Prometheus's own OTLP endpoint, its library, with
// two things added: resource attributes become labels under the names given in
// the configuration, and metrics that a Prometheus receiver scraped come out as
// if Prometheus had scraped them itself. README.md has the mapping.
//
// What it promises:
//   - ConsumeMetrics returns nil only when the server took every sample, or
//     refused some for good; those are counted by reason
//     (longhaul_prometheus_samples_rejected) and logged once per burst. There is
//     no queue behind it.
//   - It returns a permanent error only when everything it was given was refused,
//     and a retryable one when the server could not be reached, was overloaded or
//     is set up wrongly. The caller then repeats the whole call; what the server
//     answered for the first time is not sent again.
//   - Samples of a series are sent in the order of their time; requests are
//     bounded in bytes.
//   - A 2xx from a server that did not understand the request is not success: a
//     server of 2.0 says how many samples it wrote.
package prometheusexporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/storage/remote"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// fallbackFor is how long a server that refused 2.0 is spoken to in 1.0 before
// 2.0 is tried again: it may have been updated.
const fallbackFor = time.Hour

// errNotUnderstood says that a server answered 2xx to 2.0 without saying how
// many samples it wrote, as one does that reads the request as an empty 1.0.
var errNotUnderstood = errors.New("the server does not confirm remote write 2.0")

type prometheusExporter struct {
	cfg          *Config
	set          exporter.Settings
	header2      http.Header
	header1      http.Header
	labels       []resourceLabel
	translations sync.Pool // of *translation
	accumulator  *accumulator
	progress     deliver.Progress
	telemetry    telemetry
	client       *http.Client
	senders      *deliver.Senders
	observed     metric.Registration
	window       *windowCheck

	speak1Until atomic.Int64 // unix nanoseconds

	mu     sync.Mutex
	bursts map[string]*deliver.Burst // by reason
}

func newExporter(cfg *Config, set exporter.Settings) (*prometheusExporter, error) {
	counters, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	header := func(contentType, version string) http.Header {
		h := http.Header{}
		h.Set("Content-Type", contentType)
		h.Set("Content-Encoding", "snappy")
		h.Set(remote.RemoteWriteVersionHeader, version)
		h.Set("User-Agent", set.BuildInfo.Command+"/"+set.BuildInfo.Version)
		return h
	}
	e := &prometheusExporter{
		cfg:         cfg,
		set:         set,
		header2:     header("application/x-protobuf;proto=io.prometheus.write.v2.Request", remote.RemoteWriteVersion20HeaderValue),
		header1:     header("application/x-protobuf", remote.RemoteWriteVersion1HeaderValue),
		labels:      resourceLabels(cfg),
		accumulator: newAccumulator(cfg.Delta),
		telemetry:   counters,
		bursts:      make(map[string]*deliver.Burst),
	}
	e.translations.New = func() any { return newTranslation(e.labels) }
	return e, nil
}

// Capabilities says that metrics are not changed.
func (*prometheusExporter) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: false}
}

func (e *prometheusExporter) Start(ctx context.Context, host component.Host) error {
	client, err := e.cfg.ToClient(ctx, host.GetExtensions(), e.set.TelemetrySettings)
	if err != nil {
		return fmt.Errorf("create HTTP client for %s: %w", e.cfg.Endpoint, err)
	}
	e.client = client
	e.senders = deliver.NewSenders(deliver.Settings{
		Backend: "Prometheus", Client: client, Retry: e.cfg.Retry, Concurrency: e.cfg.Concurrency, Logger: e.set.Logger, Hint: hint,
	})
	e.observed, err = e.senders.Observe(e.set.MeterProvider.Meter(scopeName), e.set.ID.String())
	if err != nil {
		return fmt.Errorf("create metrics: %w", err)
	}
	e.window = startWindowCheck(e.cfg, client, e.telemetry.window, e.set.Logger)
	return nil
}

func (e *prometheusExporter) Shutdown(context.Context) error {
	if e.client != nil {
		e.window.stop()
		e.client.CloseIdleConnections()
		return e.observed.Unregister()
	}
	return nil
}

func hint(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "check the exporter's auth and headers"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "check the exporter's endpoint, and that Prometheus runs with --web.enable-remote-write-receiver"
	}
	return ""
}

// ConsumeMetrics delivers all of md; see the package comment for what its result
// means.
func (e *prometheusExporter) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	if e.senders == nil {
		return errors.New("prometheus exporter is not started")
	}
	parts := e.byTenant(md)
	var tasks errgroup.Group
	tasks.SetLimit(maxTenantsAtOnce)
	for i := range parts {
		tasks.Go(func() error {
			p := &parts[i]
			p.done, p.err = e.consume(ctx, p)
			return nil
		})
	}
	_ = tasks.Wait()
	return result(parts)
}

// consume delivers the metrics of one tenant.
func (e *prometheusExporter) consume(ctx context.Context, p *part) (outcome, error) {
	t := e.translations.Get().(*translation)
	defer func() {
		t.reset()
		e.translations.Put(t)
	}()
	t.tenant = p.tenant
	committed := false
	if keys := t.deltaKeys(p.resources); len(keys) > 0 {
		delta, err := e.accumulator.begin(ctx, keys)
		if err != nil {
			return outcome{}, err
		}
		defer func() {
			if !committed {
				delta.undo()
			}
		}()
		t.delta = delta
	}
	for _, resource := range p.resources {
		t.resource(resource)
	}
	all := t.sorted()
	t.runs = enough(t.runs, len(all))
	total, err := e.deliver(ctx, p.tenant, plan(all, t.symbols.texts, int(e.cfg.MaxRequestSize), t.sizer, t.runs))
	e.window.noticed(err)
	if err != nil {
		return total, err
	}
	if t.delta != nil {
		t.delta.commit()
		committed = true
	}
	e.refuse(ctx, t.refused) // only now, so that a repeated call counts them once
	total.add(outcome{refused: t.refused})
	return total, nil
}

// outcome counts samples.
type outcome struct {
	sent    int
	refused refusals
}

func (o *outcome) add(other outcome) {
	o.sent += other.sent
	if o.refused == nil {
		o.refused = make(refusals)
	}
	o.refused.merge(other.refused)
}
