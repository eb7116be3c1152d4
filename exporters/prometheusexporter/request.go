package prometheusexporter

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// An ExportMetricsServiceRequest is read where it lies: what is here points into its
// bytes. Field numbers are those of opentelemetry/proto/metrics/v1.

// source is one request of a call.
type source struct {
	otlp   []byte
	origin *direct.Piece // nil: the resources say themselves where they come from
}

// resource is a ResourceMetrics message.
type resource struct {
	source     int // its index in the call
	index      int // in the request
	attributes []otlpwire.Attribute
	message    []byte
}

// sourceError says which request of a call is no OTLP.
type sourceError struct {
	source int
	err    error
}

func (e *sourceError) Error() string { return fmt.Sprintf("request %d: %s", e.source, e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// readResources calls found with each resource of a request.
func (s *source) readResources(found func(index int, attributes []otlpwire.Attribute, message []byte)) error {
	index := 0
	r := otlpwire.Read(s.otlp)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		message := r.Bytes()
		var described []byte
		of := otlpwire.Read(message)
		for of.Next() {
			if of.Number == 1 {
				described = join(described, of.Bytes())
			}
		}
		if of.Err() != nil {
			return of.Err()
		}
		attributes, err := s.origin.Attributes(nil, described)
		if err != nil {
			return err
		}
		found(index, attributes, message)
		index++
	}
	return r.Err()
}

// join is for a message that comes in parts: in protobuf, one that comes twice is the
// same as one with the fields of both.
func join(first, second []byte) []byte {
	if first == nil {
		return second
	}
	return append(first[:len(first):len(first)], second...)
}

// readAttributes appends the attributes that are in a field of a message.
func readAttributes(all []otlpwire.Attribute, message []byte, field int32) ([]otlpwire.Attribute, error) {
	r := otlpwire.Read(message)
	for r.Next() {
		if r.Number != field {
			continue
		}
		a, err := otlpwire.ReadAttribute(r.Bytes())
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
	return all, r.Err()
}

// valueOf returns the first attribute with a key, as pdata does.
func valueOf(attributes []otlpwire.Attribute, key string) (otlpwire.Value, bool) {
	for i := range attributes {
		if attributes[i].Key == key {
			return attributes[i].Value, true
		}
	}
	return otlpwire.Value{}, false
}

// scope is a ScopeMetrics message.
type scope struct {
	message       []byte
	name, version string
	schema        string
	attributes    []otlpwire.Attribute
	metrics       int
	origin        origin
}

func readScope(message []byte) (s scope, err error) {
	s.message = message
	var described []byte
	isScraped := false
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			described = join(described, r.Bytes())
		case 2:
			s.metrics++
			if m := r.Bytes(); !isScraped {
				if _, isScraped, err = exposedType(m); err != nil {
					return s, err
				}
			}
		case 3:
			s.schema = r.Text()
		}
	}
	if r.Err() != nil {
		return s, r.Err()
	}
	r = otlpwire.Read(described)
	for r.Next() {
		switch r.Number {
		case 1:
			s.name = r.Text()
		case 2:
			s.version = r.Text()
		}
	}
	if s.attributes, err = readAttributes(nil, described, 3); err != nil {
		return s, err
	}
	switch {
	case !isScraped:
		s.origin = instrumented
	case s.name == receiverScope:
		s.origin = scraped
	default:
		s.origin = scrapedWithScope
	}
	return s, r.Err()
}

// exposedType reads from a Metric message the type that a scraped family was
// exposed with. found is false for what was not scraped.
func exposedType(message []byte) (exposed string, found bool, err error) {
	r := otlpwire.Read(message)
	for r.Next() {
		if r.Number != 12 {
			continue
		}
		a, err := otlpwire.ReadAttribute(r.Bytes())
		if err != nil {
			return "", false, err
		}
		if a.Key == typeKey && !found {
			found = true
			if a.Value.Type == pcommon.ValueTypeStr {
				exposed = a.Value.Text()
			}
		}
	}
	return exposed, found, r.Err()
}

// metrics calls found with each metric of a resource.
func (of *resource) metrics(found func(*metricMessage) error) error {
	resource := otlpwire.Read(of.message)
	for resource.Next() {
		if resource.Number != 2 {
			continue
		}
		scope := otlpwire.Read(resource.Bytes())
		for scope.Next() {
			if scope.Number != 2 {
				continue
			}
			var m metricMessage
			if err := m.read(scope.Bytes()); err != nil {
				return err
			}
			if err := found(&m); err != nil {
				return err
			}
		}
		if scope.Err() != nil {
			return scope.Err()
		}
	}
	return resource.Err()
}

// check reads all of a resource, as its translation does.
func (of *resource) check(memory *[]byte) error {
	r := otlpwire.Read(of.message)
	for r.Next() {
		if r.Number != 2 {
			continue
		}
		if _, err := readScope(r.Bytes()); err != nil {
			return err
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return of.metrics(func(m *metricMessage) error {
		if _, _, err := exposedType(m.message); err != nil {
			return err
		}
		_, err := m.check(memory)
		return err
	})
}
