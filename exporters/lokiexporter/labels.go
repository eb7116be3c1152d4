package lokiexporter

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

const (
	serviceNameLabel = "service_name"
	unknownService   = "unknown_service"
	// maxLabelValueBytes is Loki's max_label_value_length; it refuses the whole
	// stream for a longer one.
	maxLabelValueBytes = 2048
)

// streamLabels makes the label set of a stream from a resource and a level.
type streamLabels struct {
	rules []labelRule // by label name
	level string      // label name, empty for none
}

type labelRule struct{ label, attribute string }

func newStreamLabels(cfg *Config) streamLabels {
	s := streamLabels{level: cfg.LevelLabel}
	for attribute, label := range cfg.Labels {
		if label != "" {
			s.rules = append(s.rules, labelRule{label, attribute})
		}
	}
	if s.level != "" {
		s.rules = append(s.rules, labelRule{label: s.level})
	}
	slices.SortFunc(s.rules, func(a, b labelRule) int { return strings.Compare(a.label, b.label) })
	return s
}

// has says whether name is the name of a stream label; an attribute of that
// name must be called something else in structured metadata.
func (s streamLabels) has(name string) bool {
	return slices.ContainsFunc(s.rules, func(r labelRule) bool { return r.label == name })
}

// holds says whether the value of a resource attribute is whole in a label, so
// that it need not be repeated in structured metadata.
func (s streamLabels) holds(attribute, value string) bool {
	return len(value) <= maxLabelValueBytes && !strings.ContainsRune(value, utf8.RuneError) &&
		slices.ContainsFunc(s.rules, func(r labelRule) bool { return r.attribute == attribute })
}

// format writes the labels as Loki parses them: {a="b", c="d"}, sorted, without
// empty ones. There is always at least one, because Loki refuses a stream
// without labels.
func (s streamLabels) format(resource pcommon.Map, level string) string {
	text := make([]byte, 0, 160)
	text = append(text, '{')
	for _, rule := range s.rules {
		value := level
		if rule.attribute != "" {
			value = labelValue(resource, rule)
		}
		if value == "" {
			continue
		}
		text = appendLabel(text, rule.label, value)
	}
	if len(text) == 1 {
		text = appendLabel(text, serviceNameLabel, unknownService)
	}
	return string(append(text, '}'))
}

func appendLabel(text []byte, name, value string) []byte {
	if len(text) > 1 {
		text = append(text, ", "...)
	}
	text = append(append(text, name...), '=')
	return strconv.AppendQuote(text, value)
}

func labelValue(resource pcommon.Map, rule labelRule) string {
	value := attributeText(resource, rule.attribute)
	if value == "" && rule.label == serviceNameLabel {
		if value = attributeText(resource, "k8s.container.name"); value == "" {
			value = unknownService
		}
	}
	value = strings.Map(validInLabel, value)
	if len(value) > maxLabelValueBytes {
		value = cutAtRune(value, maxLabelValueBytes)
	}
	return value
}

// validInLabel replaces what is not UTF-8, and the character that stands for it
// elsewhere, which Loki cannot read in labels.
func validInLabel(r rune) rune {
	if r == utf8.RuneError {
		return '?'
	}
	return r
}

func attributeText(attributes pcommon.Map, name string) string {
	value, found := attributes.Get(name)
	if !found {
		return ""
	}
	return value.AsString()
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

// levelOf returns the level of a record, from a closed set so that it cannot
// multiply streams; empty when the record has no severity we know.
func levelOf(record plog.LogRecord) string {
	switch n := record.SeverityNumber(); {
	case n <= plog.SeverityNumberUnspecified || n > plog.SeverityNumberFatal4:
		return levelOfText(record.SeverityText())
	case n <= plog.SeverityNumberTrace4:
		return "trace"
	case n <= plog.SeverityNumberDebug4:
		return "debug"
	case n <= plog.SeverityNumberInfo4:
		return "info"
	case n <= plog.SeverityNumberWarn4:
		return "warn"
	case n <= plog.SeverityNumberError4:
		return "error"
	}
	return "fatal"
}

func levelOfText(text string) string {
	if len(text) > len("informational") {
		return ""
	}
	switch strings.ToLower(text) {
	case "trace", "verbose", "finest":
		return "trace"
	case "debug", "fine":
		return "debug"
	case "info", "information", "informational", "notice":
		return "info"
	case "warn", "warning":
		return "warn"
	case "error", "err", "severe":
		return "error"
	case "fatal", "critical", "crit", "panic", "emergency", "emerg", "alert":
		return "fatal"
	}
	return ""
}
