package hub

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A hub that refuses is heard of in more than one way. Each is told, none floods
// the log.
func TestEveryCauseOfAFailedConnectIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, lines := observer.New(zap.WarnLevel)
		report := reportConnectErrors(zap.New(core), false)
		attempt := 0
		reset := func() error { // differs from attempt to attempt in its port
			attempt++
			return fmt.Errorf("attempt %d: %w", attempt, &net.OpError{Op: "read", Source: &net.TCPAddr{Port: attempt}, Err: syscall.ECONNRESET})
		}
		refused := fmt.Errorf("remote error: tls: certificate required")
		for range 4 { // 40 s
			report(&nats.Conn{}, reset())
			report(&nats.Conn{}, refused)
			time.Sleep(10 * time.Second)
		}
		require.Len(t, lines.All(), 2)
		require.NotContains(t, lines.All()[0].ContextMap(), "check")
		require.Contains(t, lines.All()[1].ContextMap()["check"], "client certificate")
		time.Sleep(time.Minute)
		report(&nats.Conn{}, refused)
		require.Len(t, lines.All(), 3)
	})
}

func TestNoMessageShowsThePasswordOfAURL(t *testing.T) {
	for _, urls := range []string{
		"nats://edge:secret@hub.example:4222, nats://secret@other.example", "http://edge:secret@hub", "nats://edge:secret@hub:99999", "nats://edge:secret@", "nats://edge:secret@hub :1",
	} {
		c := Connection{URLs: urls}
		require.NotContains(t, c.Address(), "secret")
		if err := c.Check(); err != nil {
			require.NotContains(t, err.Error(), "secret")
		}
	}
	require.Equal(t, "nats://hub.example:4222,nats://other.example", (&Connection{URLs: "nats://edge:secret@hub.example:4222, nats://secret@other.example"}).Address())
}
