package spool

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// lane is one queue of frames. Spool.mu guards it where nothing else is said.
type lane struct {
	id    frame.Lane
	class frame.Class
	dir   string

	segments  []*segment // oldest first; appends go to the last
	next      uint64     // number of the next frame
	before    uint64     // items of all frames below next, whatever became of them
	confirmed uint64     // everything up to here was accepted by the backends
	acked     uint64     // everything up to here is at the hub, says the shipper

	// Since the epoch began. itemsIn = itemsConfirmed + held + sum(lost).
	itemsIn, itemsConfirmed uint64
	lost                    [frame.NumCauses]uint64
	// damaged are the numbers counted as Corrupt that lie above the floor, so
	// that a restart does not count them again.
	damaged []numberRange

	itemsInAtOpen, itemsConfirmedAtOpen uint64
	nextAtOpen, beforeAtOpen            uint64

	changed chan struct{} // closed and replaced when frames become durable

	confirmMu sync.Mutex // one Confirm or repair at a time; taken before Spool.mu
	reader    reader
	ledger    ledgerFile
	oldest    oldestFrame

	// The writer's own.
	active    file // the last segment, open for appending; nil if not open
	activeNew bool // its name is not yet durable
	unsynced  bool // it holds frames that no fsync covers; not so with FsyncAlways
	began     time.Time
	buffer    []byte
}

// numberRange is From to To, both included.
type numberRange struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// gap is a range of numbers that are missing and the items they held, if the
// frames at both of its ends tell; 0 if not.
type gap struct {
	numberRange
	items uint64
}

// gapOf makes a gap from the items of all frames before it and before what
// follows it.
func gapOf(from, to, before, after uint64) gap {
	g := gap{numberRange: numberRange{from, to}}
	if after > before {
		g.items = after - before
	}
	return g
}

func newLane(id frame.Lane, class frame.Class, spoolDir string) *lane {
	dir := filepath.Join(spoolDir, laneDirName(id))
	return &lane{
		id: id, class: class, dir: dir, next: 1, nextAtOpen: 1,
		changed: make(chan struct{}),
		ledger:  ledgerFile{path: filepath.Join(dir, ledgerName)},
	}
}

// floor is the lowest number that may still be sent; next if there is none. It
// steps over damage: a relay that waits for the number after the last confirmed
// one learns from the floor that it will never come.
func (l *lane) floor() uint64 {
	from := l.heldFrom(l.confirmed + 1)
	for {
		past := from
		for _, r := range l.damaged { // sorted
			if past >= r.From && past <= r.To {
				past = r.To + 1
			}
		}
		if past == from {
			return from
		}
		from = l.heldFrom(past)
	}
}

// heldFrom raises from to where the first segment with such a number begins; it
// is next if there is none.
func (l *lane) heldFrom(from uint64) uint64 {
	if seg := l.segmentFrom(from); seg != nil {
		return max(from, seg.low)
	}
	return l.next
}

// segmentFrom returns the first segment with a frame numbered from or higher.
func (l *lane) segmentFrom(from uint64) *segment {
	for i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].high >= from }); i < len(l.segments); i++ {
		if seg := l.segments[i]; seg.all.frames > 0 && seg.high >= from {
			return seg
		}
	}
	return nil
}

func (l *lane) lastSegment() *segment {
	if len(l.segments) == 0 {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// held counts what is in the lane and not confirmed.
func (l *lane) held() counts {
	var sum counts
	for _, seg := range l.segments {
		sum = sum.plus(seg.held())
	}
	return sum
}

// wake tells those who wait that there are new frames.
func (l *lane) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// counts measures a set of frames.
type counts struct {
	frames int
	items  uint64
	bytes  int64
}

func (c counts) plus(d counts) counts {
	return counts{c.frames + d.frames, c.items + d.items, c.bytes + d.bytes}
}

func (c counts) minus(d counts) counts {
	return counts{c.frames - d.frames, c.items - d.items, c.bytes - d.bytes}
}

// segment is one file of frames. Spool.mu guards it; the slices are only
// appended to or replaced, so that a view taken under the lock stays good.
type segment struct {
	first uint64 // from the file's name: the number of its first frame
	path  string

	size      int64  // bytes that are durable and may be read
	low, high uint64 // numbers of the first and last intact frame; high = first-1 if none
	all       counts
	confirmed counts    // the part of all that is confirmed
	appended  time.Time // of the last frame; after a restart, of the file

	// From the headers of the first and the last intact frame.
	lowBefore uint64 // items of all frames of the lane below low
	after     uint64 // items of all frames of the lane up to high
	lastFloor uint64
	lastLost  [frame.NumCauses]uint64

	marks   []mark
	holes   []extent // damaged bytes, to be stepped over
	sealed  bool     // never append again
	removed bool     // no longer in its lane
	failing int      // consecutive reads the disk has refused
	indexed bool     // it has an index file
}

// mark lets a search begin in the middle of a segment.
type mark struct {
	number uint64
	offset int64
	before counts // of the frames before this one
}

// markEvery bounds what a search walks. A 10 GiB spool has 40,000 marks.
const markEvery = 256 << 10

// extent is a range of bytes in a file.
type extent struct{ from, to int64 }

func newSegment(laneDir string, first uint64) *segment {
	return &segment{first: first, high: first - 1, path: filepath.Join(laneDir, segmentName(first))}
}

func (s *segment) held() counts { return s.all.minus(s.confirmed) }

// note records an intact frame at the end of what is known.
func (s *segment) note(h *frame.Header, offset int64, length int) {
	if s.all.frames == 0 {
		s.low, s.lowBefore = h.Number, h.Before
	}
	if n := len(s.marks); n == 0 || offset >= s.marks[n-1].offset+markEvery {
		s.marks = append(s.marks, mark{number: h.Number, offset: offset, before: s.all})
	}
	s.high = h.Number
	s.after, s.lastFloor, s.lastLost = h.Before+uint64(h.Items), h.Floor, h.Lost
	s.all = s.all.plus(counts{1, uint64(h.Items), int64(length)})
}

// view is a segment as it was at one moment.
type view struct {
	seg      *segment
	path     string
	size     int64
	marks    []mark
	holes    []extent
	appended time.Time
	expect   identity
}

func (s *Spool) viewOf(l *lane, seg *segment) view {
	return view{
		seg: seg, path: seg.path, size: seg.size, marks: seg.marks, holes: seg.holes,
		appended: seg.appended, expect: identity{s.epoch, l.id},
	}
}

// markFor returns the last mark at or below number.
func (v *view) markFor(number uint64) mark {
	i := sort.Search(len(v.marks), func(i int) bool { return v.marks[i].number > number })
	if i == 0 {
		return mark{}
	}
	return v.marks[i-1]
}

// past steps over a hole that offset lies in and says where the next begins.
func (v *view) past(offset int64) (start, end int64) {
	end = v.size
	for _, hole := range v.holes {
		if offset >= hole.from && offset < hole.to {
			offset = hole.to
		}
		if hole.from > offset {
			end = min(end, hole.from)
			break
		}
	}
	return offset, end
}

const segmentSuffix = ".seg"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func parseSegmentName(name string) (first uint64, ok bool) {
	digits, found := strings.CutSuffix(name, segmentSuffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

func laneDirName(id frame.Lane) string { return strings.Replace(id.String(), "/", "-", 1) }

func parseLaneDirName(name string) (frame.Lane, bool) {
	id, err := frame.ParseLane(strings.Replace(name, "-", "/", 1))
	return id, err == nil
}

// addRange adds r to ranges, which stay sorted, and merges what touches.
func addRange(ranges []numberRange, r numberRange) []numberRange {
	ranges = append(slices.Clone(ranges), r)
	slices.SortFunc(ranges, func(a, b numberRange) int {
		if a.From < b.From {
			return -1
		}
		return 1
	})
	merged := ranges[:1]
	for _, r := range ranges[1:] {
		if last := &merged[len(merged)-1]; r.From <= last.To+1 {
			last.To = max(last.To, r.To)
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}

func contains(ranges []numberRange, number uint64) bool {
	for _, r := range ranges {
		if number >= r.From && number <= r.To {
			return true
		}
	}
	return false
}

// subtractRanges returns the parts of r that none of ranges covers.
func subtractRanges(r numberRange, ranges []numberRange) []numberRange {
	var rest []numberRange
	for _, known := range ranges {
		if known.To < r.From || known.From > r.To {
			continue
		}
		if known.From > r.From {
			rest = append(rest, numberRange{r.From, known.From - 1})
		}
		if known.To >= r.To {
			return rest
		}
		r.From = known.To + 1
	}
	return append(rest, r)
}
