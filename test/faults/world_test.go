package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
)

func TestGateCountsWhatLokiTook(t *testing.T) {
	status := http.StatusNoContent
	loki := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer loki.Close()
	g, err := newGate(loki.URL)
	require.NoError(t, err)
	defer g.close()
	request := push.PushRequest{Streams: []push.Stream{{Labels: `{a="b"}`, Entries: []push.Entry{
		{Timestamp: time.Unix(1, 0), Line: line(1, "")}, {Timestamp: time.Unix(1, 1), Line: line(3, "x")}, {Timestamp: time.Unix(1, 2), Line: "another"},
	}}}}
	raw, err := request.Marshal()
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func() (int, error) {
		resp, err := client.Post(g.url()+"/relay-1/loki/api/v1/push", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, raw)))
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	for range 2 {
		got, err := post()
		require.NoError(t, err)
		require.Equal(t, http.StatusNoContent, got)
	}
	require.Equal(t, []uint16{0, 2, 0, 2}, g.counts()[:4])
	require.Equal(t, 4, g.onTheWay("relay-1", time.Hour))
	require.Zero(t, g.onTheWay("relay-1", 0))
	require.Zero(t, g.onTheWay("relay-2", time.Hour))
	items, repeats := g.takenFrom("relay-1", time.Hour)
	require.Equal(t, []int{4, 2}, []int{items, repeats})
	require.Equal(t, []int{0, 1, 0, 1}, g.firsts()[:4])

	status = http.StatusTooManyRequests // what Loki itself refuses does not count
	got, err := post()
	require.NoError(t, err)
	require.Equal(t, status, got)

	status = http.StatusNoContent
	require.NoError(t, g.behave(behaviour{status: http.StatusInternalServerError}))
	got, err = post()
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, got)

	require.NoError(t, g.behave(behaviour{hang: true}))
	time.AfterFunc(50*time.Millisecond, func() { _ = g.behave(behaviour{refuse: true}) })
	_, err = post()
	require.Error(t, err, "no answer")
	_, err = post()
	require.Error(t, err, "nobody listens")
	require.Equal(t, []uint16{0, 2, 0, 2}, g.counts()[:4])
	require.Equal(t, 2, g.met())
}

func TestLossyLinkKeepsEveryByteInOrder(t *testing.T) {
	// A kernel without netem has this discipline all the same, and a machine
	// without root takes the proxy.
	l, took := throughLossyLink(t, []string{"pfifo", "limit", "1000"})
	t.Log(l.how)
	if l.ns == nil {
		require.GreaterOrEqual(t, took, lossyDelay)
	}

	l, took = throughLossyLink(t, []string{"no-such-discipline"})
	require.Nil(t, l.ns)
	require.GreaterOrEqual(t, took, lossyDelay)
}

func throughLossyLink(t *testing.T, shape []string) (*lossyLink, time.Duration) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer far.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := far.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		got <- b
	}()
	l, err := newLossyLink(far.Addr().String(), shape)
	require.NoError(t, err)
	defer l.close()
	c, err := net.Dial("tcp", l.addr())
	require.NoError(t, err)
	sent := make([]byte, 3*lossyChunk+17)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	began := time.Now()
	_, err = c.Write(sent)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.True(t, bytes.Equal(sent, <-got))
	return l, time.Since(began)
}

func TestDamageSparesTheQuarantine(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "quarantine"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "logs-1"), 0o755))
	aside, segment := filepath.Join(dir, "quarantine", "x"), filepath.Join(dir, "logs-1", "1.seg")
	whole := bytes.Repeat([]byte("frame"), 100)
	for range 50 {
		require.NoError(t, os.WriteFile(aside, whole, 0o644))
		require.NoError(t, os.WriteFile(segment, whole, 0o644))
		what, err := damage(dir, rand.New(rand.NewPCG(rand.Uint64(), 0)))
		require.NoError(t, err)
		require.Contains(t, what, filepath.Join("logs-1", "1.seg"))
		b, err := os.ReadFile(aside)
		require.NoError(t, err)
		require.Equal(t, whole, b)
	}
}
