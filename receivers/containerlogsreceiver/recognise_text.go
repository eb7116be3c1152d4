package containerlogsreceiver

import (
	"bytes"

	"go.opentelemetry.io/collector/pdata/plog"
)

const (
	// severityWithin is how far into a line a severity is looked for.
	severityWithin = 128
	// maxPairs bounds how many pairs of a logfmt line are looked at.
	maxPairs = 64
)

// logfmt takes the pairs of a line that begins with one: key=value key="a \"b\"".
func (found *recognised) logfmt(line []byte) bool {
	if keyLength(line) == 0 {
		return false
	}
	for range maxPairs {
		if found.complete() {
			break
		}
		line = bytes.TrimLeft(line, " \t")
		n := keyLength(line)
		if n == 0 { // not a pair: a word
			space := bytes.IndexByte(line, ' ')
			if space < 0 {
				break
			}
			line = line[space:]
			continue
		}
		name, rest := line[:n], line[n+1:]
		value, kind := rest, jsonString
		if len(rest) > 0 && rest[0] == '"' {
			end := quotedLength(rest[1:])
			value, line = rest[1:1+end], rest[min(len(rest), 2+end):]
		} else {
			if space := bytes.IndexByte(rest, ' '); space >= 0 {
				value = rest[:space]
			}
			line = rest[len(value):]
			kind = jsonScalar
		}
		if n <= maxMemberName {
			found.member("", name, value, kind)
		}
	}
	return true
}

// keyLength is the length of the key a logfmt pair begins with, 0 for none.
func keyLength(text []byte) int {
	for i, c := range text {
		if c == '=' {
			return i
		}
		if i > maxMemberName || classes[c]&(letter|digit) == 0 && c != '_' && c != '.' && c != '-' && c != '@' {
			return 0
		}
	}
	return 0
}

func quotedLength(text []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(text[at:], '"')
		if i < 0 {
			return len(text)
		}
		end, backslashes := at+i, 0
		for backslashes < end && text[end-backslashes-1] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return end
		}
		at = end + 1
	}
}

// klog takes the header of klog and glog: I1123 10:00:00.123456  7 file.go:42] …
func (found *recognised) klog(line []byte) bool {
	if len(line) < len("I1123 10:00:00.") || line[5] != ' ' || line[8] != ':' || line[11] != ':' || line[14] != '.' {
		return false
	}
	for _, c := range line[1:5] {
		if classes[c]&digit == 0 {
			return false
		}
	}
	switch line[0] {
	case 'I':
		found.severity = plog.SeverityNumberInfo
	case 'W':
		found.severity = plog.SeverityNumberWarn
	case 'E':
		found.severity = plog.SeverityNumberError
	case 'F':
		found.severity = plog.SeverityNumberFatal
	default:
		return false
	}
	found.severityText = line[:1]
	return true
}

// class is what a byte is to the search for a word.
type class uint8

const (
	upper    class = 1 << iota
	lower          // letters
	digit          //
	boundary       // may stand before and after a severity
	letter   = upper | lower
)

var classes = func() (table [256]class) {
	for c := 'a'; c <= 'z'; c++ {
		table[c] = lower
		table[c-'a'+'A'] = upper
	}
	for c := '0'; c <= '9'; c++ {
		table[c] = digit
	}
	for _, c := range " \t[]|:(),-<>;" {
		table[c] = boundary
	}
	return table
}()

// words looks for a severity among the first words of a line: in capitals
// (2026-11-23 10:00:00,123 ERROR …), in brackets in any case ([error],
// [core:warn]), or as the first word before a colon (warn: …). It stops at a
// quotation mark: what follows is what somebody said.
func (found *recognised) words(line []byte) {
	line = line[:min(len(line), severityWithin)]
	before := byte(' ') // what stands before the word
	inBracket := false
	for i := 0; i < len(line); {
		c := line[i]
		switch {
		case c == '"':
			return
		case c == '\x1b': // the colour of a terminal
			end := bytes.IndexByte(line[i:], 'm')
			if end < 0 {
				return
			}
			i += end + 1
			before = ' '
			continue
		case classes[c]&letter == 0 || classes[before]&boundary == 0:
			if c == '[' || c == ']' {
				inBracket = c == '['
			}
			before = c
			i++
			continue
		}
		end, all := i, class(0)
		for end < len(line) && classes[line[end]]&letter != 0 {
			all |= classes[line[end]]
			end++
		}
		after := byte(' ')
		if end < len(line) {
			after = line[end]
		}
		bracketed := inBracket && after == ']' && (before == '[' || before == ':')
		spoken := all == upper || bracketed || i == 0 && after == ':'
		if spoken && end-i >= 3 && (classes[after]&boundary != 0 || after == '\x1b') {
			if number := severityOf(line[i:end], jsonString); number != plog.SeverityNumberUnspecified {
				found.severity, found.severityText = number, line[i:end]
				return
			}
		}
		i, before = end, 'x'
	}
}

// traceText looks for trace context anywhere in a line of text: trace_id=…,
// TraceId: …, dd.trace_id=…, traceparent=…, and the brackets of Spring Boot,
// [application,trace,span] or [trace-span].
func (found *recognised) traceText(line []byte) {
	if at := bytes.Index(line, []byte("race")); at > 0 && (line[at-1]|0x20) == 't' {
		found.traceNamed(line, at)
	} else {
		found.traceBracket(line)
	}
}

func (found *recognised) traceNamed(line []byte, at int) {
	datadog := at >= 4 && string(line[at-4:at-1]) == "dd."
	rest := line[at+len("race"):]
	if hasPrefix(rest, "parent") {
		if value := valueOf(rest[len("parent"):]); value != nil {
			found.traceparent(value)
		}
		return
	}
	if value := valueOf(afterID(rest)); value != nil {
		if datadog {
			found.datadogTrace(value)
		} else {
			found.hexTrace(value)
		}
	}
	if at := bytes.Index(line, []byte("pan")); at > 0 && (line[at-1]|0x20) == 's' {
		if value := valueOf(afterID(line[at+len("pan"):])); value != nil {
			if datadog {
				found.datadogSpan(value)
			} else {
				found.hexSpan(value)
			}
		}
	}
}

// afterID steps over _id, Id, ID and the like; nil when there is none.
func afterID(text []byte) []byte {
	if len(text) > 0 && (text[0] == '_' || text[0] == '-' || text[0] == '.') {
		text = text[1:]
	}
	if len(text) < 2 || text[0]|0x20 != 'i' || text[1]|0x20 != 'd' {
		return nil
	}
	return text[2:]
}

// valueOf reads what stands after "=" or ":", with or without quotation marks.
func valueOf(text []byte) []byte {
	text = bytes.TrimLeft(text, `"' `)
	if len(text) == 0 || text[0] != '=' && text[0] != ':' {
		return nil
	}
	text = bytes.TrimLeft(text[1:], `"' `)
	end := 0
	for end < len(text) && (classes[text[end]]&(letter|digit) != 0 || text[end] == '-') {
		end++
	}
	return text[:end]
}

func (found *recognised) traceBracket(line []byte) {
	const length = 32 + 1 + 16
	for range 4 {
		open := bytes.IndexByte(line, '[')
		if open < 0 {
			return
		}
		line = line[open+1:]
		end := bytes.IndexByte(line, ']')
		if end < 0 {
			return
		}
		if end >= length {
			ids := line[end-length : end]
			if separator := ids[32]; (separator == ',' || separator == '-') && (end == length || line[end-length-1] == ',') {
				found.hexTrace(ids[:32])
				found.hexSpan(ids[33:])
			}
		}
		line = line[end:]
	}
}
