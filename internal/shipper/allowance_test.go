package shipper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fill publishes as much as there is room for.
func (a *Allowance) fill(next uint64, now time.Time) uint64 {
	for a.Room(next) {
		a.Published(next, now)
		next++
	}
	return next
}

func TestALaneGivesTheHubTwiceAsMuchAfterEachPromptConfirmation(t *testing.T) {
	var a Allowance
	now, next := time.Unix(1000, 0), uint64(1)
	for _, want := range []uint64{4, 8, 16, 32} {
		before := next
		next = a.fill(next, now)
		require.Equal(t, want, next-before)
		now = now.Add(2 * time.Second)
		a.Confirmed(next-1, now)
	}
}

func TestALaneGivesTheHubHalfAsMuchAfterEachLateConfirmation(t *testing.T) {
	a := Allowance{window: 64}
	now, next := time.Unix(1000, 0), uint64(1)
	for _, want := range []uint64{64, 32, 16, 8, 4, 4, 4} { // never less than it began with, in what it may have there
		before := next
		next = a.fill(next, now)
		require.Equal(t, want, next-before)
		now = now.Add(20 * time.Second)
		a.Confirmed(next-1, now)
	}
}

func TestALaneThatWasLateGrowsByAQuarter(t *testing.T) {
	a := Allowance{window: 64}
	now, next := time.Unix(1000, 0), uint64(1)
	for i, want := range []uint64{64, 32, 40, 50} {
		before := next
		next = a.fill(next, now)
		require.Equal(t, want, next-before)
		now = now.Add([]time.Duration{late, soon, soon, soon}[i])
		a.Confirmed(next-1, now)
	}
}

func TestOnlyWhatWasTimedTeaches(t *testing.T) {
	var a Allowance
	now := time.Unix(1000, 0)
	next := a.fill(1, now)
	a.Again() // the link was lost
	now = now.Add(time.Hour)
	a.Confirmed(next-1, now)
	require.Equal(t, next+allowanceStart, a.fill(next, now), "an hour without a link is no slow relay")
}

func TestARelayThatConfirmsNothingHoldsALaneUpForAWhileOnly(t *testing.T) {
	var a Allowance
	now := time.Unix(1000, 0)
	next := a.fill(1, now)
	require.False(t, a.Tick(next-1, now.Add(forgiveAfter-1)))
	require.True(t, a.Tick(next-1, now.Add(forgiveAfter)))
	now = now.Add(forgiveAfter)
	require.Equal(t, next+2*allowanceStart, a.fill(next, now))
	a.Confirmed(1, now)
	require.False(t, a.Room(next+2*allowanceStart), "what is confirmed late is not counted again")
}

func TestALaneGoesOnBehindWhatIsMissing(t *testing.T) {
	var a Allowance
	now := time.Unix(1000, 0)
	for _, number := range []uint64{1501, 4000, 9000} { // all before were evicted or damaged
		require.True(t, a.Room(number))
		a.Published(number, now)
		require.False(t, a.Room(number+1000))
		now = now.Add(time.Second)
		a.Confirmed(number, now)
	}
}
