package spool

import (
	"os"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Confirm says that the backends have accepted every frame of the lane up to
// and including upTo. Segments that hold nothing else are deleted; the last one
// stays until a later one tells where numbering continues. Going back and going
// beyond what exists are ignored.
func (s *Spool) Confirm(id frame.Lane, upTo uint64) {
	s.mu.Lock()
	l := s.lanes[id]
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.confirmMu.Lock()
	defer l.confirmMu.Unlock()

	s.mu.Lock()
	upTo = min(upTo, l.next-1)
	if upTo <= l.confirmed || s.closed {
		s.mu.Unlock()
		return
	}
	// Only a segment that is confirmed in part needs a look at its headers.
	var part *segment
	var v view
	if seg := l.segmentFrom(upTo + 1); seg != nil && seg.low <= upTo {
		part, v = seg, s.viewOf(l, seg)
	}
	s.mu.Unlock()
	var partCounts counts
	counted := false
	if part != nil {
		partCounts, counted = s.countFile(&v, upTo)
	}

	s.mu.Lock()
	l.confirmed = upTo
	heldBefore := l.held().bytes
	whole := 0
	for i, seg := range l.segments {
		if seg.all.frames > 0 && seg.high > upTo {
			break
		}
		l.itemsConfirmed += seg.held().items
		seg.confirmed = seg.all
		if i < len(l.segments)-1 {
			whole = i + 1
		}
	}
	if part != nil && counted && !part.removed {
		l.itemsConfirmed += partCounts.items - part.confirmed.items
		part.confirmed = partCounts
	}
	traffic := s.traffic[id.Signal]
	traffic.BytesConfirmed += heldBefore - l.held().bytes
	s.traffic[id.Signal] = traffic
	freed := s.detach(l, whole)
	backlog := l.class != frame.Live
	s.mu.Unlock()
	if len(freed) > 0 {
		s.discard(l, freed)
	} else {
		s.saveLedger(l, false)
	}
	if backlog {
		l.ledger.close() // many lanes must not mean many open files
	}
}

// countFile measures the frames of a segment numbered upTo or lower.
func (s *Spool) countFile(v *view, upTo uint64) (sum counts, ok bool) {
	f, err := s.opts.fs.OpenFile(v.path, os.O_RDONLY)
	if err != nil {
		return counts{}, false
	}
	defer f.Close()
	sum, err = v.countTo(f, upTo)
	return sum, err == nil
}

// oldestFrame remembers the answer of OldestTime for a lane.
type oldestFrame struct {
	from uint64
	seg  *segment
	time time.Time
}

// OldestTime returns the time of the first frame numbered from or higher: of
// its newest item, or when it was appended if the items have no time or one in
// the future. It is zero if there is no such frame.
func (s *Spool) OldestTime(id frame.Lane, from uint64) time.Time {
	s.mu.Lock()
	l := s.lanes[id]
	if l == nil || s.closed {
		s.mu.Unlock()
		return time.Time{}
	}
	from = max(from, l.confirmed+1)
	seg := l.segmentFrom(from)
	if seg == nil {
		s.mu.Unlock()
		return time.Time{}
	}
	if l.oldest.seg == seg && l.oldest.from == from {
		defer s.mu.Unlock()
		return l.oldest.time
	}
	v := s.viewOf(l, seg)
	s.mu.Unlock()

	f, err := s.opts.fs.OpenFile(v.path, os.O_RDONLY)
	if err != nil {
		return v.appended
	}
	defer f.Close()
	h, _, err := v.find(f, from)
	if err != nil {
		return v.appended
	}
	t := frameTime(&h, v.appended)
	s.mu.Lock()
	l.oldest = oldestFrame{from: from, seg: seg, time: t}
	s.mu.Unlock()
	return t
}

func frameTime(h *frame.Header, appended time.Time) time.Time {
	if t := time.Unix(0, h.Last); h.Last > 0 && t.Before(appended) {
		return t
	}
	return appended
}
