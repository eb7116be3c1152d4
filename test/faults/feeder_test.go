package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOrderIsJudgedPerCollector: what was acknowledged before a batch was begun
// must not arrive after it; batches under way together may.
func TestOrderIsJudgedPerCollector(t *testing.T) {
	f := newFeeder([]string{"a", "b"}, 1, 0)
	var firsts []int
	// arrives says with which push a batch arrived.
	arrives := func(b batch, push int) {
		for len(firsts) < b.first+batchItems {
			firsts = append(firsts, 0)
		}
		for n := b.first; n < b.first+batchItems; n++ {
			firsts[n] = push
		}
	}
	a1, first := f.take()
	b1, other := f.take()
	a2, together := f.take()
	f.note(a1, true, true)
	f.note(b1, true, true)
	_, otherBehind := f.take()
	a3, behind := f.take()
	f.note(a2, true, true)
	f.note(a3, true, true)

	arrives(first, 5)
	arrives(together, 3) // was under way beside the first
	arrives(other, 9)
	arrives(behind, 5) // in one push with the first
	require.Zero(t, f.disordered(firsts))
	require.True(t, f.arrivedFromAll(0, firsts))
	require.False(t, f.arrivedFromAll(3, firsts))

	arrives(behind, 4)
	require.Equal(t, 1, f.disordered(firsts))
	arrives(otherBehind, 8)
	require.Equal(t, 2, f.disordered(firsts))
}
