package prometheusexporter

import (
	"encoding/binary"
	"fmt"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// metricMessage is a Metric message.
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
