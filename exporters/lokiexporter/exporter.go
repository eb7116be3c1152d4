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
//     or is set up wrongly. Where that concerns some resources only (a tenant,
//     or a stream that is over a limit), the error is a consumererror.Logs with
//     just these. The caller repeats the call with what it was given back; what
//     Loki answered for the first time is not sent again, entry by entry.
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
)

// tenantsAtOnce is how many tenants one call is delivered to at a time.
const tenantsAtOnce = 32

type lokiExporter struct {
	cfg        *Config
	set        exporter.Settings
	url        string
	translator translator
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
		translator: translator{
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
	if e.senders == nil {
		return errors.New("loki exporter is not started")
	}
	e.late.await(ctx)
	shares := e.share(logs)
	results := make([]result, len(shares))
	if len(shares) == 1 {
		results[0] = e.deliver(ctx, logs, shares[0])
	} else {
		e.deliverAll(ctx, logs, shares, results)
	}
	var total result
	for _, r := range results {
		total.add(r)
	}
	switch {
	case total.err != nil:
		return retryable(logs, total)
	case total.sent == 0 && total.rejected > 0:
		return consumererror.NewPermanent(fmt.Errorf("refused by Loki: all %d entries: %s", total.rejected, cmp.Or(total.example, "as in an earlier attempt")))
	}
	return nil
}

func (e *lokiExporter) deliverAll(ctx context.Context, logs plog.Logs, shares []share, results []result) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, tenantsAtOnce)
	for i := range shares {
		slots <- struct{}{}
		wait.Go(func() {
			results[i] = e.deliver(ctx, logs, shares[i])
			<-slots
		})
	}
	wait.Wait()
}

// result is what became of a share.
type result struct {
	outcome
	failed  []int32 // resources with entries that Loki has not answered for
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

// retryable is the error for a call of which something is left to be sent.
func retryable(logs plog.Logs, r result) error {
	err := r.err
	if r.further > 0 {
		err = fmt.Errorf("%w (and %d errors more)", err, r.further)
	}
	slices.Sort(r.failed)
	if len(r.failed) == logs.ResourceLogs().Len() {
		return err
	}
	failed := plog.NewLogs()
	failed.ResourceLogs().EnsureCapacity(len(r.failed))
	for _, i := range r.failed {
		logs.ResourceLogs().At(int(i)).CopyTo(failed.ResourceLogs().AppendEmpty())
	}
	return consumererror.NewLogs(err, failed)
}
