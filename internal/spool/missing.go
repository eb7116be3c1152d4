package spool

import (
	"fmt"
	"os"

	"github.com/longhaul/longhaul/internal/frame"
)

// countMissing names the frames that should be there and are not. How many
// items they held the frames at both ends of a gap tell, or the ledger if it is
// current: what came in, less what left and what is there. Where neither does, as
// at the beginning of a lane whose ledger is gone, each frame counts as one item.
func (s *Spool) countMissing(l *lane, r *recovery) {
	s.addOuterGaps(l, r)
	var frames, items uint64
	var fresh []numberRange
	var all []numberRange
	for _, m := range r.missing {
		whole := m.From >= r.settled
		if m.From = max(m.From, r.settled); m.From > m.To {
			continue
		}
		seen := all
		all = addRange(all, m.numberRange)
		for _, part := range subtractRanges(m.numberRange, seen) {
			for _, new := range subtractRanges(part, l.damaged) {
				fresh = append(fresh, new)
				n := new.To - new.From + 1
				frames += n
				if whole && new == m.numberRange && m.items > n {
					n = m.items
				}
				items += n
			}
		}
	}
	held := l.held().items
	if frames > 0 {
		lost := max(items, r.unnamed)
		if in, ok := s.itemsSince(l, r); r.exact && ok {
			if gone := in - l.itemsConfirmed - held - sum(l.lost); gone > 0 && gone < 1<<63 {
				lost = max(frames, gone)
			}
		}
		for _, m := range fresh {
			l.damaged = addRange(l.damaged, m)
		}
		l.lost[frame.Corrupt] += lost
		s.opts.Logger.Warn("frames are missing or damaged on disk: their items are lost and counted; what could be read of them is in quarantine: check the disk",
			"lane", l.id, "frames", frames, "items", lost, "numbers", fmt.Sprint(fresh))
	}
	s.balance(l, r, held)
}

// addOuterGaps adds what is missing before the first and after the last segment.
func (s *Spool) addOuterGaps(l *lane, r *recovery) {
	if r.ledger == nil {
		return
	}
	from := r.settled
	if len(l.segments) > 0 && l.segments[0].first > from {
		r.missing = append(r.missing, gap{numberRange: numberRange{from, l.segments[0].first - 1}})
	}
	after := from
	if last := l.lastSegment(); last != nil {
		after = max(after, last.first, last.high+1)
	}
	if l.next <= after {
		return
	}
	tail := gap{numberRange: numberRange{after, l.next - 1}}
	if r.last != nil && r.last.high+1 == after && r.ledger.Next == l.next {
		tail = gapOf(after, l.next-1, r.last.after, r.ledger.Before)
	}
	r.missing = append(r.missing, tail)
}

// balance sets what came in from what is known best, so that it is what was
// confirmed, held and lost. The count before the next frame never goes back.
func (s *Spool) balance(l *lane, r *recovery, held uint64) {
	if r.last != nil {
		l.before = max(l.before, r.last.after, r.tailAfter)
	}
	if r.ledger != nil {
		l.before = max(l.before, r.ledger.Before)
	}
	if !r.exact { // the ledger is missing or stale: what is neither held nor lost was confirmed
		if in := l.before + l.lost[frame.TooLarge]; in > held+sum(l.lost) {
			l.itemsConfirmed = max(l.itemsConfirmed, in-held-sum(l.lost))
		}
	}
	l.itemsIn = l.itemsConfirmed + held + sum(l.lost)
	l.before = max(l.before, l.itemsIn-l.lost[frame.TooLarge])
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
