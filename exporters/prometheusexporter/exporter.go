// Package prometheusexporter sends metrics to Prometheus by remote write: 2.0,
// and 1.0 with servers that speak no other.
//
// The translation is that of Prometheus's own OTLP endpoint, with two things added:
// resource attributes become labels under the names given in the configuration, and
// metrics that a Prometheus receiver scraped come out as if Prometheus had scraped
// them itself. README.md has the mapping.
//
// A relay hands it the requests of frames (ConsumeOTLP). They are read where they
// lie, and what the labels of a point come to is remembered across calls, because a
// fleet runs the same software on all its nodes. Metrics in pdata (ConsumeMetrics) are
// written as a request first: there is one translation. What is made of a call are
// requests of remote write, compressed; nothing else is held while they are under way.
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
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/storage/remote"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/direct"
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
	translations *translations
	accumulator  *accumulator
	expectDelta  atomic.Bool // the last calls had delta temporality
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
	e.translations = newTranslations(func() *translation {
		t := newTranslation(e.labels)
		t.writer.maxBytes = int(cfg.MaxRequestSize)
		return t
	})
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
	request, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		return consumererror.NewPermanent(fmt.Errorf("write metrics as a request: %w", err))
	}
	parts, err := e.consume(ctx, []source{{otlp: request}})
	if err != nil {
		return err
	}
	failed, err := result(parts)
	if len(failed) == 0 || len(failed) == len(parts) {
		return err
	}
	rest := pmetric.NewMetrics()
	for _, p := range failed {
		for _, of := range p.resources {
			md.ResourceMetrics().At(of.index).CopyTo(rest.ResourceMetrics().AppendEmpty())
		}
	}
	return consumererror.NewMetrics(err, rest)
}

var _ direct.Consumer = (*prometheusExporter)(nil)

// ConsumeOTLP delivers all pieces; see direct.Consumer for what its result means.
func (e *prometheusExporter) ConsumeOTLP(ctx context.Context, pieces []direct.Piece) error {
	sources := make([]source, len(pieces))
	for i := range pieces {
		sources[i] = source{otlp: pieces[i].OTLP, origin: &pieces[i]}
	}
	parts, err := e.consume(ctx, sources)
	if err != nil {
		var malformed *sourceError
		if errors.As(err, &malformed) {
			return &direct.UndecodableError{Piece: malformed.source, Err: malformed.err}
		}
		return err
	}
	failed, err := result(parts)
	if len(failed) == 0 {
		e.forget(parts)
		return err
	}
	if len(failed) == len(parts) {
		return err
	}
	return &direct.PartialError{Err: err, Failed: e.remember(sources, parts)}
}

// consume delivers requests, and tells what became of the parts of each tenant. It
// returns an error only if nothing was sent; a *sourceError for what is no OTLP.
func (e *prometheusExporter) consume(ctx context.Context, sources []source) ([]part, error) {
	if e.senders == nil {
		return nil, errors.New("prometheus exporter is not started")
	}
	parts, err := e.byTenant(sources)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 { // whose translation finds what is malformed, before anything is sent
		p := &parts[0]
		p.done, p.err = e.consumePart(ctx, p)
		var malformed *sourceError
		if errors.As(p.err, &malformed) {
			return nil, malformed
		}
		return parts, nil
	}
	if err := check(parts); err != nil {
		return nil, err
	}
	var tasks errgroup.Group
	tasks.SetLimit(maxTenantsAtOnce)
	for i := range parts {
		tasks.Go(func() error {
			p := &parts[i]
			p.done, p.err = e.consumePart(ctx, p)
			return nil
		})
	}
	_ = tasks.Wait()
	return parts, nil
}

// consumePart delivers the metrics of one tenant.
func (e *prometheusExporter) consumePart(ctx context.Context, p *part) (outcome, error) {
	made, err := e.translate(ctx, p)
	if err != nil {
		return outcome{}, err
	}
	committed := false
	if made.delta != nil {
		defer func() {
			if !committed {
				made.delta.undo()
			}
		}()
	}
	total, err := e.deliver(ctx, p.tenant, made.batches)
	e.window.noticed(err)
	if err != nil {
		return total, err
	}
	if made.delta != nil {
		made.delta.commit()
		committed = true
	}
	e.refuse(ctx, made.refused) // only now, so that a repeated call counts them once
	total.add(outcome{refused: made.refused})
	return total, nil
}

// translated is what the metrics of one tenant come to.
type translated struct {
	batches []*batch
	refused refusals
	delta   *accumulation // nil if there is no delta temporality; to be committed or undone
}

// translate makes requests of the metrics of one tenant. What it works with is lent
// for that, not for the delivery, so there is little of it.
func (e *prometheusExporter) translate(ctx context.Context, p *part) (made translated, err error) {
	// Where there is delta temporality, the series have to be waited for first. Fleets
	// mostly have none, so that is looked at only where there was some.
	if e.expectDelta.Load() {
		if made.delta, err = e.beginDelta(ctx, p); err != nil {
			return made, err
		}
		e.expectDelta.Store(made.delta != nil)
	}
	err = e.translateWith(ctx, p, &made)
	if errors.Is(err, errDelta) {
		e.expectDelta.Store(true)
		if made.delta, err = e.beginDelta(ctx, p); err == nil {
			err = e.translateWith(ctx, p, &made)
		}
	}
	if err != nil && made.delta != nil {
		made.delta.undo()
	}
	return made, err
}

// beginDelta takes the series of a part that have delta temporality; nil if none has.
func (e *prometheusExporter) beginDelta(ctx context.Context, p *part) (*accumulation, error) {
	keys, err := deltaKeys(e.labels, p)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return e.accumulator.begin(ctx, keys)
}

func (e *prometheusExporter) translateWith(ctx context.Context, p *part, made *translated) error {
	t, err := e.translations.take(ctx)
	if err != nil {
		return err
	}
	defer e.translations.giveBack(t)
	t.tenant, t.delta = p.tenant, made.delta
	for i := range p.resources {
		of := &p.resources[i]
		if err := t.resource(of); err != nil {
			if errors.Is(err, errDelta) {
				return err
			}
			return &sourceError{of.source, err}
		}
	}
	made.batches, err = t.writer.write(t.sorted())
	made.refused = t.refused
	return err
}

// translations lends out what translations work with: as many as there are
// processors at most, because they only compute.
type translations struct {
	turns chan struct{}
	make  func() *translation

	mu   sync.Mutex
	idle []*translation
}

func newTranslations(make1 func() *translation) *translations {
	return &translations{turns: make(chan struct{}, runtime.GOMAXPROCS(0)), make: make1}
}

func (l *translations) take(ctx context.Context) (*translation, error) {
	select {
	case l.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a turn to translate: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.idle) - 1; last >= 0 {
		t := l.idle[last] // the one used last knows most
		l.idle = l.idle[:last]
		return t, nil
	}
	return l.make(), nil
}

func (l *translations) giveBack(t *translation) {
	t.reset()
	l.mu.Lock()
	l.idle = append(l.idle, t)
	l.mu.Unlock()
	<-l.turns
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
