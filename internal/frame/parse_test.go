package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
)

func sample(payload string) []byte {
	h := Header{Codec: OTLPZstd, Signal: Traces, Class: Live, Lane: 1, Items: 3, Epoch: 9, Number: 4, Floor: 2, Uncompressed: 5}
	return Append(nil, &h, []byte(payload))
}

// reseal makes the checksums right again after a change.
func reseal(b []byte) []byte {
	size := int(binary.LittleEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], castagnoli))
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
	return b
}

func TestParseOfAnyPrefixSaysTruncated(t *testing.T) {
	whole := sample("payload")
	for cut := range whole {
		if _, _, _, err := Parse(whole[:cut]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d of %d bytes: %v", cut, len(whole), err)
		}
	}
}

func TestParseFindsAnyFlippedBit(t *testing.T) {
	whole := sample("payload")
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, _, err := Parse(b); err == nil || errors.Is(err, ErrVersion) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	}
}

func TestParseRules(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   error
		carry  bool // n is known all the same
	}{
		"as it is":               {func(b []byte) []byte { return b }, nil, true},
		"lower flag":             {func(b []byte) []byte { b[10] = 0x80; return reseal(b) }, nil, true},
		"upper flag":             {func(b []byte) []byte { b[11] = 1; return reseal(b) }, ErrVersion, true},
		"newer version":          {func(b []byte) []byte { b[6] = 2; return reseal(b) }, ErrVersion, true},
		"unknown signal":         {func(b []byte) []byte { b[8] = 9; return reseal(b) }, ErrVersion, true},
		"unknown class":          {func(b []byte) []byte { b[9] = 0; return reseal(b) }, ErrVersion, true},
		"unknown codec":          {func(b []byte) []byte { b[7] = 77; return reseal(b) }, nil, true},
		"payload above bound":    {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[64:], MaxPayload+1); return reseal(b) }, ErrCorrupt, false},
		"uncompressed too large": {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[60:], MaxUncompressed+1); return reseal(b) }, ErrCorrupt, false},
		"short header":           {func(b []byte) []byte { b[4] = 135; return b }, ErrCorrupt, false},
		"endless header":         {func(b []byte) []byte { b[5] = 0xff; return b }, ErrCorrupt, false},
		"no magic":               {func(b []byte) []byte { b[0] = 'l'; return b }, ErrCorrupt, false},
		"longer header": {func(b []byte) []byte {
			longer := append(bytes.Clone(b[:HeaderSize-4]), "new field"...)
			longer = append(longer, 0, 0, 0, 0)
			longer = append(longer, b[HeaderSize:]...)
			binary.LittleEndian.PutUint16(longer[4:], HeaderSize+9)
			return reseal(longer)
		}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.change(sample("payload"))
			h, payload, n, err := Parse(b)
			if !errors.Is(err, c.want) || err != nil && c.want == nil {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if c.carry && (n != len(b) || string(payload) != "payload" || h.Number != 4) {
				t.Fatalf("%+v, %q, %d of %d bytes", h, payload, n, len(b))
			}
			if !c.carry && (n != 0 || payload != nil) {
				t.Fatalf("%q, %d bytes with an error", payload, n)
			}
		})
	}
}

func TestNamesReadBackWhatTheyPrint(t *testing.T) {
	for _, s := range Signals {
		if got, err := ParseSignal(s.String()); err != nil || got != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
		lane := Lane{Signal: s, Seq: 17}
		if got, err := ParseLane(lane.String()); err != nil || got != lane {
			t.Errorf("%s: %v, %v", lane, got, err)
		}
	}
	for range 100 {
		e := NewEpoch()
		if got, err := ParseEpoch(e.String()); err != nil || got != e {
			t.Errorf("%s: %v, %v", e, got, err)
		}
	}
	for _, text := range []string{"", "logs", "logs/", "logs/0", "logs/01", "logs/-1", "logs/4294967296", "log/1", "logs/1/2"} {
		if lane, err := ParseLane(text); err == nil {
			t.Errorf("lane %q read as %s", text, lane)
		}
	}
	for _, text := range []string{"", "0", "0000000000000000", "00000000000000g1", "+123456789abcdef", "0123456789abcdef0"} {
		if e, err := ParseEpoch(text); err == nil {
			t.Errorf("epoch %q read as %s", text, e)
		}
	}
	if got := Cause(Rejected).String() + " " + Cause(7).String() + " " + Signal(9).String(); got != "rejected cause(7) signal(9)" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample("payload"))
	f.Add(sample(""))
	f.Add([]byte(Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, n, err := Parse(b)
		if err != nil && !errors.Is(err, ErrVersion) {
			if n != 0 || payload != nil || !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d bytes, %v", n, err)
			}
			return
		}
		if n > len(b) || len(payload) != int(h.PayloadLen) {
			t.Fatalf("frame of %d bytes in %d, payload %d, header %+v", n, len(b), len(payload), h)
		}
		if h2, n2, err2 := ParseHeader(b); h2 != h || n2 != n || errors.Is(err2, ErrVersion) != errors.Is(err, ErrVersion) {
			t.Fatalf("ParseHeader differs: %+v, %d, %v", h2, n2, err2)
		}
		if err == nil {
			again := Append(nil, &h, payload)
			if h3, payload3, _, err := Parse(again); err != nil || h3 != h || !bytes.Equal(payload3, payload) {
				t.Fatalf("written again: %+v, %v", h3, err)
			}
		}
	})
}
