package lokiexporter

import (
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Loki tells about an entry that an ingester refused (too far behind the newest
// of its stream, stream or tenant limits reached) only when the entry's stream
// is the last of the request: the answer for each stream replaces the one
// before it, up to and including 204. So that nothing is lost in silence:
//
//   - A stream that may be near its rate limit, and one with entries that may be
//     too far behind, travels alone.
//   - A stream that is new to Loki, which a limit of streams could refuse, stands
//     at the end of its request: where the limit is reached, Loki refuses all
//     streams from there on, and tells about the last.
//   - Once that limit has been met, streams end and begin anew within a request's
//     time. Then new streams travel alone too, until it has not been met for
//     cautionFor.
const cautionFor = recentFor

// part is a run of entries of one stream that fits a request.
type part struct {
	labels string
	order  []int32 // entries, by their index in the batch
	bytes  int     // of the framed entries
	stream int32
	alone  bool // it must not share a request
	fresh  bool // its stream is new to Loki
}

// message is the size of the part as a stream's message.
func (p *part) message() int { return sizeOfField(len(p.labels)) + p.bytes }

// framed is what the part takes in a request.
func (p *part) framed() int { return sizeOfField(p.message()) }

// request is what one push carries.
type request struct {
	parts   []part
	entries int
	bytes   int
}

func (r *request) add(p part) {
	r.parts = append(r.parts, p)
	r.entries += len(p.order)
	r.bytes += p.framed()
}

// appendTo encodes the request.
func (r *request) appendTo(dst []byte, b *batch) []byte {
	for i := range r.parts {
		p := &r.parts[i]
		dst = append(dst, tagStream)
		dst = protowire.AppendVarint(dst, uint64(p.message()))
		dst = append(dst, tagLabels)
		dst = protowire.AppendVarint(dst, uint64(len(p.labels)))
		dst = append(dst, p.labels...)
		for _, k := range p.order {
			e := &b.entries[k]
			dst = appendEntry(dst, e, b.own(e), b.common(e))
		}
	}
	return dst
}

// halves splits a request that the server finds too large. The first half holds
// the older entries of a stream that is in both.
func (r *request) halves() (first, second *request) {
	first, second = &request{}, &request{}
	half := r.entries / 2
	for _, p := range r.parts {
		n := min(max(half-first.entries, 0), len(p.order))
		older, newer := p, p
		older.order, newer.order = p.order[:n], p.order[n:]
		if n > 0 {
			first.add(older)
		}
		if n < len(p.order) {
			second.add(newer)
		}
	}
	return first, second
}

// measure sets the bytes of parts whose entries have been divided.
func (r *request) measure(b *batch) {
	r.bytes = 0
	for i := range r.parts {
		p := &r.parts[i]
		p.bytes = 0
		for _, k := range p.order {
			p.bytes += b.entries[k].framed()
		}
		r.bytes += p.framed()
	}
}

// apart makes a request of each part.
func (r *request) apart() []*request {
	requests := make([]*request, len(r.parts))
	for i, p := range r.parts {
		requests[i] = &request{}
		requests[i].add(p)
	}
	return requests
}

// planner packs the streams of a batch into requests of bounded size.
type planner struct {
	maxBytes int
	now      time.Time
	recent   *recentStreams
	cautious bool // the tenant is at its limit of streams
	risky    bool // late entries may be refused for being late
	rate     streamRate
}

// split cuts streams into parts: those of known streams first, then those of
// new ones.
func (p *planner) split(b *batch) []part {
	parts := make([]part, 0, len(b.streams))
	var fresh []part
	for i := range b.streams {
		s := &b.streams[i]
		known, room := p.recent.has(s.id, s.bytes, p.rate, p.now)
		one := part{labels: s.labels, stream: int32(i), fresh: !known}
		one.alone = !room || s.late && p.risky || one.fresh && p.cautious
		order := unanswered(b, b.of(s))
		for start := 0; start < len(order); {
			end, bytes := p.fit(b, s, order, start)
			one.order, one.bytes = order[start:end], bytes
			if one.fresh {
				fresh = append(fresh, one)
			} else {
				parts = append(parts, one)
			}
			start = end
		}
	}
	return append(parts, fresh...)
}

// unanswered leaves out the entries that Loki has answered for.
func unanswered(b *batch, order []int32) []int32 {
	answered := func(k int32) bool { return b.entries[k].state != pending }
	if !slices.ContainsFunc(order, answered) {
		return order
	}
	return slices.DeleteFunc(slices.Clone(order), answered)
}

// fit returns the end of the longest run of entries from start that fits a
// request, at least one, and its size.
func (p *planner) fit(b *batch, s *stream, order []int32, start int) (end, bytes int) {
	const framing = 2 * 10 // of the stream's message, at most
	// More than the burst of a stream's rate limit could never pass.
	room := min(p.maxBytes-len(s.labels)-framing, int(p.rate.burst/2))
	for end = start; end < len(order); end++ {
		size := b.entries[order[end]].framed()
		if end > start && bytes+size > room {
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
		if !part.alone && open != nil && open.bytes+part.framed() <= p.maxBytes {
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
