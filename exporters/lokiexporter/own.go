package lokiexporter

import (
	"encoding/hex"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// recordNames are those that record gives; they are different from each other.
var recordNames = []string{nameTraceID, nameSpanID, nameNumber, nameSeverity, nameEvent, nameObserved, nameFlags, nameDropped}

// ownMetadata appends what belongs to the record itself. It returns false where
// names collide or limits are near, and then what it appended is not valid.
func (x *translation) ownMetadata(record *record) bool {
	if x.shape.clash {
		return false
	}
	o := own{arena: x.share.batch.arena}
	if record.trace != nil {
		addOwn(&o, nameTraceID, hex.AppendEncode(o.number[:0], record.trace))
	}
	if record.span != nil {
		addOwn(&o, nameSpanID, hex.AppendEncode(o.number[:0], record.span))
	}
	x.severity.add(&o, record)
	addOwn(&o, nameEvent, record.event)
	if !x.scope.isRead && record.hasObserved() {
		o.observed(record.observed)
	}
	if record.flags != 0 {
		addOwn(&o, nameFlags, strconv.AppendUint(o.number[:0], uint64(record.flags), 10))
	}
	if record.dropped != 0 {
		addOwn(&o, nameDropped, strconv.AppendUint(o.number[:0], uint64(record.dropped), 10))
	}
	for i, message := range record.attributes {
		if known := x.shape.records; i < len(known) && known[i].repeat(&o, message) {
			continue
		}
		if !x.ownAttribute(&o, i, message) {
			return false
		}
	}
	x.share.batch.arena = o.arena
	return x.bytes+o.bytes <= maxMetadataBytes-repetitionBytes && x.pairs+o.pairs < maxMetadataEntries
}

func (x *translation) ownAttribute(o *own, i int, message []byte) bool {
	a, err := otlpwire.ReadAttribute(message)
	if err != nil {
		return false // the long way tells
	}
	if s := x.shape; i >= len(s.records) || s.records[i].attribute != a.Key {
		if !x.learn(i, a.Key) {
			return false
		}
	}
	known := &x.shape.records[i]
	start, pairs, bytes := len(o.arena), o.pairs, o.bytes
	if a.Value.Type == pcommon.ValueTypeMap {
		return false
	}
	addOwn(o, known.name, a.Value.Text())
	known.remember(message, o, start, pairs, bytes)
	return true
}

// severity is a severity as it was encoded last: records of a kind have the same.
type severity struct {
	number       plog.SeverityNumber
	text         string
	encoded      []byte
	pairs, bytes int
}

func (s *severity) add(o *own, record *record) {
	if s.number != record.number || s.text != record.severity {
		s.encode(record)
	}
	o.arena = append(o.arena, s.encoded...)
	o.pairs += s.pairs
	o.bytes += s.bytes
}

func (s *severity) encode(record *record) {
	o := own{arena: s.encoded[:0]}
	if n := record.number; n != plog.SeverityNumberUnspecified {
		addOwn(&o, nameNumber, strconv.AppendInt(o.number[:0], int64(n), 10))
	}
	addOwn(&o, nameSeverity, record.severity)
	// The text is kept as what it became: it must not hold on to the request.
	s.number, s.encoded, s.pairs, s.bytes = record.number, o.arena, o.pairs, o.bytes
	s.text = otlpwire.Text(o.arena[len(o.arena)-len(record.severity):])
}

// own collects metadata on the short way.
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

// observed adds the time a record was observed, of the usual 19 digits.
func (o *own) observed(at uint64) {
	const digits = 19
	if at < 1e18 || at >= 1e19 {
		addOwn(o, nameObserved, strconv.AppendUint(o.number[:0], at, 10))
		return
	}
	const pair = len(nameObserved) + digits
	o.pairs++
	o.bytes += pair
	o.arena = append(o.arena, tagPair, byte(pair+4), tagName, byte(len(nameObserved)))
	o.arena = append(o.arena, nameObserved...)
	o.arena = append(o.arena, tagValue, digits)
	text := o.number[:digits]
	for i := digits - 2; i > 0; i -= 2 {
		copy(text[i:], twoDigits[at%100*2:][:2])
		at /= 100
	}
	text[0] = byte('0' + at)
	o.arena = append(o.arena, text...)
}

const twoDigits = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"
