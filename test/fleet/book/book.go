// Package book keeps the fleet's accounts: which frames the nodes wrote, which of
// them arrived at the backends, how often, in what order and after how long, and
// whether anything was confirmed that had not arrived. It knows frames by their
// markers (package frames), so nothing in it is taken on trust.
package book

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// Book is safe for concurrent use.
type Book struct {
	nodes []page

	mu     sync.Mutex
	delays map[frame.Signal][]uint32 // of live lanes, milliseconds
	counts map[frame.Signal]*Counts
	wrongs Wrongs
}

// Counts of one signal.
type Counts struct {
	// Written and Arrived are frames, each once; Again are arrivals of frames that
	// had arrived before.
	Written, Arrived, Again int64
	// Items are what the backend counted, Expected what the arrived frames hold, each
	// as often as it arrived.
	Items, Expected int64
	// WrittenItems are those of all written frames.
	WrittenItems int64
	// Reordered are frames of logs left behind by an outage that arrived behind later
	// ones: Loki's exporter sends entries that are late in requests of their own.
	Reordered int64
}

// Wrongs are what must not happen.
type Wrongs struct {
	// Disorder are frames that arrived for the first time after a later one of their
	// lane, but for Counts.Reordered.
	Disorder int64
	// Misplaced are frames whose data names another cluster than the one they are from.
	Misplaced int64
	// Unknown are markers of frames that nobody wrote.
	Unknown int64
	// Untrue are confirmations of frames that had not arrived.
	Untrue int64

	example string
}

// page is one node's.
type page struct {
	mu    sync.Mutex
	lanes []*track
	live  [4]uint32 // by signal: the live lane's number
	link  time.Time // since when it has its link
}

// track is one lane of one life of a spool.
type track struct {
	life      uint8
	lane      frame.Lane
	written   uint64
	confirmed uint64
	highest   uint64
	arrived   []uint64 // a bit for each number
	whole     uint64   // all up to it have arrived
}

// New returns the book of so many nodes.
func New(nodes int) *Book {
	b := &Book{nodes: make([]page, nodes), delays: make(map[frame.Signal][]uint32), counts: make(map[frame.Signal]*Counts)}
	for _, signal := range frame.Signals {
		b.counts[signal] = &Counts{}
	}
	return b
}

func (p *page) track(life uint8, lane frame.Lane) *track {
	for _, t := range p.lanes {
		if t.lane == lane && t.life == life {
			return t
		}
	}
	t := &track{life: life, lane: lane}
	p.lanes = append(p.lanes, t)
	return t
}

// Lives says which lane of a signal is a node's live one.
func (b *Book) Lives(node int, lane frame.Lane) {
	p := &b.nodes[node]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[lane.Signal] = lane.Seq
}

// Linked notes that a node has its link again.
func (b *Book) Linked(node int, at time.Time) {
	p := &b.nodes[node]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = at
}

// delay is how long a frame took from when it could have left: from its writing, or from
// when its node had a link, if that was later.
func (p *page) delay(written, arrived time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.After(written) {
		written = p.link
	}
	return max(0, arrived.Sub(written))
}

// Wrote notes frames of a lane, up to a number.
func (b *Book) Wrote(node int, life uint8, lane frame.Lane, number uint64, framesWritten, samples int) {
	p := &b.nodes[node]
	p.mu.Lock()
	p.track(life, lane).written = number
	p.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counts[lane.Signal]
	c.Written += int64(framesWritten)
	c.WrittenItems += int64(samples)
}

// Arrival is a frame's marker, the cluster that the data around it names (empty:
// none) and the one it is from.
type Arrival struct {
	frames.Marker
	Named, Cluster string
}

// Arrived notes what one request brought: so many items and these markers.
func (b *Book) Arrived(signal frame.Signal, items int, at time.Time, arrivals []Arrival) {
	var add Counts
	var wrongs Wrongs
	var delays []uint32
	add.Items = int64(items)
	for i := range arrivals {
		m := &arrivals[i].Marker
		add.Expected += int64(m.Samples)
		if named := arrivals[i].Named; named != "" && named != arrivals[i].Cluster {
			wrongs.example = fmt.Sprintf("%s of node %d arrived as %q", m.Signal, m.Origin, named)
			wrongs.Misplaced++
		}
		if int(m.Origin) >= len(b.nodes) {
			wrongs.Unknown++
			continue
		}
		switch b.nodes[m.Origin].arrived(m, &wrongs) {
		case again:
			add.Again++
		case live:
			delays = append(delays, uint32(b.nodes[m.Origin].delay(m.Written, at).Milliseconds()))
			add.Arrived++
		case late:
			add.Arrived++
		case reordered:
			add.Arrived++
			add.Reordered++
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counts[signal]
	c.Items += add.Items
	c.Expected += add.Expected
	c.Arrived += add.Arrived
	c.Again += add.Again
	c.Reordered += add.Reordered
	b.delays[signal] = append(b.delays[signal], delays...)
	b.wrongs.add(&wrongs)
}

func (w *Wrongs) add(more *Wrongs) {
	w.Disorder += more.Disorder
	w.Misplaced += more.Misplaced
	w.Unknown += more.Unknown
	w.Untrue += more.Untrue
	if w.example == "" {
		w.example = more.example
	}
}

// Example tells of one of them.
func (w *Wrongs) Example() string { return w.example }

type verdict int

const (
	nothing verdict = iota
	again
	live
	late
	reordered
)

func (p *page) arrived(m *frames.Marker, wrongs *Wrongs) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.track(m.Life, frame.Lane{Signal: m.Signal, Seq: uint32(m.Lane)})
	if m.Number == 0 || m.Number > t.written {
		wrongs.Unknown++
		return nothing
	}
	at, bit := m.Number/64, uint64(1)<<(m.Number%64)
	for uint64(len(t.arrived)) <= at {
		t.arrived = append(t.arrived, 0)
	}
	if t.arrived[at]&bit != 0 {
		return again
	}
	t.arrived[at] |= bit
	isLive := uint32(m.Lane) >= p.live[m.Signal]
	behind := m.Number < t.highest
	if behind && (isLive || m.Signal != frame.Logs) {
		wrongs.Disorder++
		wrongs.example = fmt.Sprintf("frame %d of node %d, life %d, lane %s arrived behind %d", m.Number, m.Origin, m.Life, t.lane, t.highest)
	}
	t.highest = max(t.highest, m.Number)
	for t.has(t.whole + 1) {
		t.whole++
	}
	switch {
	case isLive:
		return live
	case behind && m.Signal == frame.Logs:
		return reordered
	}
	return late
}

func (t *track) has(number uint64) bool {
	at := number / 64
	return at < uint64(len(t.arrived)) && t.arrived[at]&(1<<(number%64)) != 0
}

// Confirmed notes the relay's word that all frames up to a number have arrived.
func (b *Book) Confirmed(node int, life uint8, lane frame.Lane, number uint64) {
	p := &b.nodes[node]
	p.mu.Lock()
	t := p.track(life, lane)
	untrue := number > t.whole && number > t.confirmed
	t.confirmed = max(t.confirmed, number)
	p.mu.Unlock()
	if untrue {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wrongs.add(&Wrongs{Untrue: 1, example: fmt.Sprintf("node %d, life %d, lane %s was confirmed up to %d", node, life, lane, number)})
	}
}

// Counts returns the present counts by signal, and what is wrong.
func (b *Book) Counts() (map[frame.Signal]Counts, Wrongs) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make(map[frame.Signal]Counts, len(b.counts))
	for signal, c := range b.counts {
		counts[signal] = *c
	}
	return counts, b.wrongs
}

// Open returns how many frames have not arrived, and how many are not confirmed.
func (b *Book) Open() (arriving, unconfirmed int64) {
	for i := range b.nodes {
		p := &b.nodes[i]
		p.mu.Lock()
		for _, t := range p.lanes {
			unconfirmed += int64(t.written - min(t.confirmed, t.written))
			if t.whole == t.written {
				continue
			}
			for n := t.whole + 1; n <= t.written; n++ {
				if !t.has(n) {
					arriving++
				}
			}
		}
		p.mu.Unlock()
	}
	return arriving, unconfirmed
}

// Missing lists the first lanes with frames that have not arrived, for people.
type Missing struct {
	Node    int
	Life    uint8
	Lane    frame.Lane
	From    uint64
	Written uint64
}

// Missing returns at most so many lanes from which something is missing.
func (b *Book) Missing(most int) (list []Missing) {
	for i := range b.nodes {
		p := &b.nodes[i]
		p.mu.Lock()
		for _, t := range p.lanes {
			if t.whole < t.written && len(list) < most {
				list = append(list, Missing{i, t.life, t.lane, t.whole + 1, t.written})
			}
		}
		p.mu.Unlock()
	}
	return list
}

// Delays are quantiles of the time from a frame's writing to its arrival; of a frame
// that was written without a link, from when its node had one.
type Delays struct {
	Frames   int
	P50, P99 time.Duration
	Most     time.Duration
}

// TakeDelays returns the delays of live frames of all signals since the last call.
func (b *Book) TakeDelays() (all Delays, bySignal map[frame.Signal]Delays) {
	b.mu.Lock()
	taken := b.delays
	b.delays = make(map[frame.Signal][]uint32)
	b.mu.Unlock()
	bySignal = make(map[frame.Signal]Delays)
	var every []uint32
	for signal, list := range taken {
		every = append(every, list...)
		bySignal[signal] = quantiles(list)
	}
	return quantiles(every), bySignal
}

func quantiles(list []uint32) (d Delays) {
	if len(list) == 0 {
		return d
	}
	slices.Sort(list)
	at := func(q float64) time.Duration {
		return time.Duration(list[min(len(list)-1, int(q*float64(len(list))))]) * time.Millisecond
	}
	return Delays{len(list), at(.5), at(.99), at(1)}
}

// Mark remembers what was written up to a moment.
type Mark struct {
	book  *Book
	lanes []marked
}

type marked struct {
	node  int
	track *track
	upTo  uint64
}

// Mark returns what has been written and has not arrived.
func (b *Book) Mark() *Mark {
	m := &Mark{book: b}
	for i := range b.nodes {
		p := &b.nodes[i]
		p.mu.Lock()
		for _, t := range p.lanes {
			if t.whole < t.written {
				m.lanes = append(m.lanes, marked{i, t, t.written})
			}
		}
		p.mu.Unlock()
	}
	return m
}

// Left is how many frames of it have still not arrived.
func (m *Mark) Left() (left int64) {
	for _, l := range m.lanes {
		p := &m.book.nodes[l.node]
		p.mu.Lock()
		left += int64(l.upTo - min(l.upTo, l.track.whole))
		p.mu.Unlock()
	}
	return left
}
