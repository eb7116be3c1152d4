package containerlogsreceiver

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// parseJSONFile reads a line of Docker's json-file driver:
// {"log":"text\n","stream":"stdout","time":"RFC 3339"}, members in any order,
// others skipped. A log that does not end with a newline goes on in the next
// entry. The content is appended to scratch, which is returned for reuse.
func parseJSONFile(line, scratch []byte) (e entry, grown []byte, ok bool) {
	e.stream = noStream
	var haveLog, haveTime bool
	scan := jsonScanner{text: line}
	if !scan.open() {
		return e, scratch, false
	}
	for scan.next() {
		switch string(scan.key) {
		case "log":
			if scan.kind != jsonString {
				return e, scratch, false
			}
			scratch = appendUnescaped(scratch[:0], scan.value)
			haveLog = true
		case "stream":
			e.stream, _ = parseStream(scan.value)
		case "time":
			e.time, haveTime = parseTimestamp(scan.value)
		}
	}
	if scan.broken || !scan.atEnd() || !haveLog || !haveTime || e.stream == noStream {
		return e, scratch, false
	}
	content, complete := bytes.CutSuffix(scratch, newline)
	e.content, e.partial = content, !complete
	return e, scratch, true
}

var newline = []byte{'\n'}

// appendUnescaped appends the bytes a JSON string literal (without its quotes)
// stands for. What is no escape is copied as it is; half of a surrogate pair
// becomes U+FFFD.
func appendUnescaped(dst, literal []byte) []byte {
	for {
		i := bytes.IndexByte(literal, '\\')
		if i < 0 || i+1 == len(literal) {
			return append(dst, literal...)
		}
		dst = append(dst, literal[:i]...)
		escape := literal[i+1]
		literal = literal[i+2:]
		switch escape {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case '"', '\\', '/':
			dst = append(dst, escape)
		case 'u':
			r, size := unescapeRune(literal)
			if size == 0 {
				dst = append(dst, '\\', 'u')
				break
			}
			dst = utf8.AppendRune(dst, r)
			literal = literal[size:]
		default:
			dst = append(dst, '\\', escape)
		}
	}
}

// unescapeRune reads the four hex digits after \u, and a second \uXXXX when the
// first is the high half of a pair. A size of 0 means there are no four digits.
func unescapeRune(text []byte) (r rune, size int) {
	first, ok := fourHex(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(first) {
		return first, 4
	}
	if len(text) >= 10 && text[4] == '\\' && text[5] == 'u' {
		if second, ok := fourHex(text[6:]); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r, 10
			}
		}
	}
	return utf8.RuneError, 4
}

func fourHex(text []byte) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range text[:4] {
		digit, ok := hexDigit(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
