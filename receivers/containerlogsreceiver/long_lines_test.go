package containerlogsreceiver

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/bytesize"
)

// arrived joins all bodies of a stream in the order they were read and checks that
// none is longer than allowed.
func (n *node) arrived(limit int) string {
	var text strings.Builder
	for _, got := range n.sink.asRead() {
		assert.LessOrEqual(n.t, len(got.body), limit)
		assert.True(n.t, utf8.ValidString(got.body))
		text.WriteString(got.body)
	}
	return text.String()
}

func TestLinesOverTheBoundAreSplitMarkedAndCounted(t *testing.T) {
	const limit = 64 << 10
	piece := strings.Repeat("é0123456789", 1400) // as a runtime cuts at 16 KiB
	for name, write := range map[string]func(*writer) string{
		"many entries": func(w *writer) (want string) {
			for range 10 {
				w.write("stdout", "P", piece)
				want += piece
			}
			w.write("stdout", "F", "end")
			return want + "end"
		},
		"one entry": func(w *writer) string {
			text := strings.Repeat(piece, 10)
			w.line(text)
			return text
		},
		"longer than any buffer": func(w *writer) string {
			text := strings.Repeat(piece, 80)
			w.line(text)
			return text
		},
		"not even a format": func(w *writer) string {
			text := strings.Repeat("garbage", 100_000)
			w.raw(text + "\n")
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.config.MaxLineBytes = bytesize.Size(limit)
			n.config.Batch.MaxBytes = 64 * bytesize.MiB // one batch: order as read
			w := newWriter(t, n.log("api"))
			want := write(w) + "next"
			w.line("next")
			n.start()
			require.Eventually(t, func() bool { return len(n.arrived(limit)) >= len(want) }, 30*time.Second, 5*time.Millisecond)
			assert.Equal(t, want, n.arrived(limit))
			require.Eventually(t, func() bool { // counted once the batch is taken
				return n.counter("longhaul_containerlogs_truncated_lines") >= 2
			}, 30*time.Second, 5*time.Millisecond)
			for _, got := range n.sink.records() {
				split, _ := got.record.Attributes().Get("longhaul.line.split")
				assert.Equal(t, got.body != "next", split.Bool(), "%.20q", got.body)
			}
		})
	}
}
