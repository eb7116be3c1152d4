package prometheusreceiver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longhaul/longhaul/receivers/prometheusreceiver/internal/metadata"
)

func started(t *testing.T, yaml string, core zapcore.Core, next consumer.ConsumeMetricsFunc) receiver.Metrics {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	factory := NewFactory()
	config := factory.CreateDefaultConfig()
	require.NoError(t, conf.Unmarshal(config))
	sink, err := consumer.NewMetrics(next)
	require.NoError(t, err)
	settings := receivertest.NewNopSettings(metadata.Type)
	settings.Logger = zap.New(core)
	r, err := factory.CreateMetrics(t.Context(), settings, config, sink)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	return r
}

// A relay whose Prometheus is away delivers its own scrape until it is told to
// stop, and not beyond.
func TestShutdownDoesNotWaitForAConsumerThatDoesNotAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up_and_away 1") }))
	defer server.Close()
	delivering, given := make(chan struct{}, 100), make(chan error, 100)
	r := started(t, fmt.Sprintf(`
config:
  scrape_configs:
    - {job_name: one, scrape_interval: 100ms, scrape_timeout: 100ms, static_configs: [{targets: [%q]}]}
`, strings.TrimPrefix(server.URL, "http://")), zapcore.NewNopCore(), func(ctx context.Context, _ pmetric.Metrics) error {
		delivering <- struct{}{}
		<-ctx.Done()
		given <- context.Cause(ctx)
		return ctx.Err()
	})
	<-delivering
	require.NoError(t, r.Shutdown(context.Background())) // else the test runs into its timeout
	require.ErrorIs(t, <-given, errStopped)
}

func TestMissingDirectoryOfTargetsIsSaidOnceWithoutStack(t *testing.T) {
	core, lines := observer.New(zapcore.InfoLevel)
	r := started(t, fmt.Sprintf(`
config:
  scrape_configs:
    - {job_name: one, file_sd_configs: [{files: [%q], refresh_interval: 20ms}]}
`, filepath.Join(t.TempDir(), "absent", "*.yaml")), core, func(context.Context, pmetric.Metrics) error { return nil })
	require.Eventually(t, func() bool { return lines.FilterMessage(noFileWatch).Len() > 0 }, 20*time.Second, 10*time.Millisecond)
	time.Sleep(200 * time.Millisecond) // ten more refreshes
	require.NoError(t, r.Shutdown(context.Background()))
	said := lines.FilterMessage(noFileWatch).All()
	require.Len(t, said, 1)
	require.Equal(t, zapcore.WarnLevel, said[0].Level)
	require.Empty(t, said[0].Stack)
}
