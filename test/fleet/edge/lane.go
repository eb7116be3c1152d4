package edge

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// As in internal/shipper and the nats exporter's defaults.
const (
	windowBytes    = 4 << 20
	publishTimeout = 30 * time.Second
	retryMin       = 250 * time.Millisecond
	retryMax       = 30 * time.Second
	positionWait   = 5 * time.Second
	rewindInterval = 2 * time.Second
)

// record is all that is kept of a frame: enough to make it again.
type record struct {
	template *frames.Template
	written  int64 // Unix nanoseconds
	before   uint64
	floor    uint64 // of the lane, when it was written
}

// lane is one lane of a node's spool and how far it is shipped.
type lane struct {
	name   frame.Lane
	sealed bool
	fresh  bool // begun in this life of the process

	floor   uint64 // number of held[0]
	held    []record
	before  uint64 // items of all frames up to now
	shipped uint64 // highest number below which the hub acknowledged all

	next       uint64 // to be published
	inFlight   int    // bytes published since shipped
	paced      int    // those of them that the sealed lanes' window counts
	acked      []uint64
	open       bool // the hub has acknowledged something of this voyage: the window is whole
	generation uint64
	rewound    time.Time
	retry      time.Duration
	notBefore  time.Time // of the next try
	sent       time.Time // when the oldest frame in flight was published
	positioned bool      // the relay's word was heard or waited for since the connect
	since      time.Time // a live lane: since when the hub has taken nothing of what there is; zero: it has
	stream     string
	allowance  shipper.Allowance // of a sealed lane
}

func newLane(name frame.Lane) *lane { return &lane{name: name, floor: 1, next: 1, fresh: true} }

// end is the number of the frame to be written next.
func (l *lane) end() uint64 { return l.floor + uint64(len(l.held)) }

func (l *lane) unsent() bool { return l.shipped+1 < l.end() }

// write appends a frame.
func (l *lane) write(t *frames.Template, at time.Time) uint64 {
	number := l.end()
	l.held = append(l.held, record{t, at.UnixNano(), l.before, l.floor})
	l.before += uint64(t.Items)
	return number
}

// confirm lets go of frames up to a number. It returns the bytes that were in
// flight of them.
func (l *lane) confirm(number uint64) {
	if number < l.floor || number >= l.end() {
		number = min(number, l.end()-1)
	}
	if number < l.floor {
		return
	}
	l.held = l.held[number-l.floor+1:]
	if len(l.held) == 0 {
		l.held = nil
	}
	l.floor = number + 1
	if number > l.shipped {
		l.advance(number)
	}
	if l.next < l.floor {
		l.next = l.floor
	}
}

// advance moves the cursor on.
func (l *lane) advance(to uint64) {
	l.shipped = to
	for len(l.acked) > 0 && l.acked[0] <= l.shipped+1 {
		l.shipped = max(l.shipped, l.acked[0])
		l.acked = l.acked[1:]
	}
}

// restart begins a voyage at a number: with a single frame.
func (l *lane) restart(from uint64, p *pace) {
	p.give(l.paced)
	l.shipped, l.next = from-1, from
	l.inFlight, l.paced, l.acked, l.open, l.sent = 0, 0, nil, false, time.Time{}
	l.allowance.Again()
}

// ack is the hub's answer to a publish.
type ack struct {
	lane       frame.Lane
	number     uint64
	generation uint64
	bytes      int
	sent       int64 // Unix milliseconds
	failed     bool
}

// reply is what parseReply reads: the hub's answer comes to it.
func appendReply(to []byte, node int, l *lane, number uint64, bytes int, now time.Time) []byte {
	for i, n := range [...]uint64{uint64(node), uint64(l.name.Signal), uint64(l.name.Seq), number, l.generation, uint64(bytes), uint64(now.UnixMilli())} {
		if i > 0 {
			to = append(to, '-')
		}
		to = strconv.AppendUint(to, n, 36)
	}
	return to
}

func parseReply(token string) (node int, a ack, ok bool) {
	var n [7]uint64
	i := 0
	for part := range strings.SplitSeq(token, "-") {
		v, err := strconv.ParseUint(part, 36, 64)
		if err != nil || i == len(n) {
			return 0, a, false
		}
		n[i] = v
		i++
	}
	a = ack{
		lane: frame.Lane{Signal: frame.Signal(n[1]), Seq: uint32(n[2])}, number: n[3],
		generation: n[4], bytes: int(n[5]), sent: int64(n[6]),
	}
	return int(n[0]), a, i == len(n)
}

// insert notes an acknowledgement that came before one of an earlier frame.
func insert(sorted []uint64, n uint64) []uint64 {
	at, found := slices.BinarySearch(sorted, n)
	if found {
		return sorted
	}
	return slices.Insert(sorted, at, n)
}
