// Package lokiexporter sends log records to Grafana Loki's push API (protobuf,
// snappy).
//
// It takes OTLP requests as they are (ConsumeOTLP), and reads them in one pass;
// ConsumeLogs makes a request of its objects and goes the same way. Each record
// becomes one entry: its body is the line; a few resource attributes
// and the severity become the labels that name its stream; everything else is
// structured metadata. README.md has the mapping.
//
// What it promises:
//   - ConsumeLogs, and ConsumeOTLP alike, returns nil only when Loki took every
//     entry, or refused some for good; those are counted by reason
//     (longhaul_loki_entries_rejected) and logged once per burst. There is no queue
//     behind it.
//   - It returns a permanent error only when Loki refused everything it was
//     given, and a retryable one when Loki could not be reached, was overloaded
//     or is set up wrongly. Where that concerns a part only (a tenant, or a stream
//     that is over a limit), the error of ConsumeLogs is a consumererror.Logs with
//     just the resources, that of ConsumeOTLP a direct.PartialError with the pieces.
//     The caller repeats the call with what it was given back; what Loki answered
//     for the first time is not sent again, entry by entry.
//   - ConsumeOTLP sends what ConsumeLogs would of the same records with their origin
//     written on them, but that the order of an entry's metadata may differ. When a
//     piece is no OTLP request of logs it returns a direct.UndecodableError and has
//     sent nothing. Bytes are not changed, nor kept after the call.
//   - Tenants do not wait for each other's retries.
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
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/direct"
)

// tenantsAtOnce is how many tenants one call is delivered to at a time.
const tenantsAtOnce = 32

type lokiExporter struct {
	cfg        *Config
	set        exporter.Settings
	url        string
	translator *translator
	tenants    tenants
	late       *lateData
	telemetry  telemetry
	senders    *deliver.Senders
	client     *http.Client
	observed   metric.Registration
	now        func() time.Time

	mu     sync.Mutex
	bursts map[string]*deliver.Burst // by reason
}

var _ direct.Consumer = (*lokiExporter)(nil)

func newExporter(cfg *Config, set exporter.Settings) (*lokiExporter, error) {
	url, err := cfg.pushURL()
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	counters, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	e := &lokiExporter{
		cfg: cfg,
		set: set,
		url: url,
		translator: &translator{
			tenant:      &cfg.Tenant,
			labels:      newStreamLabels(cfg),
			maxLineSize: int(cfg.MaxLineSize),
			now:         time.Now,
		},
		telemetry: counters,
		now:       time.Now,
		bursts:    make(map[string]*deliver.Burst),
	}
	e.tenants = tenants{create: e.newTenant, now: time.Now, byName: make(map[string]*tenantState)}
	e.late = newLateData(cfg, e.headerOf(cfg.Tenant.Default), set.Logger, counters)
	return e, nil
}

func (e *lokiExporter) headerOf(tenant string) http.Header {
	header := http.Header{}
	header.Set("User-Agent", e.set.BuildInfo.Command+"/"+e.set.BuildInfo.Version)
	if tenant != "" {
		header.Set(e.cfg.Tenant.Header, tenant)
	}
	return header
}

func (e *lokiExporter) newTenant(name string) *tenantState {
	state := &tenantState{name: name, header: e.headerOf(name)}
	state.header.Set("Content-Type", "application/x-protobuf")
	state.header.Set("Content-Encoding", "snappy")
	rules := e.translator.labels.rules
	bounds := e.cfg.Cardinality.bounds(rules)
	if slices.Max(append(bounds, 0)) == 0 {
		return state
	}
	state.guard = newGuard(bounds, e.cfg.Cardinality.Window, e.now, func(rule int, down bool, values int) {
		e.labelTurned(name, rules[rule], bounds[rule], down, values)
	})
	return state
}

// labelTurned tells that a label was demoted or came back.
func (e *lokiExporter) labelTurned(tenant string, rule labelRule, bound int, down bool, values int) {
	fields := []zap.Field{zap.String("label", rule.label), zap.String("attribute", rule.attribute), zap.Int("values", values), zap.Int("bound", bound)}
	if tenant != "" {
		fields = append(fields, zap.String("tenant", tenant))
	}
	e.telemetry.labelTurned(rule.label, down)
	if down {
		e.set.Logger.Warn("A label has too many values, each of which makes streams; its values are structured metadata from now on. "+
			"Take the label out of the exporter's labels, or raise its bound in cardinality", fields...)
		return
	}
	e.set.Logger.Info("A label that had too many values has few again; it is a label from now on", fields...)
}

func (e *lokiExporter) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: false}
}

func (e *lokiExporter) Start(ctx context.Context, host component.Host) error {
	client, err := e.cfg.ToClient(ctx, host.GetExtensions(), e.set.TelemetrySettings)
	if err != nil {
		return fmt.Errorf("create HTTP client for %s: %w", e.url, err)
	}
	e.client = client
	e.senders = deliver.NewSenders(deliver.Settings{
		Backend: "Loki", Client: client, Retry: e.cfg.Retry, Concurrency: e.cfg.Concurrency, Logger: e.set.Logger, Hint: hint, Answered: aboutOneStream, MaxTenants: maxTenants,
	})
	e.observed, err = e.senders.Observe(e.set.MeterProvider.Meter(scopeName), e.set.ID.String())
	if err != nil {
		return fmt.Errorf("create metrics: %w", err)
	}
	e.late.start(client)
	return nil
}

func (e *lokiExporter) Shutdown(context.Context) error {
	if e.client != nil {
		e.late.stop()
		e.client.CloseIdleConnections()
		return e.observed.Unregister()
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
	request, err := (&plog.ProtoMarshaler{}).MarshalLogs(logs)
	if err != nil {
		return consumererror.NewPermanent(fmt.Errorf("encode logs: %w", err))
	}
	total, err := e.consume(ctx, []input{{otlp: request}})
	switch {
	case err != nil:
		var undecodable *direct.UndecodableError
		if errors.As(err, &undecodable) {
			err = consumererror.NewPermanent(fmt.Errorf("read logs: %w", undecodable.Err))
		}
		return err
	case total.err == nil || len(total.failed) == logs.ResourceLogs().Len():
		return total.err
	}
	failed := plog.NewLogs()
	failed.ResourceLogs().EnsureCapacity(len(total.failed))
	for _, i := range total.failed {
		logs.ResourceLogs().At(i).CopyTo(failed.ResourceLogs().AppendEmpty())
	}
	return consumererror.NewLogs(total.err, failed)
}

// ConsumeOTLP delivers all pieces; see the package comment for what its result means.
func (e *lokiExporter) ConsumeOTLP(ctx context.Context, pieces []direct.Piece) error {
	inputs := make([]input, len(pieces))
	for i := range pieces {
		inputs[i] = input{otlp: pieces[i].OTLP, origin: &pieces[i]}
	}
	total, err := e.consume(ctx, inputs)
	switch {
	case err != nil:
		return err
	case total.err == nil || len(total.failed) == len(pieces):
		return total.err
	}
	return &direct.PartialError{Err: total.err, Failed: total.failed}
}

// consume delivers inputs. An error is that of the whole call; what is left to be
// delivered again of a call in part is in the result.
func (e *lokiExporter) consume(ctx context.Context, inputs []input) (total verdict, err error) {
	if e.senders == nil {
		return total, errors.New("loki exporter is not started")
	}
	e.late.await(ctx)
	shares, err := e.translator.translate(inputs, e.open)
	if err != nil {
		return total, err
	}
	results := make([]result, len(shares))
	if len(shares) == 1 {
		results[0] = e.deliver(ctx, shares[0])
	} else {
		e.deliverAll(ctx, shares, results)
	}
	var all result
	for _, r := range results {
		all.add(r)
	}
	total = all.verdict()
	for i, s := range shares {
		s.settle(results[i].err == nil, total.failed)
	}
	if all.err == nil && all.sent == 0 && all.rejected > 0 {
		err = consumererror.NewPermanent(fmt.Errorf("refused by Loki: all %d entries: %s", all.rejected, cmp.Or(all.example, "as in an earlier attempt")))
	}
	return total, err
}

func (e *lokiExporter) deliverAll(ctx context.Context, shares []*share, results []result) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, tenantsAtOnce)
	for i := range shares {
		slots <- struct{}{}
		wait.Go(func() {
			results[i] = e.deliver(ctx, shares[i])
			<-slots
		})
	}
	wait.Wait()
}

// result is what became of a share.
type result struct {
	outcome
	failed  []int32 // parts of the call with entries that Loki has not answered for
	err     error   // why; nil if there are none
	further int     // errors beyond err
}

func (r *result) add(other result) {
	r.outcome.add(other.outcome)
	r.failed = append(r.failed, other.failed...)
	switch {
	case other.err == nil:
	case r.err == nil:
		r.err = other.err
	default:
		r.further++
	}
	r.further += other.further
}

// verdict is what the caller is told.
type verdict struct {
	err    error // why something is left to be delivered again; nil: nothing is
	failed []int // the parts of the call that it is in, ascending, none twice
}

func (r *result) verdict() verdict {
	if r.err == nil {
		return verdict{}
	}
	v := verdict{err: r.err, failed: make([]int, len(r.failed))}
	if r.further > 0 {
		v.err = fmt.Errorf("%w (and %d errors more)", r.err, r.further)
	}
	for i, part := range r.failed {
		v.failed[i] = int(part)
	}
	slices.Sort(v.failed)
	v.failed = slices.Compact(v.failed) // a part may belong to several tenants
	return v
}
