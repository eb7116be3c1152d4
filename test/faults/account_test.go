package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAccountKnowsEveryFate: delivered, delivered twice with and without having
// been sent twice, lost, never acknowledged.
func TestAccountKnowsEveryFate(t *testing.T) {
	sent := []uint8{0, 1, 1, 2, 1, 3, 1}
	acked := []bool{false, true, true, true, true, false, true}
	taken := []uint16{0, 1, 3, 3, 0, 2}
	found := map[int]bool{1: true, 2: true, 3: true, 5: true}
	a := count(sent, acked, taken, found)
	require.Equal(t, account{in: 5, unanswered: 1, delivered: 3, duplicates: 2 + 1, resent: 1 + 1}, a)
	require.Equal(t, 2, a.unnamed())
}

func TestAccountNamesOnlyWhatBothEndsName(t *testing.T) {
	a := account{in: 100, delivered: 80, edgeLost: 12, relayLost: 20, rejected: 5}
	require.False(t, a.agreed())
	require.Equal(t, 12+5, a.named())
	require.Equal(t, 3, a.unnamed())
	a.edgeLost = 15
	require.True(t, a.agreed())
	require.Zero(t, a.unnamed())
}

func TestLinesCarryTheirNumber(t *testing.T) {
	for _, n := range []int{1, 9, 123456} {
		got, ok := number(line(n, "AbC+/="))
		require.True(t, ok)
		require.Equal(t, n, got)
	}
	for _, text := range []string{"", "record", "record x", "record 0 of", "another 7"} {
		_, ok := number(text)
		require.False(t, ok, text)
	}
}
