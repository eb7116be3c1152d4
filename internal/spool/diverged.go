package spool

import (
	"fmt"

	"github.com/longhaul/longhaul/internal/frame"
)

// Diverged says that the relay has confirmed a number of a live lane that this
// spool has not given out: it was set back, by a snapshot of the disk, say. New
// lanes begin, because the numbers to come were used before. So were those that
// were given out since Open: to the relay their frames are repeats, so they move
// into the new lane under new numbers. It returns the live lanes if they are new.
func (s *Spool) Diverged(id frame.Lane, known uint64) ([]frame.Lane, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	l := s.lanes[id]
	if l == nil || s.closed || l != s.live[id.Signal] || known < l.next {
		s.mu.Unlock()
		return nil, nil
	}
	first, next := l.nextAtOpen, l.next
	s.mu.Unlock()
	err := s.replaceLanes(fmt.Sprintf("the relay has frame %d of %s, which this spool has not written yet: it was set back", known, id))
	if err != nil {
		return nil, err
	}
	moved, stranded := s.move(l, first)
	s.Confirm(id, next-1)

	s.mu.Lock()
	l.itemsIn -= moved // they came into the new lane
	l.before -= moved
	l.itemsConfirmed -= moved + stranded
	l.lost[frame.Unknown] += stranded
	live := make([]frame.Lane, 0, len(s.live))
	for _, l := range s.live {
		live = append(live, l.id)
	}
	s.mu.Unlock()
	s.saveLedger(l, true)
	if stranded > 0 {
		s.opts.Logger.Error("items under numbers that were used before could not be written under new ones: they are lost and counted: check the disk", "lane", id, "items", stranded)
	}
	return live, nil
}

// move writes what the lane holds from a number on into the live lane of its
// signal, and tells how many items that were and how many could not be written.
// The caller holds writeMu.
func (s *Spool) move(l *lane, from uint64) (moved, stranded uint64) {
	s.mu.Lock()
	live, held := s.live[l.id.Signal], l.heldSince(from)
	s.mu.Unlock()
	for {
		records, err := s.Read(l.id, from, writeChunk)
		if err != nil || len(records) == 0 {
			return moved, held - min(held, moved)
		}
		requests := make([]*request, 0, len(records))
		for _, r := range records {
			h, payload, _, err := frame.Parse(r.Bytes)
			if err != nil {
				return moved, held - min(held, moved)
			}
			requests = append(requests, &request{header: h, payload: payload, length: int64(frame.HeaderSize + len(payload) + frame.TrailerSize), done: make(chan struct{})})
			from = r.Number + 1
		}
		failed := make(chan failure, 1)
		s.commitLane(live, requests, failed)
		close(failed)
		for f := range failed {
			requests = requests[:len(requests)-len(f.requests)]
			for _, r := range requests {
				moved += uint64(r.header.Items)
			}
			return moved, held - min(held, moved)
		}
		for _, r := range requests {
			moved += uint64(r.header.Items)
		}
	}
}

// heldSince counts the items of the frames numbered from or higher. The caller
// holds Spool.mu.
func (l *lane) heldSince(from uint64) uint64 {
	if from <= l.confirmed+1 {
		return l.held().items
	}
	var sum uint64
	for _, seg := range l.segments {
		switch {
		case seg.all.frames == 0 || seg.high < from:
		case seg.low >= from:
			sum += seg.held().items
		default: // it was being written when the spool was opened
			sum += seg.after - max(seg.lowBefore, l.beforeAtOpen)
		}
	}
	return sum
}
