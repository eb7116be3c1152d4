// Package direct is the short way from the nats receiver to an exporter: the OTLP
// requests of frames as they are, instead of pdata objects that are made for one
// reader and thrown away. Making them is up to half of what a relay's CPU does.
//
// A pipeline with a processor between the two, or with several exporters, goes by
// pdata as always. Relay configurations are looked through for pipelines in which
// nothing is between (Converter), and the receiver asks the exporter whether it can
// be given requests (Consumer).
package direct

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// Attributes of a resource that say where it comes from. The nats receiver writes
// them on every resource, whatever the edge wrote.
const (
	ClusterAttribute = "k8s.cluster.name"
	NodeAttribute    = "k8s.node.name"
	// LaneAttribute is "backlog" on what an outage left behind, and absent on live data.
	LaneAttribute = "longhaul.lane"
	backlog       = "backlog"
)

// Piece is the request of one frame.
type Piece struct {
	// OTLP is an Export{Logs,Metrics,Trace}ServiceRequest. It does not change, and it
	// may be pointed to after the call; what is kept for long should be copied,
	// because the whole request is kept with it.
	OTLP []byte
	// Cluster and Node are where the frame comes from: they stand above what the
	// request says.
	Cluster, Node string
	Backlog       bool // left behind by an outage
}

// Consumer is an exporter of one signal that takes requests as well as pdata.
type Consumer interface {
	component.Component
	// ConsumeOTLP delivers all pieces, as if they were one request with the origin
	// written on each resource. It returns nil when all is accepted, or refused for
	// good in part and counted; a permanent error (consumererror) when all is refused
	// for good; *UndecodableError, before anything is sent; *PartialError when only
	// some pieces are to be delivered again; and any other error when all are.
	ConsumeOTLP(ctx context.Context, pieces []Piece) error
}

// UndecodableError says that a piece is no OTLP request of the signal. Nothing was
// delivered of any piece of the call.
type UndecodableError struct {
	Piece int // its index
	Err   error
}

func (e *UndecodableError) Error() string { return fmt.Sprintf("piece %d: %s", e.Piece, e.Err) }

func (e *UndecodableError) Unwrap() error { return e.Err }

// PartialError says that some pieces are still to be delivered, wholly or in part.
// The exporter remembers what of them was answered for.
type PartialError struct {
	Err    error
	Failed []int // the pieces' indexes, ascending, none twice
}

func (e *PartialError) Error() string { return e.Err.Error() }

func (e *PartialError) Unwrap() error { return e.Err }

// Attributes appends to all the attributes of a Resource message, with those that
// say where it comes from put right. A nil Piece knows no origin: they are as they are.
func (p *Piece) Attributes(all []otlpwire.Attribute, resource []byte) ([]otlpwire.Attribute, error) {
	r := otlpwire.Read(resource)
	for r.Next() {
		switch r.Number {
		case 1:
			a, err := otlpwire.ReadAttribute(r.Bytes())
			if err != nil {
				return all, err
			}
			if p == nil || !ofOrigin(a.Key) {
				all = append(all, a)
			}
		case 2: // how many were dropped
			r.Varint()
		case 3:
			if err := checkEntity(r.Bytes()); err != nil {
				return all, err
			}
		}
	}
	if p == nil {
		return all, r.Err()
	}
	return p.AppendOrigin(all), r.Err()
}

func ofOrigin(attribute string) bool {
	return attribute == ClusterAttribute || attribute == NodeAttribute || attribute == LaneAttribute
}

// checkEntity looks for what pdata would not read in an EntityRef message.
func checkEntity(message []byte) error {
	r := otlpwire.Read(message)
	for r.Next() {
		if r.Number <= 4 {
			r.Bytes()
		}
	}
	return r.Err()
}

// AppendOrigin appends the attributes that say where a piece comes from.
func (p *Piece) AppendOrigin(all []otlpwire.Attribute) []otlpwire.Attribute {
	all = append(all,
		otlpwire.Attribute{Key: ClusterAttribute, Value: otlpwire.TextValue(p.Cluster)},
		otlpwire.Attribute{Key: NodeAttribute, Value: otlpwire.TextValue(p.Node)})
	if p.Backlog {
		all = append(all, otlpwire.Attribute{Key: LaneAttribute, Value: otlpwire.TextValue(backlog)})
	}
	return all
}
