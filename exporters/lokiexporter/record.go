package lokiexporter

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// record is a LogRecord message. Its texts are part of the message.
type record struct {
	time, observed   uint64 // unix nanoseconds
	line             string // the body
	severity         string
	number           plog.SeverityNumber
	event            string
	trace, span      []byte // empty, or 16 and 8 bytes
	flags            uint32
	dropped          uint32   // attributes
	attributes       [][]byte // KeyValue messages
	parsedAttributes []otlpwire.Attribute
}

// read reads all of a message but its attributes.
func (d *record) read(message []byte) (err error) {
	attributes := d.attributes[:0]
	*d = record{parsedAttributes: d.parsedAttributes}
	var body []byte
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			d.time = r.Fixed64()
		case 2:
			d.number = plog.SeverityNumber(r.Varint())
		case 3:
			d.severity = r.Text()
		case 5:
			body = otlpwire.Join(body, r.Bytes())
		case 6:
			attributes = append(attributes, r.Bytes())
		case 7:
			d.dropped = uint32(r.Varint())
		case 8:
			d.flags = r.Fixed32()
		case 9:
			d.trace, err = readID(r.Bytes(), 16)
		case 10:
			d.span, err = readID(r.Bytes(), 8)
		case 11:
			d.observed = r.Fixed64()
		case 12:
			d.event = r.Text()
		}
		if err != nil {
			return err
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	d.attributes = attributes
	if len(body) > 0 {
		value, err := otlpwire.ReadValue(body)
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
		d.line = value.Text()
	}
	return nil
}

// readID returns an id of so many bytes; one of zeros only is none.
func readID(id []byte, length int) ([]byte, error) {
	if len(id) != 0 && len(id) != length {
		return nil, fmt.Errorf("%w: an id of %d bytes, not %d", otlpwire.ErrMalformed, len(id), length)
	}
	for _, b := range id {
		if b != 0 {
			return id, nil
		}
	}
	return nil, nil
}

// readAttributes reads the attributes. They stand until the next call.
func (d *record) readAttributes() ([]otlpwire.Attribute, error) {
	d.parsedAttributes = d.parsedAttributes[:0]
	for _, message := range d.attributes {
		a, err := otlpwire.ReadAttribute(message)
		if err != nil {
			return nil, fmt.Errorf("attribute: %w", err)
		}
		d.parsedAttributes = append(d.parsedAttributes, a)
	}
	return d.parsedAttributes, nil
}

// hasObserved says whether when a record was observed is worth telling. It never is
// of a line that was read: it says when, and read again the line is to be an equal
// entry, which Loki stores once.
func (d *record) hasObserved() bool {
	return d.observed != 0 && d.time != 0 && d.observed != d.time
}

func (d *record) forget() {
	*d = record{attributes: emptied(d.attributes), parsedAttributes: emptied(d.parsedAttributes)}
}

// keptAttributes is of how many attributes the memory is used again.
const keptAttributes = 1000

// emptied is a list's memory for the next one, unless there is very much of it.
func emptied[T any](list []T) []T {
	if cap(list) > keptAttributes {
		return nil
	}
	clear(list[:cap(list)])
	return list[:0]
}
