package containerlogsreceiver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/bytesize"
)

const recordEnd = "\n=====\n"

func traces(t testing.TB) map[string][]string {
	paths, err := filepath.Glob("testdata/traces/*.txt")
	require.NoError(t, err)
	found := map[string][]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		found[strings.TrimSuffix(filepath.Base(path), ".txt")] = strings.Split(strings.TrimSuffix(string(text), "\n"), recordEnd)
	}
	require.Len(t, found, 5)
	return found
}

// trace writes the lines of a record, each as an entry of its own.
func (w *writer) trace(stream, text string) {
	w.t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		w.write(stream, "F", line)
	}
}

const javaTrace = "java.lang.IllegalStateException: boom\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)\nCaused by: x.Y: z\n\tat a.B.e(B.java:3)"

func TestStackTracesBecomeOneRecord(t *testing.T) {
	for language, records := range traces(t) {
		t.Run(language, func(t *testing.T) {
			n := newNode(t)
			n.config.Multiline.Wait = 20 * time.Millisecond
			w := newWriter(t, n.log("api"))
			for _, record := range records {
				w.trace("stderr", record)
			}
			n.start()
			n.expect(records...)
			assert.Zero(t, n.counter("longhaul_containerlogs_truncated_lines"))
		})
	}
}

func TestWithoutMultilineEveryLineIsARecord(t *testing.T) {
	n := newNode(t)
	n.config.Multiline.Enabled = false
	newWriter(t, n.log("api")).trace("stderr", javaTrace)
	n.start()
	n.expect(strings.Split(javaTrace, "\n")...)
}

func TestTraceCarriesTheTimeOfItsFirstLine(t *testing.T) {
	n := newNode(t)
	w := newWriter(t, n.log("api"))
	w.trace("stderr", javaTrace)
	first := w.clock.Add(-4 * 1234567 * time.Nanosecond)
	w.write("stderr", "F", "next")
	n.start()
	n.expect(javaTrace, "next")
	assert.Equal(t, first, n.sink.asRead()[0].record.Timestamp().AsTime())
}

func TestTracesOfTwoStreamsAndContainersAreKeptApart(t *testing.T) {
	n := newNode(t)
	a, b := newWriter(t, n.log("a")), newWriter(t, n.log("b"))
	lines := strings.Split(javaTrace, "\n")
	for i := range lines {
		a.write("stderr", "F", lines[i])
		a.write("stdout", "F", fmt.Sprint("between ", i))
		b.write("stdout", "F", lines[i])
	}
	a.write("stderr", "F", "end")
	b.write("stdout", "F", "end")
	n.start()
	n.expect(javaTrace, javaTrace, "between 0", "between 1", "between 2", "between 3", "between 4", "end", "end")
}

func TestTraceIsHandedOnWhenNothingFollows(t *testing.T) {
	n := newNode(t)
	n.config.Multiline.Wait = 30 * time.Millisecond
	w := newWriter(t, n.log("api"))
	n.start()
	w.trace("stderr", javaTrace)
	n.expect(javaTrace)
	split, _ := n.sink.records()[0].record.Attributes().Get("longhaul.line.split")
	assert.False(t, split.Bool(), "it is whole as far as anyone knows")
}

func TestTraceOverTheBoundIsSplitMarkedAndCounted(t *testing.T) {
	n := newNode(t)
	n.config.Multiline.MaxBytes = 16 * bytesize.KiB
	w := newWriter(t, n.log("api"))
	text := "a.Exception: deep" + strings.Repeat("\n\tat a.B.c(B.java:1)", 3000)
	w.trace("stderr", text)
	w.write("stderr", "F", "end")
	n.config.Batch.MaxLines = 1_000_000
	n.start()
	var bodies []string
	require.Eventually(t, func() bool { // newlines stand between the pieces
		return len(n.arrived(17<<10))+len(n.sink.records())-1 >= len(text+"\nend")
	}, 30*time.Second, 5*time.Millisecond)
	for _, got := range n.sink.asRead() {
		bodies = append(bodies, got.body)
		split, _ := got.record.Attributes().Get("longhaul.line.split")
		assert.Equal(t, got.body != "end", split.Bool())
	}
	assert.Equal(t, text+"\nend", strings.Join(bodies, "\n"))
	n.counts("longhaul_containerlogs_truncated_lines", int64(len(bodies)-1))
}

// TestTraceIsWholeWhateverHappensInItsMiddle stops, rotates, or both, after each
// line of a trace, and writes on the other stream between.
func TestTraceIsWholeWhateverHappensInItsMiddle(t *testing.T) {
	text := traces(t)["python"][2]
	for at := range strings.Count(text, "\n") {
		for _, what := range []string{"stop", "rotate", "rotate, stop", "rotate, write, stop", "stop, rotate"} {
			t.Run(fmt.Sprint(what, " after line ", at), func(t *testing.T) {
				python := strings.Split(text, "\n")
				n := newNode(t)
				path := n.log("api")
				w := newWriter(t, path)
				n.start()
				between := 0
				var want []string
				step := func() {
					body := fmt.Sprint("between ", between)
					between++
					w.write("stdout", "F", body)
					want = append(want, body)
					n.expect(want...)
				}
				for i := 0; i < len(python); i++ {
					w.write("stderr", "F", python[i])
					if i != at {
						continue
					}
					step()
					for _, event := range strings.Split(what, ", ") {
						switch event {
						case "stop":
							n.stop()
							n.start()
						case "rotate":
							require.NoError(t, os.Rename(path, path+".20261124-100000"))
							w.reopen()
						case "write":
							i++
							w.write("stderr", "F", python[i])
						}
						step()
					}
				}
				w.write("stderr", "F", "end")
				n.expect(append(want, text, "end")...)
			})
		}
	}
}

func FuzzTrace(f *testing.F) {
	for _, records := range traces(f) {
		f.Add([]byte(strings.Join(records, "\n")))
	}
	f.Add([]byte("panic: \n\n\n)\n(\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		state := noTrace
		for line := range strings.SplitSeq(string(text), "\n") {
			if state = state.next([]byte(line)); state == noTrace {
				state = beginsTrace([]byte(line))
			}
			if state > traceGoroutine {
				t.Fatal(state)
			}
		}
	})
}
