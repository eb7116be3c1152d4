package lokiexporter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// entry is a log record on its way into a request. Its line stays where the
// record has it; its structured metadata is encoded, in two pieces: its own, and
// that of its resource and scope, which all their entries share.
type entry struct {
	at       int64 // unix nanoseconds
	line     string
	own      int // where its own metadata begins in the batch's arena
	ownBytes int32
	size     int32 // of its message, without tag and length
	shared   int32 // index in the batch, of that of its resource and scope
	stream   int32 // index in the batch
	part     int32 // of the call: see input
	state    state
	cut      cut
	apart    bool // all of the metadata is its own
}

// state says what is known of an entry's delivery.
type state uint8

const (
	pending state = iota
	taken         // Loki has it
	refused       // Loki has refused it for good
)

// cut says what of an entry was shortened to fit Loki's limits.
type cut uint8

const (
	cutLine cut = 1 << iota
	cutMetadata
)

// framed is what an entry takes in a stream.
func (e *entry) framed() int { return sizeOfField(int(e.size)) }

// shared is the metadata of a resource and scope.
type shared struct {
	encoded []byte // part of an arena
	number  int32  // of the resource in the call: each ResourceLogs is one of its own
	read    bool   // the scope is readScope
	// What they are made from, and once somebody has asked: what knows them by their
	// content.
	origin          *direct.Piece
	resource, scope []byte
	key             uint64
}

// stream is the entries of one label set: entries[order[first:first+n]] of the
// batch, sorted by time.
type stream struct {
	labels   string
	late     bool // its entries are of one stretch of time long past: see late.go
	id       uint64
	stretch  int64
	first    int
	n        int
	bytes    int   // of the framed entries
	newest   int64 // until now, of the entries
	unsorted bool  // they did not come in the order of their time
	ties     bool  // or several of the same time came one after the other
}

// note counts an entry of a time.
func (s *stream) note(at int64) {
	if s.n > 0 {
		s.unsorted = s.unsorted || at < s.newest
		s.ties = s.ties || at == s.newest
	}
	s.newest = at
	s.n++
}

// batch is what one tenant gets of a call. It refers to the records it was made
// of, and is used again once it is released.
type batch struct {
	entries []entry
	arena   []byte // metadata of the entries, encoded
	shared  []shared
	streams []stream
	order   []int32
	byID    map[uint64]int32 // streams
	labels  texts            // of streams
}

var batches = sync.Pool{New: func() any { return &batch{byID: make(map[uint64]int32)} }}

// keptEntries and keptBytes bound what a released batch keeps of its memory.
const (
	keptEntries = 64 << 10
	keptBytes   = 16 << 20
)

func (b *batch) release() {
	if cap(b.entries) > keptEntries || cap(b.arena) > keptBytes {
		return
	}
	b.reset()
	batches.Put(b)
}

func (b *batch) reset() {
	clear(b.entries)
	clear(b.shared)
	clear(b.streams)
	clear(b.byID)
	b.labels.forget()
	b.entries, b.arena, b.shared, b.streams, b.order = b.entries[:0], b.arena[:0], b.shared[:0], b.streams[:0], b.order[:0]
}

// texts keeps strings in few pieces of memory, which is used again.
type texts struct{ piece []byte }

func (t *texts) keep(text []byte) string {
	if cap(t.piece)-len(t.piece) < len(text) {
		t.piece = make([]byte, 0, max(len(text), min(2*cap(t.piece), keptTexts), 1<<10))
	}
	start := len(t.piece)
	t.piece = append(t.piece, text...)
	return otlpwire.Text(t.piece[start:])
}

const keptTexts = 256 << 10

// forget is for when nobody uses the strings.
func (t *texts) forget() {
	if t.piece = t.piece[:0]; cap(t.piece) > keptTexts {
		t.piece = nil
	}
}

// stream returns the index of the stream of a label set and stretch of time, known
// by a hash of both.
func (b *batch) stream(labels []byte, stretch int64, id uint64) int32 {
	for ; ; id++ { // until the hash is one of its own
		index, found := b.byID[id]
		if !found {
			index = int32(len(b.streams))
			b.byID[id] = index
			b.streams = append(b.streams, stream{labels: b.labels.keep(labels), late: stretch != 0, stretch: stretch, id: id})
			return index
		}
		if s := &b.streams[index]; s.stretch == stretch && s.labels == string(labels) {
			return index
		}
	}
}

func (b *batch) own(e *entry) []byte { return b.arena[e.own : e.own+int(e.ownBytes)] }

func (b *batch) of(s *stream) []int32 { return b.order[s.first : s.first+s.n] }

// group brings the entries of each stream together, sorted by time, those of
// the same time as they came.
func (b *batch) group() {
	first := 0
	for i := range b.streams {
		s := &b.streams[i]
		s.first = first
		first += s.n
		s.n = 0
	}
	b.order = slices.Grow(b.order[:0], len(b.entries))[:len(b.entries)]
	for i := range b.entries {
		s := &b.streams[b.entries[i].stream]
		b.order[s.first+s.n] = int32(i)
		s.n++
	}
	for i := range b.streams {
		s := &b.streams[i]
		if s.unsorted {
			slices.SortFunc(b.of(s), func(x, y int32) int { // and then as they came
				return cmp.Or(cmp.Compare(b.entries[x].at, b.entries[y].at), cmp.Compare(x, y))
			})
		}
		if s.unsorted || s.ties {
			b.markRepetitions(s)
		}
	}
}

// markRepetitions numbers entries that are equal in time, line and metadata.
// Loki stores such entries once, but a program that says something twice in the
// same instant said it twice. Lines of one container that come in several resources
// were read at several times: those that are equal are one line, read again.
func (b *batch) markRepetitions(s *stream) {
	order := b.of(s)
	for start := 0; start < len(order); {
		end := start + 1
		for end < len(order) && b.entries[order[end]].at == b.entries[order[start]].at {
			end++
		}
		if end-start > 1 {
			s.bytes += b.markInstant(order[start:end])
		}
		start = end
	}
}

// fewEntries of one instant are compared with each other.
const fewEntries = 16

// markInstant handles the entries of one instant and returns the bytes added.
func (b *batch) markInstant(order []int32) int {
	if len(order) > fewEntries {
		return b.markMany(order)
	}
	added := 0
	var seen [fewEntries]int // of an entry that others repeat: how often until now
	for i := 1; i < len(order); i++ {
		for k := range i {
			if seen[k] < 0 || !b.same(&b.entries[order[k]], &b.entries[order[i]]) {
				continue
			}
			seen[k] = max(seen[k], 1) + 1
			added += b.addOwn(&b.entries[order[i]], repetitionName, strconv.Itoa(seen[k]))
			seen[i] = -1 // is not one that others repeat
			break
		}
	}
	return added
}

func (b *batch) markMany(order []int32) int {
	type kind struct {
		entry *entry
		seen  int
	}
	added := 0
	byLine := make(map[string][]*kind, len(order))
	for _, i := range order {
		e := &b.entries[i]
		var found *kind
		for _, k := range byLine[e.line] {
			if b.same(k.entry, e) {
				found = k
				break
			}
		}
		if found == nil {
			byLine[e.line] = append(byLine[e.line], &kind{e, 1})
			continue
		}
		found.seen++
		added += b.addOwn(e, repetitionName, strconv.Itoa(found.seen))
	}
	return added
}

// same says whether of two entries of one instant one repeats the other.
func (b *batch) same(x, y *entry) bool {
	return x.line == y.line && !b.readAgain(x, y) && b.sameMetadata(x, y)
}

// readAgain says whether a line would be the other one, read another time.
func (b *batch) readAgain(x, y *entry) bool {
	first, second := &b.shared[x.shared], &b.shared[y.shared]
	return first.read && first.number != second.number
}

func (b *batch) sameMetadata(x, y *entry) bool {
	if x.shared == y.shared && x.apart == y.apart {
		return bytes.Equal(b.own(x), b.own(y))
	}
	return len(b.own(x))+len(b.common(x)) == len(b.own(y))+len(b.common(y)) && bytes.Equal(b.metadata(x), b.metadata(y))
}

// common returns the encoded metadata that an entry shares with others.
func (b *batch) common(e *entry) []byte {
	if e.apart {
		return nil
	}
	return b.shared[e.shared].encoded
}

// metadata returns the encoded metadata of an entry in one piece.
func (b *batch) metadata(e *entry) []byte { return slices.Concat(b.own(e), b.common(e)) }

// addOwn adds a pair to an entry's own metadata and returns the bytes added.
func (b *batch) addOwn(e *entry, name, value string) int {
	before := e.framed()
	start := len(b.arena)
	b.arena = append(b.arena, b.own(e)...)
	b.arena = appendPair(b.arena, name, value)
	e.size += int32(len(b.arena)-start) - e.ownBytes
	e.own, e.ownBytes = start, int32(len(b.arena)-start)
	return e.framed() - before
}

var keySeed = maphash.MakeSeed()

// key knows an entry by its content, for the life of the process, whatever
// other entries are sent with it.
func (b *batch) key(e *entry) uint64 {
	var h maphash.Hash
	h.SetSeed(keySeed)
	var numbers [24]byte
	from := &b.shared[e.shared]
	if from.key == 0 {
		from.key = from.resourceKey()
	}
	binary.LittleEndian.PutUint64(numbers[:], from.key)
	binary.LittleEndian.PutUint64(numbers[8:], uint64(e.at))
	binary.LittleEndian.PutUint64(numbers[16:], uint64(len(e.line)))
	_, _ = h.Write(numbers[:])
	_, _ = h.WriteString(e.line)
	_, _ = h.Write(b.own(e))
	return h.Sum64()
}

// nameSet is a small set of names. Most questions are answered by its bits.
type nameSet struct {
	bits  uint64
	names []string
}

func nameBit(name string) uint64 {
	if name == "" {
		return 1
	}
	n := uint(len(name))
	return 1 << ((n*5 + uint(name[0])*7 + uint(name[n/2])*11 + uint(name[n-1])*3) & 63)
}

func (s *nameSet) add(name string) {
	s.bits |= nameBit(name)
	s.names = append(s.names, name)
}

func (s *nameSet) has(name string) bool {
	return s.bits&nameBit(name) != 0 && slices.Contains(s.names, name)
}
