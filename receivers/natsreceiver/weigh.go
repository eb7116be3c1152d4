package natsreceiver

import (
	"errors"
	"fmt"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// An empty message takes two bytes of OTLP and up to two hundred as pdata: a frame of a
// few KiB that is good as far as checksums go could take a gigabyte. So before pdata is
// made of a request its messages are counted, without a look at texts. That takes a
// third to a quarter of the time that making it does. Exporters that are handed requests
// as they are (direct.go) make less of them, but keep something of each resource, scope
// and item of a call: only those are counted then, and what is within large items.

// message is a kind of messages of a request, with the fields that are messages.
type message struct {
	bytes  int64        // about what one takes as pdata
	fields [16]*message // by number
	leaf   bool         // it has none
	large  *message     // how one of largeBytes and more is weighed beside
}

// largeBytes is from when on it matters what an exporter makes of an item for a moment.
const largeBytes = 64 << 10

func kind(bytes int64, fields map[int32]*message) *message {
	m := &message{bytes: bytes, leaf: len(fields) == 0}
	for number, field := range fields {
		m.fields[number] = field
	}
	return m
}

// value is AnyValue, pair KeyValue: what attributes are made of.
var value, pair = func() (value, pair *message) {
	value = kind(24, nil)
	pair = kind(48, map[int32]*message{2: value})
	value.leaf, value.fields[5], value.fields[6] = false, kind(48, map[int32]*message{1: value}), kind(48, map[int32]*message{1: pair})
	return value, pair
}()

// requests are the messages of each signal's request, by the field numbers of
// opentelemetry/proto.
var requests = func() map[frame.Signal]*message {
	scope := kind(0, map[int32]*message{3: pair}) // part of what holds it, as are resources
	entity := kind(112, nil)
	resource := kind(0, map[int32]*message{1: pair, 3: entity})
	list := func(item *message) *message { // request → resource → scope → item
		scopes := kind(152, map[int32]*message{1: scope, 2: item})
		return kind(0, map[int32]*message{1: kind(168, map[int32]*message{1: resource, 2: scopes})})
	}

	exemplar := kind(112, map[int32]*message{7: pair})
	number := kind(144, map[int32]*message{7: pair, 5: exemplar})
	histogram := kind(208, map[int32]*message{9: pair, 8: exemplar})
	buckets := kind(32, nil)
	exponential := kind(240, map[int32]*message{1: pair, 8: buckets, 9: buckets, 11: exemplar})
	summary := kind(128, map[int32]*message{7: pair, 6: kind(32, nil)})
	points := func(point *message) *message { return kind(40, map[int32]*message{1: point}) }
	metric := kind(144, map[int32]*message{
		5: points(number), 7: points(number), 9: points(histogram), 10: points(exponential), 11: points(summary), 12: pair,
	})

	event := kind(80, map[int32]*message{3: pair})
	link := kind(104, map[int32]*message{4: pair})
	span := kind(240, map[int32]*message{9: pair, 11: event, 13: link, 15: kind(0, nil)})

	return map[frame.Signal]*message{
		frame.Logs:    list(kind(168, map[int32]*message{5: value, 6: pair})),
		frame.Metrics: list(metric),
		frame.Traces:  list(span),
	}
}()

// outlines are what exporters that are handed requests as they are keep of them until
// they are delivered: by resource, the lists and the origin; by item, what leads to it.
var outlines = func() map[frame.Signal]*message {
	items := func(signal frame.Signal, item *message) *message {
		item.large = requests[signal].fields[1].fields[2].fields[2]
		resource := kind(0, map[int32]*message{1: kind(100, nil)})
		scopes := kind(300, map[int32]*message{1: kind(0, map[int32]*message{3: kind(100, nil)}), 2: item})
		return kind(0, map[int32]*message{1: kind(450, map[int32]*message{1: resource, 2: scopes})})
	}
	return map[frame.Signal]*message{
		frame.Logs:    items(frame.Logs, kind(128, nil)),
		frame.Metrics: items(frame.Metrics, kind(64, nil)), // its points take no more than others of their size
		frame.Traces:  items(frame.Traces, kind(128, nil)),
	}
}()

// maxDepth is how deep attributes may be nested, as otlpwire has it.
const maxDepth = 1000

var errDepth = errors.New("nested too deep")

// weigh returns about what a request takes as pdata, besides its texts: its messages.
func (m *message) weigh(otlp []byte, depth int) (bytes int64, err error) {
	if depth > maxDepth {
		return 0, errDepth
	}
	r := otlpwire.Read(otlp)
	for r.Next() {
		if r.Number >= int32(len(m.fields)) || m.fields[r.Number] == nil {
			continue
		}
		field := m.fields[r.Number]
		bytes += field.bytes
		nested := r.Bytes()
		if field.large != nil && len(nested) >= largeBytes {
			within, err := field.large.weigh(nested, depth+1)
			if err != nil {
				return 0, err
			}
			bytes += within
		}
		if field == pair && plain(nested) {
			bytes += value.bytes
		} else if len(nested) > 0 && !field.leaf {
			within, err := field.weigh(nested, depth+1)
			if err != nil {
				return 0, err
			}
			bytes += within
		}
	}
	return bytes, r.Err()
}

// plain says whether an attribute is a short key with a short text, number or truth, as
// nearly all are: nothing in it is another message.
func plain(attribute []byte) bool {
	if len(attribute) < 2 || attribute[0] != 1<<3|2 || attribute[1] >= 0x80 {
		return false
	}
	at := 2 + int(attribute[1])
	if len(attribute) < at+4 || attribute[at] != 2<<3|2 || int(attribute[at+1]) != len(attribute)-at-2 {
		return false
	}
	switch v := attribute[at+2:]; v[0] {
	case 1<<3 | 2: // text
		return int(v[1]) == len(v)-2
	case 2 << 3, 3 << 3: // truth, number of up to two bytes
		return len(v) == 2 && v[1] < 0x80 || len(v) == 3 && v[1] >= 0x80 && v[2] < 0x80
	case 4<<3 | 1: // floating point
		return len(v) == 9
	}
	return false
}

const (
	// tooDense is how many times what a frame was thought to take it may take.
	tooDense = 3
	// denseFrom is what a frame may take however small it is.
	denseFrom = 1 << 20
	// mostDense is more than a byte of OTLP can take.
	mostDense = 250
)

// dense says why no pdata is to be made of a frame's request: it would take many times
// as much as any that an edge makes of its size and number of items.
func (a *arrival) dense(otlp []byte) error { return a.denser(otlp, requests) }

func (a *arrival) denser(otlp []byte, than map[frame.Signal]*message) error {
	if mostDense*len(otlp) <= denseFrom {
		return nil
	}
	n, err := than[a.header.Signal].weigh(otlp, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRequest, err)
	}
	usual := max(a.out.decodedBytes(a), pdataMemory[a.header.Signal]*int64(len(otlp))) // the same both ways
	if n += int64(len(otlp)); n > max(tooDense*usual, denseFrom) {
		return fmt.Errorf("%w: its %d bytes are nothing but empty messages, which would take about %d", errOversize, len(otlp), n)
	}
	return nil
}
