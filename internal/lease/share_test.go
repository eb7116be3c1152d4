package lease

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the relays own, quotas add up and differ by one at most, and what is
// shared evenly stays where it is.
func TestQuotasAreEvenAndMoveAsLittleAsCanBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 256).Draw(t, "count")
		owned := make(map[string]int)
		left := count
		for i := range rapid.IntRange(1, 20).Draw(t, "relays") {
			n := rapid.IntRange(0, left).Draw(t, "owns")
			owned[fmt.Sprint(i)] = n
			left -= n
		}
		quota := quotas(count, owned)
		sum, moved, few, many := 0, 0, count, 0
		for id, n := range quota {
			sum += n
			few, many = min(few, n), max(many, n)
			moved += max(owned[id]-n, 0)
		}
		require.Equal(t, count, sum)
		require.LessOrEqual(t, many-few, 1)
		if even := len(owned); left == 0 && moved == 0 {
			for id, n := range owned {
				require.Equal(t, n, quota[id], "of %d", even)
			}
		}
		for id := range owned { // and once everybody has its quota, nothing moves any more
			owned[id] = quota[id]
		}
		require.Equal(t, quota, quotas(count, owned))
	})
}

func TestAMemberIsDeadWhenItsKeyHasNotChangedForTheExpiry(t *testing.T) {
	at := func(revisions ...uint64) *view {
		v := &view{members: make(map[string]memberSeen)}
		for i, r := range revisions {
			v.members[fmt.Sprint(i)] = memberSeen{revision: r}
		}
		return v
	}
	var c census
	now := time.Second
	look := func(v *view, later time.Duration) map[string]memberSeen {
		now += later
		return c.count(v, now)
	}
	require.Len(t, look(at(1, 1), 0), 2)
	for i := range uint64(5) {
		require.Len(t, look(at(1, 2+i), time.Second), 2)
	}
	require.Contains(t, look(at(1, 7), expiry-5*time.Second), "1")
	require.NotContains(t, look(at(1, 8), time.Millisecond), "0")

	// The hub was away: the others get the time that they may need to come back.
	require.Len(t, look(at(1, 8), time.Hour), 2)
	for range int(comeBack/time.Second) - 1 {
		require.Len(t, look(at(1, 8), time.Second), 2)
	}
	require.Empty(t, look(at(1, 8), time.Second))
}

func TestTheClockRunsAheadRatherThanBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		before := c.now()
		time.Sleep(time.Minute) // of the wall clock only: the machine's own has not moved
		require.GreaterOrEqual(t, c.now()-before, time.Minute)
		before = c.now()
		c.wall = c.wall.Add(time.Hour) // as if the wall clock were set back now
		require.GreaterOrEqual(t, c.now(), before)
		require.Less(t, c.now()-before, time.Minute)
	})
}

func TestAHubThatIsTooOldIsNamed(t *testing.T) {
	for version, ok := range map[string]bool{"2.10.7": false, "2.13.9-RC.1": false, "2.14.0": true, "2.15.2": true, "3.0.0": true, "": true} {
		require.Equal(t, ok, newEnough(version) == nil, version)
	}
	require.ErrorContains(t, newEnough("2.10.7"), "2.10.7")
}
