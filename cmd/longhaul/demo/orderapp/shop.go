package orderapp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
)

// order is what travels from service to service.
type order struct {
	ID       string   `json:"order_id"`
	Table    int      `json:"table"`
	Channel  string   `json:"channel"`
	Dishes   []string `json:"dishes"`
	Cents    int      `json:"cents"`
	SlowCard bool     `json:"slow_card,omitempty"` // the dice of the load loop decide these
	BadCard  bool     `json:"bad_card,omitempty"`
	Dump     string   `json:"dump,omitempty"` // makes one log line long enough to be split by the runtime
}

func metricInt64Callback(read func() int64) metric.Int64ObservableGaugeOption {
	return metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(read())
		return nil
	})
}

// storefrontRoutes: POST /checkout takes an order from a guest.
func storefrontRoutes(s *service, mux *http.ServeMux) error {
	checkouts, err := s.meter.Int64Counter("shop.checkouts", metric.WithDescription("Checkouts by channel and outcome"))
	if err != nil {
		return err
	}
	var guests atomic.Int64
	if _, err := s.meter.Int64ObservableUpDownCounter("shop.guests.waiting",
		metric.WithDescription("Guests whose checkout is under way"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(guests.Load())
			return nil
		})); err != nil {
		return err
	}
	mux.HandleFunc("POST /checkout", func(w http.ResponseWriter, r *http.Request) {
		guests.Add(1)
		defer guests.Add(-1)
		ctx := r.Context()
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			s.log.log(ctx, "warn", "checkout cannot be read", "error", err.Error())
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		kv := []any{"order_id", o.ID, "table", o.Table, "channel", o.Channel, "dishes", len(o.Dishes)}
		if o.Dump != "" {
			kv = append(kv, "cart", o.Dump)
		}
		s.log.log(ctx, "info", "checkout started", kv...)
		status, err := s.post(ctx, "/orders", &o)
		outcome := "paid"
		switch {
		case err != nil:
			outcome = "error"
			s.log.log(ctx, "error", "orders service cannot be reached", "order_id", o.ID, "error", err.Error())
			status = http.StatusBadGateway
		case status == http.StatusPaymentRequired:
			outcome = "declined"
			s.log.log(ctx, "warn", "checkout declined", "order_id", o.ID)
		default:
			s.log.log(ctx, "info", "checkout done", "order_id", o.ID, "cents", o.Cents)
		}
		checkouts.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", o.Channel), attribute.String("outcome", outcome)))
		w.WriteHeader(status)
	})
	return nil
}

// ordersRoutes: POST /orders reserves the dishes and has the order paid.
func ordersRoutes(s *service, mux *http.ServeMux) error {
	value, err := s.meter.Float64Histogram("shop.order.value", metric.WithUnit("{EUR}"),
		metric.WithDescription("Value of an order"), metric.WithExplicitBucketBoundaries(5, 10, 20, 40, 80, 160))
	if err != nil {
		return err
	}
	dishes, err := s.meter.Int64Counter("shop.dishes", metric.WithUnit("{dish}"), metric.WithDescription("Dishes sold"))
	if err != nil {
		return err
	}
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, span := s.tracer.Start(ctx, "reserve dishes")
		span.SetAttributes(attribute.String("order.id", o.ID), attribute.Int("order.dishes", len(o.Dishes)))
		pause(time.Millisecond, 6*time.Millisecond)
		span.AddEvent("stock checked")
		span.End()
		s.log.log(ctx, "debug", "dishes reserved", "order_id", o.ID, "dishes", o.Dishes)

		status, err := s.post(ctx, "/charges", &o)
		switch {
		case err != nil:
			s.log.log(ctx, "error", "payments service cannot be reached", "order_id", o.ID, "error", err.Error())
			status = http.StatusBadGateway
		case status == http.StatusPaymentRequired:
			s.log.log(ctx, "warn", "order not paid, dishes released", "order_id", o.ID)
		default:
			value.Record(ctx, float64(o.Cents)/100, metric.WithAttributes(attribute.String("channel", o.Channel)))
			for _, d := range o.Dishes {
				dishes.Add(ctx, 1, metric.WithAttributes(attribute.String("dish", d)))
			}
			s.log.log(ctx, "info", "order accepted", "order_id", o.ID, "cents", o.Cents)
		}
		w.WriteHeader(status)
	})
	return nil
}

// paymentsRoutes: POST /charges charges a card.
func paymentsRoutes(s *service, mux *http.ServeMux) error {
	took, err := s.meter.Float64Histogram("shop.charge.duration", metric.WithUnit("s"),
		metric.WithDescription("Time the card network took")) // exponential, by a view
	if err != nil {
		return err
	}
	mux.HandleFunc("POST /charges", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		start := time.Now()
		ctx, span := s.tracer.Start(ctx, "authorise card")
		defer span.End()
		span.SetAttributes(attribute.String("order.id", o.ID), attribute.Int("charge.cents", o.Cents))
		if o.SlowCard {
			pause(150*time.Millisecond, 400*time.Millisecond)
			s.log.log(ctx, "warn", "card network is slow", "order_id", o.ID, "ms", time.Since(start).Milliseconds())
		} else {
			pause(2*time.Millisecond, 15*time.Millisecond)
		}
		took.Record(ctx, time.Since(start).Seconds())
		if o.BadCard {
			span.SetStatus(codes.Error, "card declined")
			s.log.log(ctx, "error", "card declined", "order_id", o.ID, "code", "insufficient_funds")
			w.WriteHeader(http.StatusPaymentRequired)
			return
		}
		s.log.log(ctx, "info", "card charged", "order_id", o.ID, "cents", o.Cents)
	})
	return nil
}

// post sends the order to the next service and returns its status.
func (s *service) post(ctx context.Context, path string, o *order) (int, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.next+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("post %s: %w", path, err)
	}
	defer discard(resp.Body)
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// pause sleeps for something between lo and hi: the work a real service would do.
func pause(lo, hi time.Duration) {
	time.Sleep(lo + rand.N(hi-lo)) //nolint:gosec // not a secret
}
