package lab

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func newLink(t *testing.T, target string) *Link {
	t.Helper()
	link, err := NewLink(target)
	require.NoError(t, err)
	t.Cleanup(link.Close)
	return link
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func roundTrip(t *testing.T, c net.Conn, text string) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
	answer := make([]byte, len(text))
	_, err = io.ReadFull(c, answer)
	require.NoError(t, err)
	require.Equal(t, text, string(answer))
}

func TestLinkCutResetsAndRefusesUntilRestored(t *testing.T) {
	link := newLink(t, echo(t))
	c := dial(t, link.Addr())
	roundTrip(t, c, "hello")
	up, down := link.Bytes()
	require.Equal(t, [2]int64{5, 5}, [2]int64{up, down})

	link.Cut()
	require.Equal(t, "cut", link.State().String())
	_, err := c.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = net.Dial("tcp", link.Addr())
	require.ErrorContains(t, err, "refused")

	require.NoError(t, link.Restore())
	roundTrip(t, dial(t, link.Addr()), "again")
}

func TestLinkBlackHoleHoldsEverythingBack(t *testing.T) {
	link := newLink(t, echo(t))
	c := dial(t, link.Addr())
	roundTrip(t, c, "hello")
	require.NoError(t, link.BlackHole())
	fresh := dial(t, link.Addr())
	for _, conn := range []net.Conn{c, fresh} {
		_, err := conn.Write([]byte("lost?"))
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = conn.Read(make([]byte, 1))
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		require.True(t, netErr.Timeout(), "neither data nor an end: %v", err)
	}
	require.NoError(t, link.Restore())
	for _, conn := range []net.Conn{c, fresh} {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		answer := make([]byte, 5)
		_, err := io.ReadFull(conn, answer)
		require.NoError(t, err)
		require.Equal(t, "lost?", string(answer))
	}
}

func TestLinkCutAfterBlackHoleDropsWhatWasHeldBack(t *testing.T) {
	link := newLink(t, echo(t))
	c := dial(t, link.Addr())
	roundTrip(t, c, "hello")
	require.NoError(t, link.BlackHole())
	_, err := c.Write([]byte("gone"))
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond)
	link.Cut()
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	up, _ := link.Bytes()
	require.Equal(t, int64(5), up)
}

func TestLinkWithNothingBehindIt(t *testing.T) {
	port, err := FreePort()
	require.NoError(t, err)
	link := newLink(t, loopback(port))
	c, err := net.Dial("tcp", link.Addr())
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	link.Close()
	require.ErrorIs(t, link.Restore(), net.ErrClosed)
}

func TestGivenPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = NewLoki(LokiOptions{Dir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port})
	require.ErrorContains(t, err, "in use by another program")
}

func TestLinkIsCutWithinAMessage(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer far.Close()
	arrived := make(chan int, 1)
	go func() {
		c, err := far.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c) // ends with a reset
		arrived <- len(b)
	}()
	link := newLink(t, far.Addr().String())
	c := dial(t, link.Addr())
	cut := link.CutAfter(1234)
	_, err = c.Write(make([]byte, 5000))
	require.NoError(t, err)
	require.Equal(t, 1234, <-arrived)
	<-cut
	require.Equal(t, LinkCut, link.State())

	require.NoError(t, link.Restore())
	never := link.CutAfter(1 << 30)
	link.Cut()
	<-never
}
