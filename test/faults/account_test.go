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
	require.Equal(t, account{in: 5, unanswered: 1, delivered: 3, duplicates: 2 + 1, resent: 1 + 1, copies: 1}, a)
	require.Equal(t, 2, a.unnamed())
}

func TestAccountTellsUnnamedFromMistaken(t *testing.T) {
	a := account{in: 100, delivered: 80, relayLost: 17, rejected: 5}
	require.Equal(t, 3, a.unnamed())
	require.Zero(t, a.mistaken())

	a.relayLost = 24
	require.Zero(t, a.unnamed())
	require.Equal(t, 4, a.mistaken())
	a.unanswered = 3
	require.Equal(t, 1, a.mistaken(), "what was never acknowledged may have been lost, too")
	a.copies = 1
	require.Zero(t, a.mistaken(), "and what was sent again, twice")

	// Two trials: one names 10 and misses none, the other misses 10 and names none.
	a = account{in: 100, delivered: 90, relayLost: 10, surplus: 10}
	require.Equal(t, 10, a.unnamed())
	require.Equal(t, 10, a.mistaken())
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
