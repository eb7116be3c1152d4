package lokiexporter

import (
	"encoding/hex"
	"strconv"
	"sync"

	"github.com/grafana/loki/pkg/push"
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
)

// metadataNames gives attributes the names Loki accepts, by Loki's own rule: it
// renames what does not match, and answers 500 to a name it cannot rename.
type metadataNames struct {
	mu    sync.RWMutex
	known map[string]string
}

// maxKnownNames bounds the cache; attribute names are few, unless a program
// makes them up.
const maxKnownNames = 10_000

func (n *metadataNames) of(attribute string) string {
	n.mu.RLock()
	name, found := n.known[attribute]
	n.mu.RUnlock()
	if found {
		return name
	}
	name = metadataName(attribute)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) >= maxKnownNames {
		n.known = make(map[string]string, 256)
	}
	n.known[attribute] = name
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

// metadata collects the structured metadata of one entry, most telling first:
// when it outgrows Loki's limits, what comes last is cut.
type metadata struct {
	names  *metadataNames
	labels streamLabels
	pairs  push.LabelsAdapter
	bytes  int
	cut    bool
}

// record adds what belongs to the record itself.
func (m *metadata) record(record plog.LogRecord) {
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
	if seen := record.ObservedTimestamp(); seen != 0 && record.Timestamp() != 0 && seen != record.Timestamp() {
		m.add("observed_timestamp", strconv.FormatUint(uint64(seen), 10))
	}
	if flags := record.Flags(); flags != 0 {
		m.add("flags", strconv.FormatUint(uint64(flags), 10))
	}
	if n := record.DroppedAttributesCount(); n != 0 {
		m.add("dropped_attributes_count", strconv.FormatUint(uint64(n), 10))
	}
	m.attributes("", record.Attributes())
}

// scope adds the instrumentation scope.
func (m *metadata) scope(scope pcommon.InstrumentationScope) {
	m.add("scope_name", scope.Name())
	m.add("scope_version", scope.Version())
	m.attributes("", scope.Attributes())
}

// resource adds the resource attributes that no label holds.
func (m *metadata) resource(attributes pcommon.Map) {
	for name, value := range attributes.All() {
		if value.Type() == pcommon.ValueTypeMap {
			m.attributes(name+".", value.Map())
			continue
		}
		if text := value.AsString(); !m.labels.holds(name, text) {
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
		if !taken && !m.labels.has(unique) && unique != repetitionName {
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
	m.pairs = append(m.pairs, push.LabelAdapter{Name: unique, Value: value})
}

func (m *metadata) find(name string) (string, bool) {
	for i := range m.pairs {
		if m.pairs[i].Name == name {
			return m.pairs[i].Value, true
		}
	}
	return "", false
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
