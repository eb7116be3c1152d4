package spool

import (
	"context"
	"fmt"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// What the limits do, and what a wrong clock can do to them.
//
// max_bytes and min_free_bytes are looked at before every write. Below
// min_free_bytes the spool grows no further: it evicts as much as it writes. It
// does not shrink for what others write, and a small working set, workingBytes, it
// takes in any case: a node whose disk others have filled still ships.
//
// max_age compares the clock with the time a segment was last appended to.
// Within one life of the process that is the monotonic clock, which nobody sets.
// After a restart it is the file's time against the wall clock, and a node may
// have started in 1970 or in 2036. So age deletes no more than a 24th of max_bytes
// for an hour that the process has run, and nothing in the first minutes: whoever
// sets the clock right has time to. A clock that is behind deletes nothing.

const (
	// blockWait is how long Append waits for room before it gives ErrFull. After
	// that, and until there is room again, ErrFull comes at once: callers that back
	// off must not pile up here.
	blockWait = 5 * time.Second
	// maintainEvery is how often age is looked at.
	maintainEvery = 10 * time.Second
	// ageShare is the part of MaxBytes that age may delete in an hour.
	ageShare = 24
	// maxWorkingBytes bounds what the spool takes on a disk with less than
	// MinFreeBytes; a sixteenth of MaxBytes if that is less.
	maxWorkingBytes = 32 << 20
)

// limits is what the limits remember. writeMu guards it where nothing else is said.
type limits struct {
	credit    int64 // evicted below MinFreeBytes and not yet used
	ageBudget float64
	ageAt     time.Time

	fullSince map[frame.Signal]time.Time // Spool.mu guards it; Block only
}

func (l *limits) begin(now time.Time) {
	l.ageAt = now
	l.fullSince = make(map[frame.Signal]time.Time)
}

// admit makes room for a batch, or answers the requests for which there is none.
func (s *Spool) admit(batch []*request) []*request {
	if s.opts.OnFull == Block {
		return s.admitBlocking(batch)
	}
	var need int64
	for _, r := range batch {
		need += r.length
	}
	for s.total()+need > s.opts.MaxBytes && s.evictOldest("the spool has reached max_bytes") {
	}
	if !s.scarce(need) {
		s.limits.credit = 0
		return batch
	}
	for s.limits.credit < need {
		before := s.total()
		if !s.evictOldest("the file system has less than min_free_bytes left") {
			break
		}
		s.limits.credit += before - s.total()
	}
	s.limits.credit = max(0, s.limits.credit-need)
	return batch
}

func (s *Spool) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// scarce says that with need more bytes the file system would have less free than
// it should, and the spool more than its working set.
func (s *Spool) scarce(need int64) bool {
	if s.opts.MinFreeBytes <= 0 || s.total()+need <= min(maxWorkingBytes, s.opts.MaxBytes/16) {
		return false
	}
	free, _, err := s.opts.fs.Space(s.opts.Dir)
	return err == nil && free-need < s.opts.MinFreeBytes
}

// admitBlocking refuses what does not fit. A signal may use what the others do
// not hold of their shares only beyond those: they stay free for them.
func (s *Spool) admitBlocking(batch []*request) (admitted []*request) {
	var taken int64
	held := s.heldBySignal()
	for _, r := range batch {
		signal := r.header.Signal
		limit := s.opts.MaxBytes
		for other, percent := range s.opts.Shares {
			if other != signal {
				limit -= max(0, s.opts.MaxBytes*int64(percent)/100-held[other])
			}
		}
		need := taken + r.length
		for s.total()+need > limit && s.evictFree() {
		}
		why := ""
		switch {
		case s.total()+need > limit:
			why = "it has reached max_bytes, less what is kept free for other signals (shares)"
		case s.scarce(need):
			why = "the file system has less than min_free_bytes left"
		}
		s.mu.Lock()
		if why == "" {
			delete(s.limits.fullSince, signal)
		} else if s.limits.fullSince[signal].IsZero() {
			s.limits.fullSince[signal] = time.Now()
		}
		s.mu.Unlock()
		if why != "" {
			r.err = explainAppend(s.opts.Dir, fmt.Errorf("%w, and on_full is block: %s", ErrFull, why))
			close(r.done)
			continue
		}
		taken = need
		held[signal] += r.length
		admitted = append(admitted, r)
	}
	return admitted
}

// waitForRoom returns true when it is worth trying again.
func (s *Spool) waitForRoom(ctx context.Context, signal frame.Signal) bool {
	s.mu.Lock()
	since, room := s.limits.fullSince[signal], s.room
	s.mu.Unlock()
	if since.IsZero() {
		return true
	}
	left := blockWait - time.Since(since)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-room:
		return true
	case <-timer.C: // someone else may have made room on the disk
		return true
	case <-s.done:
		return false
	case <-ctx.Done():
		return false
	}
}

// heldBySignal measures the segment files of each signal.
func (s *Spool) heldBySignal() map[frame.Signal]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(map[frame.Signal]int64, len(frame.Signals))
	for id, l := range s.lanes {
		for _, seg := range l.segments {
			held[id.Signal] += seg.size
		}
	}
	return held
}

// maintain does what time demands.
func (s *Spool) maintain() {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.opts.Fsync == FsyncInterval {
		s.syncLanes()
	}
	if s.opts.MaxAge > 0 {
		s.evictAged()
	}
}

// evictAged deletes segments to which nothing was appended for MaxAge.
func (s *Spool) evictAged() {
	now := s.opts.now()
	b := &s.limits
	perHour := float64(s.opts.MaxBytes) / ageShare
	if elapsed := now.Sub(b.ageAt); elapsed > 0 {
		b.ageBudget += perHour * min(elapsed, maxAgeStep).Hours()
	}
	b.ageAt = now
	b.ageBudget = min(b.ageBudget, max(perHour, 2*float64(s.opts.SegmentBytes)))
	for {
		s.mu.Lock()
		var victim *lane
		for _, l := range s.lanes {
			if len(l.segments) == 0 || l.segments[0].size == 0 || now.Sub(l.segments[0].appended) <= s.opts.MaxAge {
				continue
			}
			if victim == nil || l.segments[0].appended.Before(victim.segments[0].appended) {
				victim = l
			}
		}
		if victim == nil || float64(victim.segments[0].size) > b.ageBudget {
			s.mu.Unlock()
			return
		}
		size, only := victim.segments[0].size, len(victim.segments) == 1
		s.mu.Unlock()
		if only && !s.succeed(victim) {
			return
		}
		b.ageBudget -= float64(size)
		s.evict(victim, "it is older than max_age", frame.EvictedAge)
	}
}

// maxAgeStep bounds what one look adds to the budget, should the clock have no
// monotonic part.
const maxAgeStep = 10 * maintainEvery

// tooLongOpen says that a lane's segment should end although it is not full, so
// that what is in it does not wait for MaxAge to pass after its last frame.
func (s *Spool) tooLongOpen(l *lane) bool {
	return s.opts.MaxAge > 0 && s.opts.now().Sub(l.began) > s.opts.MaxAge/8
}

// syncLanes makes durable what was written since the last time, FsyncInterval. It
// reports whether that worked.
func (s *Spool) syncLanes() bool {
	ok := true
	s.mu.Lock()
	lanes := make([]*lane, 0, len(s.live))
	for _, l := range s.live {
		lanes = append(lanes, l)
	}
	s.mu.Unlock()
	for _, l := range lanes {
		ok = s.syncLane(l) && ok
	}
	return ok
}

// syncLane fsyncs a lane's segment. When that fails the segment ends: what the
// kernel has not written of it may be gone, and is found damaged when it is read.
func (s *Spool) syncLane(l *lane) bool {
	if !l.unsynced || l.active == nil {
		return true
	}
	err := s.syncActive(l)
	if l.unsynced = false; err != nil {
		s.ledgerTrouble.report(s.opts.Logger, "fsync failed: frames of the last interval may be lost; they are counted when they turn out damaged: check the disk", "lane", l.id, "error", err)
		s.mu.Lock()
		seg := l.lastSegment()
		s.mu.Unlock()
		s.closeActive(l)
		s.sealSegment(seg)
	}
	return err == nil
}
