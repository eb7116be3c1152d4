package lokiexporter

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/grafana/loki/pkg/push"
)

// Loki tells about an entry that an ingester refused (too far behind the newest
// of its stream, stream or tenant limits reached) only when the entry's stream
// is the last of the request: the answer for each stream replaces the one
// before it, up to and including 204. So that nothing is lost in silence, a
// stream that could be refused travels alone:
const (
	// lateAfter: an entry is refused when it is more than half of Loki's
	// max_chunk_age (2h by default) behind the newest of its stream, which in
	// turn can be 10 minutes ahead of the clock. What is younger than this
	// cannot be, down to a max_chunk_age of 80 minutes.
	lateAfter = 30 * time.Minute
	// largeStreamBytes: a stream that brings this much in one batch may be near
	// its rate limit (3 MB/s, burst 15 MB).
	largeStreamBytes = 64 << 10
	// recentFor: a stream that Loki took this recently is still open there, so
	// it is not one that a limit of streams could refuse. Loki closes a stream
	// after 30 minutes without entries.
	recentFor = 10 * time.Minute
)

// part is a run of entries of one stream that fits a request.
type part struct {
	labels  string
	entries []push.Entry
	bytes   int
	alone   bool // it must not share a request
	large   bool // it is of a large stream
}

// request is what one push carries.
type request struct {
	parts   []part
	entries int
	bytes   int
}

func (r *request) add(p part) {
	r.parts = append(r.parts, p)
	r.entries += len(p.entries)
	r.bytes += p.bytes
}

func (r *request) message() *push.PushRequest {
	message := &push.PushRequest{Streams: make([]push.Stream, len(r.parts))}
	for i, p := range r.parts {
		message.Streams[i] = push.Stream{Labels: p.labels, Entries: p.entries}
	}
	return message
}

// halves splits a request that the server finds too large. The first half holds
// the older entries of a stream that is in both.
func (r *request) halves() (first, second *request) {
	first, second = &request{}, &request{}
	half := r.entries / 2
	for _, p := range r.parts {
		n := min(max(half-first.entries, 0), len(p.entries))
		older, newer := p, p
		older.entries, newer.entries = p.entries[:n], p.entries[n:]
		older.bytes = p.bytes / 2 // an estimate will do: halves are not packed again
		newer.bytes = p.bytes - older.bytes
		if n > 0 {
			first.add(older)
		}
		if n < len(p.entries) {
			second.add(newer)
		}
	}
	return first, second
}

// planner packs streams into requests of bounded size.
type planner struct {
	maxBytes int
	recent   recentStreams
	now      func() time.Time
}

// entryFraming is what an entry takes beside its own bytes: tag and length.
// streamFraming likewise, for two nested messages.
const (
	entryFraming  = 5
	streamFraming = 12
)

// split cuts streams into parts. What the parts of a stream are depends on the
// stream only, so that a repeated call has the same ones.
func (p *planner) split(streams []*stream) []part {
	parts := make([]part, 0, len(streams))
	for _, s := range streams {
		alone := p.risky(s)
		for start := 0; start < len(s.entries); {
			end, bytes := p.fit(s, start)
			parts = append(parts, part{s.labels, s.entries[start:end], bytes, alone, s.large()})
			start = end
		}
	}
	return parts
}

// fit returns the end of the longest run of entries from start that fits a
// request, at least one, and its size.
func (p *planner) fit(s *stream, start int) (end, bytes int) {
	bytes = len(s.labels) + streamFraming
	for end = start; end < len(s.entries); end++ {
		size := s.entries[end].Size() + entryFraming
		if end > start && bytes+size > p.maxBytes {
			break
		}
		bytes += size
	}
	return end, bytes
}

// pack makes requests of parts, in the order in which they are to be sent: the
// parts of one stream follow each other in time.
func (p *planner) pack(parts []part) []*request {
	var (
		requests []*request
		open     *request // the one that harmless streams share
	)
	for _, part := range parts {
		if !part.alone && open != nil && open.bytes+part.bytes <= p.maxBytes {
			open.add(part)
			continue
		}
		next := &request{}
		next.add(part)
		requests = append(requests, next)
		if !part.alone {
			open = next
		}
	}
	return requests
}

// hash knows a part by its content, for the life of the process.
func (p *part) hash() uint64 {
	var (
		h      maphash.Hash
		number [8]byte
	)
	h.SetSeed(partSeed)
	text := func(s string) {
		binary.LittleEndian.PutUint64(number[:], uint64(len(s)))
		_, _ = h.Write(number[:])
		_, _ = h.WriteString(s)
	}
	text(p.labels)
	for _, e := range p.entries {
		binary.LittleEndian.PutUint64(number[:], uint64(e.Timestamp.UnixNano()))
		_, _ = h.Write(number[:])
		text(e.Line)
		for _, m := range e.StructuredMetadata {
			text(m.Name)
			text(m.Value)
		}
	}
	return h.Sum64()
}

var partSeed = maphash.MakeSeed()

func (p *planner) risky(s *stream) bool {
	return s.large() ||
		s.entries[0].Timestamp.Before(p.now().Add(-lateAfter)) ||
		!p.recent.has(s.labels, p.now())
}

func (s *stream) large() bool { return s.bytes >= largeStreamBytes }

// recentStreams remembers by hash which streams Loki took lately, in two
// generations, so that it forgets without being swept.
type recentStreams struct {
	mu       sync.Mutex
	seed     maphash.Seed
	young    map[uint64]struct{}
	old      map[uint64]struct{}
	youngest time.Time // when young began
}

func (r *recentStreams) turn(now time.Time) {
	if r.young == nil {
		r.seed = maphash.MakeSeed()
	}
	if age := now.Sub(r.youngest); r.young == nil || age >= recentFor/2 {
		r.old = r.young
		if age >= recentFor {
			r.old = nil
		}
		r.young, r.youngest = make(map[uint64]struct{}), now
	}
}

func (r *recentStreams) has(labels string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	hash := maphash.String(r.seed, labels)
	if _, found := r.young[hash]; found {
		return true
	}
	_, found := r.old[hash]
	return found
}

func (r *recentStreams) set(labels string, taken bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	hash := maphash.String(r.seed, labels)
	if taken {
		r.young[hash] = struct{}{}
		return
	}
	delete(r.young, hash)
	delete(r.old, hash)
}
