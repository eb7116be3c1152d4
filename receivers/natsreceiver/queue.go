package natsreceiver

import "sync"

// queue holds the arrivals that wait for a worker, in the order in which they came.
// Its length is bounded by the outlet's budget.
type queue struct {
	mu    sync.Mutex
	items []*arrival
	head  int
	ready chan struct{} // something came
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

func (q *queue) push(a *arrival) {
	q.mu.Lock()
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, a)
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pop returns the first; nil when there is none.
func (q *queue) pop() *arrival {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.items) {
		return nil
	}
	a := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return a
}

// popUnless returns the first of those that have not to wait; nil when there is none.
// The order of each origin stays if its arrivals wait or do not wait together.
func (q *queue) popUnless(waits func(*arrival) bool) *arrival {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := q.head; i < len(q.items); i++ {
		if waits(q.items[i]) {
			continue
		}
		a := q.items[i]
		copy(q.items[i:], q.items[i+1:])
		q.items[len(q.items)-1] = nil
		q.items = q.items[:len(q.items)-1]
		if q.head == len(q.items) {
			q.items, q.head = q.items[:0], 0
		}
		return a
	}
	return nil
}

// purge takes out what is of a partition.
func (q *queue) purge(p *partition) (out []*arrival) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.items[:0]
	for _, a := range q.items[q.head:] {
		if a.share.partition == p {
			out = append(out, a)
		} else {
			kept = append(kept, a)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
	return out
}
