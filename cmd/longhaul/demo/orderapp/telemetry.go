package orderapp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// telemetry is what one service uses to be observed.
type telemetry struct {
	traces    *sdktrace.TracerProvider
	meters    *sdkmetric.MeterProvider
	metrics   *metricsLoop
	log       *logger
	spans     *spanExporter
	exporter  sdkmetric.Exporter
	container *criFile
	stop      context.CancelFunc // ends the endless retries
}

// Instance is the service.instance.id of a service in a run; it makes the
// series of each run their own.
func Instance(run, service string) string { return run + "-" + service }

// podName is the name of the pod a service pretends to run in.
func podName(run, service string) string { return service + "-" + run }

func newTelemetry(ctx context.Context, cfg *Config, name string, counts *Counts, led *ledger) (_ *telemetry, err error) {
	log := cfg.Logger.With("service", name)
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	t := &telemetry{stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()

	uid := fmt.Sprintf("%s-%s", cfg.Run, name)
	dir := filepath.Join(cfg.PodLogsDir, fmt.Sprintf("%s_%s_%s", Namespace, podName(cfg.Run, name), uid), name)
	if t.container, err = openCRIFile(dir, cfg.RotateBytes, cfg.RotateKeep); err != nil {
		return nil, err
	}
	t.log = &logger{run: cfg.Run, service: name, file: t.container, counts: counts, ledger: led, trouble: log}

	res := resource.NewSchemaless(
		attribute.String("service.name", name),
		attribute.String("service.namespace", Namespace),
		attribute.String("service.instance.id", Instance(cfg.Run, name)),
		attribute.String("service.version", "1.4.2"),
		attribute.String("k8s.namespace.name", Namespace),
		attribute.String("k8s.pod.name", podName(cfg.Run, name)),
		attribute.String("k8s.container.name", name),
		attribute.String("demo.run", cfg.Run),
	)

	traceOut, err := otlptracegrpc.New(ctx,
		otlptracegrpc.WithEndpoint(cfg.OTLPGRPC), otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false})) // insist retries
	if err != nil {
		return nil, fmt.Errorf("make span exporter: %w", err)
	}
	t.spans = &spanExporter{life: life, inner: traceOut, service: name, counts: counts, ledger: led, log: log}
	t.traces = sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithSpanProcessor(spanCounter{counts}),
		sdktrace.WithBatcher(t.spans,
			sdktrace.WithBlocking(),       // a full queue slows the application down, it does not drop
			sdktrace.WithExportTimeout(0), // the exporter insists
			sdktrace.WithBatchTimeout(500*time.Millisecond)))

	if t.exporter, err = otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpoint(cfg.OTLPHTTP), otlpmetrichttp.WithInsecure(),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false})); err != nil {
		return nil, fmt.Errorf("make metric exporter: %w", err)
	}
	reader := sdkmetric.NewManualReader()
	t.meters = sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(reader),
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Name: "shop.charge.duration"},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 80, MaxScale: 8}})))
	t.metrics = &metricsLoop{
		life: life, reader: reader, exporter: t.exporter, interval: cfg.MetricsInterval,
		service: name, counts: counts, ledger: led, log: log,
	}
	return t, t.countCollections()
}

// countCollections registers a gauge that goes up by one with every
// collection: in a graph, a missing point is then a visible step.
func (t *telemetry) countCollections() error {
	var n int64
	_, err := t.meters.Meter("orderapp").Int64ObservableGauge("shop.export.sequence",
		metricInt64Callback(func() int64 { n++; return n }))
	return err
}

// finish sends all that is left and returns when it was accepted.
func (t *telemetry) finish(ctx context.Context) error {
	return errors.Join(t.metrics.finish(), t.traces.ForceFlush(ctx))
}

func (t *telemetry) close() error {
	t.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if t.traces != nil {
		_ = t.traces.Shutdown(ctx) // what was not accepted is counted as made but not accepted
	} else if t.spans != nil {
		_ = t.spans.Shutdown(ctx)
	}
	if t.meters != nil {
		_ = t.meters.Shutdown(ctx)
	}
	if t.exporter != nil {
		_ = t.exporter.Shutdown(ctx)
	}
	if t.container != nil {
		return t.container.Close()
	}
	return nil
}

// silence keeps the SDK from writing to the standard error stream itself.
type silence struct{ log *slog.Logger }

// Handle implements otel.ErrorHandler.
func (s silence) Handle(err error) { s.log.Debug("OpenTelemetry SDK", "error", err) }
