package prometheusexporter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"
)

// windowCheck asks Prometheus how old samples may be that it takes beside newer
// ones, at start and again when it was away, and warns when the edges may hold
// older ones. It never holds anything up. Mimir, Thanos and VictoriaMetrics do not
// tell; that is said once.
type windowCheck struct {
	base   string // of Prometheus's API; empty if endpoint is not Prometheus's path
	outage time.Duration
	client *http.Client
	gauge  metric.Float64Gauge
	logger *zap.Logger

	away   atomic.Bool   // the server did not take something lately
	wake   chan struct{} // holds one when there is a reason to ask
	cancel context.CancelFunc
	done   chan struct{}

	told string // the last thing said
}

const (
	windowPause    = 5 * time.Second // between attempts at first
	windowMaxPause = 5 * time.Minute
	maxConfigBytes = 16 << 20
)

var errUntold = errors.New("the server does not tell its configuration as Prometheus does")

// startWindowCheck begins the first check. stop ends it.
func startWindowCheck(cfg *Config, client *http.Client, gauge metric.Float64Gauge, logger *zap.Logger) *windowCheck {
	ctx, cancel := context.WithCancel(context.Background())
	w := &windowCheck{
		outage: cfg.ExpectedOutage, client: client, gauge: gauge, logger: logger,
		wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
	}
	if base, found := strings.CutSuffix(cfg.Endpoint, writePath); found {
		w.base = base
	}
	if w.outage == 0 {
		close(w.done)
		return w
	}
	w.wake <- struct{}{}
	go w.run(ctx)
	return w
}

func (w *windowCheck) stop() {
	w.cancel()
	<-w.done
}

// noticed is told of every delivery's end.
func (w *windowCheck) noticed(err error) {
	if err != nil {
		w.away.Store(true)
		return
	}
	if w.away.Load() && w.away.CompareAndSwap(true, false) {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *windowCheck) run(ctx context.Context) {
	defer close(w.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for pause := windowPause; ctx.Err() == nil; pause = min(2*pause, windowMaxPause) {
			window, err := w.ask(ctx)
			if err == nil || errors.Is(err, errUntold) {
				w.tell(ctx, window, err)
				break
			}
			w.logger.Debug("Prometheus could not be asked for its out-of-order window; asking again", zap.Error(err), zap.Duration("in", pause))
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			case <-w.wake:
			}
		}
	}
}

// ask returns storage.tsdb.out_of_order_time_window, or errUntold.
func (w *windowCheck) ask(ctx context.Context) (time.Duration, error) {
	if w.base == "" {
		return 0, fmt.Errorf("%w: its endpoint does not end in %s", errUntold, writePath)
	}
	body, err := w.get(ctx, "/api/v1/status/config")
	if err != nil {
		return 0, err
	}
	window, err := parseWindow(body)
	if err != nil || window > 0 {
		return window, err
	}
	// Prometheus's default, or another server with a configuration of its own.
	flags, err := w.get(ctx, "/api/v1/status/flags")
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data map[string]string `json:"data"`
	}
	if err := json.Unmarshal(flags, &answer); err != nil || answer.Data["storage.tsdb.path"] == "" {
		return 0, fmt.Errorf("%w: it has no TSDB of Prometheus", errUntold)
	}
	return 0, nil
}

func (w *windowCheck) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxConfigBytes))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, firstLine(string(body)))
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: status %d", errUntold, resp.StatusCode)
	}
	return body, nil
}

// parseWindow reads the answer of /api/v1/status/config.
func parseWindow(body []byte) (time.Duration, error) {
	var answer struct {
		Data struct {
			YAML string `json:"yaml"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Data.YAML == "" {
		return 0, fmt.Errorf("%w: no configuration in the answer", errUntold)
	}
	var config struct {
		Storage struct {
			TSDB struct {
				Window model.Duration `yaml:"out_of_order_time_window"`
			} `yaml:"tsdb"`
		} `yaml:"storage"`
	}
	if err := yaml.Unmarshal([]byte(answer.Data.YAML), &config); err != nil {
		return 0, fmt.Errorf("%w: %w", errUntold, err)
	}
	return time.Duration(config.Storage.TSDB.Window), nil
}

// tell says what was found out, once as long as it stays the same.
func (w *windowCheck) tell(ctx context.Context, window time.Duration, err error) {
	said := fmt.Sprint(window, err)
	defer func() { w.told = said }()
	if err != nil {
		if w.told != said {
			w.logger.Info("Whether the server takes samples as old as the edges may hold is not known; "+
				"check its limit for late samples (Mimir: out_of_order_time_window of the tenant)",
				zap.Duration("expected_outage", w.outage), zap.Error(err))
		}
		return
	}
	w.gauge.Record(ctx, window.Seconds())
	if w.told == said {
		return
	}
	if window < w.outage {
		w.logger.Warn("Prometheus refuses samples that the edges may hold after an outage: they will be lost, counted as too_old or out_of_bounds. "+
			"Set storage.tsdb.out_of_order_time_window in Prometheus's configuration to at least expected_outage",
			zap.Stringer("out_of_order_time_window", model.Duration(window)), zap.Stringer("expected_outage", model.Duration(w.outage)))
		return
	}
	w.logger.Info("Prometheus takes samples as old as the edges may hold",
		zap.Stringer("out_of_order_time_window", model.Duration(window)), zap.Stringer("expected_outage", model.Duration(w.outage)))
}
