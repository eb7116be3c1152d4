package lokiexporter

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// refusal is a number of entries that Loki refused for one reason.
type refusal struct {
	reason  string
	entries int
	example string
}

// Reasons, named as Loki names them in loki_discarded_samples_total where it
// has a name.
const (
	reasonOther           = "other"             // a 400 we cannot read
	reasonRequestTooLarge = "request_too_large" // 413 for a single entry
	reasonTooFarBehind    = "too_far_behind"
	reasonInvalidLabels   = "invalid_labels"
	// reasonHidden is that of entries refused for a reason that Loki does not
	// tell, because it tells another.
	reasonHidden = "hidden_by_another"
)

// knownRefusals tells reasons by the words of Loki's messages. A message about a
// stream refuses all its entries in the request; the others are given once per
// entry.
var knownRefusals = []struct {
	words       string
	reason      string
	wholeStream bool
}{
	{"has timestamp too old", "greater_than_max_sample_age", false},
	{"has timestamp too new", "too_far_in_future", false},
	{"max entry size", "line_too_long", false},
	{"has structured metadata too large", "structured_metadata_too_large", false},
	{"has too many structured metadata labels", "structured_metadata_too_many", false},
	{"includes structured metadata, but this feature is disallowed", "disallowed_structured_metadata", false},
	{"error parsing labels", reasonInvalidLabels, true},
	{"error at least one label pair is required", "missing_labels", true},
	{"label names; limit", "max_label_names_per_series", true},
	{"has label name too long", "label_name_too_long", true},
	{"has label value too long", "label_value_too_long", true},
	{"has duplicate label name", "duplicate_label_names", true},
	{"missing required labels", "missing_enforced_labels", true},
	{"ingestion blocked for user", "blocked_ingestion", true},
}

// Answers 429 that concern one stream, not its tenant.
const (
	wordsStreamLimit = "maximum active stream limit exceeded"
	wordsStreamRate  = "er stream rate limit exceeded" // "Per" or "per"
)

// aboutOneStream says whether an answer asks to wait with one stream only. Which
// others of the request were stored it does not say.
func aboutOneStream(reply deliver.Reply) bool {
	return reply.Status == http.StatusTooManyRequests &&
		(strings.Contains(reply.Body, wordsStreamLimit) || strings.Contains(reply.Body, wordsStreamRate))
}

// overRate says whether waiting a little may be enough.
func overRate(reply deliver.Reply) bool {
	return aboutOneStream(reply) && strings.Contains(reply.Body, wordsStreamRate)
}

var (
	// ignoredByIngester ends an ingester's answer about one stream.
	ignoredByIngester = regexp.MustCompile(`total ignored: (\d+) out of (\d+) for stream: (.*)`)
	// grouped begins each of the messages of a distributor's answer, unless
	// there is only one.
	grouped = regexp.MustCompile(`(?:^|; )(\d+) errors like: `)
)

// byIngester says whether a 400 is that of an ingester, about one stream.
func byIngester(body string) bool { return ignoredByIngester.MatchString(body) }

// parseRefusals reads what a 400 says about the entries of a request. What it
// does not say anything about was stored. An answer it cannot read refuses the
// whole request.
func parseRefusals(body string, r *request) []refusal {
	body = strings.TrimSpace(body)
	if found := ignoredByIngester.FindStringSubmatch(body); found != nil {
		return clampRefusals(ingesterRefusals(body, found, r), r.entries)
	}
	var refusals []refusal
	for _, group := range splitGroups(body) {
		refusals = appendRefusal(refusals, group.text, group.count, r)
	}
	return clampRefusals(refusals, r.entries)
}

// ingesterRefusals reads an ingester's answer about one stream. It hides what
// the distributor refused before: of a stream that travels alone, the entries
// that did not come to the ingester.
func ingesterRefusals(body string, found []string, r *request) []refusal {
	ignored, _ := strconv.Atoi(found[1])
	arrived, _ := strconv.Atoi(found[2])
	reason := reasonTooFarBehind
	if !strings.Contains(body, "too far behind") {
		reason = "out_of_order"
	}
	refusals := []refusal{{reason, ignored, body}}
	sharded := strings.Contains(found[3], "__time_shard__") || strings.Contains(found[3], "__stream_shard__")
	if missing := r.entries - arrived; len(r.parts) == 1 && !sharded && missing > 0 {
		refusals = append(refusals, refusal{reasonHidden, missing, body})
	}
	return refusals
}

type messageGroup struct {
	text  string
	count int
}

func splitGroups(body string) []messageGroup {
	marks := grouped.FindAllStringSubmatchIndex(body, -1)
	if len(marks) == 0 || marks[0][0] != 0 {
		return []messageGroup{{body, 1}}
	}
	groups := make([]messageGroup, len(marks))
	for i, mark := range marks {
		end := len(body)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		count, _ := strconv.Atoi(body[mark[2]:mark[3]])
		groups[i] = messageGroup{body[mark[1]:end], count}
	}
	return groups
}

func appendRefusal(refusals []refusal, text string, count int, r *request) []refusal {
	for _, known := range knownRefusals {
		if !strings.Contains(text, known.words) {
			continue
		}
		if known.wholeStream {
			count = entriesOf(text, count, r)
		}
		for i := range refusals {
			if refusals[i].reason == known.reason {
				refusals[i].entries += count
				return refusals
			}
		}
		return append(refusals, refusal{known.reason, count, text})
	}
	if strings.Contains(text, "couldn't parse labels") { // ends the reading of the request
		return append(refusals, refusal{reasonInvalidLabels, r.entries, text})
	}
	return append(refusals, refusal{reasonOther, r.entries, text})
}

// entriesOf counts the entries of the stream that a message is about.
func entriesOf(text string, count int, r *request) int {
	if len(r.parts) == 1 {
		return r.entries
	}
	entries := 0
	for _, p := range r.parts {
		if strings.Contains(text, p.labels) {
			entries += len(p.order)
		}
	}
	return max(entries, count)
}

// clampRefusals keeps the sum within the request, whatever the server said.
func clampRefusals(refusals []refusal, entries int) []refusal {
	left := entries
	kept := refusals[:0]
	for _, r := range refusals {
		if r.entries = min(r.entries, left); r.entries > 0 {
			left -= r.entries
			kept = append(kept, r)
		}
	}
	return kept
}
