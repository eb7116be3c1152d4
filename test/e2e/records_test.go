package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/longhaul/longhaul/internal/lab"
)

const recordService = "till"

// sendRecords sends n numbered log records by OTLP in requests of up to 100 and
// returns them once every one is acknowledged.
func sendRecords(t *testing.T, c *lab.Collector, n int) map[logLine]int {
	t.Helper()
	conn, err := grpc.NewClient(c.OTLPGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	client := plogotlp.NewGRPCClient(conn)
	sent := make(map[logLine]int)
	for done := 0; done < n; {
		logs := plog.NewLogs()
		rl := logs.ResourceLogs().AppendEmpty()
		rl.Resource().Attributes().PutStr("service.name", recordService)
		records := rl.ScopeLogs().AppendEmpty().LogRecords()
		for range min(100, n-done) {
			now := time.Now().UnixNano() + int64(done)
			text := fmt.Sprintf("record %d", done)
			record := records.AppendEmpty()
			record.SetTimestamp(pcommon.Timestamp(now))
			record.SetSeverityNumber(plog.SeverityNumberInfo)
			record.Body().SetStr(text)
			sent[logLine{time: now, text: text}]++
			done++
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		response, err := client.Export(ctx, plogotlp.NewExportRequestFromLogs(logs), grpc.WaitForReady(true))
		cancel()
		require.NoError(t, err)
		require.Zero(t, response.PartialSuccess().RejectedLogRecords())
	}
	return sent
}

// requireRecords waits until as many records as were sent are in Loki, and
// fails unless they are exactly those, each once.
func requireRecords(t *testing.T, cluster string, sent map[logLine]int, limit time.Duration) {
	t.Helper()
	from := time.Now().Add(-time.Hour)
	var found []lab.LogEntry
	eventually(t, limit, func() (err error) {
		found, err = loki(t).Entries(t.Context(), fmt.Sprintf(`{cluster=%q, service_name=%q}`, cluster, recordService), from, time.Now().Add(time.Minute))
		if err == nil && len(found) < len(sent) {
			err = fmt.Errorf("%d of %d records of %s in Loki", len(found), len(sent), cluster)
		}
		return err
	})
	got := make(map[logLine]int)
	for _, e := range found {
		got[logLine{time: e.Time, text: e.Line}]++
	}
	requireOnce(t, "records of "+cluster, sent, got)
}
