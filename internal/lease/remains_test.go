package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/hub"
)

// The hub answers no look that would give more than 1,024 keys: what relays that were
// killed leave behind must go, or no relay takes a partition any more.
func TestTheKeysOfRelaysThatWereKilledAreRemoved(t *testing.T) {
	h := startHub(t)
	js := h.connect()
	m := New(h.connect(), h.settings(2), zaptest.NewLogger(t))
	m.bury = 0 // as soon as they are taken for dead
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx, func(ctx context.Context, _ *Claim) { <-ctx.Done() })
	}()
	t.Cleanup(func() { stop(); <-done })
	until(t, "the bucket is there", m.hasBucket)
	for i := range 5 {
		_, err := js.Publish(t.Context(), hub.KeySubject(hub.MemberKey(fmt.Sprint("killed-", i))), []byte("{}"))
		require.NoError(t, err)
	}
	members := func() int {
		v, err := m.look(t.Context(), 0)
		require.NoError(t, err)
		return len(v.members)
	}
	require.GreaterOrEqual(t, members(), 5)
	until(t, "only the one that lives is left", func() bool {
		m.pokeKeeper()
		time.Sleep(100 * time.Millisecond)
		return members() == 1
	})
}

func TestTheNewPartitionsAreFreeOnlyWhenNobodyOwnsAnOldOne(t *testing.T) {
	m := New(startHub(t).connect(), Settings{}, zaptest.NewLogger(t))
	m.layout = hub.Layout{Count: 2, Old: 4}
	v := &view{owners: map[part]owner{{4, 3}: {id: "other", revision: 7}, {4, 2}: {revision: 8}}}
	require.Empty(t, m.freeLocked(v, map[string]memberSeen{"other": {}}), "the other may still store how far it had the origins")
	require.Empty(t, m.freeLocked(v, map[string]memberSeen{"other": {}, m.id: {}}))
	m.previous = v
	v.owners = map[part]owner{{4, 3}: {revision: 9}, {2, 0}: {}, {2, 1}: {}}
	require.Len(t, m.freeLocked(v, map[string]memberSeen{"other": {}}), 2, "it was given on")
}

// A relay that was stopped while its generation was read to the end must not make the
// owner key again that was cleared away: the key would let it write old watermarks over
// the new owner's.
func TestAClaimOfAGenerationThatIsClearedAwayIsLost(t *testing.T) {
	h := startHub(t)
	a := h.relay("a", h.settings(2), nil)
	shared(t, 2, a)
	c := a.claim(2, 1)
	a.silent.Store(true) // its heartbeat stands still
	until(t, "it is not held", func() bool { return !c.Held() })
	js := h.connect()
	bucket, err := js.KeyValue(t.Context(), hub.CustodyBucket)
	require.NoError(t, err)
	_, revision, err := hub.ReadLayout(t.Context(), js)
	require.NoError(t, err)
	require.NoError(t, hub.WriteLayout(t.Context(), bucket, hub.Layout{Count: 3}, revision))
	require.NoError(t, (&keeper{Member: a.Member}).purge(t.Context(), hub.OwnerKey(2, 1)))
	stored, err := c.Store(t.Context(), []Record{{key(origin(1)), []byte("old")}})
	require.ErrorIs(t, err, ErrLost)
	require.Equal(t, []bool{false}, stored)
}
