package frame

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestCodecGivesBackTheSameBytes(t *testing.T) {
	codec, err := CodecByID(OTLPZstd)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("any", func(t *testing.T) { givesBackTheSameBytes(t, codec, codec) })
	for _, signal := range Signals {
		t.Run(signal.String(), func(t *testing.T) { givesBackTheSameBytes(t, CodecFor(signal), codec) })
	}
}

func givesBackTheSameBytes(t *testing.T, writer, reader Codec) {
	if writer.ID() != reader.ID() {
		t.Fatalf("written as %s, read as %s", writer.ID(), reader.ID())
	}
	rapid.Check(t, func(t *rapid.T) {
		otlp := bytes.Repeat(rapid.SliceOf(rapid.Byte()).Draw(t, "otlp"), rapid.IntRange(1, 200).Draw(t, "times"))
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		payload, err := writer.Encode(bytes.Clone(before), otlp)
		if err != nil || !bytes.HasPrefix(payload, before) {
			t.Fatalf("encode: %v", err)
		}
		got, err := reader.Decode(bytes.Clone(before), payload[len(before):], len(otlp))
		if err != nil || !bytes.Equal(got, append(bytes.Clone(before), otlp...)) {
			t.Fatalf("decoded %d bytes of %d: %v", len(got)-len(before), len(otlp), err)
		}
	})
}

func TestCodecIsSafeForConcurrentUse(t *testing.T) {
	codec, _ := CodecByID(OTLPZstd)
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			otlp := bytes.Repeat([]byte{byte(i), 'x', 'y'}, 10_000)
			for range 10 {
				payload, err := codec.Encode(nil, otlp)
				if err != nil {
					t.Error(err)
				}
				if got, err := codec.Decode(nil, payload, len(otlp)); err != nil || !bytes.Equal(got, otlp) {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	callers.Wait()
}

// A payload may claim anything; the decoder gives no more than the header
// announced, and the header is not believed where that is impossible.
func TestDecodeIsBounded(t *testing.T) {
	codec, _ := CodecByID(OTLPZstd)
	bomb, err := codec.Encode(nil, make([]byte, 32<<20))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := codec.Encode(bytes.Clone(bomb), []byte("more"))
	if err != nil {
		t.Fatal(err)
	}
	small, _ := codec.Encode(nil, []byte("small"))
	for name, c := range map[string]struct {
		payload      []byte
		uncompressed int
	}{
		"bomb announced small":   {bomb, 1000},
		"bomb announced off one": {bomb, 32<<20 - 1},
		"two zstd frames":        {twice, 32 << 20},
		"less than announced":    {small, 6},
		"impossible ratio":       {small, MaxUncompressed},
		"above the bound":        {bomb, MaxUncompressed + 1},
		"negative":               {bomb, -1},
		"not zstd":               {[]byte("not zstd at all"), 10},
		"nothing":                {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := make([]byte, 0, 100)
			got, err := codec.Decode(before, c.payload, c.uncompressed)
			if !errors.Is(err, ErrCorrupt) || len(got) != 0 {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if limit := max(100, c.uncompressed+c.uncompressed/8); cap(got) > limit || c.uncompressed > len(c.payload)/zstdMinBlock*zstdMaxBlock && cap(got) != 100 {
				t.Fatalf("allocated %d bytes for %d announced", cap(got), c.uncompressed)
			}
		})
	}
	if got, err := codec.Decode(nil, bomb, 32<<20); err != nil || len(got) != 32<<20 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestUnknownCodecIsNamed(t *testing.T) {
	if _, err := CodecByID(200); !errors.Is(err, ErrCodec) {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	codec, _ := CodecByID(OTLPZstd)
	for _, otlp := range []string{"", "a", "a log line that repeats, a log line that repeats"} {
		payload, err := codec.Encode(nil, []byte(otlp))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload, uint32(len(otlp)))
	}
	dictionary, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(7, []byte("a log line")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dictionary.EncodeAll([]byte("a log line"), nil), uint32(10))
	f.Fuzz(func(t *testing.T, payload []byte, uncompressed uint32) {
		uncompressed %= 1 << 22
		got, err := codec.Decode(nil, payload, int(uncompressed))
		if err == nil && len(got) != int(uncompressed) || err != nil && len(got) != 0 {
			t.Fatalf("%d bytes for %d: %v", len(got), uncompressed, err)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	codec, _ := CodecByID(OTLPZstd)
	var otlp []byte
	for i := range 4000 {
		otlp = append(otlp, "level=info ts=2026-02-13T16:26:40Z caller=order.go:"...)
		otlp = append(otlp, byte('0'+i%10), byte('0'+i/10%10), ' ')
		otlp = append(otlp, "msg=\"order accepted\" amount="...)
		otlp = append(otlp, byte('0'+i*7%10), byte('0'+i*3%10), '\n')
	}
	payload, _ := codec.Encode(nil, otlp)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(otlp)))
		b.ReportAllocs()
		dst := make([]byte, 0, len(otlp))
		for b.Loop() {
			if _, err := codec.Encode(dst, otlp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(otlp)))
		b.ReportAllocs()
		dst := make([]byte, 0, len(otlp))
		for b.Loop() {
			if _, err := codec.Decode(dst, payload, len(otlp)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
