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
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// fallbackFor is how long a server that refused 2.0 is spoken to in 1.0 before
// 2.0 is tried again: it may have been updated.
const fallbackFor = time.Hour

// errNotUnderstood says that a server answered 2xx to 2.0 without saying how
// many samples it wrote, as one does that reads the request as an empty 1.0.
var errNotUnderstood = errors.New("the server does not confirm remote write 2.0")

type prometheusExporter struct {
	cfg        *Config
	set        exporter.Settings
	header2    http.Header
	header1    http.Header
	translator translator
	progress   deliver.Progress
	telemetry  telemetry
	sender     *deliver.Sender

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
	return &prometheusExporter{
		cfg:        cfg,
		set:        set,
		header2:    header("application/x-protobuf;proto=io.prometheus.write.v2.Request", remote.RemoteWriteVersion20HeaderValue),
		header1:    header("application/x-protobuf", remote.RemoteWriteVersion1HeaderValue),
		translator: newTranslator(cfg),
		telemetry:  counters,
		bursts:     make(map[string]*deliver.Burst),
	}, nil
}

// Capabilities says that metrics are changed: what can never be stored is taken
// out, and the rest is moved about for the translator.
func (*prometheusExporter) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: true}
}

func (e *prometheusExporter) Start(ctx context.Context, host component.Host) error {
	client, err := e.cfg.ToClient(ctx, host.GetExtensions(), e.set.TelemetrySettings)
	if err != nil {
		return fmt.Errorf("create HTTP client for %s: %w", e.cfg.Endpoint, err)
	}
	e.sender = &deliver.Sender{Backend: "Prometheus", Client: client, Retry: e.cfg.Retry, Logger: e.set.Logger, Hint: hint}
	return nil
}

func (e *prometheusExporter) Shutdown(context.Context) error {
	if e.sender != nil {
		e.sender.Client.CloseIdleConnections()
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
	if e.sender == nil {
		return errors.New("prometheus exporter is not started")
	}
	refused := screen(md)
	all, err := e.translator.series(ctx, md)
	if ctx.Err() != nil {
		return fmt.Errorf("translate metrics: %w", context.Cause(ctx))
	}
	if err != nil { // not foreseen by screen
		refused.add(reasonOther, 1, err.Error())
	}
	total, err := e.deliver(ctx, plan(all, int(e.cfg.MaxRequestSize), &sizer2{}))
	if err != nil {
		return err
	}
	e.refuse(ctx, refused) // only now, so that a repeated call counts them once
	total.add(outcome{refused: refused})
	if total.sent == 0 && total.refused.samples() > 0 {
		return consumererror.NewPermanent(fmt.Errorf("all %d samples were refused: %s", total.refused.samples(), total.refused.example()))
	}
	return nil
}

// deliver sends batches, except those that an earlier attempt of the same call
// got an answer for.
func (e *prometheusExporter) deliver(ctx context.Context, batches []*batch) (outcome, error) {
	var (
		total    outcome
		outcomes []outcome // of batches
		earlier  []deliver.Part
		repeated = !e.progress.Empty()
	)
	for _, b := range batches {
		done, found := outcome{}, false
		if repeated {
			var known deliver.Part
			if known, found = e.progress.Answered(b.hash()); found {
				done = outcome{known.Sent, make(refusals)}
				done.refused.add(reasonEarlier, known.Rejected, "refused in an earlier attempt")
				earlier = append(earlier, known)
			}
		}
		if !found {
			var err error
			if done, err = e.send(ctx, b); err != nil {
				e.progress.Keep(answered(batches, outcomes))
				return total, err
			}
		}
		outcomes = append(outcomes, done)
		total.add(done)
	}
	e.progress.Forget(earlier)
	return total, nil
}

// answered lists the batches that have an outcome.
func answered(batches []*batch, outcomes []outcome) []deliver.Part {
	parts := make([]deliver.Part, len(outcomes))
	for i, o := range outcomes {
		parts[i] = deliver.Part{Hash: batches[i].hash(), Sent: o.sent, Rejected: o.refused.samples()}
	}
	return parts
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

// send delivers a batch in the protocol the server speaks.
func (e *prometheusExporter) send(ctx context.Context, b *batch) (outcome, error) {
	if e.cfg.Protocol == Protocol1 || e.cfg.Protocol == ProtocolAuto && time.Now().UnixNano() < e.speak1Until.Load() {
		return e.send1(ctx, b)
	}
	done, err := e.send2(ctx, b)
	if !errors.Is(err, errNotUnderstood) || e.cfg.Protocol == Protocol2 {
		return done, err
	}
	e.set.Logger.Warn("Server does not speak remote write 2.0; speaking 1.0, which has no start timestamps and stores a request whole or not at all",
		zap.String("endpoint", e.cfg.Endpoint), zap.Duration("try_again_in", fallbackFor), zap.Error(err))
	e.speak1Until.Store(time.Now().Add(fallbackFor).UnixNano())
	return e.send1(ctx, b)
}

func (e *prometheusExporter) send2(ctx context.Context, b *batch) (outcome, error) {
	body, err := encode2(b)
	if err != nil {
		return outcome{}, fmt.Errorf("encode remote write 2.0: %w", err)
	}
	reply, err := e.sender.Post(ctx, e.cfg.Endpoint, e.header2, body)
	if err != nil {
		return outcome{}, err
	}
	stats, err := remote.ParseWriteResponseStats(&http.Response{Header: reply.Header})
	if err != nil {
		e.set.Logger.Debug("Headers that say how much was written are not numbers", zap.Error(err))
	}
	switch {
	case reply.Status == http.StatusUnsupportedMediaType:
		return outcome{}, fmt.Errorf("%w: status 415: %s", errNotUnderstood, firstLine(reply.Body))
	case reply.Accepted() && !stats.Confirmed:
		return outcome{}, fmt.Errorf("%w: status %d without the headers that say how much was written", errNotUnderstood, reply.Status)
	case reply.Status == http.StatusRequestEntityTooLarge && b.samples > 1:
		return e.sendHalves(ctx, b, e.send2)
	case reply.Accepted():
		return e.account(ctx, b, parsedRefusals(reply.Body, stats, b.counts)), nil
	case reply.Status == http.StatusBadRequest:
		return e.account(ctx, b, parsedRefusals(reply.Body, stats, b.counts)), nil
	}
	return e.account(ctx, b, wholeRefusal(b, reply)), nil
}

// maxSplits bounds the requests spent on finding the bad samples of one batch
// with a server of 1.0.
const maxSplits = 64

func (e *prometheusExporter) send1(ctx context.Context, b *batch) (outcome, error) {
	var total outcome
	for _, part := range e.plan1(b) {
		splits := maxSplits
		done, err := e.sendPart1(ctx, part, &splits)
		total.add(done)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// plan1 divides a batch that was planned for 2.0, where strings are shared.
func (e *prometheusExporter) plan1(b *batch) []*batch {
	parts := make([]*series, len(b.runs))
	for i, r := range b.runs {
		s := *r.series
		s.floats, s.histograms, s.exemplars = r.floats, r.histograms, r.exemplars
		parts[i] = &s
	}
	return plan(parts, int(e.cfg.MaxRequestSize), sizer1{})
}

// sendPart1 sends a request of 1.0. A server of 1.0 stores all of it or nothing,
// and tells one reason: when it refuses, the good samples are found by halving.
func (e *prometheusExporter) sendPart1(ctx context.Context, b *batch, splits *int) (outcome, error) {
	body, err := encode1(b)
	if err != nil {
		return outcome{}, fmt.Errorf("encode remote write 1.0: %w", err)
	}
	reply, err := e.sender.Post(ctx, e.cfg.Endpoint, e.header1, body)
	if err != nil {
		return outcome{}, err
	}
	halve := reply.Status == http.StatusBadRequest || reply.Status == http.StatusRequestEntityTooLarge
	switch {
	case reply.Accepted():
		return e.account(ctx, b, partRefusals{}), nil
	case halve && b.samples > 1 && *splits > 0:
		*splits--
		return e.sendHalves(ctx, b, func(ctx context.Context, half *batch) (outcome, error) {
			return e.sendPart1(ctx, half, splits)
		})
	case reply.Status == http.StatusBadRequest:
		return e.account(ctx, b, parsedRefusals(reply.Body, remote.WriteResponseStats{}, b.counts)), nil
	}
	return e.account(ctx, b, wholeRefusal(b, reply)), nil
}

func (e *prometheusExporter) sendHalves(ctx context.Context, b *batch, send func(context.Context, *batch) (outcome, error)) (outcome, error) {
	var total outcome
	first, second := b.halves()
	for _, half := range []*batch{first, second} {
		done, err := send(ctx, half)
		total.add(done)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// partRefusals is what of one request was refused.
type partRefusals struct{ samples, exemplars refusals }

func parsedRefusals(body string, stats remote.WriteResponseStats, sent counts) partRefusals {
	samples, exemplars := parseRefusals(body, stats, sent)
	return partRefusals{samples, exemplars}
}

func wholeRefusal(b *batch, reply deliver.Reply) partRefusals {
	reason := fmt.Sprintf("status_%d", reply.Status)
	if reply.Status == http.StatusRequestEntityTooLarge {
		reason = reasonRequestTooLarge
	}
	samples := make(refusals)
	samples.add(reason, b.samples, firstLine(reply.Body))
	return partRefusals{samples: samples}
}

// account counts what became of a request.
func (e *prometheusExporter) account(ctx context.Context, b *batch, refused partRefusals) outcome {
	e.refuse(ctx, refused.samples)
	count(ctx, e.telemetry.exemplarsRejected, refused.exemplars)
	sent := b.samples - refused.samples.samples()
	e.telemetry.sent.Add(ctx, int64(sent))
	return outcome{sent: sent, refused: refused.samples}
}

// refuse counts and tells refused samples, the latter once per burst and reason.
func (e *prometheusExporter) refuse(ctx context.Context, refused refusals) {
	count(ctx, e.telemetry.rejected, refused)
	for reason, r := range refused {
		e.mu.Lock()
		burst := e.bursts[reason]
		if burst == nil {
			burst = &deliver.Burst{}
			e.bursts[reason] = burst
		}
		e.mu.Unlock()
		if n := burst.Allow(r.samples); n > 0 {
			e.set.Logger.Error("Samples were refused for good; they are lost unless the sender keeps them. "+
				"Counted in longhaul_prometheus_samples_rejected",
				zap.Int("samples", n), zap.String("reason", reason), zap.String("example", shorten(r.example)))
		}
	}
}

func shorten(text string) string {
	const most = 400
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
