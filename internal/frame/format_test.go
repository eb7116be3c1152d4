package frame

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The example in FORMAT.md is a frame that this package reads as described and
// writes byte for byte.
func TestFormatExampleIsTrue(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```hex\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatal("no example")
	}
	var example []byte
	for line := range strings.Lines(string(block[1])) {
		_, digits, _ := strings.Cut(strings.TrimSpace(line), "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		example = append(example, b...)
	}
	want := Header{
		Codec: OTLPZstd, Signal: Logs, Class: Live, Lane: 1, Items: 1,
		Epoch: 0x0123456789abcdef, Number: 42, Floor: 40,
		First: 1771000000000000000, Last: 1771000000000000000,
		Uncompressed: 21, PayloadLen: 30, Lost: [NumCauses]uint64{EvictedSpace: 7},
		Before: 4100,
	}
	h, payload, n, err := Parse(example)
	if err != nil || n != len(example) || h != want {
		t.Fatalf("read %+v, %d of %d bytes, %v", h, n, len(example), err)
	}
	codec, err := CodecByID(h.Codec)
	if err != nil {
		t.Fatal(err)
	}
	otlp, err := codec.Decode(nil, payload, int(h.Uncompressed))
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile("decodes to\n`([0-9a-f ]+)`").FindSubmatch(text)
	if said == nil || strings.ReplaceAll(string(said[1]), " ", "") != hex.EncodeToString(otlp) {
		t.Fatalf("payload decodes to % x, the page says %s", otlp, said)
	}
	if !bytes.Contains(otlp, []byte("hi")) {
		t.Fatalf("no body in % x", otlp)
	}
	if again := Append(nil, &h, payload); !bytes.Equal(again, example) {
		t.Fatalf("written again:\n% x\nwant\n% x", again, example)
	}
}
