package lokiexporter

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The messages are those of Loki 3.7.8.
const (
	behind = "entry with timestamp 2026-11-23 19:47:12.909572541 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-23T19:47:12Z, oldest acceptable timestamp is: 2026-11-23T21:47:12Z',\n" +
		"entry with timestamp 2026-11-23 20:47:12.909572541 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-23T20:47:12Z, oldest acceptable timestamp is: 2026-11-23T21:47:12Z',\n" +
		"user 'fake', total ignored: 2 out of 3 for stream: {a=\"1\", service_name=\"unknown_service\"}\n"
	old = "1 errors like: entry for stream '{a=\"1\", service_name=\"unknown_service\"}' has timestamp too old: 2026-11-11T09:47:12Z, oldest acceptable timestamp is: 2026-11-16T22:47:12Z; " +
		"2 errors like: entry for stream '{a=\"1\", service_name=\"unknown_service\"}' has timestamp too old: 2026-11-11T10:47:12Z, oldest acceptable timestamp is: 2026-11-16T22:47:12Z\n"
	oldOne     = "entry for stream '{a=\"1\", service_name=\"unknown_service\"}' has timestamp too old: 2026-11-11T10:47:12Z, oldest acceptable timestamp is: 2026-11-16T22:47:12Z\n"
	future     = "entry for stream '{a=\"1\", service_name=\"unknown_service\"}' has timestamp too new: 2026-11-23T23:47:12Z\n"
	badLabels  = "couldn't parse labels: 1:4: parse error: unterminated quoted string\n"
	manyLabels = "entry for stream '{a=\"1\", b=\"1\"}' has 17 label names; limit 15\n"
	longLine   = "max entry size '262144' bytes exceeded for stream '{a=\"1\", service_name=\"unknown_service\"}' while adding an entry with length '262145' bytes\n"
	bigMeta    = "stream '{a=\"1\", service_name=\"unknown_service\"}' has structured metadata too large: '65537' bytes, limit: '65536' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it\n"
	garbage    = "snappy: corrupt input\n"
)

func requestOf(entries map[string]int) *request {
	r := &request{}
	for labels, n := range entries {
		r.add(part{labels: labels, order: make([]int32, n)})
	}
	return r
}

func TestRefusalsAreReadFromTheMessage(t *testing.T) {
	two := map[string]int{`{a="1", b="1"}`: 4, `{c="1"}`: 5}
	for name, c := range map[string]struct {
		body    string
		entries map[string]int
		want    map[string]int
	}{
		"too far behind":             {behind, map[string]int{`{a="1"}`: 3}, map[string]int{"too_far_behind": 2}},
		"and what that hides":        {behind, map[string]int{`{a="1"}`: 10}, map[string]int{"too_far_behind": 2, "hidden_by_another": 7}},
		"too old, grouped":           {old, map[string]int{`{a="1"}`: 10}, map[string]int{"greater_than_max_sample_age": 3}},
		"too old, one":               {oldOne, map[string]int{`{a="1"}`: 10}, map[string]int{"greater_than_max_sample_age": 1}},
		"future":                     {future, map[string]int{`{a="1"}`: 10}, map[string]int{"too_far_in_future": 1}},
		"labels end the request":     {badLabels, two, map[string]int{"invalid_labels": 9}},
		"labels refuse a stream":     {manyLabels, two, map[string]int{"max_label_names_per_series": 4}},
		"several reasons":            {"2 errors like: " + longLine[:len(longLine)-1] + "; 1 errors like: " + bigMeta, two, map[string]int{"line_too_long": 2, "structured_metadata_too_large": 1}},
		"unreadable":                 {garbage, two, map[string]int{"other": 9}},
		"empty":                      {"", two, map[string]int{"other": 9}},
		"more than there were":       {old, map[string]int{`{a="1"}`: 2}, map[string]int{"greater_than_max_sample_age": 2}},
		"a number beyond all bounds": {"99999999999999999999 errors like: " + future, two, map[string]int{"too_far_in_future": 9}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(map[string]int)
			for _, r := range parseRefusals(c.body, requestOf(c.entries)) {
				got[r.reason] += r.entries
				require.NotNil(t, r.example)
			}
			require.Equal(t, c.want, got)
		})
	}
}

func FuzzRefusalsNeverExceedTheRequest(f *testing.F) {
	for _, body := range []string{behind, old, oldOne, future, badLabels, manyLabels, longLine, bigMeta, garbage, ""} {
		f.Add(body)
	}
	r := requestOf(map[string]int{`{a="1"}`: 7, `{b="1"}`: 5})
	f.Fuzz(func(t *testing.T, body string) {
		sum := 0
		for _, refusal := range parseRefusals(body, r) {
			require.Positive(t, refusal.entries)
			sum += refusal.entries
		}
		require.LessOrEqual(t, sum, r.entries)
	})
}
