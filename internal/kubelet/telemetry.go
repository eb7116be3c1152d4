package kubelet

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// counts are read by the metrics.
type counts struct {
	refreshes atomic.Int64
	failures  map[string]*atomic.Int64 // by reason; the map does not change
}

func newCounts() *counts {
	c := &counts{failures: map[string]*atomic.Int64{}}
	for _, reason := range reasons {
		c.failures[reason] = new(atomic.Int64)
	}
	return c
}

// Observe reports what the Source knows and how it learnt it through the meter.
// A Source is reported once, however many users it has: the first meter wins.
func (s *Source) Observe(meter metric.Meter) error {
	shared.Lock()
	defer shared.Unlock()
	if s.unregister != nil || s.client == nil {
		return nil
	}
	var problems []error
	note := func(err error) { problems = append(problems, err) }
	pods, err := meter.Int64ObservableGauge("longhaul_podmetadata_pods", metric.WithUnit("{pod}"),
		metric.WithDescription("Pods that are known: listed by the kubelet (current), or not any more (gone, kept for 24 hours)."))
	note(err)
	refreshes, err := meter.Int64ObservableCounter("longhaul_podmetadata_refreshes", metric.WithUnit("{request}"),
		metric.WithDescription("Answers of the kubelet with its pods."))
	note(err)
	failures, err := meter.Int64ObservableCounter("longhaul_podmetadata_failures", metric.WithUnit("{request}"),
		metric.WithDescription("Requests for the kubelet's pods that failed, by reason; the log says what to do."))
	note(err)
	age, err := meter.Float64ObservableGauge("longhaul_podmetadata_age", metric.WithUnit("s"),
		metric.WithDescription("Time since the kubelet last told its pods. Absent until it did once."))
	note(err)
	if err := errors.Join(problems...); err != nil {
		return err
	}
	current, gone := metric.WithAttributes(attribute.String("state", "current")), metric.WithAttributes(attribute.String("state", "gone"))
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		state := s.State()
		o.ObserveInt64(pods, int64(len(state.Pods)), current)
		o.ObserveInt64(pods, int64(len(state.gone)), gone)
		o.ObserveInt64(refreshes, s.counts.refreshes.Load())
		for _, reason := range reasons {
			o.ObserveInt64(failures, s.counts.failures[reason].Load(), metric.WithAttributes(attribute.String("reason", reason)))
		}
		if fetched := s.fetched.Load(); fetched != 0 {
			o.ObserveFloat64(age, time.Since(time.Unix(0, fetched)).Seconds())
		}
		return nil
	}, pods, refreshes, failures, age)
	if err != nil {
		return err
	}
	s.unregister = registration.Unregister
	return nil
}
