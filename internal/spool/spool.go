package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Spool is an open spool directory. Its methods may be called concurrently.
type Spool struct {
	opts    Options
	epoch   frame.Epoch
	lock    io.Closer
	onFsync func(time.Duration)
	fsyncs  atomic.Uint64

	queue   queue
	writing sync.WaitGroup

	// writeMu is held by whoever writes to segments or takes lanes away: the writer,
	// Seal, Retire. It is taken before confirmMu and mu.
	writeMu   sync.Mutex
	identity  identityFile // as it stands on the disk
	displaced string       // why numbers may be in use that the files know nothing of
	limits    limits

	mu      sync.Mutex
	lanes   map[frame.Lane]*lane
	live    map[frame.Signal]*lane
	retired map[frame.Signal]totals
	traffic map[frame.Signal]Traffic
	bytes   int64         // of all segment files
	room    chan struct{} // closed and replaced when space becomes free
	closed  bool
	done    chan struct{} // closed by Close

	evictions     eviction
	ledgerTrouble burst
	readTrouble   burst
	stateMu       sync.Mutex
}

// Directories and files of a spool beside its lanes.
const (
	lockName       = "LOCK"
	quarantineName = "quarantine"
	stateName      = "state"
)

// Open opens the spool in o.Dir, making it if there is none, and repairs what
// a crash or a bad disk left. It fails if the directory cannot be used or is
// in use, never because of what the files in it contain.
func Open(o Options) (*Spool, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("spool options: %w", err)
	}
	if dir, err := filepath.Abs(o.Dir); err == nil {
		o.Dir = dir
	}
	s := &Spool{
		opts:    o,
		lanes:   make(map[frame.Lane]*lane),
		live:    make(map[frame.Signal]*lane),
		retired: make(map[frame.Signal]totals),
		traffic: make(map[frame.Signal]Traffic),
		done:    make(chan struct{}),
		room:    make(chan struct{}),
		queue:   queue{ready: make(chan struct{}, 1)},
	}
	if err := s.open(); err != nil {
		return nil, explainOpen(o.Dir, err)
	}
	s.writing.Go(s.write)
	return s, nil
}

func (s *Spool) open() (err error) {
	fsys := s.opts.fs
	if err := fsys.MkdirAll(s.opts.Dir); err != nil {
		return err
	}
	fsys.SyncDir(filepath.Dir(s.opts.Dir)) // often not ours to sync, and then not new either
	_, total, err := fsys.Space(s.opts.Dir)
	if err != nil {
		total = 0 // a file system that does not tell
	}
	s.opts.suit(total)
	s.limits.begin(s.opts.now())
	s.lock, err = fsys.Lock(filepath.Join(s.opts.Dir, lockName))
	if err != nil {
		return err
	}
	if err = s.recover(); err != nil {
		s.closeFiles()
		return errors.Join(err, s.lock.Close())
	}
	return nil
}

// Epoch identifies this life of the spool.
func (s *Spool) Epoch() frame.Epoch { return s.epoch }

// Lanes lists the lanes: the live lane of each signal and any other found on
// the disk, by signal, then age.
func (s *Spool) Lanes() []frame.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]frame.Lane, 0, len(s.lanes))
	for id := range s.lanes {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool {
		if ids[i].Signal != ids[j].Signal {
			return ids[i].Signal < ids[j].Signal
		}
		return ids[i].Seq < ids[j].Seq
	})
	return ids
}

// OnFsync sets what is told the duration of every fsync of segment data. Call
// it before the spool is used.
func (s *Spool) OnFsync(f func(time.Duration)) { s.onFsync = f }

// Lose counts items of a signal that were taken over but never got a frame,
// because they are too large for one, say. They count as in and as lost.
func (s *Spool) Lose(signal frame.Signal, cause frame.Cause, items uint64) {
	s.mu.Lock()
	l := s.live[signal]
	if l == nil || int(cause) >= frame.NumCauses || items == 0 || s.closed {
		s.mu.Unlock()
		return
	}
	l.itemsIn += items
	l.lost[cause] += items
	s.mu.Unlock()
	s.saveLedger(l, false)
}

// Wait returns nil once the lane has a durable frame numbered from or higher.
func (s *Spool) Wait(ctx context.Context, id frame.Lane, from uint64) error {
	for {
		s.mu.Lock()
		l := s.lanes[id]
		if l == nil || s.closed {
			defer s.mu.Unlock()
			return s.noLane(id)
		}
		found := l.segmentFrom(max(from, l.confirmed+1)) != nil
		changed := l.changed
		s.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-s.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Holds says whether the lane has a durable, unconfirmed frame numbered from or
// higher.
func (s *Spool) Holds(id frame.Lane, from uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[id]
	return l != nil && l.segmentFrom(max(from, l.confirmed+1)) != nil
}

// Live returns the live lane of a signal.
func (s *Spool) Live(signal frame.Signal) frame.Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[signal].id
}

// Next is the number of a lane's next frame; 0 if there is no such lane.
func (s *Spool) Next(id frame.Lane) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[id]; l != nil {
		return l.next
	}
	return 0
}

// noLane says why there is no lane id. The caller holds mu.
func (s *Spool) noLane(id frame.Lane) error {
	if s.closed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %s", ErrUnknownLane, id)
}

// Close takes no more frames, finishes those it has begun, and lets go of the
// directory. What was acknowledged is durable with or without it.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	if !s.queue.close() {
		return nil
	}
	s.writing.Wait()
	s.writeMu.Lock() // let a Seal or Retire finish
	defer s.writeMu.Unlock()
	if s.opts.Fsync == FsyncInterval && s.syncLanes() {
		s.saveSynced()
	}
	s.mu.Lock()
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	for _, l := range s.lanes {
		l.confirmMu.Lock()         // let a Confirm or a repair finish
		if l.class == frame.Live { // the others' are as they were last changed
			s.saveLedger(l, true)
		}
		l.confirmMu.Unlock()
	}
	s.evictions.flush(s)
	return errors.Join(s.closeFiles(), s.lock.Close())
}

func (s *Spool) closeFiles() error {
	var errs []error
	for _, l := range s.lanes {
		if l.active != nil {
			errs = append(errs, l.active.Close())
			l.active = nil
		}
		l.reader.mu.Lock()
		l.reader.close()
		l.reader.mu.Unlock()
		errs = append(errs, l.ledger.close())
	}
	return errors.Join(errs...)
}
