package spool

import (
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Stats describes a spool at one moment.
type Stats struct {
	Lanes    []LaneStats
	Bytes    int64 // of the segment files, with what is confirmed and not yet deleted
	MaxBytes int64
	Fsyncs   uint64 // of segment data, since Open
}

// LaneStats describes a lane. ItemsIn and ItemsConfirmed count since Open,
// Lost since the epoch began. What a lane held at Open plus ItemsIn equals
// ItemsConfirmed plus Items plus what Lost has grown by, at any time.
type LaneStats struct {
	Lane      frame.Lane
	Floor     uint64 // lowest number that may still be sent; Next if there is none
	Next      uint64 // number of the next frame
	Confirmed uint64 // everything up to here was accepted by the backends

	// Not confirmed:
	Frames            int
	Bytes             int64
	Items             int64
	OldestUnconfirmed time.Time // as OldestTime; zero if there is none

	ItemsIn        uint64 // appended, or given up by Lose
	ItemsConfirmed uint64
	Lost           [frame.NumCauses]uint64
}

// Stats reads the counters of all lanes.
func (s *Spool) Stats() Stats {
	stats := Stats{MaxBytes: s.opts.MaxBytes, Fsyncs: s.fsyncs.Load()}
	for _, id := range s.Lanes() {
		oldest := s.OldestTime(id, 0)
		s.mu.Lock()
		l := s.lanes[id]
		held := l.held()
		stats.Lanes = append(stats.Lanes, LaneStats{
			Lane: id, Floor: l.floor(), Next: l.next, Confirmed: l.confirmed,
			Frames: held.frames, Bytes: held.bytes, Items: int64(held.items),
			OldestUnconfirmed: oldest,
			ItemsIn:           l.itemsIn - l.itemsInAtOpen,
			ItemsConfirmed:    l.itemsConfirmed - l.itemsConfirmedAtOpen,
			Lost:              l.lost,
		})
		s.mu.Unlock()
	}
	s.mu.Lock()
	stats.Bytes = s.bytes
	s.mu.Unlock()
	return stats
}

// Floor is the lowest number of a lane that may still be sent, and what the lane
// has lost: what a frame's own header said of both when it was written may be
// out of date when it is shipped.
func (s *Spool) Floor(id frame.Lane) (floor uint64, lost [frame.NumCauses]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[id]
	if !ok {
		return 0, lost
	}
	return l.floor(), l.lost
}
