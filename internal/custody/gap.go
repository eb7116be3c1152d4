package custody

import (
	"slices"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

const (
	// keptGaps is how many gaps of a lane are kept once they are told; untold ones
	// are kept up to maxGaps.
	keptGaps = 32
	maxGaps  = 256
	// maxReturned bounds the ranges of a gap's frames that arrived after all. A gap
	// that would need more stays as it is: what else arrives of it is dropped.
	maxReturned = 64
)

// edgeCauses are the causes that the edge counts and that leave a hole in the
// numbers, in the order in which they explain one.
var edgeCauses = [...]frame.Cause{frame.EvictedSpace, frame.EvictedAge, frame.Corrupt}

// Gap is a loss of one lane.
type Gap struct {
	Lane frame.Lane
	// From and To are the numbers that did not arrive. Both are 0 for items that
	// never were in a frame; From alone is 0 when only the end is known.
	From, To uint64
	// Items lost by cause, and those of them that arrived after all.
	Items, Recovered Counts
	// Kept says that the frames arrived, were refused, and are in the rejected stream.
	Kept bool
	// After and Before are the times around what is lost: of the newest item before
	// it and the oldest behind it, Unix nanoseconds, 0 if unknown.
	After, Before int64
	// At is when the relay found it, RecoveredAt when something of it last arrived.
	At, RecoveredAt time.Time

	returned []numbers
	told     bool // its log record was accepted
	toldBack bool // so was that of the latest recovery
	closed   bool // no other loss may be merged into it
	version  uint64
}

// numbers is a range of frame numbers, both ends included.
type numbers struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Lost returns the items that are lost by now, whatever the cause.
func (g *Gap) Lost() (items uint64) {
	for cause := range g.Items {
		items += g.Items[cause] - g.Recovered[cause]
	}
	return items
}

// isTold says whether nothing of it is left to be told.
func (g *Gap) isTold() bool { return g.told && (g.toldBack || g.RecoveredAt.IsZero()) }

func (g *Gap) clone() Gap {
	c := *g
	c.returned = slices.Clone(g.returned)
	return c
}

// Report is a change of what is known to be lost.
type Report struct {
	Key Key
	// Gap as it is after the change.
	Gap Gap
	// Lost and Recovered are the change itself. Both are set when items that were
	// lost for an unknown cause turn out to be lost for another.
	Lost, Recovered Counts
}

// reckon finds out what was lost between the lane's position and a frame (or
// the lane's end, as Empty tells it), and why. Between two frames at hand the
// number of items is exact; the edge's counters say why, up to that number.
func (e *entry) reckon(s *spool, key Key, f *Frame, now time.Time) {
	g := Gap{Lane: key.Lane, From: e.number + 1, To: f.Number - 1, After: e.last, Before: f.First, At: now}
	switch {
	case !e.begun:
		e.begin(&g, f)
	case f.Number > e.number+1:
		// However wrong the edge may reckon: no frame is without items.
		missing := max(less(f.Before, e.before), f.Number-e.number-1)
		rest := e.attribute(&g, f.Lost, missing)
		// Before the first frame after a start, what no counter explains was
		// confirmed by a relay whose word the hub has forgotten since (a power cut).
		if e.placed {
			g.Items[frame.Unknown] = rest
		}
	}
	e.lose(s, key, g)
	e.loseLarge(s, key, f.Lost[frame.TooLarge], f.First, now)
	e.explain(s, key, f.Lost)
	if f.Floor < f.Number {
		// All that was evicted lies below the floor and is dealt with. Counted and in
		// no gap are frames that came through although the edge let go of them.
		for _, cause := range [...]frame.Cause{frame.EvictedSpace, frame.EvictedAge} {
			e.named[cause] = max(e.named[cause], f.Lost[cause])
		}
	}
	e.begun, e.placed = true, true
}

// loseLarge names what of the items too large for a frame is not named yet.
func (e *entry) loseLarge(s *spool, key Key, items uint64, before int64, now time.Time) {
	large := Gap{Lane: key.Lane, After: e.last, Before: before, At: now}
	large.Items[frame.TooLarge] = less(items, e.named[frame.TooLarge])
	e.named[frame.TooLarge] = max(e.named[frame.TooLarge], items)
	e.lose(s, key, large)
}

// nameLarge is for items that were too large for a frame when the lane has no
// frame behind them: they leave no hole, so nothing but the edge's word tells of
// them. It does nothing before the lane is taken to the end the edge spoke of.
func (e *entry) nameLarge(s *spool, key Key, now time.Time) {
	if len(e.hands) > 0 || e.said.Next != e.number+1 || len(e.said.Lost) <= int(frame.TooLarge) {
		return
	}
	items := e.said.Lost[frame.TooLarge]
	if items <= e.named[frame.TooLarge] {
		return
	}
	s.version++
	e.begun = true // at its beginning, if no frame has arrived: the edge has written none
	e.loseLarge(s, key, items, 0, now)
}

// begin is for the first frame of a lane that was never heard of: a new one, or
// one whose watermark went with the hub's store.
func (e *entry) begin(g *Gap, f *Frame) {
	var lost uint64
	for _, cause := range edgeCauses {
		lost += f.Lost[cause]
	}
	if f.Before <= lost {
		// Nothing was ever confirmed: no relay has had any of it, nor named any of it.
		e.attribute(g, f.Lost, f.Before)
		return
	}
	// Some was confirmed, by a relay that knew what was lost until then. What was
	// lost since this frame was written it cannot have known.
	g.From = 0
	e.named = f.Written
	e.attribute(g, f.Lost, f.Before)
}

// attribute gives a gap of some items the causes that the edge's counters name and
// that no other gap has taken yet. It returns how many items are left over.
func (e *entry) attribute(g *Gap, lost Counts, items uint64) (rest uint64) {
	for _, cause := range edgeCauses {
		n := min(items, less(lost[cause], e.named[cause]))
		g.Items[cause] += n
		e.named[cause] += n
		items -= n
	}
	return items
}

// explain gives items that were lost for an unknown cause the one that the edge
// has named since.
func (e *entry) explain(s *spool, key Key, lost Counts) {
	for _, g := range e.gaps {
		unknown := less(g.Items[frame.Unknown], g.Recovered[frame.Unknown])
		if unknown == 0 {
			continue
		}
		var found Gap
		explained := unknown - e.attribute(&found, lost, unknown)
		if explained == 0 {
			continue
		}
		for _, cause := range edgeCauses {
			g.Items[cause] += found.Items[cause]
		}
		g.Items[frame.Unknown] -= explained
		report := Report{Key: key, Gap: g.clone(), Lost: found.Items}
		report.Recovered[frame.Unknown] = explained
		s.reports = append(s.reports, pending{s.version, report})
	}
}

// lose notes a gap, unless it is empty. Frames refused one after another make
// one gap until it is told.
func (e *entry) lose(s *spool, key Key, g Gap) {
	if g.Items == (Counts{}) {
		return
	}
	lost := g.Items
	kept := &g
	if n := len(e.gaps); n > 0 && g.Kept && e.gaps[n-1].takes(&g) {
		kept = e.gaps[n-1]
		kept.To, kept.Before = g.To, g.Before
		for cause := range g.Items {
			kept.Items[cause] += g.Items[cause]
		}
	} else {
		e.gaps = keep(append(e.gaps, kept))
	}
	kept.version = s.version
	s.reports = append(s.reports, pending{s.version, Report{Key: key, Gap: kept.clone(), Lost: lost}})
}

// takes says whether a gap can be merged with the one behind it.
func (g *Gap) takes(next *Gap) bool {
	return g.Kept && !g.told && !g.closed && g.To+1 == next.From
}

// keep bounds a list of gaps: those that were told go first, then the oldest.
func keep(gaps []*Gap) []*Gap {
	for len(gaps) > keptGaps {
		told := slices.IndexFunc(gaps, (*Gap).isTold)
		if told < 0 {
			if len(gaps) <= maxGaps {
				break
			}
			told = 0
		}
		gaps = slices.Delete(gaps, told, told+1)
	}
	return gaps
}

// gapOf returns the gap that a number lies in and from which it has not returned.
func (e *entry) gapOf(number uint64) *Gap {
	for _, g := range e.gaps {
		if g.From == 0 || g.Kept || number < g.From || number > g.To {
			continue
		}
		if g.hasReturned(number) {
			return nil
		}
		if len(g.returned) >= maxReturned && !g.adjoins(number) {
			return nil
		}
		return g
	}
	return nil
}

func (g *Gap) adjoins(number uint64) bool {
	return slices.ContainsFunc(g.returned, func(r numbers) bool { return r.From == number+1 || r.To+1 == number })
}

// restore notes that a number has arrived after all.
func (g *Gap) restore(number, items uint64, now time.Time) {
	at, _ := slices.BinarySearchFunc(g.returned, number, func(r numbers, n uint64) int {
		if r.From < n {
			return -1
		}
		return 1
	})
	g.returned = slices.Insert(g.returned, at, numbers{number, number})
	if at+1 < len(g.returned) && g.returned[at+1].From == number+1 {
		g.returned[at].To = g.returned[at+1].To
		g.returned = slices.Delete(g.returned, at+1, at+2)
	}
	if at > 0 && g.returned[at-1].To+1 == number {
		g.returned[at-1].To = g.returned[at].To
		g.returned = slices.Delete(g.returned, at, at+1)
	}
	if items > 0 {
		g.RecoveredAt, g.toldBack = now, false
	}
}

// takeBack counts items as recovered: those of an unknown cause first.
func (g *Gap) takeBack(items uint64) (recovered Counts) {
	for _, cause := range [...]frame.Cause{frame.Unknown, frame.EvictedSpace, frame.EvictedAge, frame.Rejected, frame.Corrupt} {
		n := min(items, g.Items[cause]-g.Recovered[cause])
		g.Recovered[cause] += n
		recovered[cause] = n
		items -= n
	}
	return recovered
}

// less is a − b, and 0 where b is more.
func less(a, b uint64) uint64 {
	if b >= a {
		return 0
	}
	return a - b
}
