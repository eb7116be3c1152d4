package spool

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
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
	for _, signal := range frame.Signals {
		l := s.newestLane(signal)
		if l == nil {
			l = newLane(frame.Lane{Signal: signal, Seq: 1}, frame.Live, s.opts.Dir)
			s.lanes[l.id] = l
		}
		if err := fsys.MkdirAll(l.dir); err != nil {
			return err
		}
		s.live[signal] = l
	}
	named, err := s.identify()
	if err != nil {
		return err
	}
	if named || s.hasSegments() {
		if err := s.replaceBlankLanes(); err != nil {
			return err
		}
	}
	for _, id := range s.Lanes() {
		if err := s.recoverLane(s.lanes[id]); err != nil {
			return err
		}
	}
	if !named { // last: from then on a lane without a ledger is one that has lost it
		return s.writeIdentity()
	}
	return fsys.SyncDir(s.opts.Dir)
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

// replaceBlankLanes begins a new lane for every signal whose lane has neither
// segments nor a ledger although the spool was used before: someone deleted them.
// Nothing tells how far the lane's numbers went, and used again they would be
// taken for repeats of what was confirmed long ago. The new lane's sequence is the
// time in seconds, which follows those before it without knowing them.
func (s *Spool) replaceBlankLanes() error {
	for id, l := range s.lanes {
		if len(l.segments) > 0 || l.ledger.load(s.opts.fs) != nil {
			continue
		}
		delete(s.lanes, id)
		if s.live[id.Signal] != l {
			continue
		}
		next := newLane(frame.Lane{Signal: id.Signal, Seq: uint32(s.opts.now().Unix())}, frame.Live, s.opts.Dir)
		if err := s.opts.fs.MkdirAll(next.dir); err != nil {
			return err
		}
		s.opts.Logger.Warn("the files of a lane are gone: what it held is lost and cannot be counted; a new lane begins", "lane", id, "new_lane", next.id)
		s.lanes[next.id], s.live[id.Signal] = next, next
	}
	return nil
}

// listSegments finds the lane's segment files, in order.
func (s *Spool) listSegments(l *lane) error {
	entries, err := s.opts.fs.ReadDir(l.dir)
	if err != nil {
		return err
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
		l.segments = append(l.segments, seg)
	}
	sort.Slice(l.segments, func(i, j int) bool { return l.segments[i].first < l.segments[j].first })
	return nil
}

// recovery is what one lane's recovery learns on its way.
type recovery struct {
	ledger  *ledgerEntry
	settled uint64 // lower numbers were confirmed, evicted or counted as lost before
	exact   bool   // the ledger's item counts belong to settled
	newest  frame.Header
	missing []numberRange

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
	l.confirmed = min(max(l.confirmed, r.lowestKnown(l)), l.next-1)
	s.countMissing(l, r)
	for _, seg := range l.segments {
		s.bytes += seg.size
	}
	l.itemsInAtOpen, l.itemsConfirmedAtOpen = l.itemsIn, l.itemsConfirmed
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
	return nil
}

// finishDeleting removes segments the ledger had written off when the process
// ended before deleting them.
func (s *Spool) finishDeleting(l *lane, settled uint64) {
	for len(l.segments) > 1 && l.segments[1].first <= settled {
		if err := s.opts.fs.Remove(l.segments[0].path); err != nil {
			s.opts.Logger.Warn("cannot delete a segment that is no longer needed", "file", l.segments[0].path, "error", err)
		}
		l.segments = l.segments[1:]
	}
}

// recoverSegment scans the i-th segment of the lane: all but the last by their
// headers only; their payloads are checked when they are read.
func (s *Spool) recoverSegment(l *lane, i int, seg *segment, r *recovery) error {
	last := i == len(l.segments)-1
	rules := scanRules{
		identity: identity{s.epoch, l.id},
		first:    seg.first, limit: math.MaxUint64, settled: r.settled, verify: last, lost: l.damaged,
	}
	if !last {
		rules.limit = l.segments[i+1].first
	}
	f, err := s.opts.fs.OpenFile(seg.path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	found := scanSegment(f, seg.size, rules)
	seg.low, seg.high, seg.all, seg.confirmed = found.low, found.high, found.all, found.settled
	seg.marks, seg.holes = found.marks, found.holes
	if found.all.frames > 0 {
		r.newest = found.newest
		l.class = found.newest.Class
	}
	r.missing = append(r.missing, found.missing...)
	if !last && seg.high+1 < rules.limit {
		r.missing = append(r.missing, numberRange{seg.high + 1, rules.limit - 1})
	}
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
	return nil
}

// cutTail removes what stands behind the last intact frame of a lane. Mostly
// that is a frame cut short because the process died while writing it, and so
// was never acknowledged. Anything else is kept in quarantine, and a number
// that can be read in it is not used again, because it may have been sent.
func (s *Spool) cutTail(l *lane, seg *segment, f file, tail extent, found *scan, r *recovery) {
	torn := found.visible <= seg.high && (cutShort(f, tail) || allZero(f, tail))
	if found.visible > seg.high {
		r.missing = append(r.missing, numberRange{seg.high + 1, found.visible})
		r.unnamed = found.visibleItems
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

// lowestKnown is the number up to which nothing can be held any more, as far
// as the segments tell: the one before the first.
func (r *recovery) lowestKnown(l *lane) uint64 {
	if r.ledger == nil && len(l.segments) > 0 {
		return max(r.settled, l.segments[0].first) - 1
	}
	return r.settled - 1
}

// learnFromNewest takes from the newest frame what the ledger has lost or not
// yet noted: how far the lane was settled and what it had lost by then.
func (s *Spool) learnFromNewest(l *lane, r *recovery) {
	for i, n := range r.newest.Lost {
		if n > l.lost[i] {
			l.lost[i] = n
			r.exact = false
		}
	}
	if r.newest.Floor <= r.settled {
		return
	}
	r.settled, r.exact = r.newest.Floor, false
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

// countMissing names the frames that should be there and are not. How many
// items they held is known if the ledger is current: what came in, less what
// left and what is there. If not, each frame counts as one item.
func (s *Spool) countMissing(l *lane, r *recovery) {
	if r.ledger != nil {
		from := r.settled
		if len(l.segments) > 0 && l.segments[0].first > from {
			r.missing = append(r.missing, numberRange{from, l.segments[0].first - 1})
		}
		after := from
		if last := l.lastSegment(); last != nil {
			after = max(after, last.first, last.high+1)
		}
		if l.next > after {
			r.missing = append(r.missing, numberRange{after, l.next - 1})
		}
	}
	var frames uint64
	var all, fresh []numberRange
	for _, m := range r.missing {
		if m.From = max(m.From, r.settled); m.From <= m.To {
			all = addRange(all, m)
		}
	}
	for _, m := range all {
		for _, new := range subtractRanges(m, l.damaged) {
			fresh = append(fresh, new)
			frames += new.To - new.From + 1
		}
	}
	held := l.held().items
	var lost uint64
	if frames > 0 {
		lost = max(frames, r.unnamed)
		if in, ok := s.itemsSince(l, r); r.exact && ok {
			if gone := in - l.itemsConfirmed - held - sum(l.lost); gone > 0 && gone < 1<<63 {
				lost = max(lost, gone)
			}
		}
		for _, m := range fresh {
			l.damaged = addRange(l.damaged, m)
		}
		l.lost[frame.Corrupt] += lost
		s.opts.Logger.Warn("frames are missing or damaged on disk: their items are lost and counted; what could be read of them is in quarantine: check the disk",
			"lane", l.id, "frames", frames, "items", lost, "numbers", fmt.Sprint(fresh))
	}
	l.itemsIn = l.itemsConfirmed + held + sum(l.lost)
}

// itemsSince returns all items that ever came in: the ledger's count and what
// was appended after its last write.
func (s *Spool) itemsSince(l *lane, r *recovery) (uint64, bool) {
	if r.ledger == nil {
		return 0, false
	}
	in := r.ledger.ItemsIn
	for _, seg := range l.segments {
		if seg.all.frames == 0 || seg.high < r.ledger.Next {
			continue
		}
		v := s.viewOf(l, seg)
		f, err := s.opts.fs.OpenFile(seg.path, os.O_RDONLY)
		if err != nil {
			return 0, false
		}
		before, err := v.countTo(f, r.ledger.Next-1)
		f.Close()
		if err != nil {
			return 0, false
		}
		in += seg.all.minus(before).items
	}
	return in, true
}

func sum(lost [frame.NumCauses]uint64) (n uint64) {
	for _, c := range lost {
		n += c
	}
	return n
}
