package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"

	"github.com/longhaul/longhaul/exporters/natsexporter"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

// The row outage-72h runs this test for its spool; by itself it makes a shorter one.
var (
	outageDir   = flag.String("outage.dir", "", "keep the spool here")
	outageHours = flag.Int("outage.hours", 2, "how long the outage is")
)

const (
	outageBatch = 20 // items
	outageEvery = time.Minute
)

// TestAnOutageOfDaysIsKept lets the real nats exporter live through an outage
// with the clock that testing/synctest injects: every timer and every time.Now
// of exporter, shipper, spool and NATS client runs on it. The hub's port is
// closed all the while. The outage ends now.
func TestAnOutageOfDaysIsKept(t *testing.T) {
	dir := *outageDir
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "spool")
	}
	until, outage := time.Now(), time.Duration(*outageHours)*time.Hour
	items := 0
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(until.Add(-outage))) // a bubble begins in the year 2000
		factory := natsexporter.NewFactory()
		config := factory.CreateDefaultConfig().(*natsexporter.Config)
		config.Cluster, config.Node = outageRow, outageNode
		config.Connection.URLs = "nats://127.0.0.1:1"
		config.Spool.Directory = dir
		require.NoError(t, config.Validate())
		logs, err := factory.CreateLogs(t.Context(), exportertest.NewNopSettings(natsexporter.Type), config)
		require.NoError(t, err)
		require.NoError(t, logs.Start(t.Context(), componenttest.NewNopHost()))
		for began := time.Now(); time.Since(began) < outage; time.Sleep(outageEvery) {
			batch := logBatch(items+1, outageBatch, 0, time.Now())
			require.NoError(t, logs.ConsumeLogs(t.Context(), batch.Logs()))
			items += outageBatch
		}
		require.NoError(t, logs.Shutdown(t.Context()))
	})

	s, err := spool.Open(spool.Options{Dir: dir})
	require.NoError(t, err)
	held, oldest := int64(0), time.Now()
	for _, lane := range s.Stats().Lanes {
		require.Zero(t, lane.Lost, "%s", lane.Lane)
		if lane.Lane.Signal != frame.Logs || lane.Items == 0 {
			continue
		}
		held += lane.Items
		if lane.OldestUnconfirmed.Before(oldest) {
			oldest = lane.OldestUnconfirmed
		}
	}
	require.NoError(t, s.Close())
	require.EqualValues(t, items, held)
	require.WithinDuration(t, until.Add(-outage), oldest, time.Minute)
	fmt.Printf("%s%d\n", outageWritten, items) // read by the row
}
