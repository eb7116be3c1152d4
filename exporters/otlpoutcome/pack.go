package otlpoutcome

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// maxRequestBytes is how large a request is made: gRPC servers refuse messages above
// 4 MiB for good, unless they are told otherwise.
const maxRequestBytes = 4<<20 - 16<<10

// maxRepeated is how many times its size a resource may come to by being cut.
const maxRepeated = 8

// wholePiece is the part of a piece that is not cut.
const wholePiece = -1

// request is one message to the server: the data of some pieces, or a part of one
// that is too large for a request.
type request struct {
	pieces []int // their indexes, ascending
	part   int   // of the piece: its number, or wholePiece
	body   part
}

// part is whole messages of resources, or of what is in them.
type part struct {
	chunks
	items int
}

func (p *part) join(other part) {
	p.list = append(p.list, other.list...)
	p.size += other.size
	p.items += other.items
}

// pack makes requests of the resources of pieces, in order, without the parts that
// were answered for. No piece is in two requests unless it is larger than a request:
// what becomes of one piece is then one answer. How a piece is cut depends on the
// piece alone.
func pack(signal *signal, pieces []direct.Piece, limit int, answered func(piece, part int) bool) ([]*request, error) {
	s := &splicer{signal: signal}
	var requests []*request
	var open *request
	for i := range pieces {
		all, err := s.piece(&pieces[i])
		if err != nil {
			return nil, &direct.UndecodableError{Piece: i, Err: err}
		}
		size := 0
		for j := range all {
			size += all[j].message.size
		}
		if size > limit {
			for n, body := range s.cut(all, limit) {
				if !answered(i, n) {
					requests = append(requests, &request{pieces: []int{i}, part: n, body: body})
				}
			}
			open = nil
			continue
		}
		if size == 0 || answered(i, wholePiece) {
			continue
		}
		if open == nil || open.body.size+size > limit {
			open = &request{part: wholePiece}
			requests = append(requests, open)
		}
		open.pieces = append(open.pieces, i)
		for j := range all {
			open.body.join(part{all[j].message, all[j].items})
		}
	}
	return requests, nil
}

// cut divides the resources of a piece over requests.
func (s *splicer) cut(all []resources, limit int) []part {
	var parts []part
	for i := range all {
		if all[i].message.size <= limit {
			parts = append(parts, part{all[i].message, all[i].items})
			continue
		}
		parts = append(parts, s.cutResources(&all[i], limit)...)
	}
	var requests []part
	for from := 0; from < len(parts); {
		one, to := fill(parts, from, limit)
		requests, from = append(requests, one), to
	}
	return requests
}

// cutResources divides one message of resources: each part has the Resource and all
// else that is not repeated. A single item that is too large is left so: the server
// may bear it. So is all where what is not repeated is nearly as large as a request, or
// larger: a frame would be sent many times over, while others wait.
func (s *splicer) cutResources(one *resources, limit int) []part {
	number := int32(resourcesScopes)
	shared, scopes := divide(one.whole, number, resourcesResource)
	if len(scopes) == 0 {
		number = resourcesOldScopes
		shared, scopes = divide(one.whole, number, resourcesResource)
	}
	if len(scopes) == 0 {
		return []part{{one.message, one.items}}
	}
	envelope := chunks{}
	envelope.add(one.resource)
	for _, b := range shared {
		envelope.add(b)
	}
	var children []part
	for _, scope := range scopes {
		children = append(children, s.cutScope(scope, number, limit-envelopeBytes-envelope.size)...)
	}
	groups, size := s.group(requestResources, envelope, children, limit), 0
	for i := range groups {
		size += groups[i].size
	}
	if size > maxRepeated*one.message.size {
		return []part{{one.message, one.items}}
	}
	return groups
}

// cutScope divides a field of resources that holds items.
func (s *splicer) cutScope(field []byte, number int32, limit int) []part {
	r := otlpwire.Read(field)
	r.Next()
	message := r.Bytes()
	whole := part{}
	whole.add(field)
	whole.items, _ = s.signal.count(message) // it was checked
	if whole.size <= limit {
		return []part{whole}
	}
	shared, items := divide(message, scopesItems, 0)
	if len(items) < 2 {
		return []part{whole}
	}
	envelope := chunks{}
	for _, b := range shared {
		envelope.add(b)
	}
	children := make([]part, len(items))
	for i, item := range items {
		children[i].add(item)
		r := otlpwire.Read(item)
		r.Next()
		children[i].items, _ = s.signal.item(r.Bytes())
	}
	return s.group(protowire.Number(number), envelope, children, limit)
}

// divide returns the fields of a number, and what is between them without the fields
// left out.
func divide(message []byte, number, without int32) (between, fields [][]byte) {
	at := 0
	r := otlpwire.Read(message)
	for r.Next() {
		next := len(message) - r.Left()
		switch r.Number {
		case number:
			fields = append(fields, message[at:next])
		case without:
		default:
			between = append(between, message[at:next])
		}
		at = next
	}
	return between, fields
}

// group makes messages, within the limit, of an envelope that each of them has and of
// children.
func (s *splicer) group(number protowire.Number, envelope chunks, children []part, limit int) (groups []part) {
	limit -= envelopeBytes + envelope.size
	for from := 0; from < len(children); {
		content, to := fill(children, from, limit)
		group := part{items: content.items}
		group.add(s.wrote(appendHead(s.room(envelopeBytes), number, envelope.size+content.size)))
		group.join(part{chunks: envelope})
		content.items = 0
		group.join(content)
		groups, from = append(groups, group), to
	}
	return groups
}

// fill joins parts from one on until the limit: one at least.
func fill(parts []part, from, limit int) (joined part, to int) {
	joined = part{chunks: chunks{list: make(mem.BufferSlice, 0, len(parts[from].list))}}
	for to = from; to < len(parts) && (to == from || joined.size+parts[to].size <= limit); to++ {
		joined.join(parts[to])
	}
	return joined, to
}
