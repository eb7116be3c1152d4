package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// TestAcknowledgedRecordsSurviveKillWhileHubIsAway starts a collector that has
// never seen a hub, gives it 1,000 records, kills it with SIGKILL as soon as the
// last is acknowledged, and starts it and then the hub: all of them arrive, once.
func TestAcknowledgedRecordsSurviveKillWhileHubIsAway(t *testing.T) {
	const cluster = "store-0002"
	dir := testDir(t)
	relay := newRelay(t, dir, nil) // not started
	collector := newCollector(t, dir, cluster, relay.NATSURL, nil)
	start(t, collector.Process)
	sent := sendRecords(t, collector, 1000)
	require.NoError(t, collector.Kill())
	say("1,000 records acknowledged with no hub, collector killed")
	require.NoError(t, collector.Start(t.Context()))
	start(t, relay.Process)
	requireRecords(t, cluster, sent, 2*time.Minute)
}

// TestHalfOpenLinkLosesNothing sends records while the link swallows everything
// without closing a connection, as a failing modem does, and while it is cut.
func TestHalfOpenLinkLosesNothing(t *testing.T) {
	const cluster = "store-0003"
	dir := testDir(t)
	relay := newRelay(t, dir, nil)
	start(t, relay.Process)
	link, err := lab.NewLink(relay.NATSAddr)
	require.NoError(t, err)
	t.Cleanup(link.Close)
	collector := newCollector(t, dir, cluster, "nats://"+link.Addr(), nil)
	start(t, collector.Process)

	sent := sendRecords(t, collector, 200)
	requireRecords(t, cluster, sent, time.Minute)
	add := func(n int) {
		for line := range sendRecords(t, collector, n) {
			sent[line]++
		}
	}
	require.NoError(t, link.BlackHole())
	say("the link is a black hole")
	add(300)
	time.Sleep(5 * time.Second)
	add(300)
	link.Cut()
	say("the link is cut")
	add(200)
	time.Sleep(5 * time.Second)
	require.NoError(t, link.Restore())
	say("the link is back")
	requireRecords(t, cluster, sent, 2*time.Minute)
}
