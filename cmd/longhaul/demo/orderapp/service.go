package orderapp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// service is one of the three: an HTTP server with its own telemetry and,
// but for the last, a client for the next.
type service struct {
	*telemetry
	name   string
	url    string // of itself
	next   string // of the service it calls, or empty
	tracer trace.Tracer
	meter  metric.Meter
	client *http.Client
	srv    *http.Server
	served chan struct{}
}

func startService(ctx context.Context, cfg *Config, name, next string, counts *Counts, led *ledger) (*service, error) {
	tel, err := newTelemetry(ctx, cfg, name, counts, led)
	if err != nil {
		return nil, err
	}
	s := &service{
		telemetry: tel, name: name, next: next,
		tracer: tel.traces.Tracer("orderapp"), meter: tel.meters.Meter("orderapp"),
		served: make(chan struct{}),
	}
	propagator := propagation.TraceContext{}
	opts := []otelhttp.Option{
		otelhttp.WithTracerProvider(tel.traces), otelhttp.WithMeterProvider(tel.meters), otelhttp.WithPropagators(propagator),
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // loopback only
	s.client = &http.Client{Transport: otelhttp.NewTransport(transport, opts...), Timeout: 2 * time.Minute}

	mux := http.NewServeMux()
	if err := routes[name](s, mux); err != nil {
		return nil, errors.Join(err, tel.close())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), tel.close())
	}
	s.url = "http://" + ln.Addr().String()
	named := otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path })
	s.srv = &http.Server{
		Handler:           otelhttp.NewHandler(mux, name, append(opts, named)...),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		defer close(s.served)
		if err := s.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			cfg.Logger.Error("service ended", "service", name, "error", err)
		}
	}()
	return s, nil
}

func (s *service) close() error {
	err := errors.Join(s.srv.Close(), s.telemetry.close())
	<-s.served
	s.client.CloseIdleConnections()
	return err
}

// routes tell how each service fills its mux.
var routes = map[string]func(*service, *http.ServeMux) error{
	"storefront": storefrontRoutes,
	"orders":     ordersRoutes,
	"payments":   paymentsRoutes,
}
