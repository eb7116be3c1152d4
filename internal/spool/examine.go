package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sort"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// Examination says what Examine should look at and whom to tell.
type Examination struct {
	From, To uint64 // numbers of the frames wanted; To 0 means no end
	Payloads bool   // read and check every byte, not the headers alone

	// Frame gets the intact frames in order; fs.SkipAll ends the look early
	// and without an error.
	Frame func(*FoundFrame) error
	// Damage gets what is not as it was written, in order of offset.
	Damage func(Damage)
	// Note gets what is worth knowing and no damage, such as a frame that is
	// just being written.
	Note func(file, text string)
}

// FoundFrame is an intact frame and where it stands.
type FoundFrame struct {
	Header frame.Header
	File   string // relative to the spool's directory
	Offset int64
	Length int
	// Settled means below the floor: confirmed, mostly, and not yet deleted.
	Settled bool
	// With Payloads; valid until Frame returns. Newer means that this
	// longhaul can carry the frame, not understand it.
	Payload []byte
	Newer   bool
}

// LaneReport is what Examine learned about a lane. Held are the intact frames
// that are not confirmed, Settled those below the floor still on the disk.
type LaneReport struct {
	Lane      frame.Lane
	Class     frame.Class
	Floor     uint64
	Next      uint64
	Confirmed uint64
	Ledger    bool // false: there was none to read, and the rest is what the frames tell

	Segments      int
	SegmentBytes  int64
	Held, Settled Counts
	First, Last   time.Time // oldest and newest item held, zero if none has a time

	Lost    [frame.NumCauses]uint64 // items
	Damaged []NumberRange           // counted as lost, above the floor
}

// attempts and pause are how often and after what time something odd at the
// end of a lane is looked at again: a writer may have been taking back a write.
const (
	examineAttempts = 3
	examinePause    = 50 * time.Millisecond
)

// Examine walks a lane's segments with the memory of one frame. It fails only
// if files cannot be opened or Frame fails.
func (in *Inspection) Examine(id frame.Lane, what Examination) (LaneReport, error) {
	l := in.spool.lanes[id]
	if l == nil {
		return LaneReport{}, fmt.Errorf("%w: %s", ErrUnknownLane, id)
	}
	if what.To == 0 {
		what.To = math.MaxUint64
	}
	e := &examiner{Examination: what, in: in, lane: l, report: LaneReport{Lane: id, Class: in.Class(id)}}
	// The ledger before the segments: the frames it knows of are in files
	// listed later, as long as it does not say that they are gone.
	if err := e.readLedger(); err != nil {
		return e.report, explainInspect(in.Dir, err)
	}
	if _, _, err := in.listLane(l); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e.report, explainInspect(in.Dir, err)
	}
	e.report.Segments = len(l.segments)
	for _, seg := range l.segments {
		e.report.SegmentBytes += seg.size
	}
	if err := e.learnFromNewest(); err != nil {
		return e.report, explainInspect(in.Dir, err)
	}
	for i := range l.segments {
		err := e.segment(i)
		if errors.Is(err, fs.SkipAll) {
			return e.report, nil
		}
		if err != nil {
			return e.report, err
		}
	}
	e.missingFiles()
	return e.report, nil
}

// examiner is one Examine under way.
type examiner struct {
	Examination
	in     *Inspection
	lane   *lane
	report LaneReport
	next   uint64 // the lowest number not yet visited
	bytes  []byte // of the frame being read
}

func (e *examiner) damage(d Damage) {
	if e.Damage != nil && (d.From == 0 || d.From <= e.To && d.To >= e.From) {
		e.Damage(d)
	}
}

func (e *examiner) note(file, text string) {
	if e.Note != nil {
		e.Note(file, text)
	}
}

// readLedger takes what the lane remembers. One slot that cannot be read is
// what a power cut leaves; the other serves.
func (e *examiner) readLedger() error {
	name := e.in.relative(e.lane.ledger.path)
	var text []byte
	var err error
	var whole, torn int
	for attempt := range examineAttempts {
		if attempt > 0 {
			time.Sleep(examinePause)
		}
		text, err = readFile(e.in.spool.opts.fs, e.lane.ledger.path, 1<<20)
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		whole, torn = 0, 0
		for at := 0; at < len(text); at += ledgerSlot {
			slot := text[at:min(at+ledgerSlot, len(text))]
			if parseLedgerSlot(slot) != nil {
				whole++
			} else if len(bytes.Trim(slot, "\x00")) > 0 {
				torn++
			}
		}
		if whole > 0 && torn == 0 {
			break
		}
	}
	entry := e.lane.ledger.load(e.in.spool.opts.fs)
	switch {
	case entry == nil && len(e.lane.segments) == 0:
	case entry == nil && e.in.retired(e.lane):
	case entry == nil && errors.Is(err, fs.ErrNotExist):
		e.damage(Damage{File: name, What: "it is missing: the lane's losses are known only as far as its frames tell"})
	case entry == nil:
		e.damage(Damage{File: name, Bytes: int64(len(text)), What: "it cannot be read: the lane's losses are known only as far as its frames tell"})
	case entry.Epoch != e.in.Epoch.String() || entry.Lane != e.lane.id.String():
		e.damage(Damage{File: name, What: fmt.Sprintf("it belongs to lane %s of epoch %s and is ignored", entry.Lane, entry.Epoch)})
		entry = nil
	case torn > 0:
		e.note(name, "one of its two slots cannot be read, as a power cut leaves it; the other serves")
	}
	r := &e.report
	if entry == nil {
		r.Floor = 1
		if len(e.lane.segments) > 0 {
			r.Floor = e.lane.segments[0].first
		}
		r.Next = r.Floor
		r.Confirmed = r.Floor - 1
		return nil
	}
	r.Ledger = true
	r.Floor, r.Next, r.Confirmed, r.Damaged = entry.Floor, entry.Next, entry.Confirmed, entry.Damaged
	copy(r.Lost[:], entry.Lost)
	return nil
}

// refreshFloor reads the ledger again: a segment may have been deleted for a
// good reason while it was to be looked at.
func (e *examiner) refreshFloor() {
	if entry := e.lane.ledger.load(e.in.spool.opts.fs); entry != nil && entry.Epoch == e.in.Epoch.String() {
		e.report.Floor = max(e.report.Floor, entry.Floor)
		e.report.Confirmed = max(e.report.Confirmed, entry.Confirmed)
	}
}

// learnFromNewest takes from the newest frame what the ledger does not have,
// as recovery does.
func (e *examiner) learnFromNewest() error {
	for i := len(e.lane.segments) - 1; i >= 0; i-- {
		seg := e.lane.segments[i]
		f, err := e.in.spool.opts.fs.OpenFile(seg.path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		found := scanSegment(f, seg.size, e.rules(i, false))
		f.Close()
		e.report.Next = max(e.report.Next, seg.first, found.high+1)
		if found.all.frames == 0 {
			continue
		}
		for cause, n := range found.lastLost {
			e.report.Lost[cause] = max(e.report.Lost[cause], n)
		}
		e.report.Floor = max(e.report.Floor, found.lastFloor)
		return nil
	}
	return nil
}

func (e *examiner) rules(i int, verify bool) scanRules {
	rules := scanRules{
		identity: identity{e.in.Epoch, e.lane.id},
		first:    e.lane.segments[i].first, limit: math.MaxUint64, settled: e.report.Floor,
		verify: verify, lost: e.report.Damaged,
	}
	if i+1 < len(e.lane.segments) {
		rules.limit = e.lane.segments[i+1].first
	}
	return rules
}

// segment looks at the i-th segment file.
func (e *examiner) segment(i int) error {
	seg := e.lane.segments[i]
	rules := e.rules(i, e.Payloads)
	if seg.first > e.To || rules.limit-1 < e.From {
		return nil
	}
	f, err := e.in.spool.opts.fs.OpenFile(seg.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		e.vanished(seg, rules.limit)
		return nil
	}
	if err != nil {
		return explainInspect(e.in.Dir, fmt.Errorf("open segment: %w", err))
	}
	defer f.Close()
	last := i == len(e.lane.segments)-1
	told := int64(-1) // the offset up to which problems have been told of
	for attempt := 1; ; attempt++ {
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("segment %s: %w", seg.path, err)
		}
		found := scanSegment(f, info.Size(), rules)
		torn := last && tornTail(f, found)
		odd := len(found.missing) > 0 || len(found.holes) > 1 || len(found.holes) == 1 && !torn
		if odd && last && attempt < examineAttempts {
			time.Sleep(examinePause)
			continue
		}
		problems := e.problemsOf(f, seg, found, rules, last, torn)
		told, err = e.frames(f, seg, found, problems, told)
		if errors.Is(err, errDamaged) && attempt < examineAttempts {
			continue
		}
		if errors.Is(err, errDamaged) {
			e.damage(Damage{File: e.in.relative(seg.path), Offset: found.end, What: "it changed while it was being read"})
			err = nil
		}
		return err
	}
}

// tornTail reports whether the scan ended in a frame cut short or in zeros,
// as a write under way or ended by a kill leaves it. Nobody was promised it.
func tornTail(f io.ReaderAt, found *scan) bool {
	n := len(found.holes)
	if n == 0 || found.visible > found.high {
		return false
	}
	tail := found.holes[n-1]
	return tail.from == found.end && tail.to == found.size && (cutShort(f, tail) || allZero(f, tail))
}

// frames visits what a scan found intact, and tells of the problems between
// that stand behind the offset told. It returns how far it has told.
func (e *examiner) frames(f file, seg *segment, found *scan, problems []Damage, told int64) (int64, error) {
	v := view{path: seg.path, size: found.end, marks: found.marks, holes: found.holes, expect: identity{e.in.Epoch, e.lane.id}}
	name := e.in.relative(seg.path)
	tell := func(before int64) {
		for ; len(problems) > 0 && problems[0].Offset < before; problems = problems[1:] {
			if problems[0].Offset > told {
				e.damage(problems[0])
			}
		}
		told = before - 1
	}
	var failed error
	err := v.each(f, v.markFor(e.From).offset, func(h *frame.Header, offset int64, length int) bool {
		if h.Number < e.From || h.Number < e.next {
			return true
		}
		if h.Number > e.To {
			failed = fs.SkipAll
			return false
		}
		found := FoundFrame{Header: *h, File: name, Offset: offset, Length: length, Settled: h.Number < e.report.Floor}
		if failed = e.read(f, &found); failed != nil {
			return false
		}
		tell(offset + 1) // what is missing before a frame bears its offset
		e.next = h.Number + 1
		e.count(h, length)
		if e.Frame != nil {
			failed = e.Frame(&found)
		}
		return failed == nil
	})
	if failed == nil && err == nil {
		tell(math.MaxInt64)
	}
	return told, errors.Join(failed, err)
}

// read gets the frame's bytes, if they are wanted.
func (e *examiner) read(f file, found *FoundFrame) error {
	if !e.Payloads {
		return nil
	}
	if cap(e.bytes) < found.Length {
		e.bytes = make([]byte, found.Length)
	}
	b := e.bytes[:found.Length]
	if err := readAt(f, b, found.Offset); err != nil {
		return err
	}
	_, payload, _, err := frame.Parse(b)
	found.Payload, found.Newer = payload, errors.Is(err, frame.ErrVersion)
	if err != nil && !found.Newer {
		return errDamaged
	}
	return nil
}

func (e *examiner) count(h *frame.Header, length int) {
	r := &e.report
	c := &r.Held
	if h.Number < r.Floor {
		c = &r.Settled
	} else {
		if t := time.Unix(0, h.First); h.First > 0 && (r.First.IsZero() || t.Before(r.First)) {
			r.First = t
		}
		if t := time.Unix(0, h.Last); h.Last > 0 && t.After(r.Last) {
			r.Last = t
		}
	}
	c.Frames++
	c.Items += uint64(h.Items)
	c.Bytes += int64(length)
	r.Next = max(r.Next, h.Number+1)
}

// problemsOf tells what is wrong with a segment, in order of offset.
func (e *examiner) problemsOf(f file, seg *segment, found *scan, rules scanRules, last, torn bool) []Damage {
	name := e.in.relative(seg.path)
	var problems []Damage
	named := e.report.Damaged // numbers that need no further mention
	for i, hole := range found.holes {
		if torn && i == len(found.holes)-1 {
			if e.To == math.MaxUint64 {
				e.note(name, fmt.Sprintf("offset %d, %d bytes: a frame that is being written or was when the collector ended; nobody was promised it", hole.from, hole.to-hole.from))
			}
			continue
		}
		for _, d := range e.dissect(f, name, hole, rules, hole.to == found.size) {
			if d.From > 0 {
				named = addRange(named, numberRange{d.From, d.To})
			}
			problems = append(problems, d)
		}
	}
	missing := found.missing
	after := rules.limit
	if last {
		after = e.report.Next
	}
	if found.high+1 < after {
		missing = append(missing, gap{numberRange: numberRange{found.high + 1, after - 1}})
	}
	v := view{size: found.end, marks: found.marks, holes: found.holes, expect: rules.identity}
	for _, m := range missing {
		for _, rest := range e.unexplained(m.numberRange, named) {
			offset := found.end
			if _, at, err := v.find(f, rest.To); err == nil {
				offset = at
			}
			problems = append(problems, Damage{File: name, Offset: offset, From: rest.From, To: rest.To, What: "missing before this offset"})
		}
	}
	sort.SliceStable(problems, func(i, j int) bool { return problems[i].Offset < problems[j].Offset })
	return problems
}

// unexplained returns the numbers of m that are neither below the floor nor
// among those that have been named.
func (e *examiner) unexplained(m numberRange, named []numberRange) []numberRange {
	if len(subtractRanges(m, named)) == 0 {
		return nil
	}
	e.refreshFloor()
	if m.From = max(m.From, e.report.Floor); m.From > m.To {
		return nil
	}
	return subtractRanges(m, named)
}

// dissect says of each part of a hole what it is.
func (e *examiner) dissect(f file, name string, hole extent, rules scanRules, atEnd bool) []Damage {
	var parts []Damage
	hs := &headers{r: f, end: hole.to}
	buffer := make([]byte, 64<<10)
	for offset := hole.from; offset < hole.to; {
		h, n, err := hs.at(offset)
		end := offset + int64(n)
		d := Damage{File: name, Offset: offset}
		switch {
		case err != nil && n > 0: // a good header of a frame that ends elsewhere
			end = hole.to
			d.What = "its end is missing, or overwritten by another frame"
			if atEnd {
				d.What = "cut short: the file ends before it does"
			}
		case err != nil:
			end = resync(f, offset+1, hole.to, func(o int64) bool { _, _, err := hs.at(o); return err == nil })
			d.What = "no intact frame header here"
		case h.Epoch != rules.epoch:
			d.What = fmt.Sprintf("a frame of another spool, epoch %s", h.Epoch)
		case h.LaneID() != rules.lane:
			d.What = fmt.Sprintf("a frame of lane %s", h.LaneID())
		case contains(rules.lost, h.Number):
			d.What = "not what was written here; counted as lost already"
		case verifyFrame(f, offset, n, buffer) != nil:
			d.What = "its checksum is wrong"
		default:
			d.What = fmt.Sprintf("frame %d stands where a later one should", h.Number)
			h = frame.Header{}
		}
		if n > 0 && rules.matches(&h) && h.Number >= rules.first && h.Number < rules.limit {
			d.From, d.To, d.Items = h.Number, h.Number, uint64(h.Items)
			if h.Number < e.report.Floor {
				d.What += " (below the floor: confirmed, or counted before)"
			}
		}
		d.Bytes = end - offset
		parts = append(parts, d)
		offset = end
	}
	return parts
}

// vanished deals with a segment that was listed and is gone: normally because
// it was confirmed or evicted meanwhile.
func (e *examiner) vanished(seg *segment, limit uint64) {
	if limit == math.MaxUint64 {
		limit = max(e.report.Next, seg.first)
	}
	if limit == seg.first {
		return
	}
	for _, m := range e.unexplained(numberRange{seg.first, limit - 1}, e.report.Damaged) {
		e.damage(Damage{File: e.in.relative(seg.path), From: m.From, To: m.To, What: "the file was deleted, and nothing says why"})
	}
}

// missingFiles tells of numbers that no file covers: before the first, or all.
func (e *examiner) missingFiles() {
	to := e.report.Next - 1
	name := laneDirName(e.lane.id)
	if len(e.lane.segments) > 0 {
		to = e.lane.segments[0].first - 1
	}
	if to < e.report.Floor {
		return
	}
	for _, m := range e.unexplained(numberRange{e.report.Floor, to}, e.report.Damaged) {
		e.damage(Damage{File: name, From: m.From, To: m.To, What: "no file holds them"})
	}
}
