package custody

import "slices"

// Holds says whether a frame is taken, and neither accepted nor refused by now.
func (l *Ledger) Holds(key Key, number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, e := l.find(key)
	if e == nil {
		return false
	}
	_, returns := e.returning[number]
	return returns || slices.ContainsFunc(e.hands, func(f Frame) bool { return f.Number == number })
}

// Untake forgets that a frame was taken, and with it all of its lane that was taken
// behind it: they are let go of before they are accepted or refused, and are to come
// again. A late frame is forgotten alone. It does nothing for a frame that Holds is
// not true of. To be called by who accepts the lane's frames.
//
// A lane that begins as of now has begun with its first frame, although that is let go
// of: it waits for that one, not for any.
func (l *Ledger) Untake(key Key, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, e := l.find(key)
	if e == nil {
		return
	}
	if number <= e.number {
		delete(e.returning, number)
		return
	}
	n := slices.IndexFunc(e.hands, func(f Frame) bool { return f.Number == number })
	if n < 0 {
		return
	}
	first := e.hands[n]
	e.hands = slices.Clone(e.hands[:n])
	if n > 0 {
		e.taken = e.hands[n-1].Number
		return
	}
	if e.seed != nil && e.seed.now {
		if first.Number != e.number+1 { // what lies between was others'
			e.position = position{number: first.Number - 1, before: first.Before, named: first.Written}
		}
		e.seed = nil
		s.version++
	}
	e.taken = e.number
}
