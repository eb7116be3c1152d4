package lokiexporter

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/plog"
)

const (
	serviceNameLabel = "service_name"
	unknownService   = "unknown_service"
	// containerAttribute is what service_name falls back to.
	containerAttribute = "k8s.container.name"
	// maxLabelValueBytes is Loki's max_label_value_length; it refuses the whole
	// stream for a longer one.
	maxLabelValueBytes = 2048
)

// streamLabels makes the label set of a stream from a resource and a level.
type streamLabels struct {
	rules    []labelRule // by label name
	level    string      // label name, empty for none
	backfill string      // label name, empty for none: see late.go
}

// labelRule makes a label from a resource attribute, or from what has no
// attribute: the level, and the hour of late entries.
type labelRule struct {
	label, attribute string
}

func newStreamLabels(cfg *Config) streamLabels {
	s := streamLabels{level: cfg.LevelLabel, backfill: cfg.LateData.Label}
	for attribute, label := range cfg.Labels {
		if label != "" {
			s.rules = append(s.rules, labelRule{label, attribute})
		}
	}
	if s.level != "" {
		s.rules = append(s.rules, labelRule{label: s.level})
	}
	if s.backfill != "" {
		s.rules = append(s.rules, labelRule{label: s.backfill})
	}
	slices.SortFunc(s.rules, func(a, b labelRule) int { return strings.Compare(a.label, b.label) })
	return s
}

// labelSet is a set of rules, by their index; Config allows fewer than 64.
type labelSet uint64

func (s labelSet) has(rule int) bool { return s>>rule&1 != 0 }

func (s labelSet) with(rule int) labelSet { return s | 1<<rule }

// has says whether name is the name of a stream label; an attribute of that
// name must be called something else in structured metadata. A demoted label is
// none.
func (s *streamLabels) has(name string, demoted labelSet) bool {
	for i := range s.rules {
		if s.rules[i].label == name {
			return !demoted.has(i)
		}
	}
	return false
}

// ruleOf returns the index of the rule for a resource attribute, or -1.
func (s *streamLabels) ruleOf(attribute string) int {
	if attribute == "" {
		return -1
	}
	return slices.IndexFunc(s.rules, func(r labelRule) bool { return r.attribute == attribute })
}

// wholeInLabel says whether a label can hold a value unchanged, so that it need
// not be repeated in structured metadata.
func wholeInLabel(value string) bool {
	return len(value) <= maxLabelValueBytes && !strings.ContainsRune(value, utf8.RuneError)
}

// appendTo writes the labels as Loki parses them: {a="b", c="d"}, sorted,
// without empty and demoted ones. There is always at least one, because Loki
// refuses a stream without labels. The plain ones of the values need no escapes.
func (s *streamLabels) appendTo(text []byte, values []string, plain, demoted labelSet, level, backfill string) []byte {
	start := len(text)
	text = append(text, '{')
	for i := range s.rules {
		value, plain := values[i], plain.has(i)
		switch {
		case s.rules[i].attribute != "":
		case s.rules[i].label == s.level:
			value, plain = level, true
		default:
			value, plain = backfill, true
		}
		if value == "" || demoted.has(i) {
			continue
		}
		text = appendLabel(text, start, s.rules[i].label, value, plain)
	}
	if len(text) == start+1 {
		text = appendLabel(text, start, serviceNameLabel, unknownService, true)
	}
	return append(text, '}')
}

func appendLabel(text []byte, start int, name, value string, plain bool) []byte {
	if len(text) > start+1 {
		text = append(text, ", "...)
	}
	text = append(append(text, name...), '=')
	if plain {
		return append(append(append(text, '"'), value...), '"')
	}
	return strconv.AppendQuote(text, value)
}

// isPlain says whether a label can hold a value unchanged and written as it is.
func isPlain(value string) bool {
	if len(value) > maxLabelValueBytes {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// inLabel is a value as a label can hold it.
func inLabel(value string) string {
	return cutAtRune(strings.Map(validInLabel, value), maxLabelValueBytes)
}

// validInLabel replaces what is not UTF-8, and the character that stands for it
// elsewhere, which Loki cannot read in labels.
func validInLabel(r rune) rune {
	if r == utf8.RuneError {
		return '?'
	}
	return r
}

// cutAtRune returns at most n bytes of text without splitting a character.
func cutAtRune(text string, n int) string {
	if n >= len(text) {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// level is a closed set, so that it cannot multiply streams.
type level uint8

const (
	levelNone level = iota // no severity, or none we know
	levelTrace
	levelDebug
	levelInfo
	levelWarn
	levelError
	levelFatal
	levels // how many there are
)

func (l level) String() string {
	return [levels]string{"", "trace", "debug", "info", "warn", "error", "fatal"}[l]
}

func levelOf(number plog.SeverityNumber, text string) level {
	switch n := number; {
	case n <= plog.SeverityNumberUnspecified || n > plog.SeverityNumberFatal4:
		return levelOfText(text)
	case n <= plog.SeverityNumberTrace4:
		return levelTrace
	case n <= plog.SeverityNumberDebug4:
		return levelDebug
	case n <= plog.SeverityNumberInfo4:
		return levelInfo
	case n <= plog.SeverityNumberWarn4:
		return levelWarn
	case n <= plog.SeverityNumberError4:
		return levelError
	}
	return levelFatal
}

func levelOfText(text string) level {
	if len(text) > len("informational") {
		return levelNone
	}
	switch strings.ToLower(text) {
	case "trace", "verbose", "finest":
		return levelTrace
	case "debug", "fine":
		return levelDebug
	case "info", "information", "informational", "notice":
		return levelInfo
	case "warn", "warning":
		return levelWarn
	case "error", "err", "severe":
		return levelError
	case "fatal", "critical", "crit", "panic", "emergency", "emerg", "alert":
		return levelFatal
	}
	return levelNone
}
