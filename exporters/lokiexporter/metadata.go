package lokiexporter

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
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
	laneAttribute = direct.LaneAttribute

	// readScope is the scope of lines that were read from the logs of containers.
	// After a kill of the collector some are read again.
	readScope = "github.com/longhaul/longhaul/receivers/containerlogsreceiver"
)

// metadataNames gives attributes the names Loki accepts, by Loki's own rule: it
// renames what does not match, and answers 500 to a name it cannot rename.
type metadataNames map[string]string

const (
	// maxKnownNames bounds the cache; attribute names are few, unless a program
	// makes them up.
	maxKnownNames = 2000
	maxKnownName  = 256 // bytes
)

func (n metadataNames) of(attribute string) string {
	name, found := n[attribute]
	if found {
		return name
	}
	if len(n) >= maxKnownNames {
		clear(n)
	}
	attribute = strings.Clone(attribute) // not what it may be a part of
	name = metadataName(attribute)
	if len(attribute) <= maxKnownName {
		n[attribute] = name
	}
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
	nameTraceID  = "trace_id"
	nameSpanID   = "span_id"
	nameNumber   = "severity_number"
	nameSeverity = "severity_text"
	nameEvent    = "event_name"
	nameObserved = "observed_timestamp"
	nameFlags    = "flags"
	nameDropped  = "dropped_attributes_count"
	nameScope    = "scope_name"
	nameScopeVer = "scope_version"
)

// record adds what belongs to the record itself; read says that it is a line of
// readScope. ownMetadata does the same without this type, where nothing is unusual.
func (m *metadata) record(record *record, attributes []otlpwire.Attribute, read bool) {
	m.add(nameTraceID, hex.EncodeToString(record.trace))
	m.add(nameSpanID, hex.EncodeToString(record.span))
	if n := record.number; n != plog.SeverityNumberUnspecified {
		m.add(nameNumber, strconv.Itoa(int(n)))
	}
	m.add(nameSeverity, record.severity)
	m.add(nameEvent, record.event)
	if !read && record.hasObserved() {
		m.add(nameObserved, strconv.FormatUint(record.observed, 10))
	}
	if record.flags != 0 {
		m.add(nameFlags, strconv.FormatUint(uint64(record.flags), 10))
	}
	if record.dropped != 0 {
		m.add(nameDropped, strconv.FormatUint(uint64(record.dropped), 10))
	}
	m.attributes(attributes)
}

// scope adds the instrumentation scope.
func (m *metadata) scope(scope *scope) {
	m.add(nameScope, scope.name)
	m.add(nameScopeVer, scope.version)
	m.attributes(scope.attributes)
}

// resource adds the resource attributes that no label holds. The value of a
// demoted label has the label's name, so that a query only moves it from the
// selector to a filter.
func (m *metadata) resource(attributes []otlpwire.Attribute) {
	for i := range attributes {
		if m.full() {
			return
		}
		name, value := attributes[i].Key, &attributes[i].Value
		if name == laneAttribute {
			continue
		}
		rule := m.labels.ruleOf(name)
		if isMap(value) && rule < 0 {
			m.nested(name, value)
			continue
		}
		text := value.Text()
		switch {
		case rule >= 0 && m.demoted.has(rule):
			m.add(m.labels.rules[rule].label, text)
		case rule >= 0 && wholeInLabel(text):
		default:
			m.add(m.names.of(name), text)
		}
	}
}

// attributes adds attributes, nested maps flattened: {"http": {"method": "GET"}}
// becomes http_method="GET". Lists stay together as JSON.
func (m *metadata) attributes(attributes []otlpwire.Attribute) {
	for i := range attributes {
		if m.full() {
			return
		}
		name, value := attributes[i].Key, &attributes[i].Value
		if isMap(value) {
			m.nested(name, value)
			continue
		}
		m.add(m.names.of(name), value.Text())
	}
}

func (m *metadata) nested(name string, value *otlpwire.Value) {
	if inner, ok := value.Map(); ok {
		m.flatten(name+".", inner)
	}
}

func (m *metadata) flatten(prefix string, attributes pcommon.Map) {
	for name, value := range attributes.All() {
		if m.full() {
			return
		}
		name = prefix + name
		if value.Type() == pcommon.ValueTypeMap {
			m.flatten(name+".", value.Map())
			continue
		}
		m.add(m.names.of(name), value.AsString())
	}
}

// isMap says whether a value is to be flattened.
func isMap(v *otlpwire.Value) bool { return v.Type == pcommon.ValueTypeMap }

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

// full says that nothing that could come makes a difference.
func (m *metadata) full() bool { return m.cut && len(m.pairs) >= maxMetadataEntries-1 }

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
