package lokiexporter

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

const (
	// Loki's max_structured_metadata_size and max_structured_metadata_entries_count:
	// it refuses an entry that has more.
	maxMetadataBytes   = 64 << 10
	maxMetadataEntries = 128

	// repetitionName marks the second and further entries of a batch that are
	// equal to the last detail, which Loki would otherwise store once.
	repetitionName  = "repetition"
	repetitionBytes = len(repetitionName) + len("1000000000")

	// laneAttribute is what the relay says to its exporters about a resource; it
	// is no part of the data.
	laneAttribute = "longhaul.lane"

	// readScope is the scope of lines that were read from the logs of containers.
	// After a kill of the collector some are read again.
	readScope = "github.com/longhaul/longhaul/receivers/containerlogsreceiver"
)

// metadataNames gives attributes the names Loki accepts, by Loki's own rule: it
// renames what does not match, and answers 500 to a name it cannot rename.
type metadataNames map[string]string

// maxKnownNames bounds the cache; attribute names are few, unless a program
// makes them up.
const maxKnownNames = 2000

func (n metadataNames) of(attribute string) string {
	name, found := n[attribute]
	if found {
		return name
	}
	if len(n) >= maxKnownNames {
		clear(n)
	}
	name = metadataName(attribute)
	n[strings.Clone(attribute)] = name // not what it may be a part of
	return name
}

func metadataName(attribute string) string {
	namer := otlptranslator.LabelNamer{}
	name, err := namer.Build(attribute)
	if err != nil {
		return "attribute"
	}
	return name
}

type pair struct{ name, value string }

// metadata collects the structured metadata of one entry, most telling first:
// when it outgrows Loki's limits, what comes last is cut.
type metadata struct {
	names   metadataNames
	labels  *streamLabels
	demoted labelSet
	pairs   []pair
	bytes   int
	cut     bool
}

func (m *metadata) reset() {
	clear(m.pairs)
	m.pairs, m.bytes, m.cut = m.pairs[:0], 0, false
}

// The names of what a record has beside its attributes.
const (
	nameTraceID    = "trace_id"
	nameSpanID     = "span_id"
	nameNumber     = "severity_number"
	nameSeverity   = "severity_text"
	nameEvent      = "event_name"
	nameObserved   = "observed_timestamp"
	nameFlags      = "flags"
	nameDropped    = "dropped_attributes_count"
	nameScope      = "scope_name"
	nameScopeVer   = "scope_version"
	attributesRoot = ""
)

// record adds what belongs to the record itself; read says that it is a line of
// readScope. ownMetadata does the same without this type, where nothing is unusual.
func (m *metadata) record(record plog.LogRecord, read bool) {
	if id := record.TraceID(); !id.IsEmpty() {
		m.add(nameTraceID, hex.EncodeToString(id[:]))
	}
	if id := record.SpanID(); !id.IsEmpty() {
		m.add(nameSpanID, hex.EncodeToString(id[:]))
	}
	if n := record.SeverityNumber(); n != plog.SeverityNumberUnspecified {
		m.add(nameNumber, strconv.Itoa(int(n)))
	}
	m.add(nameSeverity, record.SeverityText())
	m.add(nameEvent, record.EventName())
	if !read && hasObserved(record) {
		m.add(nameObserved, strconv.FormatUint(uint64(record.ObservedTimestamp()), 10))
	}
	if flags := record.Flags(); flags != 0 {
		m.add(nameFlags, strconv.FormatUint(uint64(flags), 10))
	}
	if n := record.DroppedAttributesCount(); n != 0 {
		m.add(nameDropped, strconv.FormatUint(uint64(n), 10))
	}
	m.attributes(attributesRoot, record.Attributes())
}

// hasObserved says whether when a record was observed is worth telling. It never is
// of a line that was read: it says when, and read again the line is to be an equal
// entry, which Loki stores once.
func hasObserved(record plog.LogRecord) bool {
	seen := record.ObservedTimestamp()
	return seen != 0 && record.Timestamp() != 0 && seen != record.Timestamp()
}

// scope adds the instrumentation scope.
func (m *metadata) scope(scope pcommon.InstrumentationScope) {
	m.add(nameScope, scope.Name())
	m.add(nameScopeVer, scope.Version())
	m.attributes(attributesRoot, scope.Attributes())
}

// resource adds the resource attributes that no label holds. The value of a
// demoted label has the label's name, so that a query only moves it from the
// selector to a filter.
func (m *metadata) resource(attributes pcommon.Map) {
	for name, value := range attributes.All() {
		if name == laneAttribute {
			continue
		}
		rule := m.labels.ruleOf(name)
		if value.Type() == pcommon.ValueTypeMap && rule < 0 {
			m.attributes(name+".", value.Map())
			continue
		}
		text := value.AsString()
		switch {
		case rule >= 0 && m.demoted.has(rule):
			m.add(m.labels.rules[rule].label, text)
		case rule >= 0 && wholeInLabel(text):
		default:
			m.add(m.names.of(name), text)
		}
	}
}

// attributes adds a map, nested maps flattened: {"http": {"method": "GET"}}
// becomes http_method="GET". Lists stay together as JSON.
func (m *metadata) attributes(prefix string, attributes pcommon.Map) {
	for name, value := range attributes.All() {
		if prefix != "" {
			name = prefix + name
		}
		if value.Type() == pcommon.ValueTypeMap {
			m.attributes(name+".", value.Map())
			continue
		}
		m.add(m.names.of(name), value.AsString())
	}
}

// add appends a pair under a name of its own. The same value under the same
// name is told once; an empty value is none, as everywhere in Loki.
func (m *metadata) add(name, value string) {
	if value == "" {
		return
	}
	unique := name
	for n := 2; ; n++ {
		other, taken := m.find(unique)
		if !taken && !m.labels.has(unique, m.demoted) && unique != repetitionName {
			break
		}
		if taken && other == value {
			return
		}
		unique = metadataName(name + "_" + strconv.Itoa(n))
	}
	room := maxMetadataBytes - repetitionBytes - m.bytes - len(unique)
	if len(m.pairs) >= maxMetadataEntries-1 || room <= 0 {
		m.cut = true
		return
	}
	if len(value) > room {
		m.cut = true
		if value = cutWithMark(value, room); value == "" {
			return
		}
	}
	m.bytes += len(unique) + len(value)
	m.pairs = append(m.pairs, pair{unique, value})
}

func (m *metadata) find(name string) (string, bool) {
	for i := range m.pairs {
		if m.pairs[i].name == name {
			return m.pairs[i].value, true
		}
	}
	return "", false
}

func (m *metadata) appendTo(dst []byte) []byte {
	for i := range m.pairs {
		dst = appendPair(dst, m.pairs[i].name, m.pairs[i].value)
	}
	return dst
}

// cutWithMark shortens text to at most limit bytes, the last of which say how
// much is missing; empty when there is no room to say it.
func cutWithMark(text string, limit int) string {
	const longestMark = len("…[cut: 9223372036854775807 bytes missing]")
	if limit < longestMark {
		return ""
	}
	kept := cutAtRune(text, limit-longestMark)
	return kept + "…[cut: " + strconv.Itoa(len(text)-len(kept)) + " bytes missing]"
}
