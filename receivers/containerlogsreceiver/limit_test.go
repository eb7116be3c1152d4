package containerlogsreceiver

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

const limitedLines = "longhaul_containerlogs_limited_lines"

// newLimitedNode limits each container to a line a second, three at once.
func newLimitedNode(t *testing.T) *node {
	n := newNode(t)
	n.config.RateLimit.LinesPerSecond, n.config.RateLimit.Burst = 1, 3
	n.timing.limitedGap, n.timing.limitedQuiet = 10*time.Second, time.Hour
	return n
}

// at writes a line with a time so long after the writer's first.
func (w *writer) at(after time.Duration, content string) {
	w.t.Helper()
	begin := time.Date(2024, 2, 3, 10, 0, 0, 0, time.UTC) // in the past, whatever the clock says
	w.raw(begin.Add(after).Format("2006-01-02T15:04:05.000000000Z07:00") + " stdout F " + content + "\n")
}

// lineRate writes count lines, gap apart, from a time on.
func (w *writer) lineRate(name string, from, gap time.Duration, count int) (bodies []string) {
	w.t.Helper()
	for i := range count {
		body := fmt.Sprintf("%s %d", name, i)
		w.at(from+time.Duration(i)*gap, body)
		bodies = append(bodies, body)
	}
	return bodies
}

// notices are the records that tell of lines left out, in the order they were read.
func (n *node) notices() (found []received) {
	for _, r := range n.sink.asRead() {
		if _, ok := r.record.Attributes().Get(attributeLimited); ok {
			found = append(found, r)
		}
	}
	return found
}

// told is how many lines the notices say were left out.
func (n *node) told() (total int64) {
	for _, r := range n.notices() {
		lines, _ := r.record.Attributes().Get(attributeLimited)
		total += lines.Int()
	}
	return total
}

// lineBodies are the bodies that came from files, sorted.
func (n *node) lineBodies() (bodies []string) {
	for _, r := range n.sink.records() {
		if _, notice := r.record.Attributes().Get(attributeLimited); !notice {
			bodies = append(bodies, r.body)
		}
	}
	slices.Sort(bodies)
	return bodies
}

// waitSaved waits until everything that stands in a file counts as read.
func (n *node) waitSaved(path string) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		info, err := os.Stat(path)
		require.NoError(n.t, err)
		return n.saved().Offset == info.Size()
	}, 30*time.Second, 2*time.Millisecond)
}

func sorted(bodies ...string) []string {
	slices.Sort(bodies)
	return bodies
}

func TestLinesAboveTheLimitAreLeftOutCountedAndTold(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	burst := w.lineRate("burst", 0, time.Millisecond, 10)
	later := w.lineRate("later", 20*time.Second, 2*time.Second, 5) // keeps to the limit
	n.start()
	n.waitSaved(w.path)
	assert.Equal(t, sorted(append(burst[:3], later...)...), n.lineBodies())
	require.Eventually(t, func() bool { return n.counter(limitedLines) == 7 }, 30*time.Second, time.Millisecond)
	n.counts("longhaul_containerlogs_lines", int64(8)) // announcements are no lines

	require.Len(t, n.notices(), 1)
	notice := n.notices()[0]
	assert.Equal(t, "longhaul left out 7 lines of this container between 2024-02-03T10:00:00.003Z and 2024-02-03T10:00:00.009Z: more than rate_limit allows (1 lines/s, burst 3)", notice.body)
	assert.Equal(t, map[string]any{"longhaul.lines.limited": int64(7)}, notice.record.Attributes().AsRaw())
	assert.Equal(t, plog.SeverityNumberWarn, notice.record.SeverityNumber())
	assert.Equal(t, "WARN", notice.record.SeverityText())
	assert.Equal(t, time.Date(2024, 2, 3, 10, 0, 0, 9e6, time.UTC), notice.record.Timestamp().AsTime(), "where the lines are missing")
	assert.Equal(t, n.sink.records()[0].attributes, notice.attributes, "the container's own resource")

	metric, err := n.meter.GetMetric(limitedLines)
	require.NoError(t, err)
	points := metric.Data.(metricdata.Sum[int64]).DataPoints
	require.Len(t, points, 1)
	assert.Equal(t, attribute.NewSet(attribute.String("k8s.namespace.name", "shop"), attribute.String("k8s.container.name", "api")), points[0].Attributes)
}

func TestLimitIsPerContainerAndOffByDefault(t *testing.T) {
	for _, limit := range []int{0, 1} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			n := newLimitedNode(t)
			n.config.RateLimit.LinesPerSecond = limit
			want := newWriter(t, n.log("quiet")).lineRate("quiet", 0, time.Second, 50)
			loud := newWriter(t, n.log("loud")).lineRate("loud", 0, time.Millisecond, 500)
			if limit > 0 {
				loud = loud[:3]
			}
			n.start()
			want = sorted(append(want, loud...)...)
			require.Eventually(t, func() bool { return len(n.lineBodies()) >= len(want) }, 30*time.Second, time.Millisecond)
			n.stop()
			assert.Equal(t, want, n.lineBodies())
		})
	}
}

// A backlog is read much faster than it was written.
func TestBacklogThatKeptToTheLimitIsNotLimited(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	want := w.lineRate("api", 0, time.Second, 3600)
	n.start()
	n.expect(want...)
	assert.Zero(t, n.counter(limitedLines))
}

func TestOngoingLimitingIsToldEveryTenSecondsOfTheLog(t *testing.T) {
	n := newLimitedNode(t)
	n.config.Batch.MaxLines = 5 // notices count as records
	w := newWriter(t, n.log("api"))
	w.lineRate("api", 0, 100*time.Millisecond, 600) // a minute at ten times the limit
	n.start()
	n.waitSaved(w.path)
	n.stop() // tells the rest
	notices := n.notices()
	require.Len(t, notices, 6)
	slices.SortFunc(notices, func(a, b received) int { return int(a.record.Timestamp() - b.record.Timestamp()) })
	for i := range notices[1:] {
		apart := notices[i+1].record.Timestamp().AsTime().Sub(notices[i].record.Timestamp().AsTime())
		assert.LessOrEqual(t, apart, 11*time.Second)
		if i < 4 {
			assert.GreaterOrEqual(t, apart, 10*time.Second)
		}
	}
	assert.Equal(t, int64(600), int64(len(n.lineBodies()))+n.told(), "each line was handed on or is told of")
	assert.InDelta(t, 62, len(n.lineBodies()), 1, "the burst and a line a second")
}

func TestEndOfLimitingIsToldWithoutFurtherLines(t *testing.T) {
	n := newLimitedNode(t)
	n.timing.limitedQuiet = time.Millisecond
	newWriter(t, n.log("api")).lineRate("api", 0, time.Millisecond, 10)
	n.start()
	require.Eventually(t, func() bool { return n.told() == 7 }, 30*time.Second, time.Millisecond)
	assert.Len(t, n.notices(), 1)
}

func TestSamplingKeepsOneInN(t *testing.T) {
	n := newLimitedNode(t)
	n.config.RateLimit.Policy, n.config.RateLimit.SampleOneIn = policySample, 4
	w := newWriter(t, n.log("api"))
	w.lineRate("api", 0, time.Millisecond, 13) // three, then two and a half times four
	n.start()
	n.waitSaved(w.path)
	n.stop()
	assert.Equal(t, sorted("api 0", "api 1", "api 2", "api 6", "api 10"), n.lineBodies())
	assert.Equal(t, int64(8), n.told())
	assert.Contains(t, n.notices()[0].body, "1 in 4 was kept")
}

func TestJoinedTraceCountsAsOneLine(t *testing.T) {
	n := newLimitedNode(t)
	n.config.Multiline.Wait = 20 * time.Millisecond
	n.config.RateLimit.Burst = 1
	w := newWriter(t, n.log("api"))
	w.trace("stderr", javaTrace)
	w.line("one too many")
	w.trace("stderr", javaTrace)
	n.start()
	n.waitSaved(w.path)
	require.Eventually(t, func() bool { return n.counter(limitedLines) == 2 }, 30*time.Second, time.Millisecond)
	n.stop()
	assert.Equal(t, int64(2), n.told())
	require.Len(t, n.lineBodies(), 1)
}

// The two streams of a container are a little out of order in the file, which
// must not refill what it has used.
func TestDisorderDoesNotLoosenTheLimit(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	for i := range 100 {
		w.at(time.Duration(i%2)*20*time.Second, fmt.Sprint(i))
		if i%10 == 0 {
			w.raw(fmt.Sprintf("neither CRI nor json %d\n", i)) // as if read now, long after
		}
	}
	n.start()
	n.waitSaved(w.path)
	n.stop()
	assert.Equal(t, int64(110), int64(len(n.lineBodies()))+n.told())
	assert.Len(t, n.lineBodies(), 5, "two at first, and a burst 20 s later")
}

func TestClockSetBackDoesNotSilenceAContainer(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	want := w.lineRate("before", 2*time.Hour, time.Second, 10)
	want = append(want, w.lineRate("after", 0, time.Second, 10)...)
	ahead := fmt.Sprintf("%d-01-01T00:00:00Z stdout F ahead\n", time.Now().Year()+5)
	w.raw(ahead)
	n.start()
	n.waitSaved(w.path)
	w.raw(time.Now().Add(10*time.Second).UTC().Format(time.RFC3339Nano) + " stdout F today\n")
	n.expect(append(want, "ahead", "today")...)
}

// What was left out counts as read with the batch that was filled meanwhile: a
// refused batch holds the position, and what is read again is judged again.
func TestLineLeftOutCountsAsReadOnlyWithItsBatch(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	burst := w.lineRate("api", 0, time.Millisecond, 10)
	n.sink.setRefuse(func(plog.Logs) error { return errRefused })
	n.start()
	require.Eventually(t, func() bool { return n.sink.attempts() > 5 }, 30*time.Second, time.Millisecond)
	assert.Zero(t, n.saved().Offset)
	assert.Zero(t, n.counter(limitedLines))
	n.stop()
	assert.Zero(t, n.saved().Offset)
	n.sink.setRefuse(nil)
	n.start()
	n.waitSaved(w.path)
	require.Eventually(t, func() bool { return n.counter(limitedLines) == 7 }, 30*time.Second, time.Millisecond)
	assert.Equal(t, sorted(burst[:3]...), n.lineBodies())
}

// Lines that are all left out move the position as well, in a batch of nothing.
func TestPositionAdvancesOverLinesLeftOut(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	first := w.lineRate("api", 0, time.Millisecond, 3)
	n.start()
	n.expect(first...)
	w.lineRate("more", time.Millisecond, time.Millisecond, 100)
	n.waitSaved(w.path)
	n.stop()
	assert.Equal(t, sorted(first...), n.lineBodies())
	assert.Equal(t, int64(100), n.told())
	n.start() // with a burst of its own, but nothing to read
	w.at(time.Hour, "after")
	require.Eventually(t, func() bool { return slices.Contains(n.lineBodies(), "after") }, 30*time.Second, time.Millisecond)
	n.stop()
	assert.Len(t, n.lineBodies(), 4)
}

func TestLimitGoesOnAcrossRotation(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	w.lineRate("old", 0, time.Millisecond, 5)
	n.start()
	require.Eventually(t, func() bool { return len(n.lineBodies()) == 3 }, 30*time.Second, time.Millisecond)
	require.NoError(t, os.Rename(w.path, w.path+".20261123-100000"))
	w.reopen()
	w.lineRate("new", 5*time.Millisecond, time.Millisecond, 5)
	require.Eventually(t, func() bool { return n.counter(limitedLines) == 7 }, 30*time.Second, time.Millisecond)
	n.stop()
	assert.Len(t, n.lineBodies(), 3)
	assert.Equal(t, int64(7), n.told())
}

// Whatever happens between, a line is handed on once or counted once as left out.
func TestEveryLineIsHandedOnOrCountedUnderRandomSchedules(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			s := &schedule{node: newLimitedNode(t), random: random}
			s.config.Batch.MaxLines = 1 + random.IntN(20)
			s.config.RateLimit.Burst = 1 + random.IntN(20)
			if random.IntN(2) == 0 {
				s.config.RateLimit.Policy, s.config.RateLimit.SampleOneIn = policySample, 2+random.IntN(5)
			}
			s.accept()
			s.path = s.log("api")
			s.writer = newWriter(t, s.path)
			s.start()
			written, limited, after := 0, int64(0), time.Duration(0)
			for step := range 40 {
				switch random.IntN(8) {
				case 0:
					s.rename(step)
					s.reopen()
				case 1:
					require.NoError(t, s.receiver.Shutdown(t.Context()))
					limited += s.counter(limitedLines)
					require.NoError(t, s.meter.Shutdown(t.Context()))
					s.start()
				default:
					count := 1 + random.IntN(30)
					s.writer.lineRate(fmt.Sprint("step ", step), after, 50*time.Millisecond, count)
					written += count
					after += time.Duration(random.IntN(20)) * time.Second
				}
			}
			require.Eventually(t, func() bool {
				return int64(len(s.lineBodies()))+limited+s.counter(limitedLines) >= int64(written)
			}, 30*time.Second, 5*time.Millisecond, "lines are neither handed on nor counted")
			require.NoError(t, s.receiver.Shutdown(t.Context()))
			limited += s.counter(limitedLines)
			bodies := s.lineBodies()
			assert.Equal(t, int64(written), int64(len(bodies))+limited)
			assert.Len(t, slices.Compact(bodies), len(s.lineBodies()), "a line came twice")
			assert.NotZero(t, limited)
		})
	}
}

// A stop does not wait for a pipeline that refuses only to tell of lines left out.
func TestStopWhileRefusingGivesUpTelling(t *testing.T) {
	n := newLimitedNode(t)
	n.config.Batch.MaxLines, n.config.RateLimit.Burst = 1, 10
	n.timing.lastNotices, n.timing.shutdownGrace = time.Hour, time.Hour
	w := newWriter(t, n.log("api"))
	w.lineRate("api", 0, time.Millisecond, 20)
	n.start()
	n.waitSaved(w.path)
	require.Eventually(t, func() bool { return n.counter(limitedLines) == 10 }, 30*time.Second, time.Millisecond)
	var refused sync.Map
	n.sink.setRefuse(func(logs plog.Logs) error {
		refused.Store(logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body().Str(), true)
		return errRefused
	})
	more := w.lineRate("refused", 8*time.Second, time.Millisecond, 8) // more than batches there are
	require.Eventually(t, func() bool {                               // every worker holds a batch, and the reader the last
		count := 0
		refused.Range(func(any, any) bool { count++; return true })
		return count == maxInFlight
	}, 30*time.Second, time.Millisecond)
	stopped := make(chan error)
	go func() { stopped <- n.receiver.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the stop waits for the pipeline")
	}
	n.sink.setRefuse(nil)
	n.start()
	require.Eventually(t, func() bool { return slices.Contains(n.lineBodies(), more[7]) }, 30*time.Second, time.Millisecond)
}

func TestLineThatIsLateIsJudgedLikeItsNeighbours(t *testing.T) {
	n := newLimitedNode(t)
	w := newWriter(t, n.log("api"))
	want := w.lineRate("api", 0, time.Millisecond, 3)
	w.at(20*time.Second, "on time")
	w.at(15*time.Second, "late")
	n.start()
	n.expect(append(want, "on time", "late")...)
}

func TestFilesOutsideTheLayoutAreLimitedEach(t *testing.T) {
	n := newLimitedNode(t)
	first, second := filepath.Join(n.pods, "a.log"), filepath.Join(n.pods, "b.log")
	n.config.Include = []string{first, second}
	want := newWriter(t, first).lineRate("a", 0, time.Millisecond, 3)
	want = append(want, newWriter(t, second).lineRate("b", 0, time.Millisecond, 3)...)
	n.start()
	n.expect(want...)
}
