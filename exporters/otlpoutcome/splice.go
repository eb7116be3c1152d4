package otlpoutcome

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// Fields that have the same number in the requests of all signals.
const (
	requestResources  = 1 // ExportTraceServiceRequest.resource_spans
	resourcesResource = 1 // ResourceSpans.resource
	resourcesScopes   = 2 // ResourceSpans.scope_spans
	scopesItems       = 2 // ScopeSpans.spans

	resourceAttributes = 1

	// resourcesOldScopes is what scope_spans was before OTLP 0.15, which servers still
	// read: it is passed on and counted.
	resourcesOldScopes = 1000
)

// chunks is a part of a message: bytes of the frame as they are, and between them
// what was written anew.
type chunks struct {
	list mem.BufferSlice
	size int
}

func (c *chunks) add(bytes []byte) {
	if len(bytes) > 0 {
		c.list = append(c.list, mem.SliceBuffer(bytes))
		c.size += len(bytes)
	}
}

// Resources are the ResourceSpans, ResourceLogs or ResourceMetrics of one resource,
// with the origin written on it.
type resources struct {
	message chunks // with tag and length
	items   int
	// What cut needs: the message's own bytes, and the Resource within it, written
	// anew, with tag and length.
	whole, resource []byte
}

// splicer writes the resources of frames anew. What it writes stays as it is.
type splicer struct {
	signal *signal
	free   []byte // to write to
	fields []byte // of the resource that is being written
	stamp  []byte // the origin of the piece, as fields of a Resource
}

const (
	pageBytes = 16 << 10
	// envelopeBytes is the most that a tag and a length take.
	envelopeBytes = 2 + binary.MaxVarintLen32
)

// room returns a slice with place for n more bytes.
func (s *splicer) room(n int) []byte {
	if cap(s.free)-len(s.free) < n {
		s.free = make([]byte, 0, max(pageBytes, n))
	}
	return s.free[len(s.free):]
}

// wrote ends the use of what room returned.
func (s *splicer) wrote(b []byte) []byte {
	s.free = s.free[:len(s.free)+len(b)]
	return b[:len(b):len(b)]
}

// piece returns the resources of a frame.
func (s *splicer) piece(p *direct.Piece) (all []resources, err error) {
	s.stamp = s.stamp[:0]
	for _, a := range p.AppendOrigin(nil) {
		s.stamp = appendAttribute(s.stamp, a)
	}
	r := otlpwire.Read(p.OTLP)
	for r.Next() {
		if r.Number != requestResources {
			continue
		}
		one, err := s.splice(r.Bytes())
		if err != nil {
			return nil, err
		}
		if r.Err() == nil {
			all = append(all, one)
		}
	}
	return all, r.Err()
}

func appendAttribute(resource []byte, a otlpwire.Attribute) []byte {
	value := a.Value.AppendValue(nil)
	size := protowire.SizeTag(1) + protowire.SizeBytes(len(a.Key)) + protowire.SizeTag(2) + protowire.SizeBytes(len(value))
	resource = appendHead(resource, resourceAttributes, size)
	resource = protowire.AppendString(protowire.AppendTag(resource, 1, protowire.BytesType), a.Key)
	return protowire.AppendBytes(protowire.AppendTag(resource, 2, protowire.BytesType), value)
}

func appendHead(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
}

// splice checks one message of resources and puts its origin right.
func (s *splicer) splice(message []byte) (one resources, err error) {
	var kept [4][]byte // what is between the Resource fields, of which there is one, and first
	rest := kept[:0]
	s.fields = s.fields[:0]
	from, at, oldItems, scopes := 0, 0, 0, 0
	r := otlpwire.Read(message)
	for r.Next() {
		next := len(message) - r.Left()
		switch r.Number {
		case resourcesResource: // several are one, cut into parts: so has protobuf it
			if err := s.keepFields(r.Bytes()); err != nil {
				return one, fmt.Errorf("resource: %w", err)
			}
			rest = append(rest, message[from:at])
			from = next
		case resourcesScopes:
			n, err := s.signal.count(r.Bytes())
			if err != nil {
				return one, err
			}
			one.items, scopes = one.items+n, scopes+1
		case resourcesOldScopes:
			n, err := s.signal.count(r.Bytes())
			if err != nil {
				return one, err
			}
			oldItems += n
		default:
		}
		at = next
	}
	if r.Err() != nil {
		return one, r.Err()
	}
	if scopes == 0 {
		one.items = oldItems
	}
	rest = append(rest, message[from:])
	one.whole = message
	s.write(&one, rest)
	return one, nil
}

// keepFields takes over the fields of a Resource but for the attributes that say
// where it comes from.
func (s *splicer) keepFields(resource []byte) error {
	at := 0
	r := otlpwire.Read(resource)
	for r.Next() {
		next := len(resource) - r.Left()
		keep := true
		if r.Number == resourceAttributes {
			a, err := otlpwire.ReadAttribute(r.Bytes())
			if err != nil {
				return err
			}
			switch a.Key {
			case direct.ClusterAttribute, direct.NodeAttribute, direct.LaneAttribute:
				keep = false
			}
		}
		if keep {
			s.fields = append(s.fields, resource[at:next]...)
		}
		at = next
	}
	return r.Err()
}

// write makes the message of a resource of s.fields, the origin and the rest.
func (s *splicer) write(one *resources, rest [][]byte) {
	size := 0
	for _, b := range rest {
		size += len(b)
	}
	resource := len(s.fields) + len(s.stamp)
	envelope := protowire.SizeTag(resourcesResource) + protowire.SizeBytes(resource)
	head := appendHead(s.room(resource+2*envelopeBytes), requestResources, envelope+size)
	begin := len(head)
	head = appendHead(head, resourcesResource, resource)
	head = append(append(head, s.fields...), s.stamp...)
	head = s.wrote(head)
	one.resource = head[begin:]
	one.message.list = make(mem.BufferSlice, 0, 1+len(rest))
	one.message.add(head)
	for _, b := range rest {
		one.message.add(b)
	}
}
