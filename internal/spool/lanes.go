package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/longhaul/longhaul/internal/frame"
)

// Seal makes the live lane of a signal a backlog lane and begins a new live one,
// which it returns. Numbers, order and files of the sealed lane stay as they are;
// nothing is appended to it any more. A live lane that holds nothing unconfirmed
// is returned as it is. At any moment of it a crash leaves one live lane.
func (s *Spool) Seal(signal frame.Signal) (frame.Lane, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	l := s.live[signal]
	if l == nil || s.closed {
		s.mu.Unlock()
		return frame.Lane{}, ErrClosed
	}
	id, empty, sealed := l.id, l.held().frames == 0, s.countSealed(signal)
	s.mu.Unlock()
	if empty {
		return id, nil
	}
	if sealed >= MaxSealedLanes {
		return id, fmt.Errorf("%w: %s has %d", ErrManyLanes, signal, sealed)
	}
	if id.Seq == math.MaxUint32 {
		return id, fmt.Errorf("%w: %s is the last number there is", ErrManyLanes, id)
	}
	next, err := s.beginLane(frame.Lane{Signal: signal, Seq: id.Seq + 1})
	if err != nil {
		return id, fmt.Errorf("seal %s: %w", id, explainAppend(s.opts.Dir, err))
	}
	s.finishActive(l)
	s.mu.Lock()
	s.lanes[next.id], s.live[signal] = next, next
	l.class = frame.Backlog
	s.mu.Unlock()
	if err := s.saveRegistry(); err != nil {
		// The directories tell the same.
		s.ledgerTrouble.report(s.opts.Logger, "cannot write "+registryName+": check the disk", "error", err)
	}
	s.saveLedger(l, true)
	return next.id, nil
}

// countSealed counts a signal's sealed lanes. The caller holds mu.
func (s *Spool) countSealed(signal frame.Signal) (n int) {
	for id, l := range s.lanes {
		if id.Signal == signal && l != s.live[signal] {
			n++
		}
	}
	return n
}

// beginLane makes the directory of a new lane. Its ledger comes last: a
// directory without one is a beginning that was not finished.
func (s *Spool) beginLane(id frame.Lane) (*lane, error) {
	l := newLane(id, frame.Live, s.opts.Dir)
	if err := s.opts.fs.MkdirAll(l.dir); err != nil {
		return nil, err
	}
	if err := s.opts.fs.SyncDir(s.opts.Dir); err != nil {
		return nil, err
	}
	s.saveLedger(l, false)
	s.saveLedger(l, true) // both slots exist: later writes need no space
	if l.ledger.f == nil {
		return nil, fmt.Errorf("write %s: %w", l.ledger.path, l.ledger.err)
	}
	if err := s.opts.fs.SyncDir(l.dir); err != nil {
		l.ledger.close()
		return nil, err
	}
	return l, nil
}

// Retire removes a sealed lane whose frames are all confirmed, with its files. It
// reports false if there is no such lane, or it may not go yet: one that was only
// evicted stays until the relay has heard of it and says so with Confirm.
func (s *Spool) Retire(id frame.Lane) bool {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	l := s.lanes[id]
	if l == nil || s.closed || l == s.live[id.Signal] || l.confirmed+1 < l.next {
		s.mu.Unlock()
		return false
	}
	s.mu.Unlock()
	l.confirmMu.Lock()
	defer l.confirmMu.Unlock()

	s.mu.Lock()
	// What damage was found in and the relay confirmed all the same is held no more.
	l.itemsConfirmed += l.held().items
	delete(s.lanes, id)
	before := s.retired[id.Signal]
	s.retired[id.Signal] = before.plus(l)
	segments := s.detach(l, len(l.segments))
	l.wake()
	s.mu.Unlock()
	saved := s.saveRegistry()
	l.ledger.close()
	l.reader.releaseRemoved(s)
	if saved != nil { // its files must stay as long as the list has it
		s.ledgerTrouble.report(s.opts.Logger, "cannot write "+registryName+": a confirmed lane's files stay until the next start: check the disk", "lane", id, "error", saved)
		return true
	}
	for _, seg := range segments {
		s.removeSegment(seg)
	}
	s.removeLaneDir(l.dir)
	return true
}

// removeLaneDir deletes what is left of a lane that is no more. Files that are
// not the spool's stay, and the directory with them.
func (s *Spool) removeLaneDir(dir string) {
	entries, err := s.opts.fs.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		_, isSeg := parseSegmentName(entry.Name())
		if isSeg || isIndexName(entry.Name()) || entry.Name() == ledgerName || filepath.Ext(entry.Name()) == newSuffix {
			err = errors.Join(err, s.opts.fs.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	if err = errors.Join(err, s.opts.fs.Remove(dir), s.opts.fs.SyncDir(s.opts.Dir)); err != nil {
		s.readTrouble.report(s.opts.Logger, "cannot delete a lane's directory that is no longer needed: check the disk", "directory", dir, "error", err)
	}
}

// totals are the counters of lanes that are no more, of one signal.
type totals struct {
	ItemsIn        uint64   `json:"items_in"`
	ItemsConfirmed uint64   `json:"items_confirmed"`
	Lost           []uint64 `json:"lost"`

	sinceOpen struct{ in, confirmed uint64 }
}

func (t totals) plus(l *lane) totals {
	t.ItemsIn += l.itemsIn
	t.ItemsConfirmed += l.itemsConfirmed
	t.Lost = append(slices.Clone(t.Lost), make([]uint64, frame.NumCauses)...)[:frame.NumCauses]
	for cause, n := range l.lost {
		t.Lost[cause] += n
	}
	t.sinceOpen.in += l.itemsIn - l.itemsInAtOpen
	t.sinceOpen.confirmed += l.itemsConfirmed - l.itemsConfirmedAtOpen
	return t
}

// registryName is the file that lists the lanes. The directories tell most of
// it; what they cannot tell is that one was deleted, and whether one that should
// be gone is what a crash left or a lane in use.
const registryName = "lanes.json"

type registryFile struct {
	Check   string                    `json:"check"` // CRC-32C of the rest
	Epoch   string                    `json:"epoch"`
	Signals map[string]signalRegistry `json:"signals"`
}

type signalRegistry struct {
	Live    uint32         `json:"live"`
	Sealed  []sealedRecord `json:"sealed,omitempty"`
	Retired totals         `json:"retired"`
}

// sealedRecord is what must be known of a lane should its directory be deleted.
type sealedRecord struct {
	Seq    uint32 `json:"seq"`
	Next   uint64 `json:"next"`
	Before uint64 `json:"before"` // items of all its frames
	// Unsettled are the items that were neither confirmed nor lost when the lane was
	// sealed, or later.
	Unsettled uint64   `json:"unsettled"`
	Lost      []uint64 `json:"lost"`
}

func (r *registryFile) check() string {
	text, err := json.Marshal(registryFile{Epoch: r.Epoch, Signals: r.Signals})
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli))
}

func (s *Spool) registry() *registryFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &registryFile{Epoch: s.epoch.String(), Signals: make(map[string]signalRegistry, len(s.live))}
	for signal, live := range s.live {
		entry := signalRegistry{Live: live.id.Seq, Retired: s.retired[signal]}
		for id, l := range s.lanes {
			if id.Signal == signal && l != live {
				entry.Sealed = append(entry.Sealed, sealedRecord{
					Seq: id.Seq, Next: l.next, Before: l.before, Unsettled: l.held().items, Lost: slices.Clone(l.lost[:]),
				})
			}
		}
		slices.SortFunc(entry.Sealed, func(a, b sealedRecord) int { return int(int64(a.Seq) - int64(b.Seq)) })
		r.Signals[signal.String()] = entry
	}
	return r
}

func (s *Spool) saveRegistry() error {
	r := s.registry()
	r.Check = r.check()
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := writeFileAtomic(s.opts.fs, filepath.Join(s.opts.Dir, registryName), append(text, '\n'), true); err != nil {
		return err
	}
	return s.opts.fs.SyncDir(s.opts.Dir)
}

// loadRegistry returns the list of lanes, or nil if there is none for this epoch.
func (s *Spool) loadRegistry() *registryFile {
	path := filepath.Join(s.opts.Dir, registryName)
	text, err := readFile(s.opts.fs, path, 8<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r := parseRegistry(text)
	if err != nil || r == nil {
		s.quarantineFile(path)
		s.opts.Logger.Warn(registryName+" was damaged and is made again; the old one is in quarantine", "dir", s.opts.Dir)
		return nil
	}
	if r.Epoch != s.epoch.String() {
		return nil
	}
	return r
}

// parseRegistry returns nil for what is not a whole registry.
func parseRegistry(text []byte) *registryFile {
	var r registryFile
	if json.Unmarshal(text, &r) != nil || r.Check != r.check() {
		return nil
	}
	return &r
}

// newSeq returns a sequence that no lane of the signal can have had, whatever
// this directory has forgotten: higher than those known, not before the time in
// seconds, and by chance another than a copy of this directory would choose.
func (s *Spool) newSeq(signal frame.Signal, known uint32) (uint32, error) {
	highest := uint64(known)
	for id := range s.lanes {
		if id.Signal == signal {
			highest = max(highest, uint64(id.Seq))
		}
	}
	seq := max(highest+1, uint64(max(0, s.opts.now().Unix())))
	if seq < math.MaxUint32-1<<20 {
		seq += rand.Uint64N(1 << 20)
	}
	if seq > math.MaxUint32 {
		return 0, fmt.Errorf("the lane numbers of %s are used up: move the directory away, and a new spool begins", signal)
	}
	return uint32(seq), nil
}

// settleLanes compares the lanes on the disk with the list of them: it restores
// what was deleted, finishes what a crash interrupted, and decides which lane of
// each signal is live. used says that the spool was used before.
func (s *Spool) settleLanes(r *registryFile, used bool) error {
	for _, signal := range frame.Signals {
		var listed signalRegistry
		if r != nil {
			listed = r.Signals[signal.String()]
			s.retired[signal] = listed.Retired
		}
		for _, record := range listed.Sealed {
			if err := s.restoreSealed(frame.Lane{Signal: signal, Seq: record.Seq}, record); err != nil {
				return err
			}
		}
		if err := s.chooseLive(signal, listed, used); err != nil {
			return err
		}
		for id, l := range s.lanes {
			if id.Signal != signal || l == s.live[signal] {
				continue
			}
			l.class = frame.Backlog
			isListed := slices.ContainsFunc(listed.Sealed, func(r sealedRecord) bool { return r.Seq == id.Seq })
			if !isListed && s.isLeftover(l, listed.Live) {
				delete(s.lanes, id)
				s.removeLaneDir(l.dir)
			}
		}
	}
	return nil
}

// isLeftover says that a lane beside the list is one that was being deleted, or
// never used.
func (s *Spool) isLeftover(l *lane, live uint32) bool {
	entry := l.ledger.load(s.opts.fs)
	if entry == nil {
		return len(l.segments) == 0
	}
	return l.id.Seq < live && entry.Confirmed+1 >= entry.Next
}

// restoreSealed deals with a sealed lane of which nothing is there any more:
// what it held is lost, and the relay is to hear of it.
func (s *Spool) restoreSealed(id frame.Lane, record sealedRecord) error {
	if l := s.lanes[id]; l != nil && (len(l.segments) > 0 || l.ledger.load(s.opts.fs) != nil) {
		return nil
	}
	l := newLane(id, frame.Backlog, s.opts.Dir)
	l.next, l.before = max(record.Next, 1), record.Before
	copy(l.lost[:], record.Lost)
	l.lost[frame.Corrupt] += record.Unsettled
	l.itemsIn = max(l.before+l.lost[frame.TooLarge], sum(l.lost))
	l.itemsConfirmed = l.itemsIn - sum(l.lost)
	if err := s.opts.fs.MkdirAll(l.dir); err != nil {
		return err
	}
	s.saveLedger(l, false)
	s.saveLedger(l, true)
	if err := s.opts.fs.SyncDir(l.dir); err != nil {
		return err
	}
	s.opts.Logger.Warn("the files of a sealed lane are gone: its items are lost and counted", "lane", id, "items", record.Unsettled)
	s.lanes[id] = l
	return l.ledger.close()
}

// chooseLive sets the live lane of a signal: the newest, or a new one.
func (s *Spool) chooseLive(signal frame.Signal, listed signalRegistry, used bool) error {
	newest := s.newestLane(signal)
	blank := newest == nil || len(newest.segments) == 0 && newest.ledger.load(s.opts.fs) == nil
	if newest != nil && newest.id.Seq < listed.Live { // the live lane's directory is gone
		blank = true
	}
	if !blank {
		s.live[signal] = newest
		return nil
	}
	// A directory without a ledger that follows the live lane of the list is one that
	// a crash kept from being begun: it never held anything.
	begun := newest != nil && listed.Live > 0 && newest.id.Seq > listed.Live
	id := frame.Lane{Signal: signal, Seq: 1}
	switch {
	case begun:
		id = newest.id
	case used:
		seq, err := s.newSeq(signal, listed.Live)
		if err != nil {
			return err
		}
		if newest != nil {
			id = newest.id
		}
		s.opts.Logger.Warn("the files of a lane are gone: what it held is lost and cannot be counted; a new lane begins", "lane", id, "new_lane", frame.Lane{Signal: signal, Seq: seq})
		if newest != nil && newest.id.Seq >= listed.Live {
			delete(s.lanes, newest.id)
			s.removeLaneDir(newest.dir)
		}
		id.Seq = seq
	}
	l := newLane(id, frame.Live, s.opts.Dir)
	if err := s.opts.fs.MkdirAll(l.dir); err != nil {
		return err
	}
	s.lanes[id], s.live[signal] = l, l
	return nil
}

// replaceLanes seals every lane and begins new ones under sequences that cannot
// have been used: the numbers of the old ones may have gone further than this
// directory knows.
func (s *Spool) replaceLanes(why string) error {
	var names []string
	for _, signal := range frame.Signals {
		s.mu.Lock()
		old := s.live[signal]
		seq, err := s.newSeq(signal, 0)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		l, err := s.beginLane(frame.Lane{Signal: signal, Seq: seq})
		if err != nil {
			return err
		}
		s.finishActive(old)
		s.mu.Lock()
		old.class = frame.Backlog
		s.lanes[l.id], s.live[signal] = l, l
		unused := old.next == 1 && len(old.segments) == 0 && old.itemsIn == 0
		if unused {
			delete(s.lanes, old.id)
			old.wake()
		}
		s.mu.Unlock()
		if unused {
			old.ledger.close()
			s.removeLaneDir(old.dir)
		}
		names = append(names, l.id.String())
	}
	s.opts.Logger.Warn(why+": numbers may have been given out that it does not know of, so what it holds is shipped as backlog and new lanes begin; nothing is lost by this", "dir", s.opts.Dir, "new_lanes", names)
	return s.saveRegistry()
}
