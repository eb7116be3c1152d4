package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// maxBatchBytes bounds what shares one fsync, and so how long the first of a
// batch waits for the last to be written.
const maxBatchBytes = 8 << 20

// request is one Append waiting for its fsync.
type request struct {
	header  frame.Header
	payload []byte
	length  int64
	taken   atomic.Bool // by the writer, or back by a caller that gave up
	number  uint64
	err     error
	done    chan struct{}
}

// Append makes a frame of h and payload durable and returns its number. The
// spool fills in epoch, lane, class, number, floor and losses; the caller the
// rest. On an error nothing was acknowledged and nothing of it will be read;
// sending it again is right. With Block and no room it waits for some, a few
// seconds at most, then gives ErrFull. When ctx ends first the frame is withdrawn unless
// it is being written at that moment.
func (s *Spool) Append(ctx context.Context, h frame.Header, payload []byte) (number uint64, err error) {
	if !h.Signal.Valid() {
		return 0, fmt.Errorf("append: %s is not a signal", h.Signal)
	}
	length := int64(frame.HeaderSize + len(payload) + frame.TrailerSize)
	if len(payload) > frame.MaxPayload || h.Uncompressed > frame.MaxUncompressed || length > s.opts.MaxBytes {
		return 0, fmt.Errorf("append frame of %d bytes, %d uncompressed: %w (frames: %d and %d, spool: %d)",
			length, h.Uncompressed, ErrTooLarge, frame.MaxPayload, frame.MaxUncompressed, s.opts.MaxBytes)
	}
	for {
		number, err = s.append(ctx, h, payload, length)
		if !errors.Is(err, ErrFull) || !s.waitForRoom(ctx, h.Signal) {
			return number, err
		}
	}
}

func (s *Spool) append(ctx context.Context, h frame.Header, payload []byte, length int64) (number uint64, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	r := &request{header: h, payload: payload, length: length, done: make(chan struct{})}
	if !s.queue.put(r) {
		return 0, ErrClosed
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return 0, context.Cause(ctx)
		}
		<-r.done // the writer has payload in its hands
	}
	return r.number, r.err
}

// queue is where appends wait for the writer. It holds no data of its own: each
// entry has a blocked caller.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	bytes   int64
	closed  bool
	ready   chan struct{}
}

func (q *queue) put(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.waiting = append(q.waiting, r)
	q.bytes += r.length
	q.signal()
	return true
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// close refuses what comes; it reports false if that was so already.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := !q.closed
	q.closed = true
	q.signal()
	return first
}

// take returns what one commit should hold, in order of arrival.
func (q *queue) take(limit int64) (batch []*request, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var bytes int64
	n := 0
	for n < len(q.waiting) && (len(batch) == 0 || bytes+q.waiting[n].length <= limit) {
		r := q.waiting[n]
		n++
		q.bytes -= r.length
		if r.taken.CompareAndSwap(false, true) {
			batch = append(batch, r)
			bytes += r.length
		}
	}
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	return batch, q.closed
}

func (q *queue) size() (bytes int64, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.closed
}

// write is the writer: the one goroutine that writes frames.
func (s *Spool) write() {
	limit := min(maxBatchBytes, s.opts.MaxBytes/4)
	every := maintainEvery
	if s.opts.Fsync == FsyncInterval {
		every = min(every, s.opts.FsyncInterval)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		s.gather(limit)
		batch, closed := s.queue.take(limit)
		if len(batch) > 0 {
			s.writeMu.Lock()
			s.commit(batch)
			s.writeMu.Unlock()
			select {
			case <-ticker.C:
				s.maintain()
			default:
			}
			continue
		}
		if closed {
			return
		}
		select {
		case <-s.queue.ready:
		case <-ticker.C:
			s.maintain()
		}
	}
}

// gather waits up to CommitDelay for company for what is in the queue.
func (s *Spool) gather(limit int64) {
	if s.opts.CommitDelay == 0 {
		return
	}
	if bytes, closed := s.queue.size(); bytes == 0 || closed {
		return
	}
	timer := time.NewTimer(s.opts.CommitDelay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-s.queue.ready:
			if bytes, closed := s.queue.size(); bytes >= limit || closed {
				return
			}
		}
	}
}

// commit writes a batch, lanes beside each other so that their fsyncs overlap,
// and answers every request in it.
func (s *Spool) commit(batch []*request) {
	perLane := make(map[*lane][]*request, len(s.live))
	s.mu.Lock()
	live := maps.Clone(s.live)
	s.mu.Unlock()
	for _, r := range s.admit(batch) {
		l := live[r.header.Signal]
		perLane[l] = append(perLane[l], r)
	}
	failed := make(chan failure, len(perLane))
	if len(perLane) == 1 {
		for l, requests := range perLane {
			s.commitLane(l, requests, failed)
		}
	} else {
		var lanes sync.WaitGroup
		for l, requests := range perLane {
			lanes.Go(func() { s.commitLane(l, requests, failed) })
		}
		lanes.Wait()
	}
	close(failed)
	for f := range failed {
		s.retryOrFail(f)
	}
}

// failure is the part of a batch that a lane could not write.
type failure struct {
	lane     *lane
	requests []*request
	err      error
}

// retryOrFail gives a full disk one more try if evicting could free something,
// and answers the callers.
func (s *Spool) retryOrFail(f failure) {
	if isFull(f.err) && s.makeRoomOnFullDisk(f.requests) {
		again := make(chan failure, 1)
		s.commitLane(f.lane, f.requests, again)
		close(again)
		s.evictions.helped(len(again) == 0)
		for still := range again {
			still.fail(s)
		}
		return
	}
	f.fail(s)
}

func (f failure) fail(s *Spool) {
	err := explainAppend(s.opts.Dir, f.err)
	for _, r := range f.requests {
		r.err = err
		close(r.done)
	}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// commitLane writes requests, segment by segment, and reports what it could
// not write.
func (s *Spool) commitLane(l *lane, requests []*request, failed chan<- failure) {
	for len(requests) > 0 {
		n, err := s.commitSome(l, requests)
		if err != nil {
			failed <- failure{l, requests, err}
			return
		}
		for _, r := range requests[:n] {
			close(r.done)
		}
		requests = requests[n:]
	}
}

// writeChunk is how much is collected before a write; a frame larger than that
// goes in one write of its own.
const writeChunk = 1 << 20

// commitSome writes as many requests as fit into the lane's segment, syncs it,
// and makes them readable.
func (s *Spool) commitSome(l *lane, requests []*request) (n int, err error) {
	seg, err := s.openActive(l, requests[0].length)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	template := frame.Header{Epoch: s.epoch, Lane: l.id.Seq, Class: l.class, Floor: l.floor(), Lost: l.lost, Before: l.before}
	next, size := l.next, seg.size
	s.mu.Unlock()

	end := size
	for n < len(requests) && (n == 0 || end+requests[n].length <= s.opts.SegmentBytes) {
		r := requests[n]
		h := &r.header
		h.Epoch, h.Lane, h.Class = template.Epoch, template.Lane, template.Class
		h.Floor, h.Lost = template.Floor, template.Lost
		h.Number = next + uint64(n)
		h.Before = template.Before
		template.Before += uint64(h.Items)
		l.buffer = frame.Append(l.buffer, h, r.payload)
		end += r.length
		n++
		if len(l.buffer) >= writeChunk {
			if err := l.flush(end); err != nil {
				s.undoWrite(l, seg, size)
				return 0, fmt.Errorf("write %s: %w", seg.path, err)
			}
		}
	}
	if err := l.flush(end); err != nil {
		s.undoWrite(l, seg, size)
		return 0, fmt.Errorf("write %s: %w", seg.path, err)
	}
	if s.opts.Fsync != FsyncAlways {
		l.unsynced = true
	} else if err := s.syncActive(l); err != nil {
		s.abandon(l, seg, size)
		return 0, fmt.Errorf("fsync %s: %w", seg.path, err)
	}
	s.publish(l, seg, requests[:n])
	s.saveLedger(l, false)
	return n, nil
}

// flush writes the lane's buffer so that it ends at offset end.
func (l *lane) flush(end int64) error {
	if len(l.buffer) == 0 {
		return nil
	}
	_, err := l.active.WriteAt(l.buffer, end-int64(len(l.buffer)))
	l.buffer = l.buffer[:0]
	if cap(l.buffer) > 2*writeChunk {
		l.buffer = nil // a burst of large frames does not keep its memory
	}
	return err
}

func (s *Spool) syncActive(l *lane) error {
	start := time.Now()
	if err := l.active.Sync(); err != nil {
		return err
	}
	if l.activeNew {
		if err := s.opts.fs.SyncDir(l.dir); err != nil {
			return err
		}
		l.activeNew = false
	}
	s.fsyncs.Add(1)
	if s.onFsync != nil {
		s.onFsync(time.Since(start))
	}
	return nil
}

// publish makes what was just synced readable and gives it its numbers.
func (s *Spool) publish(l *lane, seg *segment, requests []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range requests {
		seg.note(&r.header, seg.size, int(r.length))
		seg.size += r.length
		s.bytes += r.length
		l.itemsIn += uint64(r.header.Items)
		l.before += uint64(r.header.Items)
		r.number = r.header.Number
	}
	l.next = seg.high + 1
	seg.appended = s.opts.now()
	l.wake()
}
