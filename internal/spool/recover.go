package spool

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
)

// recover builds the lanes from what is on the disk.
func (s *Spool) recover() error {
	fsys := s.opts.fs
	entries, err := fsys.ReadDir(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, ok := parseLaneDirName(entry.Name())
		if !ok {
			continue
		}
		if !entry.IsDir() {
			s.quarantineFile(filepath.Join(s.opts.Dir, entry.Name()))
			continue
		}
		l := newLane(id, frame.Live, s.opts.Dir)
		if err := s.listSegments(l); err != nil {
			return err
		}
		s.lanes[id] = l
	}
	known, err := s.identify()
	if err != nil {
		return err
	}
	listed := s.loadRegistry()
	if err := s.settleLanes(listed, known || s.hasSegments()); err != nil {
		return err
	}
	for _, id := range s.Lanes() {
		if err := s.recoverLane(s.lanes[id]); err != nil {
			return err
		}
	}
	return s.finishRecovery(known, listed)
}

// finishRecovery writes down what the recovery has found. The identity comes
// last: from then on a lane without a ledger is one that has lost it.
func (s *Spool) finishRecovery(known bool, listed *registryFile) error {
	if s.displaced != "" {
		if err := s.replaceLanes(s.displaced); err != nil {
			return err
		}
	} else if now := s.registry(); listed == nil || listed.check() != now.check() {
		if err := s.saveRegistry(); err != nil && !known {
			return err
		} else if err != nil {
			s.opts.Logger.Warn("cannot write "+registryName+"; the directories tell the same: check the disk", "dir", s.opts.Dir, "error", err)
		}
	}
	if err := s.saveIdentity(known); err != nil {
		if !known || s.displaced != "" {
			return err
		}
		s.opts.Logger.Warn("cannot write "+identityName+": check the disk", "dir", s.opts.Dir, "error", err)
	}
	return s.opts.fs.SyncDir(s.opts.Dir)
}

// newestLane returns the lane of a signal with the highest sequence, or nil.
func (s *Spool) newestLane(signal frame.Signal) (newest *lane) {
	for id, l := range s.lanes {
		if id.Signal == signal && (newest == nil || id.Seq > newest.id.Seq) {
			newest = l
		}
	}
	return newest
}

func (s *Spool) hasSegments() bool {
	for _, l := range s.lanes {
		if len(l.segments) > 0 {
			return true
		}
	}
	return false
}

// listSegments finds the lane's segment files, in order.
func (s *Spool) listSegments(l *lane) error {
	entries, err := s.opts.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	indexed := make(map[string]bool, len(entries)/2)
	for _, entry := range entries {
		if isIndexName(entry.Name()) {
			indexed[filepath.Join(l.dir, entry.Name())] = true
		}
	}
	for _, entry := range entries {
		path := filepath.Join(l.dir, entry.Name())
		if strings.HasSuffix(entry.Name(), segmentSuffix+newSuffix) {
			s.opts.fs.Remove(path) // never held anything acknowledged
			continue
		}
		first, ok := parseSegmentName(entry.Name())
		if !ok || entry.IsDir() {
			continue
		}
		seg := newSegment(l.dir, first)
		if info, err := entry.Info(); err == nil {
			seg.size, seg.appended = info.Size(), info.ModTime()
		}
		if now := s.opts.now(); seg.appended.After(now) {
			seg.appended = now // the clock was set back; nothing comes from the future
		}
		seg.indexed = indexed[indexPath(path)]
		delete(indexed, indexPath(path))
		l.segments = append(l.segments, seg)
	}
	sort.Slice(l.segments, func(i, j int) bool { return l.segments[i].first < l.segments[j].first })
	for orphan := range indexed {
		s.opts.fs.Remove(orphan)
	}
	return nil
}

// recovery is what one lane's recovery learns on its way.
type recovery struct {
	ledger  *ledgerEntry
	settled uint64 // lower numbers were confirmed, evicted or counted as lost before
	exact   bool   // the ledger's item counts belong to settled
	missing []gap

	last      *segment                // the newest with an intact frame; nil if there is none
	floor     uint64                  // what its newest frame says,
	lost      [frame.NumCauses]uint64 // likewise
	tailAfter uint64                  // items of all frames up to a complete but damaged last one

	lostBefore [frame.NumCauses]uint64 // what the ledger says
	unnamed    uint64                  // items of a complete but damaged last frame, from its header
}

func (s *Spool) recoverLane(l *lane) error {
	r := &recovery{settled: 1}
	if entry := l.ledger.load(s.opts.fs); entry != nil && entry.Epoch == s.epoch.String() && entry.Lane == l.id.String() {
		r.ledger, r.exact, r.settled = entry, true, entry.Floor
		copy(l.lost[:], entry.Lost)
		r.lostBefore = l.lost
		l.confirmed, l.itemsConfirmed, l.damaged = entry.Confirmed, entry.ItemsOut, entry.Damaged
	}
	s.finishDeleting(l, r.settled)
	for i, seg := range l.segments {
		if err := s.recoverSegment(l, i, seg, r); err != nil {
			return err
		}
	}
	s.learnFromNewest(l, r)
	l.next = max(1, r.tailNext(l))
	if r.ledger != nil {
		l.next = max(l.next, r.ledger.Next)
	}
	l.confirmed = min(max(l.confirmed, r.knownConfirmed(l)), l.next-1)
	s.countMissing(l, r)
	for _, seg := range l.segments {
		s.bytes += seg.size
	}
	l.itemsInAtOpen, l.itemsConfirmedAtOpen = l.itemsIn, l.itemsConfirmed
	l.nextAtOpen, l.beforeAtOpen = l.next, l.before
	if last := l.lastSegment(); last != nil && last.high+1 != l.next && last.first != l.next {
		last.sealed = true // the next frame does not follow its last
	}
	if r.ledger == nil {
		s.saveLedger(l, false) // with the next, both slots exist, and later writes need no space
	}
	if r.ledger == nil || !r.exact || l.lost != r.lostBefore {
		s.saveLedger(l, true)
	}
	if r.ledger == nil {
		return s.opts.fs.SyncDir(l.dir) // an empty lane without a ledger would be taken for a deleted one
	}
	if l.class != frame.Live {
		return l.ledger.close() // many lanes must not mean many open files
	}
	return nil
}

// finishDeleting removes segments the ledger had written off when the process
// ended before deleting them.
func (s *Spool) finishDeleting(l *lane, settled uint64) {
	for len(l.segments) > 1 && l.segments[1].first <= settled {
		s.removeSegment(l.segments[0])
		l.segments = l.segments[1:]
	}
}

// recoverSegment learns what is in the i-th segment of the lane: from its index
// or its headers, or for the last one of a live lane from every byte. Payloads of
// the others are checked when they are read.
func (s *Spool) recoverSegment(l *lane, i int, seg *segment, r *recovery) error {
	last := i == len(l.segments)-1
	limit := uint64(math.MaxUint64)
	if !last {
		limit = l.segments[i+1].first
	}
	if !s.recoverFromIndex(l, seg, limit, r.settled) {
		if err := s.recoverByScan(l, seg, last, limit, r); err != nil {
			return err
		}
	}
	if seg.all.frames > 0 {
		if r.last != nil && seg.low > r.last.high+1 { // the frames at both ends tell what is missing between
			r.missing = slices.DeleteFunc(r.missing, func(m gap) bool { return m.From > r.last.high && m.To < seg.low })
			r.missing = append(r.missing, gapOf(r.last.high+1, seg.low-1, r.last.after, seg.lowBefore))
		}
		r.last, r.floor, r.lost = seg, seg.lastFloor, seg.lastLost
	}
	if !last && seg.high+1 < limit {
		r.missing = append(r.missing, gap{numberRange: numberRange{seg.high + 1, limit - 1}})
	}
	return nil
}

// recoverFromIndex reports whether the index told what is in the segment.
func (s *Spool) recoverFromIndex(l *lane, seg *segment, limit, settled uint64) bool {
	head := s.readIndex(l, seg)
	if head == nil || head.High >= limit {
		seg.indexed = false
		return false
	}
	for _, r := range l.damaged {
		if r.From <= seg.high && r.To >= seg.low {
			return false // counted as lost although the index has it
		}
	}
	if seg.high < settled {
		seg.confirmed = seg.all
	} else if seg.low < settled {
		v := s.viewOf(l, seg)
		f, err := s.opts.fs.OpenFile(seg.path, os.O_RDONLY)
		if err != nil {
			return false
		}
		defer f.Close()
		if seg.confirmed, err = v.countTo(f, settled-1); err != nil {
			return false
		}
	}
	return true
}

// recoverByScan walks the segment.
func (s *Spool) recoverByScan(l *lane, seg *segment, last bool, limit uint64, r *recovery) error {
	rules := scanRules{
		identity: identity{s.epoch, l.id},
		first:    seg.first, limit: limit, settled: r.settled, verify: last, lost: l.damaged,
	}
	f, err := s.opts.fs.OpenFile(seg.path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	found := scanSegment(f, seg.size, rules)
	seg.low, seg.high, seg.all, seg.confirmed = found.low, found.high, found.all, found.settled
	seg.lowBefore, seg.after, seg.lastFloor, seg.lastLost = found.lowBefore, found.after, found.lastFloor, found.lastLost
	seg.marks, seg.holes = found.marks, found.holes
	r.missing = append(r.missing, found.missing...)
	tail := extent{found.end, seg.size}
	if n := len(seg.holes); last && n > 0 && seg.holes[n-1] == tail {
		seg.holes = seg.holes[:n-1]
		s.cutTail(l, seg, f, tail, found, r)
	} else if found.beyond {
		seg.size = found.end
		seg.sealed = true
	}
	for _, hole := range seg.holes {
		s.quarantine(l, seg.path, f, hole)
	}
	if whole := len(seg.holes) == 0 && len(found.missing) == 0 && seg.all.frames > 0 && !found.beyond; whole && (!last || l.class != frame.Live) {
		s.writeIndex(l, seg)
	}
	return nil
}

// cutTail removes what stands behind the last intact frame of a lane. Mostly
// that is a frame cut short because the process died while writing it, and so
// was never acknowledged. Anything else is kept in quarantine, and a number
// that can be read in it is not used again, because it may have been sent.
func (s *Spool) cutTail(l *lane, seg *segment, f file, tail extent, found *scan, r *recovery) {
	torn := found.visible <= seg.high && (cutShort(f, tail) || allZero(f, tail))
	if found.visible > seg.high {
		cut := gap{numberRange: numberRange{seg.high + 1, found.visible}}
		if seg.all.frames > 0 {
			cut = gapOf(cut.From, cut.To, seg.after, found.visibleAfter)
		}
		r.missing = append(r.missing, cut)
		r.unnamed, r.tailAfter = found.visibleItems, found.visibleAfter
	}
	if !torn {
		s.quarantine(l, seg.path, f, tail)
	}
	seg.size = tail.from
	err := f.Truncate(tail.from)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		seg.sealed = true // the next frame goes into another file
	}
}

// cutShort reports whether the extent begins like a frame that its end cuts.
func cutShort(f io.ReaderAt, e extent) bool {
	b := make([]byte, min(frame.MaxHeader, e.to-e.from))
	if readAt(f, b, e.from) != nil {
		return false
	}
	_, n, err := frame.ParseHeader(b)
	return err == nil && e.from+int64(n) > e.to || n == 0 && errors.Is(err, frame.ErrTruncated)
}

func allZero(f io.ReaderAt, e extent) bool {
	buffer := make([]byte, 64<<10)
	for at := e.from; at < e.to; {
		part := buffer[:min(int64(len(buffer)), e.to-at)]
		if readAt(f, part, at) != nil {
			return false
		}
		for _, b := range part {
			if b != 0 {
				return false
			}
		}
		at += int64(len(part))
	}
	return true
}

// tailNext is the number after everything seen in the segments.
func (r *recovery) tailNext(l *lane) uint64 {
	var next uint64
	if last := l.lastSegment(); last != nil {
		next = max(last.first, last.high+1)
	}
	for _, m := range r.missing {
		next = max(next, m.To+1)
	}
	return next
}

// knownConfirmed is a number up to which the relay must have confirmed, as far as
// the segments tell: frames that are there although the newest says that they may
// no longer be sent. What is not there may have been evicted as well.
func (r *recovery) knownConfirmed(l *lane) uint64 {
	for _, seg := range l.segments {
		if seg.all.frames > 0 {
			if seg.low < r.settled {
				return r.settled - 1
			}
			break
		}
	}
	return 0
}

// learnFromNewest takes from the newest frame what the ledger has lost or not
// yet noted: how far the lane was settled and what it had lost by then.
func (s *Spool) learnFromNewest(l *lane, r *recovery) {
	for i, n := range r.lost {
		if n > l.lost[i] {
			l.lost[i] = n
			r.exact = false
		}
	}
	if r.ledger == nil && len(l.segments) > 0 && l.segments[0].first > r.settled {
		r.settled = l.segments[0].first
	}
	if r.floor <= r.settled {
		return
	}
	r.settled, r.exact = r.floor, false
	for _, seg := range l.segments {
		if seg.low >= r.settled || seg.all.frames == 0 {
			continue
		}
		if seg.high < r.settled {
			seg.confirmed = seg.all
			continue
		}
		v := s.viewOf(l, seg)
		if f, err := s.opts.fs.OpenFile(seg.path, os.O_RDONLY); err == nil {
			if sum, err := v.countTo(f, r.settled-1); err == nil {
				seg.confirmed = sum
			}
			f.Close()
		}
	}
}
