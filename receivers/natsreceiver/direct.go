package natsreceiver

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pipeline"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
)

// directMemory is how often a byte of OTLP is in memory while it is delivered as it
// is: once here, the rest in the exporter's hands.
const directMemory = 3

// goDirect has outlets hand requests straight to the exporter behind them, where
// nothing is between and the exporter takes them.
func (c *core) goDirect(host component.Host) {
	with, ok := host.(interface {
		GetExporters() map[pipeline.Signal]map[component.ID]component.Component
	})
	if !ok {
		return
	}
	for _, d := range c.destinations {
		for signal, o := range d.outlets {
			id, ok := d.config.Direct[signal.String()]
			if !ok {
				continue
			}
			if to, ok := with.GetExporters()[pipelineSignals[signal]][id].(direct.Consumer); ok {
				o.sink = directTo(to)
				d.log.Info("frames go to the exporter as they are", zap.Stringer("signal", signal), zap.Stringer("exporter", id))
			}
		}
	}
}

var pipelineSignals = map[frame.Signal]pipeline.Signal{
	frame.Logs: pipeline.SignalLogs, frame.Metrics: pipeline.SignalMetrics, frame.Traces: pipeline.SignalTraces,
}

// directTo decompresses frames and hands them over as they are.
func directTo(to direct.Consumer) sink {
	return sink{memory: directMemory, deliver: func(ctx context.Context, arrivals []*arrival) (int, error) {
		pieces, at, err := decompress(arrivals)
		if err != nil {
			return at, err
		}
		err = to.ConsumeOTLP(ctx, pieces)
		if undecodable := (*direct.UndecodableError)(nil); errors.As(err, &undecodable) {
			return undecodable.Piece, fmt.Errorf("%w: %w", errNoRequest, undecodable.Err)
		}
		return -1, err
	}}
}

// decompress makes pieces of arrivals. They share one new buffer, which the exporter
// may point into: it is not used again. at is the first that does not decompress.
func decompress(arrivals []*arrival) (pieces []direct.Piece, at int, err error) {
	size := 0
	for _, a := range arrivals {
		size += int(a.header.Uncompressed)
	}
	buffer := make([]byte, size)
	pieces = make([]direct.Piece, len(arrivals))
	for i, a := range arrivals {
		// Each into a place of its own: a decoder gives back no more capacity than it
		// needs, so that appending the next would copy all that is before it.
		n := int(a.header.Uncompressed)
		otlp, err := a.decompress(buffer[:0:n])
		if err != nil {
			return nil, i, err
		}
		if err := a.denser(otlp, outlines); err != nil {
			return nil, i, err
		}
		buffer = buffer[n:]
		pieces[i] = direct.Piece{
			OTLP:    otlp,
			Cluster: a.key.Origin.Cluster, Node: a.key.Origin.Node, Backlog: a.class == frame.Backlog,
		}
	}
	return pieces, -1, nil
}
