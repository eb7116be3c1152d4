package sink

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// takeLoki reads a push request: streams of labels and entries.
func takeLoki(message []byte) (b Batch, err error) {
	b.Signal = frame.Logs
	err = only(message, 1, func(stream []byte) error {
		var labels []byte
		if err := only(stream, 1, func(text []byte) error {
			labels = text
			return nil
		}); err != nil {
			return err
		}
		if !bytes.HasPrefix(labels, []byte("{")) {
			return fmt.Errorf("%w: labels %q", errWire, labels)
		}
		return only(stream, 2, func(entry []byte) error { return takeEntry(entry, labels, &b) })
	})
	return b, err
}

func takeEntry(message, labels []byte, b *Batch) error {
	var line []byte
	timed := false
	err := walk(message, func(f field) error {
		switch {
		case f.isMessage(1):
			timed = true
		case f.isMessage(2):
			line = f.bytes
		case f.isMessage(3):
			return walk(f.bytes, func(field) error { return nil })
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !timed {
		return fmt.Errorf("%w: an entry without a time", errWire)
	}
	b.Items++
	if bytes.HasPrefix(line, []byte(frames.MarkerLine)) {
		m, err := frames.ParseLine(line)
		if err != nil {
			return err
		}
		b.Sightings = append(b.Sightings, Sighting{m, labelValue(labels, "cluster")})
	}
	return nil
}

// labelValue finds a label in {name="value", …}; "" when it is not there.
func labelValue(labels []byte, name string) string {
	text := string(labels)
	for _, before := range []string{"{", " ", ","} {
		if _, after, found := strings.Cut(text, before+name+`="`); found {
			value, _, _ := strings.Cut(after, `"`)
			return value
		}
	}
	return ""
}
