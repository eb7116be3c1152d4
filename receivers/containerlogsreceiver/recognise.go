package containerlogsreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// recognised is what a JSON line says about itself.
type recognised struct {
	severity     plog.SeverityNumber
	severityText []byte
	traceID      pcommon.TraceID
	spanID       pcommon.SpanID
}

// recogniseJSON looks at the top-level members of a JSON object for level,
// severity or lvl, and for trace_id and span_id (also traceId, spanId, traceid,
// spanid). The first of each kind counts. A line that is no object, or breaks
// off, yields what was found until then.
func recogniseJSON(line []byte) (found recognised) {
	scan := jsonScanner{text: line}
	if !scan.open() {
		return found
	}
	for scan.next() {
		if len(scan.key) < 3 || len(scan.key) > 8 {
			continue
		}
		switch string(scan.key) {
		case "level", "severity", "lvl":
			if found.severityText == nil && scan.kind != jsonNested {
				if number := severityOf(scan.value, scan.kind); number != plog.SeverityNumberUnspecified {
					found.severity, found.severityText = number, scan.value
				}
			}
		case "trace_id", "traceId", "traceid":
			if id := [16]byte(found.traceID); id == [16]byte{} && scan.kind == jsonString && parseHex(id[:], scan.value) {
				found.traceID = id
			}
		case "span_id", "spanId", "spanid":
			if id := [8]byte(found.spanID); id == [8]byte{} && scan.kind == jsonString && parseHex(id[:], scan.value) {
				found.spanID = id
			}
		}
	}
	return found
}

// parseHex fills dst from exactly twice as many hex digits.
func parseHex(dst, text []byte) bool {
	if len(text) != 2*len(dst) {
		return false
	}
	for i := range dst {
		high, ok1 := hexDigit(text[2*i])
		low, ok2 := hexDigit(text[2*i+1])
		if !ok1 || !ok2 {
			clear(dst)
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// severityOf maps the level names in use to OpenTelemetry's numbers, and the
// numbers of bunyan and pino likewise.
func severityOf(value []byte, kind jsonKind) plog.SeverityNumber {
	if kind == jsonScalar {
		switch string(value) {
		case "10":
			return plog.SeverityNumberTrace
		case "20":
			return plog.SeverityNumberDebug
		case "30":
			return plog.SeverityNumberInfo
		case "40":
			return plog.SeverityNumberWarn
		case "50":
			return plog.SeverityNumberError
		case "60":
			return plog.SeverityNumberFatal
		}
		return plog.SeverityNumberUnspecified
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
	case "trace", "trc", "verbose", "finest":
		return plog.SeverityNumberTrace
	case "debug", "dbg", "fine":
		return plog.SeverityNumberDebug
	case "info", "inf", "information", "default":
		return plog.SeverityNumberInfo
	case "notice":
		return plog.SeverityNumberInfo2
	case "warn", "warning", "wrn":
		return plog.SeverityNumberWarn
	case "error", "err", "eror", "severe":
		return plog.SeverityNumberError
	case "critical", "crit", "dpanic":
		return plog.SeverityNumberError2
	case "alert":
		return plog.SeverityNumberError3
	case "fatal", "ftl", "panic", "emerg", "emergency":
		return plog.SeverityNumberFatal
	}
	return plog.SeverityNumberUnspecified
}
