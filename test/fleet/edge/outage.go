package edge

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// Leave takes the nodes of a cluster off the hub, as when its link is down.
func (f *Fleet) Leave(cluster int) {
	for _, l := range f.clusters[cluster] {
		l.wanted.Store(false)
	}
}

// Return lets them connect again.
func (f *Fleet) Return(cluster int) {
	for _, l := range f.clusters[cluster] {
		l.attempts.Store(4) // an edge that was away for an hour tries every 15 s
		l.wanted.Store(true)
	}
}

// Gather writes into the spools of a cluster that is off the hub what an outage
// leaves there, all at once: a frame for each of the rounds (of metrics, one for
// each in every scrapes). The first lane is sealed, as it is SealAfter into an
// outage; the one that follows has waited since the first round, so it is sealed
// when the hub takes something again.
func (f *Fleet) Gather(cluster int, rounds []frames.Round, scrapes int) (frameCount int) {
	for _, l := range f.clusters[cluster] {
		for _, n := range l.nodes {
			frameCount += n.gather(rounds, scrapes)
		}
	}
	return frameCount
}

func (n *Node) gather(rounds []frames.Round, scrapes int) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, signal := range frame.Signals {
		if n.fleet.plan.Load().Every[signal] <= 0 {
			continue
		}
		if !n.outage[signal] {
			n.seal(signal)
			n.outage[signal] = true
		}
		for i, round := range rounds {
			if signal == frame.Metrics && i%scrapes != 0 {
				continue
			}
			n.write(signal, round[signal], round[signal][0].Newest())
			count++
		}
		l := n.live[signal]
		l.since = rounds[0][signal][0].Newest()
		// It is the live lane until the hub takes something of it, and holds backlog.
		n.fleet.book.Lives(n.index, frame.Lane{Signal: signal, Seq: l.name.Seq + 1})
	}
	return count
}

// Restart ends the node's process and starts it again: it knows what it had
// shipped up to two seconds ago, and what it had not is left behind.
func (f *Fleet) Restart(node int) {
	n := f.nodes[node]
	n.mu.Lock()
	n.instance = rand.Text()
	for _, l := range n.lanes {
		l.fresh, l.generation, l.stream = false, 0, ""
		l.restart(max(n.saved[l.name]+1, l.floor), &n.pace)
	}
	for _, signal := range frame.Signals {
		n.outage[signal] = false
		if n.live[signal].unsent() {
			n.seal(signal)
		}
	}
	n.mu.Unlock()
	n.link.drop()
	f.restarts.Add(1)
}

// Renew gives the node a new spool, as when it was installed again, if the old one
// holds nothing that is not confirmed. It says whether it did.
func (f *Fleet) Renew(node int) bool {
	n := f.nodes[node]
	n.mu.Lock()
	for _, l := range n.lanes {
		if len(l.held) > 0 {
			n.mu.Unlock()
			return false
		}
	}
	n.life++
	n.init()
	n.mu.Unlock()
	n.link.drop()
	f.renewals.Add(1)
	return true
}

// Skew sets a node's clock.
func (f *Fleet) Skew(node int, by time.Duration) {
	n := f.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	n.skew = by
}

// WriteEach lets every node write so many frames of each signal, one in every
// interval, spread over it.
func (f *Fleet) WriteEach(ctx context.Context, times int, interval time.Duration, signals []frame.Signal) (count int, err error) {
	step := interval / time.Duration(len(f.nodes))
	start := time.Now()
	for round := range times {
		for i, n := range f.nodes {
			due := start.Add(interval*time.Duration(round) + step*time.Duration(i))
			if wait := time.Until(due); wait > tickStep {
				select {
				case <-ctx.Done():
					return count, ctx.Err()
				case <-time.After(wait):
				}
			}
			n.mu.Lock()
			for _, signal := range signals {
				n.write(signal, (*f.round.Load())[signal], time.Now())
				count++
			}
			n.pump(time.Now())
			n.mu.Unlock()
		}
	}
	return count, nil
}
