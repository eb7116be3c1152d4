package lokiexporter

import (
	"slices"
	"strconv"
	"time"

	"github.com/grafana/loki/pkg/push"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// stream is the entries of one label set, sorted by time.
type stream struct {
	labels  string
	entries []push.Entry
	bytes   int // of the entries in a request
}

// translator turns log records into Loki's streams and entries.
type translator struct {
	labels      streamLabels
	names       metadataNames
	maxLineSize int
	now         func() time.Time
}

// cuts counts entries that were shortened to fit Loki's limits.
type cuts struct{ lines, metadata int }

// streams groups the records by label set, in the order in which the label sets
// appear, each sorted by time.
func (t *translator) streams(logs plog.Logs) ([]*stream, cuts) {
	var (
		list     []*stream
		byLabels = make(map[string]*stream)
		cut      cuts
	)
	for _, resourceLogs := range logs.ResourceLogs().All() {
		resource := resourceLogs.Resource().Attributes()
		byLevel := make(map[string]*stream, 4) // of this resource
		for _, scopeLogs := range resourceLogs.ScopeLogs().All() {
			for _, record := range scopeLogs.LogRecords().All() {
				level := levelOf(record)
				target := byLevel[level]
				if target == nil {
					labels := t.labels.format(resource, level)
					if target = byLabels[labels]; target == nil {
						target = &stream{labels: labels}
						byLabels[labels] = target
						list = append(list, target)
					}
					byLevel[level] = target
				}
				entry := t.entry(resource, scopeLogs.Scope(), record, &cut)
				target.bytes += entry.Size()
				target.entries = append(target.entries, entry)
			}
		}
	}
	for _, s := range list {
		byTime := func(a, b push.Entry) int { return a.Timestamp.Compare(b.Timestamp) }
		if !slices.IsSortedFunc(s.entries, byTime) {
			slices.SortStableFunc(s.entries, byTime)
		}
		s.markRepetitions()
	}
	return list, cut
}

func (t *translator) entry(resource pcommon.Map, scope pcommon.InstrumentationScope, record plog.LogRecord, cut *cuts) push.Entry {
	line := record.Body().AsString() // maps and lists as JSON
	if len(line) > t.maxLineSize {
		line = cutWithMark(line, t.maxLineSize)
		cut.lines++
	}
	expected := record.Attributes().Len() + resource.Len() + 8
	m := metadata{names: &t.names, labels: t.labels, pairs: make(push.LabelsAdapter, 0, expected)}
	m.record(record)
	m.resource(resource)
	m.scope(scope)
	if m.cut {
		cut.metadata++
	}
	return push.Entry{Timestamp: t.timestamp(record), Line: line, StructuredMetadata: m.pairs}
}

// timestamp is the record's own, else when it was observed, else now.
func (t *translator) timestamp(record plog.LogRecord) time.Time {
	ts := record.Timestamp()
	if ts == 0 {
		ts = record.ObservedTimestamp()
	}
	if ts == 0 {
		return t.now().UTC()
	}
	return time.Unix(int64(ts/1e9), int64(ts%1e9)).UTC()
}

// markRepetitions numbers entries that are equal in time, line and metadata.
// Loki stores such entries once, but a program that says something twice in the
// same instant said it twice.
func (s *stream) markRepetitions() {
	for start := 0; start < len(s.entries); {
		end := start + 1
		for end < len(s.entries) && s.entries[end].Timestamp.Equal(s.entries[start].Timestamp) {
			end++
		}
		if end-start > 1 {
			s.bytes += markRepetitions(s.entries[start:end])
		}
		start = end
	}
}

// markRepetitions handles entries of one instant and returns the bytes added.
func markRepetitions(entries []push.Entry) int {
	type kind struct {
		entry *push.Entry
		seen  int
	}
	added := 0
	byLine := make(map[string][]*kind, len(entries))
	for i := range entries {
		entry := &entries[i]
		var same *kind
		for _, k := range byLine[entry.Line] {
			if sameMetadata(k.entry.StructuredMetadata, entry.StructuredMetadata) {
				same = k
				break
			}
		}
		if same == nil {
			byLine[entry.Line] = append(byLine[entry.Line], &kind{entry, 1})
			continue
		}
		same.seen++
		before := entry.Size()
		entry.StructuredMetadata = append(entry.StructuredMetadata,
			push.LabelAdapter{Name: repetitionName, Value: strconv.Itoa(same.seen)})
		added += entry.Size() - before
	}
	return added
}

func sameMetadata(a, b push.LabelsAdapter) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
