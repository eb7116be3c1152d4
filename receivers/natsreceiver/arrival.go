package natsreceiver

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// arrival is a message in the relay's hands: from the moment it is read until
// it is acknowledged or given back.
type arrival struct {
	msg     jetstream.Msg // nil once the frame is settled: its bytes are not needed any more
	reply   string        // where to acknowledge it
	key     custody.Key
	header  frame.Header
	class   frame.Class // of the lane by now
	payload []byte      // aliases the message
	floor   uint64
	lost    custody.Counts
	bytes   int64 // what it takes of the buffer
	reading frame.Signal
	poison  error  // why it cannot be a frame of its subject; nil for a good one
	late    bool   // it was named as lost before it came
	version uint64 // what must be durable before it is acknowledged
}

var errOtherSignal = errors.New("the frame's signal is not the subject's")

// readArrival checks a message's subject, frame and headers. With an error the
// arrival still carries what could be read of its origin.
func readArrival(msg jetstream.Msg) (*arrival, error) {
	a := &arrival{msg: msg, reply: msg.Reply(), bytes: int64(len(msg.Data()))}
	signal, origin, err := hub.ParseFrameSubject(msg.Subject())
	a.key.Origin, a.key.Lane.Signal = origin, signal
	if err != nil {
		return a, err
	}
	header, payload, n, err := frame.Parse(msg.Data())
	if err != nil {
		return a, err
	}
	switch {
	case header.Signal != signal:
		return a, errOtherSignal
	case n != len(msg.Data()):
		return a, fmt.Errorf("%d bytes follow the frame", len(msg.Data())-n)
	case header.Number == 0 || header.Floor == 0 || header.Floor > header.Number:
		return a, fmt.Errorf("number %d and floor %d cannot be", header.Number, header.Floor)
	}
	a.key.Epoch = header.Epoch
	a.key.Lane.Seq = header.Lane
	a.header, a.payload = header, payload
	a.floor, a.lost, a.class = header.Floor, header.Lost, header.Class
	a.readHeaders()
	return a, nil
}

// readHeaders takes the spool's newer word on what it has lost, if the message
// carries one. Headers that cannot be read are as good as none.
func (a *arrival) readHeaders() {
	if a.msg.Headers().Get(hub.ClassHeader) == frame.Backlog.String() {
		a.class = frame.Backlog
	}
	floor, err := strconv.ParseUint(a.msg.Headers().Get(hub.FloorHeader), 10, 64)
	if err != nil || floor <= a.floor || floor > a.header.Number {
		return
	}
	var lost custody.Counts
	for i, text := range strings.Split(a.msg.Headers().Get(hub.LostHeader), ",") {
		count, err := strconv.ParseUint(text, 10, 64)
		if err != nil || i >= len(lost) {
			return
		}
		lost[i] = max(count, a.header.Lost[i])
	}
	a.floor, a.lost = floor, lost
}

// words are what the ledger needs of it.
func (a *arrival) words() custody.Frame {
	h := &a.header
	return custody.Frame{
		Number: h.Number, Items: uint64(h.Items), Before: h.Before, First: h.First, Last: h.Last,
		Floor: a.floor, Lost: a.lost, Written: h.Lost,
	}
}

// worker chooses who delivers an origin's frames: always the same.
func (a *arrival) worker(workers int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(a.key.Origin.Cluster)) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(a.key.Origin.Node))
	return int(h.Sum32() % uint32(workers))
}
