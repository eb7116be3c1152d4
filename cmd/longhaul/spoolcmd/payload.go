package spoolcmd

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

// errNewer means a frame is whole, but only a newer longhaul understands it.
var errNewer = errors.New("written by a newer longhaul; its checksums are right, its contents were not read")

// request is an OTLP export request of any signal.
type request interface {
	UnmarshalProto([]byte) error
	MarshalJSON() ([]byte, error)
}

// payloads decodes frames one after the other into the same memory.
type payloads struct{ otlp []byte }

// decode returns the export request in a frame and checks it against the
// header. The request is good until the next call.
func (p *payloads) decode(f *spool.FoundFrame) (request, error) {
	if f.Newer {
		return nil, errNewer
	}
	codec, err := frame.CodecByID(f.Header.Codec)
	if errors.Is(err, frame.ErrCodec) {
		return nil, fmt.Errorf("%w (%w)", errNewer, err)
	}
	if err != nil {
		return nil, err
	}
	p.otlp, err = codec.Decode(p.otlp[:0], f.Payload, int(f.Header.Uncompressed))
	if err != nil {
		return nil, fmt.Errorf("its payload does not decode: %w", err)
	}
	var items int
	var r request
	switch f.Header.Signal {
	case frame.Logs:
		logs := plogotlp.NewExportRequest()
		if err = logs.UnmarshalProto(p.otlp); err == nil {
			items = logs.Logs().LogRecordCount()
		}
		r = logs
	case frame.Metrics:
		metrics := pmetricotlp.NewExportRequest()
		if err = metrics.UnmarshalProto(p.otlp); err == nil {
			items = metrics.Metrics().DataPointCount()
		}
		r = metrics
	case frame.Traces:
		traces := ptraceotlp.NewExportRequest()
		if err = traces.UnmarshalProto(p.otlp); err == nil {
			items = traces.Traces().SpanCount()
		}
		r = traces
	default:
		return nil, errNewer
	}
	if err != nil {
		return nil, fmt.Errorf("its payload is not OTLP: %w", err)
	}
	if items != int(f.Header.Items) {
		return nil, fmt.Errorf("its payload has %d items, its header says %d", items, f.Header.Items)
	}
	return r, nil
}
