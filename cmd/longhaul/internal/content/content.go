// Package content shows an operator what is in a frame.
package content

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/longhaul/longhaul/internal/frame"
)

// ErrNewer means a frame is whole, but only a newer longhaul understands it.
var ErrNewer = errors.New("written by a newer longhaul; its checksums are right, its contents were not read")

// Request is an OTLP export request of any signal.
type Request interface {
	UnmarshalProto([]byte) error
	MarshalJSON() ([]byte, error)
}

// Decoder decodes frames one after the other into the same memory. The zero value
// is ready.
type Decoder struct{ otlp []byte }

// Decode returns the export request in a frame and checks it against the
// header. The request is good until the next call.
func (d *Decoder) Decode(h *frame.Header, payload []byte) (Request, error) {
	codec, err := frame.CodecByID(h.Codec)
	if errors.Is(err, frame.ErrCodec) {
		return nil, fmt.Errorf("%w (%w)", ErrNewer, err)
	}
	if err != nil {
		return nil, err
	}
	d.otlp, err = codec.Decode(d.otlp[:0], payload, int(h.Uncompressed))
	if err != nil {
		return nil, fmt.Errorf("its payload does not decode: %w", err)
	}
	var items int
	var r Request
	switch h.Signal {
	case frame.Logs:
		logs := plogotlp.NewExportRequest()
		if err = logs.UnmarshalProto(d.otlp); err == nil {
			items = logs.Logs().LogRecordCount()
		}
		r = logs
	case frame.Metrics:
		metrics := pmetricotlp.NewExportRequest()
		if err = metrics.UnmarshalProto(d.otlp); err == nil {
			items = metrics.Metrics().DataPointCount()
		}
		r = metrics
	case frame.Traces:
		traces := ptraceotlp.NewExportRequest()
		if err = traces.UnmarshalProto(d.otlp); err == nil {
			items = traces.Traces().SpanCount()
		}
		r = traces
	default:
		return nil, ErrNewer
	}
	if err != nil {
		return nil, fmt.Errorf("its payload is not OTLP: %w", err)
	}
	if items != int(h.Items) {
		return nil, fmt.Errorf("its payload has %d items, its header says %d", items, h.Items)
	}
	return r, nil
}

// Header is a frame's header as commands print it in JSON.
type Header struct {
	Lane         string            `json:"lane"`
	Class        string            `json:"class"`
	Number       uint64            `json:"number"`
	Floor        uint64            `json:"floor"`
	Before       uint64            `json:"before"` // items of all frames with lower numbers
	Epoch        string            `json:"epoch"`
	Codec        string            `json:"codec"`
	Items        uint32            `json:"items"`
	First        *time.Time        `json:"first"`
	Last         *time.Time        `json:"last"`
	PayloadBytes uint32            `json:"payload_bytes"`
	Uncompressed uint32            `json:"uncompressed_bytes"`
	Lost         map[string]uint64 `json:"lost,omitempty"`
}

// HeaderOf returns a frame's header for printing.
func HeaderOf(h *frame.Header) Header {
	out := Header{
		Lane: h.LaneID().String(), Class: h.Class.String(), Number: h.Number, Floor: h.Floor, Before: h.Before,
		Epoch: h.Epoch.String(), Codec: h.Codec.String(), Items: h.Items,
		First: moment(h.First), Last: moment(h.Last), PayloadBytes: h.PayloadLen, Uncompressed: h.Uncompressed,
	}
	for cause, n := range h.Lost {
		if n > 0 {
			if out.Lost == nil {
				out.Lost = make(map[string]uint64)
			}
			out.Lost[frame.Cause(cause).String()] = n
		}
	}
	return out
}

// moment is a time of so many nanoseconds, nil when it is not known.
func moment(nanoseconds int64) *time.Time {
	if nanoseconds <= 0 {
		return nil
	}
	t := time.Unix(0, nanoseconds).UTC()
	return &t
}
