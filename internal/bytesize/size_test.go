package bytesize

import "testing"

func TestParseAcceptsWhatPeopleWrite(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "512B": 512, "256KiB": 256 * KiB, "1MiB": MiB,
		"2GiB": 2 * GiB, "1.5GiB": 3 * GiB / 2, "64 MiB": 64 * MiB, "2Gi": 2 * GiB, "1MB": 1e6, "1TiB": TiB,
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseRefusesWhatIsNoSize(t *testing.T) {
	for _, text := range []string{"", "MiB", "-1", "-1MiB", "1XiB", "NaN", "9999999999GiB", "1e300", "0x10"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d; want an error", text, got)
		}
	}
}

func TestStringParsesBack(t *testing.T) {
	for _, size := range []Size{0, 1, 1023, KiB, MiB + 1, 3 * GiB / 2, 2 * GiB, TiB} {
		if back, err := Parse(size.String()); err != nil || back != size {
			t.Errorf("Parse(%q) = %d, %v; want %d", size.String(), back, err, size)
		}
	}
}
