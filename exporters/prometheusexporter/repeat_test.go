package prometheusexporter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// A real Prometheus behind a link that fails at every request in turn, before it or
// after: what is refused is counted once all the same, and what is good is stored.
func TestRefusalsAreCountedOnceWhateverIsRepeated(t *testing.T) {
	t.Parallel()
	prometheus := startPrometheus(t, "storage: {tsdb: {out_of_order_time_window: 1h}}\n")
	now := time.Now().Truncate(time.Millisecond)
	first := start(t, prometheus.writeURL(), nil)
	require.NoError(t, first.ConsumeMetrics(context.Background(), gaugesAt("newest", map[time.Time]float64{now: 1})))
	for _, protocol := range []Protocol{Protocol2, Protocol1} {
		for _, after := range []bool{false, true} {
			for failing := 1; failing <= 4; failing++ {
				name := fmt.Sprintf("p%c_%t_%d", protocol[0], after, failing)
				n := 0
				link := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n++
					body, _ := io.ReadAll(r.Body)
					if n == failing && !after {
						w.WriteHeader(http.StatusBadGateway)
						return
					}
					request, err := http.NewRequestWithContext(r.Context(), r.Method, prometheus.url+r.URL.Path, bytes.NewReader(body))
					if err != nil {
						panic(err)
					}
					request.Header = r.Header.Clone()
					reply, err := http.DefaultClient.Do(request)
					if err != nil {
						panic(err)
					}
					defer reply.Body.Close()
					if n == failing {
						w.WriteHeader(http.StatusBadGateway)
						return
					}
					for key, values := range reply.Header {
						w.Header()[key] = values
					}
					w.WriteHeader(reply.StatusCode)
					_, _ = io.Copy(w, reply.Body)
				}))
				exp := start(t, link.URL+writePath, func(cfg *Config) {
					cfg.Protocol, cfg.ExpectedOutage, cfg.Retry.MaxElapsedTime = protocol, 0, 0
				})
				var err error
				for range 5 {
					err = exp.ConsumeMetrics(context.Background(), gaugesAt(name, map[time.Time]float64{
						now.Add(-100 * time.Hour): 1, now.Add(-2 * time.Hour): 2, now.Add(-30 * time.Minute): 3, now: 4, now.Add(time.Hour): 5,
					}))
					if err == nil {
						break
					}
					require.ErrorIs(t, err, deliver.ErrUnavailable)
				}
				require.NoError(t, err, name)
				link.Close()
				stored := prometheus.read(t, now.Add(-200*time.Hour), now.Add(2*time.Hour), name)
				require.Len(t, stored, 1, name)
				require.Equal(t, []float64{3, 4}, valuesOf(stored[0]), name)
				require.Equal(t, map[string]int64{"too_old": 2, "too_far_in_future": 1}, exp.rejected(t), name)
				require.Equal(t, int64(2), exp.sent(t), name)
			}
		}
	}
}
