package spool

import (
	"errors"
	"io/fs"
	"os"

	"github.com/longhaul/longhaul/internal/frame"
)

// repair deals with damage found in a segment while the spool is in use: it
// checks every frame of the segment again, steps over what is broken from then
// on, keeps a copy of it, and counts exactly the items that went with it.
func (s *Spool) repair(l *lane, seg *segment) {
	l.confirmMu.Lock()
	defer l.confirmMu.Unlock()
	s.repairLocked(l, seg)
}

// repairLocked is repair for who holds confirmMu. It reports whether the
// segment could be looked at.
func (s *Spool) repairLocked(l *lane, seg *segment) bool {
	s.mu.Lock()
	if seg.removed {
		s.mu.Unlock()
		return true
	}
	before, held, size, high := seg.all, seg.held(), seg.size, seg.high
	rules := scanRules{identity: identity{s.epoch, l.id}, first: seg.first, limit: high + 1, settled: l.confirmed + 1, verify: true, lost: l.damaged}
	s.mu.Unlock()

	found, ok := s.rescan(l, seg.path, size, rules)
	if !ok {
		return false
	}
	missing := found.missing
	if found.high < high {
		missing = append(missing, gap{numberRange: numberRange{found.high + 1, high}})
	}
	s.dropIndex(seg)

	s.mu.Lock()
	if seg.removed {
		s.mu.Unlock()
		return true
	}
	lost := held.minus(found.all.minus(found.settled))
	for _, m := range missing {
		if m.From = max(m.From, rules.settled); m.From <= m.To {
			l.damaged = addRange(l.damaged, m.numberRange)
		}
	}
	l.lost[frame.Corrupt] += lost.items
	seg.replace(found, before, high)
	l.oldest = oldestFrame{}
	s.mu.Unlock()
	s.saveLedger(l, true)
	if lost.frames > 0 {
		s.opts.Logger.Warn("frames on disk turned out damaged: their items are lost and counted; the broken bytes are in quarantine: check the disk",
			"lane", l.id, "segment", seg.path, "frames", lost.frames, "items", lost.items)
	}
	return true
}

// rescan checks size bytes of a segment file, which may be shorter by now or
// gone, and copies what is damaged to quarantine.
func (s *Spool) rescan(l *lane, path string, size int64, rules scanRules) (*scan, bool) {
	f, err := s.opts.fs.OpenFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		nothing := scanSegment(nil, 0, rules)
		nothing.holes = []extent{{0, size}}
		return nothing, true
	}
	if err != nil {
		return nil, false
	}
	defer f.Close()
	found := scanSegment(f, size, rules)
	for _, hole := range found.holes {
		s.quarantine(l, path, f, hole)
	}
	return found, true
}

// replace takes over what a scan of the part up to number high found; frames
// appended since stay as they are.
func (s *segment) replace(found *scan, before counts, high uint64) {
	since := s.all.minus(before)
	marks := found.marks
	low := found.low
	for _, m := range s.marks {
		if m.number > high {
			m.before = m.before.minus(before).plus(found.all)
			marks = append(marks, m)
		}
	}
	if found.all.frames == 0 {
		low = high + 1
	}
	if since.frames == 0 {
		s.high = found.high
		s.after, s.lastFloor, s.lastLost = found.after, found.lastFloor, found.lastLost
	}
	s.low, s.lowBefore = low, found.lowBefore
	s.marks, s.holes = marks, found.holes
	s.all = found.all.plus(since)
	s.confirmed = found.settled
}
