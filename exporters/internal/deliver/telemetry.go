package deliver

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// namedTenants is up to how many tenants each has its own metrics.
const namedTenants = 50

// Observe reports how many requests are under way, and how many may be, until
// the registration is taken back. The name is that of the exporter.
func (s *Senders) Observe(meter metric.Meter, name string) (metric.Registration, error) {
	var problems []error
	gauge := func(name, help string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit("{request}"), metric.WithDescription(help))
		problems = append(problems, err)
		return g
	}
	limits := gauge("longhaul_backend_requests_limit",
		"How many requests may be under way: of one tenant (scope tenant, as long as there are few), of all tenants together (all), of those that are being refused (refused). It grows while the backend answers as quickly as usual and is halved when it is overloaded or does not answer.")
	inFlight := gauge("longhaul_backend_requests_in_flight", "Requests under way.")
	waiting := gauge("longhaul_backend_requests_waiting", "Requests that wait for one of those under way to end.")
	halvings, err := meter.Int64ObservableCounter("longhaul_backend_congestions", metric.WithUnit("{congestion}"),
		metric.WithDescription("How often a limit of requests was halved, because the backend answered 429, 408 or 5xx, or not at all."))
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	exporter := attribute.String("exporter", name)
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		report := func(l *limit, attributes ...attribute.KeyValue) {
			of := metric.WithAttributes(append(attributes, exporter)...)
			now, flying, queued := l.state()
			o.ObserveInt64(limits, int64(now), of)
			o.ObserveInt64(inFlight, int64(flying), of)
			o.ObserveInt64(waiting, int64(queued), of)
		}
		report(s.whole, attribute.String("scope", "all"))
		report(s.probes, attribute.String("scope", "refused"))
		o.ObserveInt64(halvings, s.halved.Load(), metric.WithAttributes(exporter))
		for _, t := range s.few() {
			report(t.limit, attribute.String("scope", "tenant"), attribute.String("tenant", t.name))
		}
		return nil
	}, limits, inFlight, waiting, halvings)
}

// few lists the tenants if they are few.
func (s *Senders) few() []*tenant {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tenants) > namedTenants {
		return nil
	}
	list := make([]*tenant, 0, len(s.tenants))
	for _, sender := range s.tenants {
		list = append(list, sender.tenant)
	}
	return list
}
