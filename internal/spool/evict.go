package spool

import (
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// fullDiskPause is how long a disk that stayed full after an eviction is left
// alone: someone else takes what is freed, and evicting more would only lose
// more.
const fullDiskPause = 10 * time.Second

// makeRoomOnFullDisk frees at least as much as requests need, if it may.
func (s *Spool) makeRoomOnFullDisk(requests []*request) bool {
	if s.opts.OnFull == Block || !s.evictions.allowed() {
		return false
	}
	var need int64
	for _, r := range requests {
		need += r.length
	}
	s.mu.Lock()
	target := s.bytes - need
	s.mu.Unlock()
	evicted := false
	for {
		s.mu.Lock()
		enough := s.bytes <= target
		s.mu.Unlock()
		if enough || !s.evictOldest("the disk is full") {
			return evicted
		}
		evicted = true
	}
}

// evictOldest deletes the segment that is missed least and counts what is lost.
// It reports false if there is nothing to delete. Its order:
//
//  1. what is confirmed;
//  2. of signals that hold more than their share of what the spool holds: what
//     the hub has acknowledged, then by signal (EvictOrder), then what was appended
//     first;
//  3. if no signal does, the same of all.
//
// Within a lane and signal only the oldest segment is ever a candidate.
func (s *Spool) evictOldest(why string) bool {
	return s.evictOne(why, func(*lane) bool { return true })
}

// evictFree deletes a segment that holds nothing but what is confirmed.
func (s *Spool) evictFree() bool {
	return s.evictOne("", func(l *lane) bool { return l.segments[0].held().frames == 0 })
}

func (s *Spool) evictOne(why string, may func(*lane) bool) bool {
	tried := make(map[*lane]bool)
	for {
		held := s.heldBySignal()
		s.mu.Lock()
		var victim *lane
		for _, l := range s.lanes {
			if len(l.segments) == 0 || l.segments[0].size == 0 || tried[l] || !may(l) {
				continue
			}
			if victim == nil || s.before(l, victim, held) {
				victim = l
			}
		}
		if victim == nil {
			s.mu.Unlock()
			return false
		}
		only := len(victim.segments) == 1
		s.mu.Unlock()
		if only && !s.succeed(victim) {
			tried[victim] = true
			continue
		}
		s.evict(victim, why, frame.EvictedSpace)
		return true
	}
}

// before says whether the first segment of a is evicted before that of b. The
// caller holds mu.
func (s *Spool) before(a, b *lane, held map[frame.Signal]int64) bool {
	x, y := a.segments[0], b.segments[0]
	if free := x.held().frames == 0; free != (y.held().frames == 0) {
		return free
	}
	if above := s.aboveShare(a.id.Signal, held); above != s.aboveShare(b.id.Signal, held) {
		return above
	}
	if acked := x.high <= a.acked; acked != (y.high <= b.acked) {
		return acked
	}
	if a.id.Signal != b.id.Signal {
		return slices.Index(s.opts.EvictOrder, a.id.Signal) < slices.Index(s.opts.EvictOrder, b.id.Signal)
	}
	if a.id.Seq != b.id.Seq {
		return a.id.Seq < b.id.Seq
	}
	return x.appended.Before(y.appended)
}

// aboveShare compares with what the spool holds rather than with what it might:
// on a disk smaller than MaxBytes the shares hold too. The caller holds mu.
func (s *Spool) aboveShare(signal frame.Signal, held map[frame.Signal]int64) bool {
	return held[signal]*100 > s.bytes*int64(s.opts.Shares[signal])
}

// succeed gives a lane's last segment a successor, so that it may be deleted.
func (s *Spool) succeed(l *lane) bool {
	s.closeActive(l)
	s.mu.Lock()
	l.lastSegment().sealed = true
	live := s.live[l.id.Signal] == l
	s.mu.Unlock()
	if _, err := s.beginSegment(l); err != nil {
		return false
	}
	if err := s.opts.fs.SyncDir(l.dir); err != nil {
		return false
	}
	l.activeNew = false
	if !live {
		s.closeActive(l)
	}
	return true
}

func (s *Spool) evict(l *lane, why string, cause frame.Cause) {
	s.mu.Lock()
	seg := l.segments[0]
	lost := seg.held()
	l.lost[cause] += lost.items
	traffic := s.traffic[l.id.Signal]
	traffic.BytesEvicted += lost.bytes
	s.traffic[l.id.Signal] = traffic
	s.detach(l, 1)
	s.mu.Unlock()
	s.discard(l, []*segment{seg})
	s.evictions.note(s, l, lost, why)
}

// detach takes the first n segments out of the lane. The caller holds mu and
// goes on with discard.
func (s *Spool) detach(l *lane, n int) []*segment {
	out := append([]*segment(nil), l.segments[:n]...)
	l.segments = append([]*segment(nil), l.segments[n:]...)
	for _, seg := range out {
		seg.removed = true
		s.bytes -= seg.size
	}
	if len(out) > 0 {
		close(s.room)
		s.room = make(chan struct{})
	}
	from := l.heldFrom(l.confirmed + 1) // the floor steps over what is damaged above
	kept := l.damaged[:0:0]
	for _, r := range l.damaged {
		if r.To >= from {
			kept = append(kept, r)
		}
	}
	l.damaged = kept
	return out
}

// discard deletes the files of segments that have left the lane. The ledger
// goes first: a crash in between leaves files that the next Open knows it may
// delete, never a hole nobody can explain.
func (s *Spool) discard(l *lane, segments []*segment) {
	if len(segments) == 0 {
		return
	}
	s.saveLedger(l, true)
	for _, seg := range segments {
		s.removeSegment(seg)
	}
	l.reader.releaseRemoved(s)
}

func (s *Spool) removeSegment(seg *segment) {
	if seg.indexed {
		s.opts.fs.Remove(indexPath(seg.path)) // of no use without the segment, and no harm
	}
	if err := s.opts.fs.Remove(seg.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It is out of the lane; the next Open deletes it.
		s.readTrouble.report(s.opts.Logger, "cannot delete a segment that is no longer needed: it takes up disk space until the next start: check the disk", "file", seg.path, "error", err)
	}
}

// eviction announces evictions, once per burst.
type eviction struct {
	mu         sync.Mutex
	last       time.Time // of the last announcement
	sum        counts
	why        string
	lane       frame.Lane
	pauseUntil time.Time
}

func (e *eviction) note(s *Spool, l *lane, lost counts, why string) {
	if lost.frames == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sum = e.sum.plus(lost)
	e.why, e.lane = why, l.id
	if now := time.Now(); e.last.IsZero() || now.Sub(e.last) >= burstEvery {
		e.announce(s, now)
	}
}

func (e *eviction) announce(s *Spool, now time.Time) {
	s.opts.Logger.Warn("evicted data that was not yet confirmed, because "+e.why+": these items are lost and counted: give the spool more space, or see why data does not leave",
		"frames", e.sum.frames, "items", e.sum.items, "bytes", e.sum.bytes, "last_lane", e.lane, "max_bytes", s.opts.MaxBytes)
	e.last, e.sum = now, counts{}
}

func (e *eviction) flush(s *Spool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sum.frames > 0 {
		e.announce(s, time.Now())
	}
}

func (e *eviction) allowed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().After(e.pauseUntil)
}

func (e *eviction) helped(yes bool) {
	if yes {
		return
	}
	e.mu.Lock()
	e.pauseUntil = time.Now().Add(fullDiskPause)
	e.mu.Unlock()
}
