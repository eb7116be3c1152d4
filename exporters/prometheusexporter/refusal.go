package prometheusexporter

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/storage/remote"
)

// refusals counts samples that will never be stored, by reason.
type refusals map[string]refusal

type refusal struct {
	samples int
	example string // of a series, metric or message
}

func (r refusals) add(reason string, samples int, example string) {
	if samples <= 0 {
		return
	}
	known := r[reason]
	if known.example == "" {
		known.example = strings.Clone(example)
	}
	known.samples += samples
	r[reason] = known
}

func (r refusals) merge(other refusals) {
	for reason, o := range other {
		r.add(reason, o.samples, o.example)
	}
}

func (r refusals) samples() int {
	sum := 0
	for _, known := range r {
		sum += known.samples
	}
	return sum
}

// example returns one to show to a person, the same one every time.
func (r refusals) example() string {
	reasons := make([]string, 0, len(r))
	for reason := range r {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	if len(reasons) == 0 {
		return ""
	}
	return reasons[0] + ": " + r[reasons[0]].example
}

// Reasons found in the answers of a server.
const (
	reasonOther           = "other" // refused with a message we cannot read
	reasonRequestTooLarge = "request_too_large"
	reasonEarlier         = "earlier" // only in errors: counted when it happened
)

// knownRefusals tells reasons by the words of Prometheus's messages, which has
// one line per refused sample. The first match counts.
var knownRefusals = []struct{ words, reason string }{
	{"out of order exemplar", exemplarOutOfOrder},
	{"exemplar", exemplarOther},
	{"too far in the future", "too_far_in_future"},
	{"duplicate sample for timestamp", "duplicate"},
	{"too old sample", "too_old"},
	{"out of order", "out_of_order"},
	{"out of bounds", "out_of_bounds"},
	{"invalid metric name or labels", "invalid_labels"},
	{"duplicated label", "invalid_labels"},
	{"histogram", "invalid_histogram"},
	{"buckets", "invalid_histogram"},
	{"spans", "invalid_histogram"},
	{"observations", "invalid_histogram"},
}

// Lines about exemplars say nothing of samples.
const (
	exemplarOutOfOrder = "exemplar_out_of_order"
	exemplarOther      = "exemplar"
)

// parseRefusals reads a 400. A server of remote write 2.0 says in headers how
// many it stored all the same, and in its message why not the others; one that
// does not say stored nothing.
func parseRefusals(body string, stats remote.WriteResponseStats, sent counts) (samples, exemplars refusals) {
	samples, exemplars = make(refusals), make(refusals)
	left := sent.samples - min(max(stats.AllSamples(), 0), sent.samples)
	exemplarsLeft := sent.exemplars - min(max(stats.Exemplars, 0), sent.exemplars)
	if !stats.Confirmed {
		left, exemplarsLeft = sent.samples, sent.exemplars
	}
	for line := range strings.SplitSeq(strings.TrimSpace(body), "\n") {
		switch reason := reasonOf(line); reason {
		case exemplarOutOfOrder, exemplarOther:
			if exemplarsLeft > 0 {
				exemplars.add(strings.TrimPrefix(reason, "exemplar_"), 1, line)
				exemplarsLeft--
			}
		default:
			// One line can stand for several samples: a series with bad labels,
			// or a server that tells only the first. What no line accounts for
			// is given to the first reason below.
			if left > 0 {
				samples.add(reason, 1, line)
				left--
			}
		}
	}
	if left > 0 {
		reason, example := reasonOther, firstLine(body)
		if !stats.Confirmed {
			reason = reasonOf(example) // the request was refused whole, for this
		}
		samples.add(reason, left, example)
	}
	return samples, exemplars
}

func reasonOf(line string) string {
	// The labels of a series can hold any words; the message stands before them.
	message, _, _ := strings.Cut(line, "{")
	for _, known := range knownRefusals {
		if strings.Contains(message, known.words) {
			return known.reason
		}
	}
	return reasonOther
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
