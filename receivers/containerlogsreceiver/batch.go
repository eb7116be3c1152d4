package containerlogsreceiver

import (
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// batch is what is delivered in one call: the text of all records one after
// another, and where each begins and what is known of it. It holds no pointer
// per record, is filled without allocating once it has grown to its size, and
// stays as it is until it is confirmed, so that every attempt to deliver it
// builds fresh pdata (a consumer may change what it was given).
type batch struct {
	number  uint64 // counts batches in the order they were cut
	text    []byte
	records []record
	sources []*source // records refer to these by index
	marks   []mark    // positions that become durable with this batch

	notices []notice  // of lines that the limit left out
	leftOut []leftOut // lines left out that are read with this batch

	malformed, split int64 // records of that kind
	confirmed        bool  // delivered, or dropped for good
	abandoned        bool  // given up at shutdown, to be read again
}

type record struct {
	time, observed int64 // ns since 1970
	end            int   // of its text; it begins where the one before ends
	source         int32
	stream         stream
	split          bool
}

// mark says how far a file has been read when the batch was cut.
type mark struct {
	position position
	gone     bool // the file was deleted; nothing needs to be remembered
	fresh    bool // the inode holds another text than the position noted before is about
}

// reset empties the batch for reuse. A text that one giant line made grow is
// given back.
func (b *batch) reset(maxBytes int) {
	if cap(b.text) > 2*maxBytes {
		b.text = nil
	}
	clear(b.sources)
	clear(b.marks)
	clear(b.notices)
	clear(b.leftOut)
	*b = batch{text: b.text[:0], records: b.records[:0], sources: b.sources[:0], marks: b.marks[:0],
		notices: b.notices[:0], leftOut: b.leftOut[:0]}
}

func (b *batch) empty() bool { return len(b.records)+len(b.notices) == 0 }

// add appends a record whose body is head followed by tail.
func (b *batch) add(r record, head, tail []byte) {
	b.text = append(append(b.text, head...), tail...)
	r.end = len(b.text)
	b.records = append(b.records, r)
	if r.split {
		b.split++
	}
	if r.stream == noStream {
		b.malformed++
	}
}

// logs builds the pdata of the batch. Bodies share one string. It reports how
// many bodies had to be repaired because they were not UTF-8: protobuf allows
// no other strings, and each run of invalid bytes becomes one U+FFFD.
func (b *batch) logs(version string) (logs plog.Logs, invalidUTF8 int64) {
	text := string(b.text)
	logs = plog.NewLogs()
	perSource := make([]int, len(b.sources))
	for i := range b.records {
		perSource[b.records[i].source]++
	}
	logs.ResourceLogs().EnsureCapacity(len(b.sources))
	slices := make([]plog.LogRecordSlice, len(b.sources))
	for i, s := range b.sources {
		resource := logs.ResourceLogs().AppendEmpty()
		s.put(resource.Resource().Attributes())
		scope := resource.ScopeLogs().AppendEmpty()
		scope.Scope().SetName(ScopeName)
		scope.Scope().SetVersion(version)
		slices[i] = scope.LogRecords()
		slices[i].EnsureCapacity(perSource[i])
	}
	begin := 0
	for i := range b.records {
		r := &b.records[i]
		body := text[begin:r.end]
		raw := b.text[begin:r.end]
		begin = r.end
		if !utf8.ValidString(body) {
			body = strings.ToValidUTF8(body, "\uFFFD")
			invalidUTF8++
		}
		fill(slices[r.source].AppendEmpty(), r, body, raw)
	}
	for i := range b.notices {
		n := &b.notices[i]
		n.fill(slices[n.source].AppendEmpty())
	}
	return logs, invalidUTF8
}

func fill(out plog.LogRecord, r *record, body string, raw []byte) {
	out.SetObservedTimestamp(pcommon.Timestamp(r.observed))
	out.SetTimestamp(pcommon.Timestamp(r.time))
	out.Body().SetStr(body)
	if r.stream != noStream {
		out.Attributes().PutStr(attributeStream, r.stream.String())
	}
	if r.split {
		out.Attributes().PutBool(attributeSplit, true)
	}
	found := recognise(raw)
	out.SetTraceID(found.traceID)
	out.SetSpanID(found.spanID)
	if found.severity != plog.SeverityNumberUnspecified {
		out.SetSeverityNumber(found.severity)
		out.SetSeverityText(severityText(found.severityText))
	}
}

func (n *notice) fill(out plog.LogRecord) {
	out.SetObservedTimestamp(pcommon.Timestamp(n.observed))
	out.SetTimestamp(pcommon.Timestamp(n.time))
	out.Body().SetStr(n.body)
	out.Attributes().PutInt(attributeLimited, n.lines)
	out.SetSeverityNumber(plog.SeverityNumberWarn)
	out.SetSeverityText("WARN")
}

// severityText makes a string of a severity as it was written, without
// allocating for the ones that are common.
func severityText(text []byte) string {
	switch string(text) {
	case "info":
		return "info"
	case "INFO":
		return "INFO"
	case "debug":
		return "debug"
	case "DEBUG":
		return "DEBUG"
	case "warn":
		return "warn"
	case "WARN":
		return "WARN"
	case "error":
		return "error"
	case "ERROR":
		return "ERROR"
	case "I":
		return "I"
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}
