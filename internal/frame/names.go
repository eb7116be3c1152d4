package frame

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Signal is the kind of telemetry in a frame. A frame holds one kind only.
type Signal uint8

// The signals.
const (
	Logs    Signal = 1
	Metrics Signal = 2
	Traces  Signal = 3
)

// Signals lists every signal, in numeric order.
var Signals = []Signal{Logs, Metrics, Traces}

var signalNames = [...]string{Logs: "logs", Metrics: "metrics", Traces: "traces"}

// Valid reports whether s is one of Signals.
func (s Signal) Valid() bool { return s >= Logs && s <= Traces }

func (s Signal) String() string {
	if s.Valid() {
		return signalNames[s]
	}
	return "signal(" + strconv.Itoa(int(s)) + ")"
}

// ParseSignal reads what Signal.String wrote.
func ParseSignal(text string) (Signal, error) {
	for _, s := range Signals {
		if text == signalNames[s] {
			return s, nil
		}
	}
	return 0, fmt.Errorf("signal %q: must be logs, metrics or traces", text)
}

// Class says when a lane is shipped relative to the others.
type Class uint8

// The classes.
const (
	Live    Class = 1 // what is happening now
	Backlog Class = 2 // left behind by an outage; shipped beside Live
	Hold    Class = 3 // kept at the edge until somebody asks
)

var classNames = [...]string{Live: "live", Backlog: "backlog", Hold: "hold"}

// Valid reports whether c is one of the classes above.
func (c Class) Valid() bool { return c >= Live && c <= Hold }

func (c Class) String() string {
	if c.Valid() {
		return classNames[c]
	}
	return "class(" + strconv.Itoa(int(c)) + ")"
}

// Cause says why items will never arrive. It indexes Header.Lost.
type Cause uint8

// The causes. Their numbers are part of the format.
const (
	EvictedSpace Cause = 0 // deleted at the edge to stay within its disk space
	EvictedAge   Cause = 1 // deleted at the edge because too old to be wanted
	Corrupt      Cause = 2 // damaged on the disk of the edge
	TooLarge     Cause = 3 // could not be put into a frame
	Rejected     Cause = 4 // refused for good by a backend
	Unknown      Cause = 5 // missing, and nothing says why
)

// NumCauses is the length of Header.Lost; causes 6 and 7 are reserved.
const NumCauses = 8

// Causes lists the causes that have a meaning, in numeric order.
var Causes = []Cause{EvictedSpace, EvictedAge, Corrupt, TooLarge, Rejected, Unknown}

var causeNames = [...]string{"evicted_space", "evicted_age", "corrupt", "too_large", "rejected", "unknown"}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "cause(" + strconv.Itoa(int(c)) + ")"
}

// Epoch identifies one life of a spool: random, made when the spool is
// created. Numbers are comparable within an epoch only. Zero means none.
type Epoch uint64

// NewEpoch returns a random epoch, never zero.
func NewEpoch() Epoch {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
		if e := Epoch(binary.LittleEndian.Uint64(b[:])); e != 0 {
			return e
		}
	}
}

func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// ParseEpoch reads what Epoch.String wrote: exactly 16 hexadecimal digits.
func ParseEpoch(text string) (Epoch, error) {
	v, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 || v == 0 {
		return 0, fmt.Errorf("epoch %q: must be 16 hexadecimal digits, not all zero", text)
	}
	return Epoch(v), nil
}

// Lane names an ordered queue within a spool. Seq counts the lanes of a
// signal from 1; a sealed lane keeps its number for good.
type Lane struct {
	Signal Signal
	Seq    uint32
}

func (l Lane) String() string {
	return l.Signal.String() + "/" + strconv.FormatUint(uint64(l.Seq), 10)
}

// ParseLane reads what Lane.String wrote, such as "logs/1".
func ParseLane(text string) (Lane, error) {
	name, number, found := strings.Cut(text, "/")
	signal, err := ParseSignal(name)
	if !found || err != nil {
		return Lane{}, fmt.Errorf("lane %q: must be <signal>/<number>, such as logs/1", text)
	}
	seq, err := strconv.ParseUint(number, 10, 32)
	if err != nil || seq == 0 || strconv.FormatUint(seq, 10) != number {
		return Lane{}, fmt.Errorf("lane %q: the part after the slash must be a number from 1", text)
	}
	return Lane{Signal: signal, Seq: uint32(seq)}, nil
}
