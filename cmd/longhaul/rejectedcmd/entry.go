package rejectedcmd

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// entry is one rejected frame; its JSON is an interface for scripts.
type entry struct {
	// Sequence is its number in the stream: what show, replay and drop take.
	Sequence uint64    `json:"sequence"`
	Rejected time.Time `json:"rejected"`
	Signal   string    `json:"signal"`
	// Cluster and Node are those that published it, whatever the frame says.
	Cluster     string `json:"cluster"`
	Node        string `json:"node"`
	Destination string `json:"destination"`
	Reason      string `json:"reason"`
	Bytes       int    `json:"bytes"`
	// Damaged says why the rest could not be read: it is no frame.
	Damaged string     `json:"damaged,omitempty"`
	Epoch   string     `json:"epoch,omitempty"`
	Lane    string     `json:"lane,omitempty"`
	Number  uint64     `json:"number,omitempty"`
	Items   uint32     `json:"items,omitempty"`
	First   *time.Time `json:"first,omitempty"`
	Last    *time.Time `json:"last,omitempty"`

	signal  frame.Signal
	origin  hub.Origin
	header  frame.Header
	payload []byte
}

func newEntry(sequence uint64, at time.Time, subject string, headers nats.Header, data []byte) *entry {
	e := &entry{
		Sequence: sequence, Rejected: at.UTC(), Bytes: len(data), Reason: printable(headers.Get(hub.ReasonHeader)),
		Destination: cmp.Or(headers.Get(hub.DestinationHeader), hub.DefaultDestination),
	}
	var err error
	if e.signal, e.origin, err = hub.ParseRejectedSubject(subject); err == nil {
		e.Signal, e.Cluster, e.Node = e.signal.String(), e.origin.Cluster, e.origin.Node
		err = e.parse(data)
	}
	if err != nil {
		e.Damaged = printable(err.Error())
	}
	return e
}

func (e *entry) parse(data []byte) error {
	header, payload, n, err := frame.Parse(data)
	switch {
	case err != nil:
		return err
	case header.Signal != e.signal:
		return errors.New("the frame's signal is not the subject's")
	case n != len(data):
		return fmt.Errorf("%d bytes follow the frame", len(data)-n)
	case header.Number == 0:
		return errors.New("it has no number")
	}
	e.header, e.payload = header, payload
	e.Epoch, e.Lane, e.Number, e.Items = header.Epoch.String(), header.LaneID().String(), header.Number, header.Items
	e.First, e.Last = moment(header.First), moment(header.Last)
	return nil
}

func moment(nanoseconds int64) *time.Time {
	if nanoseconds <= 0 {
		return nil
	}
	at := time.Unix(0, nanoseconds).UTC()
	return &at
}

// printable replaces what a terminal could take for a command: a reason is what
// some backend said.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}
