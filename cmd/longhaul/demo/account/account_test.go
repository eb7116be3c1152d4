package account

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/orderapp"
	"github.com/longhaul/longhaul/internal/lab"
)

func line(service string, seq int) string {
	return fmt.Sprintf(`{"run":"r","service":%q,"seq":%d,"msg":"x"}`, service, seq)
}

func logLedger(n int) (*Ledger, []lab.LogEntry) {
	l := &Ledger{Store: "store-0001", Run: "r"}
	var got []lab.LogEntry
	for i := 1; i <= n; i++ {
		text := line("orders", i)
		l.Logs = append(l.Logs, orderapp.Entry{
			Kind: orderapp.KindLog, Service: "orders", Seq: int64(i), UnixNano: int64(1000 + i), Sum: orderapp.LineSum([]byte(text)),
		})
		got = append(got, lab.LogEntry{Time: int64(1000 + i), Line: text})
	}
	return l, got
}

func TestEveryLineMustBeThereAsSent(t *testing.T) {
	l, got := logLedger(5)
	row := matchLogs(l, got)
	require.Equal(t, Row{Store: "store-0001", Signal: Logs, Sent: 5, Found: 5}, row)

	lost := matchLogs(l, got[1:])
	require.Equal(t, []int{4, 1, 0}, []int{lost.Found, lost.Missing, lost.Duplicates})
	require.Contains(t, lost.Examples[0], "missing: orders line 1")

	twice := matchLogs(l, append(got, got[2]))
	require.Equal(t, []int{5, 0, 1}, []int{twice.Found, twice.Missing, twice.Duplicates})

	late := append([]lab.LogEntry(nil), got...)
	late[3].Time++
	require.Equal(t, 1, matchLogs(l, late).Missing, "another time is another line")
	torn := append([]lab.LogEntry(nil), got...)
	torn[3].Line = strings.Replace(torn[3].Line, "x", "y", 1)
	require.Equal(t, 1, matchLogs(l, torn).Missing, "another text is another line")
	other := append([]lab.LogEntry(nil), got...)
	other[3].Line = strings.Replace(other[3].Line, `"r"`, `"s"`, 1)
	require.Equal(t, 1, matchLogs(l, other).Missing, "a line of another run does not count")
}

func TestEverySpanMustBeInItsCluster(t *testing.T) {
	l := &Ledger{Store: "store-0001"}
	var got []lab.Span
	for i := range 4 {
		id := fmt.Sprintf("%016x", i)
		l.Spans = append(l.Spans, orderapp.Entry{Kind: orderapp.KindSpan, TraceID: "t", SpanID: id})
		got = append(got, lab.Span{TraceID: "t", SpanID: id, Resource: map[string]any{"k8s.cluster.name": "store-0001"}})
	}
	require.Equal(t, Row{Store: "store-0001", Signal: Traces, Sent: 4, Found: 4}, MatchSpans(l, got))

	twice := MatchSpans(l, append(got, got[0], got[0]))
	require.Equal(t, []int{4, 0, 2}, []int{twice.Found, twice.Missing, twice.Duplicates})

	got[3].Resource = map[string]any{"k8s.cluster.name": "store-0002"}
	moved := MatchSpans(l, got[1:])
	require.Equal(t, []int{2, 2, 0}, []int{moved.Found, moved.Missing, moved.Duplicates})
	require.Contains(t, strings.Join(moved.Examples, "\n"), "has cluster store-0002")
}

// series is a series as the pipeline makes it: with labels nobody sent.
func series(name string, ms int64, value float64, labels ...string) lab.Series {
	s := lab.Series{
		Labels: map[string]string{
			"__name__": name, "job": "shop/orders", "instance": "r-orders", "cluster": "store-0001", "pod": "p", "otel_scope_name": "orderapp",
		},
		Samples: []lab.Sample{{Time: ms, Value: value}},
	}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

func metricLedger() (*Ledger, []lab.Series) {
	entry := func(p orderapp.Point) orderapp.Entry {
		return orderapp.Entry{Kind: orderapp.KindPoint, Service: "orders", Point: &p}
	}
	l := &Ledger{Store: "store-0001", Run: "r", Points: []orderapp.Entry{
		entry(orderapp.Point{Name: "shop.dishes", Unit: "{dish}", Type: orderapp.Counter, Attrs: map[string]string{"dish": "soup"}, UnixMilli: 5, Value: 7}),
		entry(orderapp.Point{Name: "shop.dishes", Unit: "{dish}", Type: orderapp.Counter, Attrs: map[string]string{"dish": "cake"}, UnixMilli: 5, Value: 8}),
		entry(orderapp.Point{
			Name: "http.server.request.duration", Unit: "s", Type: orderapp.Histogram, Attrs: map[string]string{"http.route": "/"},
			UnixMilli: 5, Value: 0.25, Count: 3, Bounds: []float64{0.5, 1}, Buckets: []uint64{2, 0, 1},
		}),
		entry(orderapp.Point{Name: "shop.charge.duration", Unit: "s", Type: orderapp.ExpHistogram, UnixMilli: 5, Value: 0.5, Count: 9}),
	}}
	const http = "http_server_request_duration_seconds"
	native := series("shop_charge_duration_seconds", 0, 0)
	native.Samples, native.Histograms = nil, []lab.HistogramSample{{Time: 5, Count: 9, Sum: 0.5}}
	return l, []lab.Series{
		series("shop_dishes_total", 5, 7, "dish", "soup"),
		series("shop_dishes_total", 5, 8, "dish", "cake"),
		series(http+"_count", 5, 3, "http_route", "/"),
		series(http+"_sum", 5, 0.25, "http_route", "/"),
		series(http+"_bucket", 5, 2, "http_route", "/", "le", "0.5"),
		series(http+"_bucket", 5, 2, "http_route", "/", "le", "1.0"),
		series(http+"_bucket", 5, 3, "http_route", "/", "le", "+Inf"),
		native,
	}
}

func TestEveryPartOfAPointMustBeThere(t *testing.T) {
	l, got := metricLedger()
	row, err := matchPoints(l, got)
	require.NoError(t, err)
	require.Equal(t, Row{Store: "store-0001", Signal: Metrics, Sent: 4, Found: 4}, row)

	for i := range got {
		without := append(append([]lab.Series(nil), got[:i]...), got[i+1:]...)
		row, err := matchPoints(l, without)
		require.NoError(t, err)
		require.Equal(t, 1, row.Missing, "without %v", got[i].Labels)
		require.Len(t, row.Examples, 1)
	}
	for i := range got {
		l, got := metricLedger()
		if got[i].Histograms != nil {
			got[i].Histograms[0].Count++
		} else {
			got[i].Samples[0].Value++
		}
		row, err := matchPoints(l, got)
		require.NoError(t, err)
		require.Equal(t, 1, row.Missing, "another value in %v", got[i].Labels)
	}
	for i := range got {
		l, got := metricLedger()
		got[i].Labels["instance"] = "s-orders"
		row, err := matchPoints(l, got)
		require.NoError(t, err)
		require.Equal(t, 1, row.Missing, "another run's %v", got[i].Labels)
	}
}

func TestASecondSeriesIsADuplicate(t *testing.T) {
	l, got := metricLedger()
	again := series("shop_dishes_total", 5, 7, "dish", "soup", "surprise", "label")
	row, err := matchPoints(l, append(got, again))
	require.NoError(t, err)
	require.Equal(t, []int{4, 0, 1}, []int{row.Found, row.Missing, row.Duplicates})
}

func TestTheLastLineSaysItAll(t *testing.T) {
	r := Report{
		{Store: "store-0001", Signal: Logs, Sent: 10, Found: 9, Missing: 1, Examples: []string{"missing: orders line 3"}},
		{Store: "store-0001", Signal: Traces, Sent: 5, Found: 5, Duplicates: 2},
	}
	require.Equal(t, "RESULT demo sent=15 found=14 missing=1 duplicates=2", r.Result())
	var b strings.Builder
	require.NoError(t, r.WriteTable(&b))
	for _, want := range []string{"Loki", "Jaeger", "store-0001 logs: missing: orders line 3"} {
		require.Contains(t, b.String(), want)
	}
}
