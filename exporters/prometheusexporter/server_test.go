package prometheusexporter

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// prometheusServer is a real Prometheus on loopback.
type prometheusServer struct {
	*lab.Process
	url string
}

func (s *prometheusServer) writeURL() string { return s.url + "/api/v1/write" }

// startPrometheus runs a Prometheus with a configuration file and further flags.
func startPrometheus(t *testing.T, config string, flags ...string) *prometheusServer {
	t.Helper()
	builder := lab.Builder{}
	binary, found, err := builder.Cached("prometheus")
	require.NoError(t, err)
	if !found {
		t.Skipf("no Prometheus server to test against: build it with `make backends` (%s is missing)", binary)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	port, err := lab.FreePort()
	require.NoError(t, err)
	s := &prometheusServer{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	s.Process = lab.NewProcess(lab.Spec{
		Name:   "prometheus",
		Binary: binary,
		Args: append([]string{
			"--config.file=" + file,
			"--storage.tsdb.path=" + filepath.Join(dir, "data"),
			fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port),
			"--web.enable-remote-write-receiver",
			"--log.level=warn",
		}, flags...),
		LogFile: filepath.Join(dir, "prometheus.log"),
		Ready: func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/-/ready", nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		},
	})
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() {
		require.NoError(t, s.Stop())
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// lateData lets a Prometheus take samples up to three days old.
const lateData = "storage: {tsdb: {out_of_order_time_window: 72h}}\n"

// read returns every stored sample of all series, staleness markers included,
// by remote read.
func (s *prometheusServer) read(t *testing.T, from, to time.Time, name string) []*prompb.TimeSeries {
	t.Helper()
	matcher := &prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: name}
	request, err := proto.Marshal(&prompb.ReadRequest{Queries: []*prompb.Query{{
		StartTimestampMs: from.UnixMilli(), EndTimestampMs: to.UnixMilli(),
		Matchers: []*prompb.LabelMatcher{matcher},
	}}})
	require.NoError(t, err)
	resp, err := http.Post(s.url+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, request)))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	raw, err := snappy.Decode(nil, body)
	require.NoError(t, err)
	var answer prompb.ReadResponse
	require.NoError(t, proto.Unmarshal(raw, &answer))
	require.Len(t, answer.Results, 1)
	return answer.Results[0].Timeseries
}

// labelsOf returns the labels of a series without those named.
func labelsOf(s *prompb.TimeSeries, without ...string) map[string]string {
	m := make(map[string]string)
	for _, l := range s.Labels {
		m[l.Name] = l.Value
	}
	for _, name := range without {
		delete(m, name)
	}
	return m
}

func valuesOf(s *prompb.TimeSeries) []float64 {
	values := make([]float64, len(s.Samples))
	for i, sample := range s.Samples {
		values[i] = sample.Value
	}
	return values
}

func isStale(v float64) bool { return math.Float64bits(v) == 0x7ff0000000000002 }

// exemplar is one as a query returns it; when it has no time of its own, that of
// the scrape is left out.
type storedExemplar struct {
	Labels map[string]string `json:"labels"`
	Value  string            `json:"value"`
}

// exemplars returns what is stored since a time, by series, without the labels
// of the relay.
func (s *prometheusServer) exemplars(t *testing.T, since time.Time) map[string][]storedExemplar {
	t.Helper()
	query := url.Values{
		"query": {`{__name__=~".+"}`},
		"start": {strconv.FormatInt(since.Add(-24*365*time.Hour).Unix(), 10)},
		"end":   {strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10)},
	}
	resp, err := http.Get(s.url + "/api/v1/query_exemplars?" + query.Encode())
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Data []struct {
			SeriesLabels map[string]string `json:"seriesLabels"`
			Exemplars    []storedExemplar  `json:"exemplars"`
		} `json:"data"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	found := make(map[string][]storedExemplar)
	for _, series := range answer.Data {
		name := series.SeriesLabels["__name__"] + " " + series.SeriesLabels["le"]
		found[name] = append(found[name], series.Exemplars...)
	}
	return found
}
