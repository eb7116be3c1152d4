package book

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

var lane = frame.Lane{Signal: frame.Logs, Seq: 1}

func arrival(number uint64) Arrival {
	return Arrival{Marker: frames.Marker{Signal: frame.Logs, Lane: 1, Number: number, Samples: 50, Written: time.Now()}, Named: "a", Cluster: "a"}
}

func (b *Book) arrive(numbers ...uint64) {
	for _, n := range numbers {
		b.Arrived(frame.Logs, 50, time.Now(), []Arrival{arrival(n)})
	}
}

func written(n uint64) *Book {
	b := New(1)
	b.Lives(0, lane)
	for i := range n {
		b.Wrote(0, 0, lane, i+1, 1, 50)
	}
	return b
}

// Each thing that can go wrong is told apart from the others.
func TestWhatCanGoWrongIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(b *Book)
		wrongs Wrongs
		lost   int64
		again  int64
	}{
		"nothing":             {do: func(b *Book) { b.arrive(1, 2, 3); b.Confirmed(0, 0, lane, 3) }},
		"a frame is lost":     {do: func(b *Book) { b.arrive(1, 3) }, lost: 1},
		"one comes twice":     {do: func(b *Book) { b.arrive(1, 2, 2, 3) }, again: 1},
		"one comes late":      {do: func(b *Book) { b.arrive(1, 3, 2) }, wrongs: Wrongs{Disorder: 1}},
		"one was not written": {do: func(b *Book) { b.arrive(1, 2, 3, 4) }, wrongs: Wrongs{Unknown: 1}},
		"one is confirmed too early": {
			do: func(b *Book) { b.arrive(1); b.Confirmed(0, 0, lane, 2); b.arrive(2, 3) }, wrongs: Wrongs{Untrue: 1},
		},
		"one is confirmed behind a hole": {
			do: func(b *Book) { b.arrive(1, 3); b.Confirmed(0, 0, lane, 3); b.arrive(2) }, wrongs: Wrongs{Untrue: 1, Disorder: 1},
		},
		"one names another cluster": {
			do: func(b *Book) {
				a := arrival(1)
				a.Named = "b"
				b.Arrived(frame.Logs, 50, time.Now(), []Arrival{a})
				b.arrive(2, 3)
			}, wrongs: Wrongs{Misplaced: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := written(3)
			c.do(b)
			counts, wrongs := b.Counts()
			wrongs.example = ""
			require.Equal(t, c.wrongs, wrongs)
			require.Equal(t, c.again, counts[frame.Logs].Again)
			missing, _ := b.Open()
			require.Equal(t, c.lost, missing)
			require.Equal(t, c.lost > 0, len(b.Missing(5)) > 0)
			require.Equal(t, counts[frame.Logs].Expected, counts[frame.Logs].Items)
		})
	}
}

// Delays are those of live lanes; what was left behind has its own pace.
func TestDelaysAreOfLiveLanes(t *testing.T) {
	b := written(3)
	b.Lives(0, frame.Lane{Signal: frame.Logs, Seq: 2})
	b.arrive(1, 2)
	all, _ := b.TakeDelays()
	require.Zero(t, all.Frames)
	b.Lives(0, lane)
	b.arrive(3)
	all, bySignal := b.TakeDelays()
	require.Equal(t, 1, all.Frames)
	require.Equal(t, 1, bySignal[frame.Logs].Frames)
	all, _ = b.TakeDelays()
	require.Zero(t, all.Frames)
}

// What was written without a link could not be there before its node had one.
func TestDelaysBeginWithTheLink(t *testing.T) {
	b := written(2)
	now := time.Now()
	for i, delay := range []time.Duration{20 * time.Second, 3 * time.Second} {
		one := arrival(uint64(i + 1))
		one.Written = now.Add(-20 * time.Second)
		b.Arrived(frame.Logs, 50, now, []Arrival{one})
		all, _ := b.TakeDelays()
		require.Equal(t, delay, all.Most)
		b.Linked(0, now.Add(-3*time.Second))
	}
}

// Late logs may come behind younger ones, late samples may not.
func TestOnlyLateLogsMayBeReordered(t *testing.T) {
	b := written(3)
	b.Lives(0, frame.Lane{Signal: frame.Logs, Seq: 2})
	b.arrive(2, 1, 3)
	counts, wrongs := b.Counts()
	require.Zero(t, wrongs.Disorder)
	require.EqualValues(t, 1, counts[frame.Logs].Reordered)

	samples := frame.Lane{Signal: frame.Metrics, Seq: 1}
	b.Lives(0, frame.Lane{Signal: frame.Metrics, Seq: 2})
	b.Wrote(0, 0, samples, 2, 2, 100)
	for _, n := range []uint64{2, 1} {
		b.Arrived(frame.Metrics, 50, time.Now(), []Arrival{{Marker: frames.Marker{Signal: frame.Metrics, Lane: 1, Number: n, Samples: 50}}})
	}
	_, wrongs = b.Counts()
	require.EqualValues(t, 1, wrongs.Disorder)
}

func TestAMarkForgetsWhatComesAfterIt(t *testing.T) {
	b := written(2)
	mark := b.Mark()
	b.Wrote(0, 0, lane, 3, 1, 50)
	require.EqualValues(t, 2, mark.Left())
	b.arrive(1, 2)
	require.Zero(t, mark.Left())
}
