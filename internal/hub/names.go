// Package hub knows how longhaul uses NATS: what subjects, streams, consumers
// and the custody bucket are called and how they are set, and how to connect
// so that a bad link is survived.
//
// Subjects carry the origin, because the hub's permissions are written on
// subjects: what stands there is the truth about where a frame came from.
//
//	longhaul.frames.<signal>.<cluster>.<node>     edge → hub    frames, kept in one stream a signal
//	longhaul.parts.<signal>.<count>.<partition>.<cluster>.<node>
//	                                              in the hub    what the stream makes of it: the subject under which a frame is kept
//	longhaul.hello.<cluster>.<node>               edge → relay  what the edge holds (core NATS)
//	longhaul.custody.<cluster>.<node>             relay → edge  what the backends have (core NATS)
//	longhaul.rejected.<signal>.<cluster>.<node>   relay → hub   frames a backend refused for good
//
// A name may hold letters, digits, '.', '_' and '-'. In a subject '.' is
// written '=', which no name can hold, so the mapping has an inverse.
package hub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
)

const (
	framesPrefix   = "longhaul.frames."
	partsPrefix    = "longhaul.parts."
	helloPrefix    = "longhaul.hello."
	custodyPrefix  = "longhaul.custody."
	rejectedPrefix = "longhaul.rejected."

	// HelloSubjects matches the hellos of every origin.
	HelloSubjects = helloPrefix + "*.*"

	// RejectedStream keeps frames that a backend refused for good.
	RejectedStream = "LONGHAUL_REJECTED"
	// CustodyBucket is the key-value bucket of the relays: their watermarks, who they are
	// and who owns which partition.
	CustodyBucket = "LONGHAUL_CUSTODY"

	// LayoutKey is the bucket key that says into how many partitions the streams are cut.
	LayoutKey = "layout"
	// memberPrefix and ownerPrefix begin the keys of the relays that live, and of
	// who owns a partition. They have two fields, watermarks three or four.
	memberPrefix = "member."
	ownerPrefix  = "owner."

	// DefaultDestination is the destination of a receiver that names none.
	DefaultDestination = "default"

	// MaxNameBytes bounds a cluster or node name, as Kubernetes bounds a label value.
	MaxNameBytes = 63
)

// Message headers. The standard Nats-Msg-Id stands beside them.
const (
	// FloorHeader is set on a frame whose own header is out of date because the
	// spool has lost frames since it was written, or holds none before it any more:
	// the lowest number still held.
	FloorHeader = "Longhaul-Floor"
	// LostHeader goes with FloorHeader: cumulative lost items by cause, comma separated.
	LostHeader = "Longhaul-Lost"
	// ClassHeader is set on a frame whose lane has another class by now than when
	// the frame was written: "backlog", once the lane was sealed.
	ClassHeader = "Longhaul-Class"
	// ReasonHeader says, on a rejected frame, why.
	ReasonHeader = "Longhaul-Reason"
	// DestinationHeader says, on a rejected frame, for which destination it was
	// refused; DefaultDestination when it is absent.
	DestinationHeader = "Longhaul-Destination"
	// ReplayHeader is set on a frame that an operator sends again from the rejected
	// stream: the destination it is for. To every other it is a repeat.
	ReplayHeader = "Longhaul-Replay"
)

// ErrSubject is returned for a subject that is not one of longhaul's.
var ErrSubject = errors.New("not a longhaul frame subject")

// Origin is where telemetry comes from, as the subject says it.
type Origin struct {
	Cluster, Node string
}

func (o Origin) String() string { return o.Cluster + "/" + o.Node }

// ValidName says whether a cluster or node name can stand in a subject.
func ValidName(name string) error {
	if name == "" {
		return errors.New("is empty")
	}
	if len(name) > MaxNameBytes {
		return fmt.Errorf("%q is longer than %d bytes", name, MaxNameBytes)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		default:
			return fmt.Errorf("%q holds %q; letters, digits, '.', '_' and '-' are allowed", name, r)
		}
	}
	return nil
}

func token(name string) string   { return strings.ReplaceAll(name, ".", "=") }
func untoken(text string) string { return strings.ReplaceAll(text, "=", ".") }

func (o Origin) tokens() string { return token(o.Cluster) + "." + token(o.Node) }

// StreamName is the stream that keeps a signal's frames.
func StreamName(signal frame.Signal) string {
	return "LONGHAUL_" + strings.ToUpper(signal.String())
}

// FrameSubject is where an origin publishes a signal's frames.
func FrameSubject(signal frame.Signal, o Origin) string {
	return framesPrefix + signal.String() + "." + o.tokens()
}

// RejectedSubject is where the relay keeps an origin's rejected frames.
func RejectedSubject(signal frame.Signal, o Origin) string {
	return rejectedPrefix + signal.String() + "." + o.tokens()
}

// RejectedSubjects matches a signal's rejected frames: of a cluster, a node, or of
// all where they are empty.
func RejectedSubjects(signal frame.Signal, cluster, node string) string {
	of := func(name string) string {
		if name == "" {
			return "*"
		}
		return token(name)
	}
	return rejectedPrefix + signal.String() + "." + of(cluster) + "." + of(node)
}

// ParseRejectedSubject is the inverse of RejectedSubject.
func ParseRejectedSubject(subject string) (frame.Signal, Origin, error) {
	rest, ok := strings.CutPrefix(subject, rejectedPrefix)
	fields := strings.Split(rest, ".")
	if !ok || len(fields) != 3 {
		return 0, Origin{}, fmt.Errorf("%w: %q", ErrSubject, subject)
	}
	s, err := parseOrigin(subject, Stored{}, fields[0], fields[1], fields[2])
	return s.Signal, s.Origin, err
}

// HelloSubject is where an origin says what it holds.
func HelloSubject(o Origin) string { return helloPrefix + o.tokens() }

// CustodySubject is where an origin hears what the backends have.
func CustodySubject(o Origin) string { return custodyPrefix + o.tokens() }

// ParseHelloSubject reads the origin from a hello's subject.
func ParseHelloSubject(subject string) (Origin, error) {
	rest, ok := strings.CutPrefix(subject, helloPrefix)
	fields := strings.Split(rest, ".")
	if !ok || len(fields) != 2 {
		return Origin{}, fmt.Errorf("%w: %q", ErrSubject, subject)
	}
	return Origin{untoken(fields[0]), untoken(fields[1])}, nil
}
