package lokiexporter

import (
	"encoding/hex"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// recordNames are those that record gives; they are different from each other.
var recordNames = []string{nameTraceID, nameSpanID, nameNumber, nameSeverity, nameEvent, nameObserved, nameFlags, nameDropped}

// shape is a list of attributes whose names are known to be different from each
// other and from all else in the entries of the resource in hand. The records of
// a container nearly always have the same ones in the same order.
type shape struct {
	attributes []string
	names      []string
}

func (s *shape) forget() {
	clear(s.attributes)
	clear(s.names)
	s.attributes, s.names = s.attributes[:0], s.names[:0]
}

// ownMetadata appends what belongs to the record itself. It returns false where
// names collide or limits are near, and then what it appended is not valid.
func (r *run) ownMetadata(record plog.LogRecord) bool {
	if r.shared.clash {
		return false
	}
	o := own{arena: r.batch.arena}
	if id := record.TraceID(); !id.IsEmpty() {
		addOwn(&o, nameTraceID, hex.AppendEncode(o.number[:0], id[:]))
	}
	if id := record.SpanID(); !id.IsEmpty() {
		addOwn(&o, nameSpanID, hex.AppendEncode(o.number[:0], id[:]))
	}
	if n := record.SeverityNumber(); n != plog.SeverityNumberUnspecified {
		addOwn(&o, nameNumber, strconv.AppendInt(o.number[:0], int64(n), 10))
	}
	addOwn(&o, nameSeverity, record.SeverityText())
	addOwn(&o, nameEvent, record.EventName())
	if !r.read && hasObserved(record) {
		addOwn(&o, nameObserved, strconv.AppendUint(o.number[:0], uint64(record.ObservedTimestamp()), 10))
	}
	if flags := record.Flags(); flags != 0 {
		addOwn(&o, nameFlags, strconv.AppendUint(o.number[:0], uint64(flags), 10))
	}
	if n := record.DroppedAttributesCount(); n != 0 {
		addOwn(&o, nameDropped, strconv.AppendUint(o.number[:0], uint64(n), 10))
	}
	if !r.ownAttributes(&o, record.Attributes()) {
		return false
	}
	r.batch.arena = o.arena
	return r.shared.bytes+o.bytes <= maxMetadataBytes-repetitionBytes && r.shared.pairs+o.pairs < maxMetadataEntries
}

func (r *run) ownAttributes(o *own, attributes pcommon.Map) bool {
	known := &r.batch.scratch.shape
	i := 0
	for attribute, value := range attributes.All() {
		if i >= len(known.attributes) || known.attributes[i] != attribute {
			if !r.learn(i, attribute) {
				return false
			}
		}
		name := known.names[i]
		i++
		switch value.Type() {
		case pcommon.ValueTypeStr:
			addOwn(o, name, value.Str())
		case pcommon.ValueTypeInt:
			addOwn(o, name, strconv.AppendInt(o.number[:0], value.Int(), 10))
		case pcommon.ValueTypeMap:
			return false
		default:
			addOwn(o, name, value.AsString())
		}
	}
	return true
}

// learn takes an attribute as the i-th of the shape, if its name is free.
func (r *run) learn(i int, attribute string) bool {
	s := &r.batch.scratch.shape
	s.attributes, s.names = s.attributes[:i], s.names[:i]
	name := r.batch.scratch.names.of(attribute)
	if r.shared.names.has(name) || slices.Contains(s.names, name) || slices.Contains(recordNames, name) {
		return false
	}
	s.attributes, s.names = append(s.attributes, attribute), append(s.names, name)
	return true
}

// own collects an entry's own metadata on the short way.
type own struct {
	arena  []byte
	pairs  int
	bytes  int
	number [40]byte
}

func addOwn[T string | []byte](o *own, name string, value T) {
	if len(value) == 0 {
		return
	}
	o.pairs++
	o.bytes += len(name) + len(value)
	o.arena = appendPair(o.arena, name, value)
}
