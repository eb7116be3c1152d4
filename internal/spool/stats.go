package spool

import (
	"maps"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Stats describes a spool at one moment.
type Stats struct {
	Lanes    []LaneStats
	Bytes    int64 // of the segment files, with what is confirmed and not yet deleted
	MaxBytes int64
	Fsyncs   uint64 // of segment data, since Open
	// Retired are the lanes that are no more, by signal.
	Retired map[frame.Signal]RetiredStats
	// Traffic counts, by signal and since Open, what left.
	Traffic map[frame.Signal]Traffic
	// Room is what may still be written before something is evicted or refused.
	Room int64
}

// Traffic measures frames that left the spool.
type Traffic struct {
	BytesConfirmed int64
	BytesEvicted   int64 // unconfirmed, for space or for age
}

// RetiredStats adds up the lanes of a signal that were sealed, confirmed and
// removed: what came in and was confirmed since Open, what was lost since the
// epoch began.
type RetiredStats struct {
	ItemsIn, ItemsConfirmed uint64
	Lost                    [frame.NumCauses]uint64
}

// LaneStats describes a lane. ItemsIn and ItemsConfirmed count since Open,
// Lost since the epoch began. What a lane held at Open plus ItemsIn equals
// ItemsConfirmed plus Items plus what Lost has grown by, at any time.
type LaneStats struct {
	Lane      frame.Lane
	Class     frame.Class // Live, or Backlog when it is sealed
	Floor     uint64      // lowest number that may still be sent; Next if there is none
	Next      uint64      // number of the next frame
	Confirmed uint64      // everything up to here was accepted by the backends
	Before    uint64      // items of all frames below Next, whatever became of them
	DiskBytes int64       // of its segment files

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
	stats := Stats{MaxBytes: s.opts.MaxBytes, Fsyncs: s.fsyncs.Load(), Retired: make(map[frame.Signal]RetiredStats)}
	for _, id := range s.Lanes() {
		oldest := s.OldestTime(id, 0)
		s.mu.Lock()
		l := s.lanes[id]
		if l == nil { // retired meanwhile
			s.mu.Unlock()
			continue
		}
		held := l.held()
		var disk int64
		for _, seg := range l.segments {
			disk += seg.size
		}
		stats.Lanes = append(stats.Lanes, LaneStats{
			Lane: id, Class: l.class, Floor: l.floor(), Next: l.next, Confirmed: l.confirmed, Before: l.before, DiskBytes: disk,
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
	stats.Traffic = maps.Clone(s.traffic)
	for signal, t := range s.retired {
		r := RetiredStats{ItemsIn: t.sinceOpen.in, ItemsConfirmed: t.sinceOpen.confirmed}
		copy(r.Lost[:], t.Lost)
		stats.Retired[signal] = r
	}
	s.mu.Unlock()
	stats.Room = max(0, stats.MaxBytes-stats.Bytes)
	if free, _, err := s.opts.fs.Space(s.opts.Dir); err == nil && s.opts.MinFreeBytes > 0 {
		stats.Room = max(0, min(stats.Room, free-s.opts.MinFreeBytes))
	}
	return stats
}

// Acknowledged says that the hub has every frame of the lane up to and including
// upTo: should something have to be evicted, these are missed less. It may go
// back, when the hub has lost them.
func (s *Spool) Acknowledged(id frame.Lane, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[id]; l != nil {
		l.acked = upTo
	}
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
