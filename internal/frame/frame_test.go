package frame

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Header{
			Codec:        CodecID(rapid.Byte().Draw(t, "codec")),
			Signal:       rapid.SampledFrom(Signals).Draw(t, "signal"),
			Class:        rapid.SampledFrom([]Class{Live, Backlog, Hold}).Draw(t, "class"),
			Lane:         rapid.Uint32().Draw(t, "lane"),
			Items:        rapid.Uint32().Draw(t, "items"),
			Epoch:        Epoch(rapid.Uint64().Draw(t, "epoch")),
			Number:       rapid.Uint64().Draw(t, "number"),
			Floor:        rapid.Uint64().Draw(t, "floor"),
			First:        rapid.Int64().Draw(t, "first"),
			Last:         rapid.Int64().Draw(t, "last"),
			Uncompressed: rapid.Uint32Range(0, MaxUncompressed).Draw(t, "uncompressed"),
		}
		for i := range h.Lost {
			h.Lost[i] = rapid.Uint64().Draw(t, "lost")
		}
		h.Before = rapid.Uint64().Draw(t, "items before")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		after := rapid.SliceOf(rapid.Byte()).Draw(t, "after")

		buf := Append(bytes.Clone(before), &h, payload)
		length := len(buf) - len(before)
		if length != HeaderSize+len(payload)+TrailerSize {
			t.Fatalf("frame of %d bytes for a payload of %d", length, len(payload))
		}
		buf = append(buf, after...)
		got, gotPayload, n, err := Parse(buf[len(before):])
		if err != nil {
			t.Fatal(err)
		}
		if n != length || got != h || !bytes.Equal(gotPayload, payload) {
			t.Fatalf("read back %+v, %d bytes, want %+v, %d bytes", got, n, h, length)
		}
		if got, n, err := ParseHeader(buf[len(before):]); err != nil || n != length || got != h {
			t.Fatalf("ParseHeader: %+v, %d, %v", got, n, err)
		}
	})
}
