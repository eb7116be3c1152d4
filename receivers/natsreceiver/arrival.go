package natsreceiver

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// arrival is a message in the relay's hands: from the moment it is read until it is
// settled, dropped or given back. It has one owner at a time: a queue, a worker or
// a parking.
type arrival struct {
	share   *share // the partition and destination that it was read for
	out     *outlet
	source  *source
	msg     *nats.Msg
	key     custody.Key
	header  frame.Header
	class   frame.Class // of the lane by now
	payload []byte      // aliases the message
	floor   uint64
	lost    custody.Counts
	bytes   int64 // what it has taken of the outlet's budget
	loaned  int64 // what it takes of what parking may use besides, while it is tried
	spilled bool  // the frame was let go of; it is read from the hub again to be tried
	seq     uint64
	poison  error // why it cannot be a frame of its subject; nil for a good one
	taken   bool  // the ledger has taken it
	late    bool  // it was named as lost before it came
	// replay is the destination for which an operator sends it again after it had been
	// refused; empty for what an edge published.
	replay string

	before, after *arrival // in the share's hands
	since         int64    // when it was read, Unix nanoseconds
}

// source is what a subject says, found once for each.
type source struct {
	signal frame.Signal
	origin hub.Origin
	hash   uint32 // of the origin
	err    error
	counts *clusterCounts
}

var errOtherSignal = errors.New("the frame's signal is not the subject's")

func newSource(subject string) *source {
	s := &source{}
	s.signal, s.origin, s.err = hub.ParseFrameSubject(subject)
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.origin.Cluster)) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(s.origin.Node))
	s.hash = h.Sum32()
	return s
}

// readArrival checks a message's frame and headers. What is wrong with it stands
// in poison; the arrival still carries what could be read of its origin.
func readArrival(msg *nats.Msg, from *source) *arrival {
	a := &arrival{msg: msg, source: from}
	a.key.Origin, a.key.Lane.Signal = from.origin, from.signal
	if from.err != nil {
		a.poison = from.err
		return a
	}
	data := msg.Data
	header, payload, n, err := frame.Parse(data)
	switch {
	case err != nil:
		a.poison = err
	case header.Signal != from.signal:
		a.poison = errOtherSignal
	case n != len(data):
		a.poison = fmt.Errorf("%d bytes follow the frame", len(data)-n)
	case header.Number == 0 || header.Floor == 0 || header.Floor > header.Number:
		a.poison = fmt.Errorf("number %d and floor %d cannot be", header.Number, header.Floor)
	}
	if a.poison != nil {
		return a
	}
	a.key.Epoch = header.Epoch
	a.key.Lane.Seq = header.Lane
	a.header, a.payload = header, payload
	a.floor, a.lost, a.class = header.Floor, header.Lost, header.Class
	if len(msg.Header) > 0 {
		a.readHeaders(msg.Header.Get)
	}
	return a
}

// readHeaders takes the spool's newer word on what it has lost, if the message
// carries one. Headers that cannot be read are as good as none.
func (a *arrival) readHeaders(get func(string) string) {
	if get(hub.ClassHeader) == frame.Backlog.String() {
		a.class = frame.Backlog
	}
	a.replay = get(hub.ReplayHeader)
	floor, err := strconv.ParseUint(get(hub.FloorHeader), 10, 64)
	if err != nil || floor <= a.floor || floor > a.header.Number {
		return
	}
	var lost custody.Counts
	for i, text := range strings.Split(get(hub.LostHeader), ",") {
		count, err := strconv.ParseUint(text, 10, 64)
		if err != nil || i >= len(lost) {
			return
		}
		lost[i] = max(count, a.header.Lost[i])
	}
	a.floor, a.lost = floor, lost
}

// sequence is the message's in the hub's stream; 0 if it is not known.
func (a *arrival) sequence() uint64 {
	if a.seq == 0 && a.msg.Reply != "" {
		if metadata, err := a.msg.Metadata(); err == nil {
			a.seq = metadata.Sequence.Stream
		}
	}
	return a.seq
}

// size is about what it takes of memory with its frame.
func (a *arrival) size() int64 { return int64(a.header.PayloadLen) + arrivalBytes }

// waits has it take so many bytes of the budget and no more: where that is less than
// it took, its frame is let go of.
func (a *arrival) waits(bytes int64) {
	if bytes < a.bytes {
		a.out.frames.giveBack(a.bytes - bytes)
		a.bytes, a.spilled = bytes, true
	}
	if a.spilled { // the reply subject stays: the settler reads it
		a.msg.Data, a.msg.Header, a.payload = nil, nil, nil
		a.giveBackLoan()
	}
}

// fetched gives it the frame that was let go of.
func (a *arrival) fetched(data []byte) error {
	header, payload, n, err := frame.Parse(data)
	if err != nil || n != len(data) || header != a.header {
		return jetstream.ErrMsgNotFound // the sequence is another message's: the hub has a new store
	}
	a.msg.Data, a.payload = data, payload
	a.loaned = int64(len(data))
	a.out.frames.used.Add(a.loaned)
	return nil
}

func (a *arrival) giveBackLoan() {
	a.out.frames.used.Add(-a.loaned)
	a.loaned = 0
}

// words are what the ledger needs of it.
func (a *arrival) words() custody.Frame {
	h := &a.header
	return custody.Frame{
		Number: h.Number, Items: uint64(h.Items), Before: h.Before, First: h.First, Last: h.Last,
		Floor: a.floor, Lost: a.lost, Written: h.Lost,
	}
}
