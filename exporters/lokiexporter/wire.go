package lokiexporter

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The push request as protobuf (push.proto of github.com/grafana/loki/pkg/push),
// written by hand: an entry is put together of pieces that are encoded once for
// all entries of a resource, which generated code cannot do.
//
//	PushRequest      { repeated Stream streams = 1; }
//	Stream           { string labels = 1; repeated Entry entries = 2; }
//	Entry            { Timestamp timestamp = 1; string line = 2; repeated LabelPair structuredMetadata = 3; }
//	LabelPair        { string name = 1; string value = 2; }
//	Timestamp        { int64 seconds = 1; int32 nanos = 2; }
const (
	tagStream    = 1<<3 | byte(protowire.BytesType)
	tagLabels    = 1<<3 | byte(protowire.BytesType)
	tagEntry     = 2<<3 | byte(protowire.BytesType)
	tagTimestamp = 1<<3 | byte(protowire.BytesType)
	tagLine      = 2<<3 | byte(protowire.BytesType)
	tagPair      = 3<<3 | byte(protowire.BytesType)
	tagName      = 1<<3 | byte(protowire.BytesType)
	tagValue     = 2<<3 | byte(protowire.BytesType)
	tagSeconds   = 1<<3 | byte(protowire.VarintType)
	tagNanos     = 2<<3 | byte(protowire.VarintType)
)

// sizeOfField is the size of a message or string field of n bytes.
func sizeOfField(n int) int { return 1 + protowire.SizeBytes(n) }

// appendPair appends a pair of structured metadata as it stands in an entry.
func appendPair[T string | []byte](dst []byte, name string, value T) []byte {
	if n := len(name) + len(value) + 4; n < 0x80 { // all lengths take one byte
		dst = append(dst, tagPair, byte(n), tagName, byte(len(name)))
		dst = append(dst, name...)
		dst = append(dst, tagValue, byte(len(value)))
		return append(dst, value...)
	}
	dst = append(dst, tagPair)
	dst = protowire.AppendVarint(dst, uint64(sizeOfField(len(name))+sizeOfField(len(value))))
	dst = append(dst, tagName)
	dst = protowire.AppendVarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = append(dst, tagValue)
	dst = protowire.AppendVarint(dst, uint64(len(value)))
	return append(dst, value...)
}

const nanosPerSecond = 1_000_000_000

// splitTime returns seconds and nanoseconds of a time since 1970; nanoseconds
// are never negative, as protobuf's Timestamp has them.
func splitTime(at int64) (seconds, nanos int64) {
	seconds, nanos = at/nanosPerSecond, at%nanosPerSecond
	if nanos < 0 {
		return seconds - 1, nanos + nanosPerSecond
	}
	return seconds, nanos
}

func sizeOfTime(at int64) int {
	seconds, nanos := splitTime(at)
	n := 0
	if seconds != 0 {
		n += 1 + protowire.SizeVarint(uint64(seconds))
	}
	if nanos != 0 {
		n += 1 + protowire.SizeVarint(uint64(nanos))
	}
	return n
}

func appendTime(dst []byte, at int64) []byte {
	seconds, nanos := splitTime(at)
	dst = append(dst, tagTimestamp, byte(sizeOfTime(at)))
	if seconds != 0 {
		dst = append(dst, tagSeconds)
		dst = protowire.AppendVarint(dst, uint64(seconds))
	}
	if nanos != 0 {
		dst = append(dst, tagNanos)
		dst = protowire.AppendVarint(dst, uint64(nanos))
	}
	return dst
}

// sizeOfEntry is the size of an entry's message without its tag and length.
func sizeOfEntry(at int64, line string, metadata int) int {
	n := 2 + sizeOfTime(at) + metadata
	if line != "" {
		n += sizeOfField(len(line))
	}
	return n
}

// appendEntry appends an entry of a stream. Its metadata comes in two pieces,
// either of which may be empty.
func appendEntry(dst []byte, e *entry, own, shared []byte) []byte {
	dst = append(dst, tagEntry)
	dst = protowire.AppendVarint(dst, uint64(e.size))
	dst = appendTime(dst, e.at)
	if e.line != "" {
		dst = append(dst, tagLine)
		dst = protowire.AppendVarint(dst, uint64(len(e.line)))
		dst = append(dst, e.line...)
	}
	dst = append(dst, own...)
	return append(dst, shared...)
}
