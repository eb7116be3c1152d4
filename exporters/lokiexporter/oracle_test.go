package lokiexporter

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/loki/pkg/push"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// oracle says by pdata's objects what becomes of a record, in the plainest way, so
// that a mistake in the translator is not one in the tests as well. No label is
// demoted, and nothing is late.
type oracle struct {
	labels      *streamLabels
	maxLineSize int
	now         time.Time
}

// oracleEntry is an entry as the oracle wants it.
type oracleEntry struct {
	labels string
	push.Entry
	cut cut
}

// entries are those of all records, in their order.
func (o oracle) entries(logs plog.Logs) (all []oracleEntry) {
	for _, r := range logs.ResourceLogs().All() {
		for _, s := range r.ScopeLogs().All() {
			for _, record := range s.LogRecords().All() {
				all = append(all, o.entry(r.Resource(), s.Scope(), record))
			}
		}
	}
	return all
}

func (o oracle) entry(resource pcommon.Resource, scope pcommon.InstrumentationScope, record plog.LogRecord) oracleEntry {
	e := oracleEntry{labels: o.stream(resource.Attributes(), record)}
	switch {
	case record.Timestamp() != 0:
		e.Timestamp = record.Timestamp().AsTime()
	case record.ObservedTimestamp() != 0:
		e.Timestamp = record.ObservedTimestamp().AsTime()
	default:
		e.Timestamp = o.now
	}
	if e.Line = record.Body().AsString(); len(e.Line) > o.maxLineSize {
		e.Line, e.cut = cutWithMark(e.Line, o.maxLineSize), cutLine
	}
	pairs, shortened := o.metadata(resource, scope, record)
	for _, p := range pairs {
		e.StructuredMetadata = append(e.StructuredMetadata, push.LabelAdapter{Name: p.name, Value: p.value})
	}
	if shortened {
		e.cut |= cutMetadata
	}
	return e
}

// stream is the labels as Loki wants them.
func (o oracle) stream(resource pcommon.Map, record plog.LogRecord) string {
	var list []string
	for _, rule := range o.labels.rules {
		value := ""
		if rule.attribute != "" {
			value = attributeText(resource, rule.attribute)
		}
		if value == "" && rule.label == "service_name" {
			if value = attributeText(resource, "k8s.container.name"); value == "" {
				value = "unknown_service"
			}
		}
		if rule.label == o.labels.level {
			value = levelOf(record.SeverityNumber(), record.SeverityText()).String()
		}
		value = strings.ToValidUTF8(value, "?")
		value = cutAtRune(strings.ReplaceAll(value, "\uFFFD", "?"), 2048)
		if value != "" {
			list = append(list, rule.label+"="+strconv.Quote(value))
		}
	}
	return "{" + strings.Join(list, ", ") + "}"
}

type oraclePairs struct {
	*streamLabels
	pairs []pair
	bytes int
	cut   bool
}

// metadata is the structured metadata of a record.
func (o oracle) metadata(resource pcommon.Resource, scope pcommon.InstrumentationScope, record plog.LogRecord) ([]pair, bool) {
	m := &oraclePairs{streamLabels: o.labels}
	if id := record.TraceID(); !id.IsEmpty() {
		m.add("trace_id", hex.EncodeToString(id[:]))
	}
	if id := record.SpanID(); !id.IsEmpty() {
		m.add("span_id", hex.EncodeToString(id[:]))
	}
	if n := record.SeverityNumber(); n != plog.SeverityNumberUnspecified {
		m.add("severity_number", strconv.Itoa(int(n)))
	}
	m.add("severity_text", record.SeverityText())
	m.add("event_name", record.EventName())
	if seen := record.ObservedTimestamp(); scope.Name() != readScope && seen != 0 && record.Timestamp() != 0 && seen != record.Timestamp() {
		m.add("observed_timestamp", strconv.FormatUint(uint64(seen), 10))
	}
	if flags := record.Flags(); flags != 0 {
		m.add("flags", strconv.FormatUint(uint64(flags), 10))
	}
	if n := record.DroppedAttributesCount(); n != 0 {
		m.add("dropped_attributes_count", strconv.FormatUint(uint64(n), 10))
	}
	m.attributes("", record.Attributes())
	for name, value := range resource.Attributes().All() {
		rule := m.ruleOf(name)
		switch {
		case name == "longhaul.lane":
		case value.Type() == pcommon.ValueTypeMap && rule < 0:
			m.attributes(name+".", value.Map())
		case rule < 0 || !wholeInLabel(value.AsString()):
			m.add(metadataName(name), value.AsString())
		}
	}
	m.add("scope_name", scope.Name())
	m.add("scope_version", scope.Version())
	m.attributes("", scope.Attributes())
	return m.pairs, m.cut
}

func (m *oraclePairs) attributes(prefix string, attributes pcommon.Map) {
	for name, value := range attributes.All() {
		if value.Type() == pcommon.ValueTypeMap {
			m.attributes(prefix+name+".", value.Map())
			continue
		}
		m.add(metadataName(prefix+name), value.AsString())
	}
}

func (m *oraclePairs) add(name, value string) {
	if value == "" {
		return
	}
	unique := name
	for n := 2; ; n++ {
		free := unique != "repetition" && !m.has(unique, 0)
		for _, p := range m.pairs {
			if p.name != unique {
				continue
			}
			if p.value == value {
				return
			}
			free = false
		}
		if free {
			break
		}
		unique = metadataName(name + "_" + strconv.Itoa(n))
	}
	room := 64<<10 - len("repetition1000000000") - m.bytes - len(unique)
	m.cut = m.cut || len(m.pairs) >= 127 || len(value) > room
	if len(m.pairs) >= 127 || room <= 0 {
		return
	}
	if len(value) > room {
		if value = cutWithMark(value, room); value == "" {
			return
		}
	}
	m.bytes += len(unique) + len(value)
	m.pairs = append(m.pairs, pair{unique, value})
}
