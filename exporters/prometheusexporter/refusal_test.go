package prometheusexporter

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
)

// The messages are those of Prometheus 3.16.
var messages = map[string]string{
	"duplicate":         `duplicate sample for timestamp 1795473620776; overrides not allowed: existing 1, new value 2 for series {__name__="a", job="api"}`,
	"too_old":           `too old sample for series {__name__="a", job="api"}`,
	"out_of_order":      `out of order sample for series {__name__="a", job="api"}`,
	"out_of_bounds":     `out of bounds for series {__name__="a", job="api"}`,
	"too_far_in_future": `out of bounds: timestamp is too far in the future for series {__name__="a", job="api"}`,
	"invalid_labels":    `invalid metric name or labels, got {__name__="c", bad="\xff", job="api"}`,
	"invalid_histogram": `7 observations found in buckets, but the Count field is 3: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN) for series {__name__="h", job="api"}`,
	"other":             `something new for series {__name__="too old sample out of order"}`,
}

func bySamples(r refusals) map[string]int {
	m := make(map[string]int)
	for reason, known := range r {
		m[reason] = known.samples
	}
	return m
}

func TestReasonsAreReadFromTheMessage(t *testing.T) {
	for want, line := range messages {
		require.Equal(t, want, reasonOf(line))
	}
}

func TestWhatWasNotWrittenIsCountedByReason(t *testing.T) {
	exemplar := `out of order exemplar for series {__name__="a"}`
	for name, c := range map[string]struct {
		body      []string
		stats     remote.WriteResponseStats
		sent      counts
		samples   map[string]int
		exemplars map[string]int
	}{
		"a line for each": {
			[]string{messages["too_old"], messages["too_old"], messages["duplicate"]},
			remote.WriteResponseStats{Samples: 6, Histograms: 1, Confirmed: true}, counts{samples: 10},
			map[string]int{"too_old": 2, "duplicate": 1}, map[string]int{},
		},
		"fewer lines than samples": {
			[]string{messages["too_old"]}, remote.WriteResponseStats{Samples: 7, Confirmed: true}, counts{samples: 10},
			map[string]int{"too_old": 1, "other": 2}, map[string]int{},
		},
		"more lines than samples": {
			[]string{messages["too_old"], messages["too_old"]}, remote.WriteResponseStats{Samples: 9, Confirmed: true}, counts{samples: 10},
			map[string]int{"too_old": 1}, map[string]int{},
		},
		"nothing confirmed": {
			[]string{messages["out_of_order"]}, remote.WriteResponseStats{}, counts{samples: 10},
			map[string]int{"out_of_order": 10}, map[string]int{},
		},
		"only exemplars": {
			[]string{exemplar, exemplar}, remote.WriteResponseStats{Samples: 10, Exemplars: 1, Confirmed: true}, counts{samples: 10, exemplars: 3},
			map[string]int{}, map[string]int{"out_of_order": 2},
		},
		"written with 200 and yet not all": {
			nil, remote.WriteResponseStats{Samples: 4, Confirmed: true}, counts{samples: 10},
			map[string]int{"other": 6}, map[string]int{},
		},
		"numbers that cannot be": {
			[]string{messages["too_old"]}, remote.WriteResponseStats{Samples: 1000, Exemplars: 1000, Confirmed: true}, counts{samples: 10},
			map[string]int{}, map[string]int{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			samples, exemplars := parseRefusals(strings.Join(c.body, "\n")+"\n", c.stats, c.sent)
			require.Equal(t, c.samples, bySamples(samples))
			require.Equal(t, c.exemplars, bySamples(exemplars))
		})
	}
}

func FuzzRefusalsAreAllThatWasNotWritten(f *testing.F) {
	for _, line := range messages {
		f.Add(line, 3, 1)
	}
	f.Fuzz(func(t *testing.T, body string, written, exemplars int) {
		sent := counts{samples: 10, exemplars: 4}
		stats := remote.WriteResponseStats{Samples: written, Exemplars: exemplars, Confirmed: true}
		refused, lost := parseRefusals(body, stats, sent)
		require.Equal(t, sent.samples-min(max(written, 0), sent.samples), refused.samples())
		require.LessOrEqual(t, lost.samples(), sent.exemplars)
	})
}
