package containerlogsreceiver

import "bytes"

// stream is the output a line was written to.
type stream uint8

const (
	stdout stream = iota
	stderr
	noStream // not known: the line is malformed
)

func (s stream) String() string { return [...]string{"stdout", "stderr", ""}[s] }

func parseStream(text []byte) (stream, bool) {
	switch string(text) {
	case "stdout":
		return stdout, true
	case "stderr":
		return stderr, true
	}
	return noStream, false
}

// entry is one physical line of a log file, taken apart. Its content aliases
// the line or the parser's scratch space.
type entry struct {
	time    int64 // ns since 1970
	stream  stream
	partial bool // the record goes on in the next entry of this stream
	content []byte
}

// parseCRI reads "<RFC 3339 time> <stdout|stderr> <P|F>[:tag…] <content>". The
// space before an empty content may be missing.
func parseCRI(line []byte) (entry, bool) {
	timestamp, rest, ok := bytes.Cut(line, space)
	if !ok {
		return entry{}, false
	}
	streamName, rest, ok := bytes.Cut(rest, space)
	if !ok {
		return entry{}, false
	}
	tags, content, _ := bytes.Cut(rest, space)
	e := entry{content: content}
	if e.time, ok = parseTimestamp(timestamp); !ok {
		return entry{}, false
	}
	if e.stream, ok = parseStream(streamName); !ok {
		return entry{}, false
	}
	if len(tags) == 0 || (len(tags) > 1 && tags[1] != ':') {
		return entry{}, false
	}
	switch tags[0] {
	case 'F':
	case 'P':
		e.partial = true
	default:
		return entry{}, false
	}
	return e, true
}

var space = []byte{' '}
