package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRankGivesEachStackToOnePart(t *testing.T) {
	const traces = `File: longhaul-collector
Type: cpu
Duration: 50.84s, Total samples = 17.74s (34.90%)
-----------+-------------------------------------------------------
      1.50s   github.com/klauspost/compress/zstd.(*doubleFastEncoder).Encode
             github.com/longhaul/longhaul/internal/frame.otlpZstd.Encode
             github.com/longhaul/longhaul/exporters/natsexporter.(*batcher).write
-----------+-------------------------------------------------------
       20ms   runtime.scanobject
             runtime.gcBgMarkWorker.func2
-----------+-------------------------------------------------------
      300ms   runtime.memmove
             github.com/longhaul/longhaul/receivers/containerlogsreceiver.(*batch).logs
             github.com/longhaul/longhaul/receivers/containerlogsreceiver.(*delivery).deliver
-----------+-------------------------------------------------------
       10ms   main.other
-----------+-------------------------------------------------------
`
	shares, err := rank(traces)
	require.NoError(t, err)
	require.Equal(t, []share{
		{"frame: zstd", 1500 * time.Millisecond},
		{"receiver: build pdata", 300 * time.Millisecond},
		{"garbage collection", 20 * time.Millisecond},
		{elsewhere, 10 * time.Millisecond},
	}, shares)
}
