package lokiexporter

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// translator turns log records into Loki's streams and entries.
type translator struct {
	labels      streamLabels
	maxLineSize int
	now         func() time.Time
}

// policy is what holds for one tenant while a call is translated.
type policy struct {
	guard *guard // of label values; nil: none
	late  latePolicy
}

// scratch is what translation uses again and again. It belongs to a batch.
type scratch struct {
	names    metadataNames
	values   []string // of the labels of the resource in hand, by rule
	shape    shape
	metadata metadata
	text     []byte
}

func (s *scratch) forget() {
	clear(s.values)
	s.values = s.values[:0]
	s.shape.forget()
	s.metadata.reset()
	s.metadata.labels = nil
}

// translate fills a batch with the records of some resources, grouped by label
// set, in the order in which the label sets appear, each sorted by time.
func (t *translator) translate(b *batch, logs plog.Logs, resources []int32, p policy) {
	s := &b.scratch
	if s.names == nil {
		s.names = make(metadataNames, 64)
	}
	s.metadata.names, s.metadata.labels = s.names, &t.labels
	for _, i := range resources {
		resourceLogs := logs.ResourceLogs().At(int(i))
		attributes := resourceLogs.Resource().Attributes()
		s.values = t.labels.values(s.values[:0], attributes)
		run := run{translator: t, batch: b, attributes: attributes, resource: i, late: p.late, demoted: p.guard.see(s.values)}
		s.metadata.demoted = run.demoted
		key := resourceKey(attributes)
		for _, scopeLogs := range resourceLogs.ScopeLogs().All() {
			run.scope = scopeLogs.Scope()
			run.read = run.scope.Name() == readScope
			run.shared = t.shared(s, key, attributes, run.scope)
			for _, record := range scopeLogs.LogRecords().All() {
				run.add(record)
			}
		}
	}
	b.group()
}

// shared collects the metadata of a resource and scope, once for all their
// records.
func (t *translator) shared(s *scratch, key uint64, resource pcommon.Map, scope pcommon.InstrumentationScope) *shared {
	m := &s.metadata
	m.reset()
	m.resource(resource)
	m.scope(scope)
	if m.cut {
		return nil // each entry shall count it
	}
	s.shape.forget()
	one := &shared{pairs: len(m.pairs), bytes: m.bytes, key: scopeKey(key, scope)}
	size := 0
	for _, p := range m.pairs {
		size += sizeOfField(sizeOfField(len(p.name)) + sizeOfField(len(p.value)))
	}
	one.encoded = m.appendTo(make([]byte, 0, size))
	one.names.names = make([]string, 0, len(m.pairs)+len(t.labels.rules)+1)
	for _, p := range m.pairs {
		one.names.add(p.name)
	}
	for i, rule := range t.labels.rules {
		if !m.demoted.has(i) {
			one.names.add(rule.label)
		}
	}
	one.names.add(repetitionName)
	one.clash = slices.ContainsFunc(recordNames, one.names.has)
	return one
}

// run is the records of one resource.
type run struct {
	*translator
	batch      *batch
	attributes pcommon.Map
	scope      pcommon.InstrumentationScope
	read       bool // the scope is readScope
	resource   int32
	shared     *shared
	demoted    labelSet
	late       latePolicy
	recent     [levels]int32 // 1 + the stream of entries that are not late
	past       [levels]struct {
		stretch int64
		stream  int32
	}
}

func (r *run) add(record plog.LogRecord) {
	b := r.batch
	var shortened cut
	line := record.Body().AsString() // a string as it is, maps and lists as JSON
	if len(line) > r.maxLineSize {
		line = cutWithMark(line, r.maxLineSize)
		shortened = cutLine
	}
	at := r.timestamp(record)
	start, one := len(b.arena), r.shared
	if one == nil || !r.ownMetadata(record) {
		one = nil
		b.arena = b.arena[:start]
		if r.allMetadata(record) {
			shortened |= cutMetadata
		}
	}
	own := len(b.arena) - start
	bytes := own
	if one != nil {
		bytes += len(one.encoded)
	}
	level := levelOf(record)
	index := r.stream(level, at)
	e := entry{at: at, line: line, shared: one, own: start, ownBytes: int32(own), size: int32(sizeOfEntry(at, line, bytes)), stream: index, resource: r.resource, read: r.read, cut: shortened}
	b.streams[index].n++
	b.streams[index].bytes += e.framed()
	b.entries = append(b.entries, e)
}

// allMetadata is the long way to an entry's metadata: names and limits are
// settled among all of it. It says whether any was cut.
func (r *run) allMetadata(record plog.LogRecord) bool {
	m := &r.batch.scratch.metadata
	m.reset()
	m.record(record, r.read)
	m.resource(r.attributes)
	m.scope(r.scope)
	r.batch.arena = m.appendTo(r.batch.arena)
	return m.cut
}

// timestamp is the record's own, else when it was observed, else now.
func (t *translator) timestamp(record plog.LogRecord) int64 {
	at := record.Timestamp()
	if at == 0 {
		at = record.ObservedTimestamp()
	}
	if at == 0 {
		return t.now().UnixNano()
	}
	return int64(at)
}

// stream returns the index of the stream for a level and time.
func (r *run) stream(level level, at int64) int32 {
	if at < r.late.before {
		return r.pastStream(level, r.late.stretch(at))
	}
	if known := r.recent[level]; known > 0 {
		return known - 1
	}
	index := r.find(level, 0)
	r.recent[level] = index + 1
	return index
}

func (r *run) pastStream(level level, stretch int64) int32 {
	if known := &r.past[level]; known.stretch != stretch {
		known.stream = r.find(level, stretch)
		known.stretch = stretch
	}
	return r.past[level].stream
}

// find returns the stream of a label set, and of a stretch of time long past if
// that is not 0.
func (r *run) find(level level, stretch int64) int32 {
	b := r.batch
	backfill := ""
	if stretch != 0 && r.late.label {
		backfill = stretchText(stretch)
	}
	text := r.labels.appendTo(b.scratch.text[:0], b.scratch.values, r.demoted, level.String(), backfill)
	labels := len(text)
	text = binary.LittleEndian.AppendUint64(text, uint64(stretch))
	b.scratch.text = text
	index, found := b.byLabels[string(text)]
	if !found {
		index = int32(len(b.streams))
		key := string(text)
		b.byLabels[key] = index
		b.streams = append(b.streams, stream{labels: key[:labels], late: stretch != 0, id: maphash.String(keySeed, key)})
	}
	return index
}

// resourceKey knows a resource by its content, for the life of the process.
func resourceKey(attributes pcommon.Map) uint64 {
	var h maphash.Hash
	h.SetSeed(keySeed)
	hashMap(&h, attributes)
	return h.Sum64()
}

func scopeKey(resource uint64, scope pcommon.InstrumentationScope) uint64 {
	if scope.Name() == "" && scope.Version() == "" && scope.Attributes().Len() == 0 {
		return resource
	}
	var h maphash.Hash
	h.SetSeed(keySeed)
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], resource)
	_, _ = h.Write(number[:])
	hashText(&h, scope.Name())
	hashText(&h, scope.Version())
	hashMap(&h, scope.Attributes())
	return h.Sum64()
}

// hashMap does not depend on the order of the attributes.
func hashMap(h *maphash.Hash, m pcommon.Map) {
	var sum uint64
	for name, value := range m.All() {
		var one maphash.Hash
		one.SetSeed(keySeed)
		hashText(&one, name)
		hashText(&one, value.AsString())
		sum += one.Sum64()
	}
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], sum)
	_, _ = h.Write(number[:])
}

func hashText(h *maphash.Hash, text string) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(text)))
	_, _ = h.Write(length[:])
	_, _ = h.WriteString(text)
}
