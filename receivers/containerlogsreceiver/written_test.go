package containerlogsreceiver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// line is a line of a log file: an entry of a record.
type line struct {
	copies int // that hold it: each may repeat it once
	kills  int // since it was written, up to when its position was saved: each may repeat it once
	saved  bool
}

// run is a part of a record: lines that follow one another in it.
type run struct {
	lines []int
	whole bool
}

// written is what a container wrote, line for line, and what may become of it.
type written struct {
	lines []line
	runs  map[string]run // by the body that such a record has; bodies are unique
	file  []int          // the lines the log at its path holds now

	continues bool // the first of them end a record that began in the log before
}

// begin notes that the log is empty now.
func (w *written) begin() { w.file, w.continues = nil, false }

// add notes a record written in lines, which are joined by between.
func (w *written) add(between string, lines ...int) func(texts ...string) {
	return func(texts ...string) {
		for from := range texts {
			for to := from + 1; to <= len(texts); to++ {
				w.runs[strings.Join(texts[from:to], between)] = run{lines[from:to], to-from == len(texts)}
			}
		}
	}
}

// line notes a line and returns its number.
func (w *written) line() int {
	w.lines = append(w.lines, line{})
	w.file = append(w.file, len(w.lines)-1)
	return len(w.lines) - 1
}

// copied notes that a copy was made of the log, which then was truncated.
func (w *written) copied() {
	for _, i := range w.file {
		w.lines[i].copies++
	}
	w.begin()
}

// killed notes that what is not saved may be read again.
func (w *written) killed() {
	for i := range w.lines {
		if !w.lines[i].saved {
			w.lines[i].kills++
		}
	}
}

// allSaved notes that the positions behind all lines so far are in the position file.
func (w *written) allSaved() {
	for i := range w.lines {
		w.lines[i].saved = true
	}
}

// arrival says how often each line has arrived, and how often in a record that was
// torn.
type arrival struct {
	lines, torn []int
	strange     []string // bodies that were never written
}

func (w *written) arrivals(records []received) arrival {
	a := arrival{lines: make([]int, len(w.lines)), torn: make([]int, len(w.lines))}
	for _, got := range records {
		run, known := w.runs[got.body]
		if !known {
			a.strange = append(a.strange, got.body)
		}
		for _, i := range run.lines {
			a.lines[i]++
			if !run.whole {
				a.torn[i]++
			}
		}
	}
	return a
}

func (a *arrival) missing() (missing []int) {
	for i, count := range a.lines {
		if count == 0 {
			missing = append(missing, i)
		}
	}
	return missing
}

// tooMuch tells of lines that came more often than the copies and kills explain,
// and, unless that is allowed, of records that came in pieces only.
func (w *written) tooMuch(a *arrival, inPieces bool) (wrong []string) {
	for i, l := range w.lines {
		if a.lines[i] > 1+l.copies+l.kills {
			wrong = append(wrong, fmt.Sprintf("%q came %d times, with %d copies and %d kills", w.body(i), a.lines[i], l.copies, l.kills))
		}
		if !inPieces && a.lines[i] > 0 && a.torn[i] == a.lines[i] {
			wrong = append(wrong, fmt.Sprintf("%q came only in pieces of its record, with %d copies and %d kills", w.body(i), l.copies, l.kills))
		}
	}
	for _, body := range a.strange {
		wrong = append(wrong, fmt.Sprintf("%q was never written", body))
	}
	return wrong
}

// body is the text of a line.
func (w *written) body(line int) string {
	shortest := ""
	for body, run := range w.runs {
		if slices.Contains(run.lines, line) && (shortest == "" || cmp.Less(len(body), len(shortest))) {
			shortest = body
		}
	}
	return shortest
}
