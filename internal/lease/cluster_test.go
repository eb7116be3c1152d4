package lease

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// The servers that lead the bucket and the stream are stopped, one after the other,
// and a relay dies: no frame is missing, none is delivered out of order, and what
// was stored stays stored.
func TestAClusterOfHubsLosesItsLeadersAndNothingElse(t *testing.T) {
	h := startCluster(t)
	b := newBackend()
	set := h.settings(4)
	first, second := h.relay("a", set, b.read), h.relay("b", set, b.read)
	shared(t, 4, first, second)
	e := startEdges(t, h.connect(), 12, 20*time.Millisecond)
	for _, stream := range []string{custodyStream, hub.StreamName(frame.Logs)} {
		until(t, "frames flow", func() bool { before := b.have(); time.Sleep(200 * time.Millisecond); return b.have() > before })
		leader := h.leader(stream)
		h.stop(leader)
		h.leader(stream)
		until(t, "frames flow", func() bool { before := b.have(); time.Sleep(200 * time.Millisecond); return b.have() > before })
		h.start(leader)
		h.ready()
	}
	second.silent.Store(true)
	shared(t, 4, first)
	n := e.end()
	until(t, "everything is delivered", func() bool { return b.have() == 12*n })
	b.complete(t, 12, n)
	bucket, err := h.connect().KeyValue(t.Context(), hub.CustodyBucket)
	require.NoError(t, err)
	for i := range 12 {
		until(t, "the last watermark is stored", func() bool {
			entry, err := bucket.Get(t.Context(), key(origin(i)))
			return err == nil && string(entry.Value()) == strconv.Itoa(n)
		})
	}
}

// On a replicated bucket several owners store at the same time, much at once, and
// one that has lost its partition stores nothing, not even in part.
func TestABatchIsStoredInOnePieceOrNotAtAll(t *testing.T) {
	h := startCluster(t)
	a := h.relay("a", h.settings(4), nil)
	shared(t, 4, a)
	claims := a.owned()
	errs := make(chan error, len(claims))
	for _, c := range claims {
		go func() {
			for round := range 5 {
				var records []Record
				for i := range 700 { // two batches
					if c.Owns(origin(i)) || i < 600 {
						records = append(records, Record{key(origin(10_000*c.Partition() + i)), strconv.AppendInt(nil, int64(round), 10)})
					}
				}
				if _, err := c.Store(t.Context(), records); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range claims {
		require.NoError(t, <-errs)
	}
	lost := claims[0]
	a.silent.Store(true)
	b := h.relay("b", h.settings(4), nil)
	shared(t, 4, b)
	var records []Record
	for i := range 300 {
		records = append(records, Record{key(origin(20_000_000 + i)), []byte("late")})
	}
	stored, err := lost.Store(t.Context(), records)
	require.ErrorIs(t, err, ErrLost)
	require.NotContains(t, stored, true)
	bucket, err := h.connect().KeyValue(t.Context(), hub.CustodyBucket)
	require.NoError(t, err)
	for _, i := range []int{0, 299} {
		_, err := bucket.Get(t.Context(), records[i].Key)
		require.Error(t, err)
	}
}
