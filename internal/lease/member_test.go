package lease

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

func TestRelaysShareThePartitionsEvenlyAsTheyComeAndGo(t *testing.T) {
	h := startHub(t)
	a := h.relay("a", h.settings(16), nil)
	t.Log("alone:", shared(t, 16, a))
	b := h.relay("b", h.settings(16), nil)
	t.Log("second joined:", shared(t, 16, a, b))
	c := h.relay("c", h.settings(16), nil)
	t.Log("third joined:", shared(t, 16, a, b, c))
	for _, err := range append(a.ends(), b.ends()...) {
		require.ErrorIs(t, err, ErrReleased, "who gives on gives on calmly")
	}
	b.end()
	t.Log("one left:", shared(t, 16, a, c))
	c.silent.Store(true) // as if it were dead
	t.Log("one died:", shared(t, 16, a))
}

func TestOneTakesOverFromTheOtherWithoutAHole(t *testing.T) {
	h := startHub(t)
	b := newBackend()
	set := h.settings(8)
	a := h.relay("a", set, b.read)
	shared(t, 8, a)
	e := startEdges(t, h.connect(), 20, 10*time.Millisecond)
	second := h.relay("b", set, b.read)
	shared(t, 8, a, second)
	a.end()
	shared(t, 8, second)
	third := h.relay("c", set, b.read)
	shared(t, 8, second, third)
	second.silent.Store(true)
	shared(t, 8, third)
	n := e.end()
	until(t, "everything is delivered", func() bool { return b.have() == 20*n })
	b.complete(t, 20, n)
}

// The relay is stopped between its last look at the lease and the store, so its own
// checks are of no use: the server refuses.
func TestAPausedRelayCanStoreNothingAfterAnotherHasTakenOver(t *testing.T) {
	h := startHub(t)
	a := h.relay("a", h.settings(4), nil)
	shared(t, 4, a)
	claims := a.owned()
	o := make(map[*Claim]hub.Origin)
	for _, c := range claims {
		for i := 0; o[c] == (hub.Origin{}); i++ {
			if c.Owns(origin(i)) {
				o[c] = origin(i)
			}
		}
		stored, err := c.Store(t.Context(), []Record{{key(o[c]), []byte("1")}})
		require.NoError(t, err)
		require.Equal(t, []bool{true}, stored)
	}
	a.silent.Store(true)
	b := h.relay("b", h.settings(4), nil)
	shared(t, 4, b)
	for _, c := range claims {
		require.False(t, c.Held())
		require.NoError(t, b.claim(4, c.Partition()).Load(t.Context(), func(k string, value []byte) {
			require.Equal(t, key(o[c]), k)
			require.Equal(t, "1", string(value))
		}))
		stored, err := c.Store(t.Context(), []Record{{key(o[c]), []byte("2")}, {key(origin(9999)), []byte("2")}})
		require.ErrorIs(t, err, ErrLost)
		require.Equal(t, []bool{false, false}, stored)
		require.ErrorIs(t, c.WaitHeld(t.Context()), ErrLost)
	}
	bucket, err := h.connect().KeyValue(t.Context(), hub.CustodyBucket)
	require.NoError(t, err)
	for _, origin := range o {
		entry, err := bucket.Get(t.Context(), key(origin))
		require.NoError(t, err)
		require.Equal(t, "1", string(entry.Value()))
	}
	until(t, "the claims end", func() bool { return len(a.ends()) == 4 })
	for _, err := range a.ends() {
		require.ErrorIs(t, err, ErrLost)
	}
	a.silent.Store(false)
	shared(t, 4, a, b)
}

func TestALeaseIsNotHeldWhileTheHubIsAwayAndIsAgainAfterwards(t *testing.T) {
	h := startHub(t)
	a, b := h.relay("a", h.settings(4), nil), h.relay("b", h.settings(4), nil)
	shared(t, 4, a, b)
	claims, ends := append(a.owned(), b.owned()...), len(a.ends())+len(b.ends())
	h.stop(0)
	until(t, "nothing is held", func() bool {
		return !slices.ContainsFunc(claims, (*Claim).Held)
	})
	time.Sleep(expiry) // long enough that the others seem dead
	h.start(0)
	for _, c := range claims {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		require.NoError(t, c.WaitHeld(ctx))
		cancel()
	}
	shared(t, 4, a, b)
	require.Len(t, append(a.ends(), b.ends()...), ends, "nothing has changed hands")
}

func TestHeartbeatsThatFailAreSaidOnceAndSoIsTheirEnd(t *testing.T) {
	h := startHub(t)
	logs, seen := observer.New(zap.DebugLevel)
	a := h.relayLogging("a", h.settings(1), nil, zap.New(logs))
	shared(t, 1, a)
	said := func(level zapcore.Level) int {
		return seen.FilterLevelExact(level).FilterMessageSnippet("heartbeat").Len()
	}
	stream, err := h.connect().Stream(t.Context(), custodyStream)
	require.NoError(t, err)
	room := func(bytes int32) { // the hub answers, and takes nothing
		config := stream.CachedInfo().Config
		config.MaxMsgSize = bytes
		_, err := h.connect().UpdateStream(t.Context(), config)
		require.NoError(t, err)
	}
	require.Zero(t, said(zap.WarnLevel))
	room(1)
	until(t, "the failing is said", func() bool { return said(zap.WarnLevel) > 0 })
	until(t, "it goes on failing", func() bool { return said(zap.DebugLevel) >= 3 })
	room(-1)
	until(t, "its end is said", func() bool { return said(zap.InfoLevel) > 0 })
	shared(t, 1, a)
	require.Equal(t, 1, said(zap.WarnLevel), "warnings")
	require.Equal(t, 1, said(zap.InfoLevel), "ends")
}

func TestRelaysWithDifferentStreamsDoNotChangeThemByTurns(t *testing.T) {
	h := startHub(t)
	js := h.connect()
	size := func() int64 {
		stream, err := js.Stream(t.Context(), hub.StreamName(frame.Logs))
		require.NoError(t, err)
		return stream.CachedInfo().Config.MaxBytes
	}
	small, large := h.settings(2), h.settings(2)
	large.Streams.MaxBytes *= 2
	logs, seen := observer.New(zap.WarnLevel)
	a := h.relayLogging("a", small, nil, zap.New(logs))
	shared(t, 2, a)
	begun := size()
	b := h.relay("b", large, nil)
	shared(t, 2, a, b)
	require.Equal(t, 2*begun, size(), "who starts last sets them")
	said := func() int { return seen.FilterMessageSnippet("streams::max_bytes").Len() }
	until(t, "the other says that it differs", func() bool { a.pokeKeeper(); return said() > 0 })
	for range 20 { // an absence can only be waited for
		a.pokeKeeper()
		b.pokeKeeper()
		require.Equal(t, 2*begun, size())
		time.Sleep(keepPause / 10)
	}
	require.Equal(t, 1, said(), "it says so once")
	a.end()
	shared(t, 2, b)
	shared(t, 2, h.relay("a", small, nil), b)
	require.Equal(t, begun, size(), "who starts last sets them")
}

func TestThePartitionCountChangesWithFramesInFlight(t *testing.T) {
	h := startHub(t)
	b := newBackend()
	set := h.settings(16)
	relays := []*relay{h.relay("a", set, b.read), h.relay("b", set, b.read)}
	shared(t, 16, relays...)
	e := startEdges(t, h.connect(), 40, 5*time.Millisecond)
	set.Streams.Partitions = 32
	relays = append(relays, h.relay("c", set, b.read))
	shared(t, 32, relays...)
	js := h.connect()
	layout := func() hub.Layout {
		l, _, err := hub.ReadLayout(t.Context(), js)
		require.NoError(t, err)
		return l
	}
	until(t, "the old generation is cleared away", func() bool { return layout() == hub.Layout{Count: 32} })
	n := e.end()
	until(t, "everything is delivered", func() bool { return b.have() == 40*n })
	b.complete(t, 40, n)
	stream, err := js.Stream(t.Context(), hub.StreamName(frame.Logs))
	require.NoError(t, err)
	readers, err := hub.Consumers(t.Context(), stream)
	require.NoError(t, err)
	require.Len(t, readers, 32)
}

func TestTheHolderGoesOnWhenTheHubHasLostItsStore(t *testing.T) {
	h := startHub(t)
	a, b := h.relay("a", h.settings(4), nil), h.relay("b", h.settings(4), nil)
	shared(t, 4, a, b)
	before, ends := make(map[*Claim]string), len(a.ends())+len(b.ends())
	for _, c := range append(a.owned(), b.owned()...) {
		before[c] = c.StoreIdentity(frame.Logs)
		require.NotEmpty(t, before[c])
	}
	js := h.connect()
	require.NoError(t, js.DeleteKeyValue(t.Context(), hub.CustodyBucket))
	require.NoError(t, js.DeleteStream(t.Context(), hub.StreamName(frame.Logs)))
	_, err := a.owned()[0].Consumer(t.Context(), frame.Logs, hub.DefaultDestination)
	require.NoError(t, err, "who reads need not wait for the stream to be made again")
	until(t, "both have been told", func() bool {
		a.lock.Lock()
		defer a.lock.Unlock()
		b.lock.Lock()
		defer b.lock.Unlock()
		return a.lost >= 2 && b.lost >= 2
	})
	shared(t, 4, a, b)
	for c, identity := range before {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		require.NoError(t, c.WaitHeld(ctx))
		_, err := c.Store(ctx, []Record{{key(origin(c.Partition())), []byte("1")}})
		require.NoError(t, err)
		_, err = c.Consumer(ctx, frame.Logs, hub.DefaultDestination)
		require.NoError(t, err)
		require.NotEqual(t, identity, c.StoreIdentity(frame.Logs))
		cancel()
	}
	require.Len(t, append(a.ends(), b.ends()...), ends, "nothing has changed hands")
}

func TestADestinationIsDroppedOnlyWhenNobodyReadsIt(t *testing.T) {
	h := startHub(t)
	set := h.settings(2)
	set.Signals["second"] = []frame.Signal{frame.Logs}
	both := h.relay("both", set, nil)
	shared(t, 2, both)
	js := h.connect()
	put(t, js, origin(1), "1")
	c := both.claim(2, hub.Partition(origin(1), 2))
	_, err := c.Store(t.Context(), []Record{{hub.DestinationKey("second", origin(1), 7), []byte("1")}, {key(origin(1)), []byte("1")}})
	require.NoError(t, err)
	destinations := func() []string {
		stream, err := js.Stream(t.Context(), hub.StreamName(frame.Logs))
		require.NoError(t, err)
		readers, err := hub.Consumers(t.Context(), stream)
		require.NoError(t, err)
		return readers.Destinations()
	}
	set = h.settings(2)
	set.Drop = []string{"second"}
	one := h.relay("one", set, nil)
	shared(t, 2, both, one)
	require.Equal(t, []string{hub.DefaultDestination, "second"}, destinations())
	both.end()
	one.end()
	last := h.relay("last", set, nil)
	until(t, "it is dropped", func() bool { return len(destinations()) == 1 })
	shared(t, 2, last)
	keys := make(map[string]bool)
	require.NoError(t, last.claim(2, hub.Partition(origin(1), 2)).Load(t.Context(), func(key string, _ []byte) { keys[key] = true }))
	until(t, "its watermarks are gone", func() bool {
		clear(keys)
		require.NoError(t, last.claim(2, hub.Partition(origin(1), 2)).Load(t.Context(), func(key string, _ []byte) { keys[key] = true }))
		return len(keys) == 1 && keys[key(origin(1))]
	})
}
