// Package lokiexporter sends log records to Grafana Loki's push API (protobuf,
// snappy).
//
// Each record becomes one entry: its body is the line; a few resource attributes
// and the severity become the labels that name its stream; everything else is
// structured metadata. README.md has the mapping.
//
// What it promises:
//   - ConsumeLogs returns nil only when Loki took every entry, or refused some
//     for good; those are counted by reason (longhaul_loki_entries_rejected) and
//     logged once per burst. There is no queue behind it.
//   - It returns a permanent error only when Loki refused everything it was
//     given, and a retryable one when Loki could not be reached, was overloaded
//     or is set up wrongly. The caller then repeats the whole call; what Loki
//     answered for the first time is not sent again.
//   - Entries of a stream are sent in the order of their time; requests are
//     bounded in bytes. A refused request is never repeated whole.
//   - A refusal cannot hide: see batch.go for when Loki keeps one to itself.
package lokiexporter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/golang/snappy"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

type lokiExporter struct {
	cfg        *Config
	set        exporter.Settings
	url        string
	header     http.Header
	translator translator
	planner    planner
	progress   deliver.Progress
	telemetry  telemetry
	sender     *deliver.Sender

	mu     sync.Mutex
	bursts map[string]*deliver.Burst // by reason
}

func newExporter(cfg *Config, set exporter.Settings) (*lokiExporter, error) {
	url, err := cfg.pushURL()
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	counters, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	header := http.Header{}
	header.Set("Content-Type", "application/x-protobuf")
	header.Set("Content-Encoding", "snappy")
	header.Set("User-Agent", set.BuildInfo.Command+"/"+set.BuildInfo.Version)
	if cfg.Tenant != "" {
		header.Set("X-Scope-OrgID", cfg.Tenant)
	}
	return &lokiExporter{
		cfg:    cfg,
		set:    set,
		url:    url,
		header: header,
		translator: translator{
			labels:      newStreamLabels(cfg),
			maxLineSize: int(cfg.MaxLineSize),
			now:         time.Now,
		},
		planner:   planner{maxBytes: int(cfg.MaxRequestSize), now: time.Now},
		telemetry: counters,
		bursts:    make(map[string]*deliver.Burst),
	}, nil
}

func (e *lokiExporter) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: false}
}

func (e *lokiExporter) Start(ctx context.Context, host component.Host) error {
	client, err := e.cfg.ToClient(ctx, host.GetExtensions(), e.set.TelemetrySettings)
	if err != nil {
		return fmt.Errorf("create HTTP client for %s: %w", e.url, err)
	}
	e.sender = &deliver.Sender{Backend: "Loki", Client: client, Retry: e.cfg.Retry, Logger: e.set.Logger, Hint: hint}
	return nil
}

func (e *lokiExporter) Shutdown(context.Context) error {
	if e.sender != nil {
		e.sender.Client.CloseIdleConnections()
	}
	return nil
}

func hint(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "check the exporter's tenant, auth and headers"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "check the exporter's endpoint: it must be Loki's base URL"
	}
	return ""
}

// ConsumeLogs delivers all of logs; see the package comment for what its result
// means.
func (e *lokiExporter) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	if e.sender == nil {
		return errors.New("loki exporter is not started")
	}
	streams, cut := e.translator.streams(logs)
	parts, earlier, total := e.unanswered(e.planner.split(streams))
	requests := e.planner.pack(parts)
	outcomes := make([]outcome, 0, len(requests))
	for _, r := range requests {
		done, err := e.send(ctx, r)
		if err != nil {
			e.progress.Keep(append(earlier, answered(requests, outcomes)...))
			return err
		}
		outcomes = append(outcomes, done)
		total.add(done)
	}
	e.progress.Forget(earlier)
	e.telemetry.countCuts(ctx, cut)
	if total.sent == 0 && total.rejected > 0 {
		return consumererror.NewPermanent(fmt.Errorf("refused by Loki: all %d entries: %s", total.rejected, cmp.Or(total.example, "as in an earlier attempt")))
	}
	return nil
}

// unanswered leaves out what an earlier attempt of the same call got an answer
// for.
func (e *lokiExporter) unanswered(parts []part) (rest []part, earlier []deliver.Part, total outcome) {
	if e.progress.Empty() {
		return parts, nil, outcome{}
	}
	rest = parts[:0]
	for _, p := range parts {
		known, found := e.progress.Answered(p.hash())
		if !found {
			rest = append(rest, p)
			continue
		}
		earlier = append(earlier, known)
		total.sent += known.Sent
		total.rejected += known.Rejected
	}
	return rest, earlier, total
}

// answered lists the parts of the requests that have an outcome.
func answered(requests []*request, outcomes []outcome) []deliver.Part {
	var list []deliver.Part
	for i, o := range outcomes {
		for k := range requests[i].parts {
			known := deliver.Part{Hash: requests[i].parts[k].hash()}
			if k == 0 { // the outcome of a request is counted once
				known.Sent, known.Rejected = o.sent, o.rejected
			}
			list = append(list, known)
		}
	}
	return list
}

// outcome counts entries.
type outcome struct {
	sent, rejected int
	example        string // of a refusal
}

func (o *outcome) add(other outcome) {
	o.sent += other.sent
	o.rejected += other.rejected
	if o.example == "" {
		o.example = other.example
	}
}

func (e *lokiExporter) send(ctx context.Context, r *request) (outcome, error) {
	raw, err := r.message().Marshal()
	if err != nil {
		return outcome{}, fmt.Errorf("encode push request: %w", err)
	}
	reply, err := e.sender.Post(ctx, e.url, e.header, snappy.Encode(nil, raw))
	if err != nil {
		e.remember(r, false)
		return outcome{}, err
	}
	switch {
	case reply.Accepted():
		e.remember(r, true)
		e.telemetry.sent.Add(ctx, int64(r.entries))
		return outcome{sent: r.entries}, nil
	case reply.Status == http.StatusRequestEntityTooLarge && r.entries > 1:
		return e.sendHalves(ctx, r)
	}
	e.remember(r, false)
	return e.refused(ctx, r, reply), nil
}

// sendHalves sends a request that was too large for the server, or for a proxy
// before it, in two.
func (e *lokiExporter) sendHalves(ctx context.Context, r *request) (outcome, error) {
	first, second := r.halves()
	total, err := e.send(ctx, first)
	if err != nil {
		return outcome{}, err
	}
	rest, err := e.send(ctx, second)
	total.add(rest)
	return total, err
}

// remember keeps what the planner must know: only a stream whose entries were
// all taken, and that is not large, may share its next request.
func (e *lokiExporter) remember(r *request, taken bool) {
	now := e.planner.now()
	for _, p := range r.parts {
		e.planner.recent.set(p.labels, taken && !p.large, now)
	}
}

// refused counts and tells what a final 4xx refused.
func (e *lokiExporter) refused(ctx context.Context, r *request, reply deliver.Reply) outcome {
	var refusals []refusal
	switch reply.Status {
	case http.StatusBadRequest:
		refusals = parseRefusals(reply.Body, r)
	case http.StatusRequestEntityTooLarge:
		refusals = []refusal{{reasonRequestTooLarge, r.entries, reply.Body}}
	default:
		refusals = []refusal{{fmt.Sprintf("status_%d", reply.Status), r.entries, reply.Body}}
	}
	var result outcome
	for _, refusal := range refusals {
		e.telemetry.reject(ctx, refusal)
		result.add(outcome{rejected: refusal.entries, example: shorten(refusal.example)})
		e.tell(refusal, reply.Status)
	}
	result.sent = r.entries - result.rejected
	e.telemetry.sent.Add(ctx, int64(result.sent))
	return result
}

// tell logs refusals, once per burst and reason.
func (e *lokiExporter) tell(r refusal, status int) {
	e.mu.Lock()
	burst := e.bursts[r.reason]
	if burst == nil {
		burst = &deliver.Burst{}
		e.bursts[r.reason] = burst
	}
	e.mu.Unlock()
	if n := burst.Allow(r.entries); n > 0 {
		e.set.Logger.Error("Loki refused log entries for good; they are lost unless the sender keeps them. "+
			"Counted in longhaul_loki_entries_rejected",
			zap.Int("entries", n), zap.String("reason", r.reason), zap.Int("status", status),
			zap.String("example", shorten(r.example)))
	}
}

func shorten(text string) string { return cutAtRune(text, 400) }
