package containerlogsreceiver

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// recognised is what a record says about itself. The first of each kind counts.
type recognised struct {
	severity     plog.SeverityNumber
	severityText []byte // aliases the record
	traceID      pcommon.TraceID
	spanID       pcommon.SpanID

	noIDs bool // there is nothing that could be a trace id
}

// recognise looks for severity and trace context in a record: a JSON object,
// logfmt, klog, or text with a severity in its first words. Of a record of
// several lines only the first is looked at.
func recognise(text []byte) (found recognised) {
	if len(text) == 0 {
		return found
	}
	found.noIDs = !mayHoldID(text)
	if text[0] == '{' {
		found.json(text, "", 0)
		return found
	}
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if !found.logfmt(text) && !found.klog(text) {
		found.words(text)
	}
	if !found.noIDs && found.traceID == (pcommon.TraceID{}) {
		found.traceText(text)
	}
	return found
}

// mayHoldID says whether there may be a run of 16 or more hex digits, the least
// an id takes: such a run covers two bytes that are eight apart from each other
// and from the beginning, and all between them.
func mayHoldID(text []byte) bool {
	for i := 0; i+8 < len(text); i += 8 {
		if hexValue[text[i+8]] > 15 {
			i += 8 // neither this pair nor the next
			continue
		}
		if hexValue[text[i]]|hexValue[text[i+2]]|hexValue[text[i+4]]|hexValue[text[i+6]] <= 15 {
			return true
		}
	}
	return false
}

// complete says that there is nothing more to look for.
func (found *recognised) complete() bool {
	return found.severityText != nil && (found.noIDs || found.traceID != (pcommon.TraceID{}) && found.spanID != (pcommon.SpanID{}))
}

// json looks at the members of an object and of the few nested objects that hold
// trace context or a level: "dd" of Datadog, "trace", "span" and "log" of ECS.
// A text that is no object, or breaks off, yields what was found until then.
func (found *recognised) json(text []byte, prefix string, depth int) {
	scan := jsonScanner{text: text}
	if !scan.open() {
		return
	}
	for !found.complete() && scan.next() {
		if len(scan.key) > maxMemberName || len(scan.key) == 0 {
			continue
		}
		if scan.kind == jsonNested {
			if depth == 0 {
				switch string(scan.key) {
				case "dd":
					found.json(scan.value, "dd.", 1)
				case "trace":
					found.json(scan.value, "trace.", 1)
				case "span":
					found.json(scan.value, "span.", 1)
				case "log":
					found.json(scan.value, "log.", 1)
				}
			}
			continue
		}
		found.member(prefix, scan.key, scan.value, scan.kind)
	}
}

// maxMemberName is the length of the longest name member knows.
const maxMemberName = len("logging.googleapis.com/spanId")

// member takes a name and its value.
func (found *recognised) member(prefix string, name, value []byte, kind jsonKind) {
	var joined [maxMemberName + len("trace.")]byte
	if prefix != "" {
		name = append(append(joined[:0], prefix...), name...)
	}
	switch string(name) {
	case "level", "severity", "lvl", "log.level", "levelname", "loglevel", "log_level", "severity_text", "severityText", "@l":
		if found.severityText == nil {
			if number := severityOf(value, kind); number != plog.SeverityNumberUnspecified {
				found.severity, found.severityText = number, value
			}
		}
	case "trace_id", "traceId", "traceid", "traceID", "trace.id", "trace-id", "otelTraceID", "@tr":
		found.hexTrace(value)
	case "span_id", "spanId", "spanid", "spanID", "span.id", "span-id", "otelSpanID", "@sp", "logging.googleapis.com/spanId":
		found.hexSpan(value)
	case "logging.googleapis.com/trace": // projects/P/traces/ID
		found.hexTrace(value[bytes.LastIndexByte(value, '/')+1:])
	case "traceparent":
		found.traceparent(value)
	case "dd.trace_id":
		found.datadogTrace(value)
	case "dd.span_id":
		found.datadogSpan(value)
	}
}

func (found *recognised) hexTrace(text []byte) {
	if id := [16]byte(found.traceID); id == [16]byte{} && parseHex(id[:], text) {
		found.traceID = id
	}
}

func (found *recognised) hexSpan(text []byte) {
	if id := [8]byte(found.spanID); id == [8]byte{} && parseHex(id[:], text) {
		found.spanID = id
	}
}

// traceparent takes 00-<trace id>-<span id>-<flags> of W3C Trace Context.
func (found *recognised) traceparent(text []byte) {
	if len(text) >= 55 && text[2] == '-' && text[35] == '-' && text[52] == '-' {
		found.hexTrace(text[3:35])
		found.hexSpan(text[36:52])
	}
}

// datadogTrace takes Datadog's decimal number of 64 bits, which are the lower
// ones of the trace id, or the 32 hex digits its newer tracers write.
func (found *recognised) datadogTrace(text []byte) {
	if number, ok := decimal(text); ok {
		if found.traceID == (pcommon.TraceID{}) {
			binary.BigEndian.PutUint64(found.traceID[8:], number)
		}
		return
	}
	found.hexTrace(text)
}

func (found *recognised) datadogSpan(text []byte) {
	if number, ok := decimal(text); ok {
		if found.spanID == (pcommon.SpanID{}) {
			binary.BigEndian.PutUint64(found.spanID[:], number)
		}
		return
	}
	found.hexSpan(text)
}

func decimal(text []byte) (uint64, bool) {
	var number uint64
	for _, c := range text {
		high, low := bits.Mul64(number, 10)
		sum, carry := bits.Add64(low, uint64(c-'0'), 0)
		if c < '0' || c > '9' || high != 0 || carry != 0 {
			return 0, false
		}
		number = sum
	}
	return number, len(text) > 0
}

// parseHex fills dst from exactly twice as many hex digits.
func parseHex(dst, text []byte) bool {
	if len(text) != 2*len(dst) {
		return false
	}
	for i := range dst {
		high, low := hexValue[text[2*i]], hexValue[text[2*i+1]]
		if high|low > 15 {
			clear(dst)
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// hexValue is what a hex digit counts, 255 for what is none.
var hexValue = func() (table [256]byte) {
	for i := range table {
		table[i] = 255
		if digit, ok := hexDigit(byte(i)); ok {
			table[i] = digit
		}
	}
	return table
}()

// severityOf maps the level names in use to OpenTelemetry's numbers, and the
// numbers of bunyan and pino (10 to 60) and syslog (0 to 7) likewise.
func severityOf(value []byte, kind jsonKind) plog.SeverityNumber {
	if kind == jsonScalar {
		if number, ok := decimal(value); ok && len(value) <= 2 {
			return severityNumbers[number]
		}
	}
	var lower [12]byte
	if len(value) > len(lower) {
		return plog.SeverityNumberUnspecified
	}
	for i, c := range value {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[:len(value)]) {
	case "trace", "trc", "trce", "verbose", "finest", "finer":
		return plog.SeverityNumberTrace
	case "debug", "dbg", "dbug", "fine":
		return plog.SeverityNumberDebug
	case "info", "inf", "information", "informational", "default", "note":
		return plog.SeverityNumberInfo
	case "notice":
		return plog.SeverityNumberInfo2
	case "warn", "warning", "wrn":
		return plog.SeverityNumberWarn
	case "error", "err", "eror", "severe", "fail":
		return plog.SeverityNumberError
	case "critical", "crit", "dpanic":
		return plog.SeverityNumberError2
	case "alert":
		return plog.SeverityNumberError3
	case "fatal", "ftl", "panic", "pnc", "emerg", "emergency":
		return plog.SeverityNumberFatal
	}
	return plog.SeverityNumberUnspecified
}

var severityNumbers = [100]plog.SeverityNumber{
	0: plog.SeverityNumberFatal, 1: plog.SeverityNumberError3, 2: plog.SeverityNumberError2, 3: plog.SeverityNumberError,
	4: plog.SeverityNumberWarn, 5: plog.SeverityNumberInfo2, 6: plog.SeverityNumberInfo, 7: plog.SeverityNumberDebug,
	10: plog.SeverityNumberTrace, 20: plog.SeverityNumberDebug, 30: plog.SeverityNumberInfo,
	40: plog.SeverityNumberWarn, 50: plog.SeverityNumberError, 60: plog.SeverityNumberFatal,
}
