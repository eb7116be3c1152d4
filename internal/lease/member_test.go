package lease

import (
	"testing"

	"github.com/stretchr/testify/require"
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
