package containerlogsreceiver

import "bytes"

// jsonKind is the kind of a member's value.
type jsonKind uint8

const (
	jsonString jsonKind = iota
	jsonScalar          // number, true, false, null
	jsonNested          // object or array
)

// jsonScanner walks the members of one JSON object without allocating. It is
// made to find a few members fast, not to judge: nested values are skipped by
// counting brackets outside strings.
type jsonScanner struct {
	text   []byte
	at     int
	key    []byte // without quotes, escapes left as they are
	value  []byte // strings without quotes, escapes left as they are
	kind   jsonKind
	first  bool
	broken bool // set when the text stopped being an object
}

// open steps into the object.
func (s *jsonScanner) open() bool {
	s.skipSpace()
	s.first = true
	return s.take('{')
}

// next moves to the next member; false at the end of the object or where it is
// broken.
func (s *jsonScanner) next() bool {
	s.skipSpace()
	if s.take('}') {
		return false
	}
	if !s.first && !s.take(',') {
		return s.fail()
	}
	s.first = false
	s.skipSpace()
	var ok bool
	if s.key, ok = s.str(); !ok {
		return s.fail()
	}
	s.skipSpace()
	if !s.take(':') {
		return s.fail()
	}
	s.skipSpace()
	if s.at >= len(s.text) {
		return s.fail()
	}
	switch s.text[s.at] {
	case '"':
		s.kind = jsonString
		s.value, ok = s.str()
	case '{', '[':
		s.kind = jsonNested
		s.value, ok = s.nested()
	default:
		s.kind = jsonScalar
		s.value, ok = s.scalar()
	}
	return ok || s.fail()
}

// atEnd says that nothing but space follows.
func (s *jsonScanner) atEnd() bool {
	s.skipSpace()
	return s.at == len(s.text)
}

func (s *jsonScanner) fail() bool {
	s.broken = true
	return false
}

func (s *jsonScanner) take(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *jsonScanner) skipSpace() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// str reads a string literal at the cursor.
func (s *jsonScanner) str() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	begin := s.at
	for {
		i := bytes.IndexByte(s.text[s.at:], '"')
		if i < 0 {
			return nil, false
		}
		end := s.at + i
		s.at = end + 1
		backslashes := 0
		for end-backslashes > begin && s.text[end-backslashes-1] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return s.text[begin:end], true
		}
	}
}

func (s *jsonScanner) nested() ([]byte, bool) {
	begin, depth := s.at, 0
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '"':
			if _, ok := s.str(); !ok {
				return nil, false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.at++
		if depth == 0 {
			return s.text[begin:s.at], true
		}
	}
	return nil, false
}

func (s *jsonScanner) scalar() ([]byte, bool) {
	begin := s.at
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ',', '}', ']', ' ', '\t', '\r', '\n':
			return s.text[begin:s.at], s.at > begin
		}
		s.at++
	}
	return nil, false
}
