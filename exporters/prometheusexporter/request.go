package prometheusexporter

import (
	"encoding/binary"
	"fmt"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/protobuf/encoding/protowire"

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
		attributes, err := s.attributes(described)
		if err != nil {
			return err
		}
		found(index, attributes, message)
		index++
	}
	return r.Err()
}

func (s *source) attributes(described []byte) ([]otlpwire.Attribute, error) {
	if s.origin != nil {
		return s.origin.Attributes(nil, described)
	}
	return readAttributes(nil, described, 1)
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

// metric is a Metric message.
type metricMessage struct {
	message                 []byte
	name, description, unit string
	metadata                []byte // the first attribute of it
	moreMetadata            bool
	kind                    pmetric.MetricType
	data                    []byte // the Gauge, Sum, ... message
	temporality             pmetric.AggregationTemporality
	monotonic               bool
}

var metricKinds = [...]pmetric.MetricType{
	5: pmetric.MetricTypeGauge, 7: pmetric.MetricTypeSum, 9: pmetric.MetricTypeHistogram,
	10: pmetric.MetricTypeExponentialHistogram, 11: pmetric.MetricTypeSummary,
}

// read reads a metric but for its points.
func (m *metricMessage) read(message []byte) error {
	*m = metricMessage{message: message}
	for at := 0; at < len(message); {
		from, to := short(message, at)
		if to == 0 {
			return m.readCarefully()
		}
		m.set(int32(message[at]>>3), message[from:to:to])
		at = to
	}
	return m.readKind()
}

// short returns where the field at a place begins and ends, if it is a text or a
// message of less than 16 KiB; otherwise zeros.
func short(message []byte, at int) (from, to int) {
	if at+2 >= len(message) || message[at]&7 != 2 || message[at] >= 0x80 || message[at] < 1<<3 {
		return 0, 0
	}
	from, to = at+2, at+2+int(message[at+1])
	if second := message[at+2]; message[at+1] >= 0x80 {
		if second >= 0x80 {
			return 0, 0
		}
		from, to = at+3, at+3+(int(message[at+1]&0x7f)|int(second)<<7)
	}
	if to > len(message) {
		return 0, 0
	}
	return from, to
}

func (m *metricMessage) readCarefully() error {
	*m = metricMessage{message: m.message}
	r := otlpwire.Read(m.message)
	for r.Next() {
		switch r.Number {
		case 1, 2, 3, 5, 7, 9, 10, 11, 12:
			m.set(r.Number, r.Bytes())
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return m.readKind()
}

func (m *metricMessage) set(field int32, value []byte) {
	switch field {
	case 1:
		m.name = otlpwire.Text(value)
	case 2:
		m.description = otlpwire.Text(value)
	case 3:
		m.unit = otlpwire.Text(value)
	case 5, 7, 9, 10, 11:
		m.data, m.kind = value, metricKinds[field]
	case 12:
		m.moreMetadata = m.metadata != nil
		m.metadata = value
	}
}

// readKind reads what stands beside the points.
func (m *metricMessage) readKind() error {
	switch m.kind {
	case pmetric.MetricTypeEmpty:
		return nil
	case pmetric.MetricTypeGauge, pmetric.MetricTypeSummary:
		m.temporality = pmetric.AggregationTemporalityCumulative
		return nil
	}
	at := 0
	for at < len(m.data) && m.data[at] == 1<<3|2 { // points, mostly
		_, to := short(m.data, at)
		if to == 0 {
			break
		}
		at = to
	}
	r := otlpwire.Read(m.data[at:])
	for r.Next() {
		switch {
		case r.Number == 2:
			m.temporality = pmetric.AggregationTemporality(r.Varint())
		case r.Number == 3 && m.kind == pmetric.MetricTypeSum:
			m.monotonic = r.Varint() != 0
		}
	}
	return r.Err()
}

func (m *metricMessage) isDelta() bool { return m.temporality == pmetric.AggregationTemporalityDelta }

// points is how many data points there are.
func (m *metricMessage) points() (n int) {
	for r := otlpwire.Read(m.data); r.Next(); {
		if r.Number == 1 {
			n++
		}
	}
	return n
}

// pdata is the metric as an object.
func (m *metricMessage) pdata(memory *[]byte) (pmetric.Metric, error) {
	const metrics, scopeMetrics, resourceMetrics = 2, 2, 1
	request := append((*memory)[:0], make([]byte, 3*12)...)
	request = append(request, m.message...)
	*memory = request
	from := 3 * 12
	for _, field := range [...]byte{metrics, scopeMetrics, resourceMetrics} {
		var head [12]byte
		n := len(binary.AppendUvarint(append(head[:0], field<<3|2), uint64(len(request)-from)))
		copy(request[from-n:], head[:n])
		from -= n
	}
	md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(request[from:])
	if err != nil {
		return pmetric.Metric{}, fmt.Errorf("%w: metric: %w", otlpwire.ErrMalformed, err)
	}
	return md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0), nil
}

// point is a NumberDataPoint message.
type point struct {
	message    []byte
	attributes []byte // their fields, with tags and lengths
	start, at  pcommon.Timestamp
	value      float64
	flags      pmetric.DataPointFlags
	exemplars  bool // there are some
}

// Keys of the fields of a NumberDataPoint.
const (
	pointStart      = 2<<3 | 1
	pointAt         = 3<<3 | 1
	pointDouble     = 4<<3 | 1
	pointExemplar   = 5<<3 | 2
	pointInt        = 6<<3 | 1
	pointAttribute  = 7<<3 | 2
	pointFlags      = 8 << 3
	attributesField = 7
)

// read reads a point. In the bytes of every sender that is known, attributes stand
// together and tags and lengths are single bytes: what is not so is read again, with
// more care.
func (p *point) read(message []byte) error {
	*p = point{message: message}
	from, to := 0, 0
	for at := 0; at < len(message); {
		switch tag := message[at]; tag {
		case pointAttribute, pointExemplar:
			if at+1 >= len(message) || message[at+1] >= 0x80 {
				return p.readCarefully()
			}
			next := at + 2 + int(message[at+1])
			if next > len(message) {
				return p.readCarefully()
			}
			if tag == pointExemplar {
				p.exemplars = true
			} else {
				if to != at {
					if to != 0 {
						return p.readCarefully()
					}
					from = at
				}
				to = next
			}
			at = next
		case pointStart, pointAt, pointDouble, pointInt:
			if at+9 > len(message) {
				return p.readCarefully()
			}
			p.set(tag, binary.LittleEndian.Uint64(message[at+1:]))
			at += 9
		case pointFlags:
			if at+1 >= len(message) || message[at+1] >= 0x80 {
				return p.readCarefully()
			}
			p.flags = pmetric.DataPointFlags(message[at+1])
			at += 2
		default:
			return p.readCarefully()
		}
	}
	p.attributes = message[from:to]
	return nil
}

func (p *point) set(tag byte, number uint64) {
	switch tag {
	case pointStart:
		p.start = pcommon.Timestamp(number)
	case pointAt:
		p.at = pcommon.Timestamp(number)
	case pointDouble:
		p.value = math.Float64frombits(number)
	case pointInt:
		p.value = float64(int64(number))
	}
}

func (p *point) readCarefully() error {
	*p = point{message: p.message}
	r := otlpwire.Read(p.message)
	for r.Next() {
		switch r.Number {
		case 2, 3, 4, 6:
			p.set(byte(r.Number)<<3|1, r.Fixed64())
		case 5:
			r.Bytes()
			p.exemplars = true
		case attributesField:
			p.attributes = protowire.AppendBytes(append(p.attributes, pointAttribute), r.Bytes())
		case 8:
			p.flags = pmetric.DataPointFlags(r.Varint())
		}
	}
	return r.Err()
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

// check reads all points of a metric, and tells how many there are.
func (m *metricMessage) check(memory *[]byte) (points int, err error) {
	if m.kind != pmetric.MetricTypeGauge && m.kind != pmetric.MetricTypeSum {
		_, err := m.pdata(memory)
		return m.points(), err
	}
	var (
		p    point
		list []otlpwire.Attribute
	)
	r := otlpwire.Read(m.data)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		if err := p.read(r.Bytes()); err != nil {
			return points, err
		}
		if list, err = readAttributes(list[:0], p.attributes, attributesField); err != nil {
			return points, err
		}
		if p.exemplars {
			if _, err := p.pdata(memory); err != nil {
				return points, err
			}
		}
		points++
	}
	return points, r.Err()
}

// pdata is the point as an object.
func (p *point) pdata(memory *[]byte) (pmetric.NumberDataPoint, error) {
	const points, sum = 1, 7
	alone := protowire.AppendBytes(protowire.AppendTag(nil, points, protowire.BytesType), p.message)
	m := metricMessage{message: protowire.AppendBytes(protowire.AppendTag(nil, sum, protowire.BytesType), alone)}
	decoded, err := m.pdata(memory)
	if err != nil {
		return pmetric.NumberDataPoint{}, err
	}
	return decoded.Sum().DataPoints().At(0), nil
}
