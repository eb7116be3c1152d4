package demo

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
	"github.com/longhaul/longhaul/internal/lab"
)

func TestPortHolderIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	port := ln.Addr().(*net.TCPAddr).Port
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skip("this system has no /proc")
	}
	require.Contains(t, portHolder("/proc", port), strings.TrimSpace(string(comm)))

	err = checkPort(wantedPort{name: "Loki", flag: "--loki-port", env: "DEMO_LOKI_PORT", port: port})
	require.ErrorIs(t, err, ErrPortInUse)
	require.ErrorContains(t, err, "DEMO_LOKI_PORT")
	require.NoError(t, checkPort(wantedPort{}), "0 is any free port")
	require.Equal(t, "another program", portHolder(t.TempDir(), port))
}

func TestTooLittleSpaceIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	require.NoError(t, checkSpace(dir, 1, "the run directory", "free some"))
	err := checkSpace(dir, 1<<62, "the run directory", "free some")
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorContains(t, err, "free some")
}

func TestOptionsReportEveryProblem(t *testing.T) {
	t.Setenv("DEMO_SECONDS", "soon")
	t.Setenv("DEMO_LOKI_PORT", "70000")
	var o options
	o.flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	o.Rate = 0
	o.PrometheusPort, o.JaegerPort = 9090, 9090
	err := o.validate()
	for _, want := range []string{`DEMO_SECONDS="soon"`, "--rate", "DEMO_LOKI_PORT", "--jaeger-port (DEMO_JAEGER_PORT): is 9090, and so is --prometheus-port"} {
		require.ErrorContains(t, err, want)
	}
}

func TestOutageIsInTheMiddle(t *testing.T) {
	for seconds, want := range map[int][2]time.Duration{
		120: {45 * time.Second, 30 * time.Second},
		60:  {20 * time.Second, 20 * time.Second},
		15:  {5 * time.Second, 5 * time.Second},
	} {
		at, length := (&options{Seconds: seconds}).outage()
		require.Equal(t, want, [2]time.Duration{at, length})
	}
}

func metrics(kv ...any) lab.Metrics {
	m := lab.Metrics{}
	for i := 0; i < len(kv); i += 3 {
		name, signal := kv[i].(string), kv[i+1].(string)
		s := &model.Sample{Metric: model.Metric{}, Value: model.SampleValue(kv[i+2].(float64))}
		if signal != "" {
			s.Metric["signal"] = model.LabelValue(signal)
		}
		m[name] = append(m[name], s)
	}
	return m
}

func TestCountersGoOnAcrossRestarts(t *testing.T) {
	var r edgeReading
	now := time.Now()
	r.update(metrics("longhaul_items_in_total", "logs", 10.0, "longhaul_items_in_total", "traces", 5.0), now)
	r.update(metrics("longhaul_items_in_total", "logs", 12.0, "longhaul_items_in_total", "traces", 5.0), now)
	require.Equal(t, view.Items{12, 0, 5}, r.in.items())
	r.update(metrics("longhaul_items_in_total", "logs", 3.0), now) // killed and started again
	r.update(metrics("longhaul_items_in_total", "logs", 4.0, "longhaul_items_in_total", "traces", 1.0), now)
	require.Equal(t, view.Items{16, 0, 6}, r.in.items())
}

func TestDrainedMeansAllOldItemsAreConfirmed(t *testing.T) {
	since := time.Now()
	read := func(after time.Duration, unconfirmedAge, link float64) bool {
		var r edgeReading
		r.update(metrics("longhaul_oldest_unconfirmed_age_seconds", "logs", unconfirmedAge, "longhaul_link_up", "", link), since.Add(after))
		return r.drained(since)
	}
	require.True(t, read(5*time.Second, 0, 1))
	require.True(t, read(5*time.Second, 2, 1), "what came later may be under way")
	require.False(t, read(5*time.Second, 6, 1), "something older is not confirmed")
	require.False(t, read(5*time.Second, 0, 0), "a cut link drains nothing")
	require.False(t, read(-time.Second, 0, 1), "an old reading says nothing")
	require.False(t, (&edgeReading{}).drained(since))
}
