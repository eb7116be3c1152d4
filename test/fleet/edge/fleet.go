package edge

import (
	"container/heap"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/test/fleet/book"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const (
	// roundInterval is how often templates are made: their items are so old at most.
	roundInterval = 500 * time.Millisecond
	// tickStep is how exactly frames are on time.
	tickStep = 5 * time.Millisecond
	// linkInterval is how often connections are looked after.
	linkInterval = 100 * time.Millisecond
	// dialsAtOnce is less than a listening server queues.
	dialsAtOnce = 64
	// perSource is less than the connections one source address has ports for.
	perSource = 20_000
)

// Plan says how often every node writes a frame of each signal; 0: never. In an
// ordinary node's life that is a second for logs and traces, and for metrics 30 s
// divided by its scraped targets.
type Plan struct {
	Every map[frame.Signal]time.Duration
}

// Ordinary is the plan of the node that longhaul is made for, or of one with a
// multiple of its load.
func Ordinary(load float64, signals ...frame.Signal) *Plan {
	p := &Plan{Every: make(map[frame.Signal]time.Duration)}
	for _, signal := range signals {
		every := time.Second
		if signal == frame.Metrics {
			every = ScrapeInterval / Targets
		}
		p.Every[signal] = time.Duration(float64(every) / load)
	}
	return p
}

// What an ordinary node scrapes.
const (
	ScrapeInterval = 30 * time.Second
	Targets        = 4
)

// Options of a Fleet.
type Options struct {
	Hub      string // host:port
	Clusters int
	PerNode  int // nodes of a cluster
	// Connections is how many may be open; 0: one for each node. With fewer, the
	// nodes of a cluster share one.
	Connections int
	SealAfter   time.Duration
}

// Fleet is all nodes.
type Fleet struct {
	options  Options
	book     *book.Book
	maker    *frames.Maker
	nodes    []*Node
	links    []*link
	clusters [][]*link
	plan     atomic.Pointer[Plan]
	round    atomic.Pointer[frames.Round]
	making   sync.Mutex // of the maker
	dials    chan struct{}
	done     chan struct{}
	working  sync.WaitGroup
	spare    sync.Pool // of *[]byte

	bytesOut, hellos, confirmations, rewinds, sealed, restarts, renewals atomic.Int64
	failedDials, lostLinks, refusedPublishes, disputes, unread           atomic.Int64
	lagging                                                              atomic.Int64 // most, nanoseconds
}

// Name of a cluster.
func Name(cluster int) string { return fmt.Sprintf("store-%05d", cluster) }

// New prepares a fleet that writes nothing yet.
func New(o Options, b *book.Book, maker *frames.Maker) (*Fleet, error) {
	f := &Fleet{options: o, book: b, maker: maker, dials: make(chan struct{}, dialsAtOnce), done: make(chan struct{})}
	f.plan.Store(&Plan{})
	round, err := maker.Round(time.Now())
	if err != nil {
		return nil, err
	}
	f.round.Store(&round)
	shared := o.Connections > 0 && o.Connections < o.Clusters*o.PerNode
	for cluster := range o.Clusters {
		var links []*link
		for node := range o.PerNode {
			if !shared || node == 0 {
				source := byte(1 + len(f.links)/perSource)
				links = append(links, &link{fleet: f, from: net.IPv4(127, 0, 0, source)})
				f.links = append(f.links, links[len(links)-1])
			}
			l := links[len(links)-1]
			n := &Node{fleet: f, link: l, place: len(l.nodes), index: len(f.nodes), origin: hub.Origin{Cluster: Name(cluster), Node: fmt.Sprintf("node-%d", node)}}
			n.init()
			l.nodes = append(l.nodes, n)
			f.nodes = append(f.nodes, n)
		}
		f.clusters = append(f.clusters, links)
	}
	return f, nil
}

// ClusterOf names the cluster of a node, by its index.
func (f *Fleet) ClusterOf(node int) string {
	if node < 0 || node >= len(f.nodes) {
		return ""
	}
	return f.nodes[node].origin.Cluster
}

// Links is how many connections the fleet wants.
func (f *Fleet) Links() int { return len(f.links) }

// Nodes is how many nodes there are.
func (f *Fleet) Nodes() int { return len(f.nodes) }

// Follow lets the nodes write by another plan from now on.
func (f *Fleet) Follow(p *Plan) { f.plan.Store(p) }

// Rounds makes templates from some times in the past.
func (f *Fleet) Rounds(times []time.Time) ([]frames.Round, error) {
	f.making.Lock()
	defer f.making.Unlock()
	rounds := make([]frames.Round, 0, len(times))
	for _, at := range times {
		round, err := f.maker.Round(at)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, round)
	}
	return rounds, nil
}

// Run connects the nodes and lets them live until ctx is done. shards is how many
// goroutines drive them.
func (f *Fleet) Run(ctx context.Context, shards int) error {
	for _, l := range f.links {
		l.wanted.Store(true)
	}
	var driving sync.WaitGroup
	for shard := range shards {
		driving.Go(func() { f.drive(ctx, shard, shards) })
	}
	driving.Go(func() { f.keepLinks(ctx) })
	err := f.makeRounds(ctx)
	driving.Wait()
	close(f.done)
	for _, l := range f.links {
		l.wanted.Store(false)
		l.drop()
	}
	f.working.Wait()
	return err
}

func (f *Fleet) makeRounds(ctx context.Context) error {
	ticker := time.NewTicker(roundInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		rounds, err := f.Rounds([]time.Time{time.Now()})
		if err != nil {
			return err
		}
		f.round.Store(&rounds[0])
	}
}

func (f *Fleet) keepLinks(ctx context.Context) {
	ticker := time.NewTicker(linkInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, l := range f.links {
				l.tick(now)
			}
		}
	}
}

// due is a node and when it wants to be called.
type due struct {
	at   time.Time
	node *Node
}

type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) }
func (d *dues) Pop() any          { last := (*d)[len(*d)-1]; *d = (*d)[:len(*d)-1]; return last }

// drive calls the nodes of one shard when they are due.
func (f *Fleet) drive(ctx context.Context, shard, shards int) {
	var queue dues
	start := time.Now()
	for i := shard; i < len(f.nodes); i += shards {
		// Spread, so that what all do once a second is not done in one moment.
		queue = append(queue, due{start.Add(time.Second * time.Duration(i) / time.Duration(len(f.nodes))), f.nodes[i]})
	}
	heap.Init(&queue)
	plan := f.plan.Load()
	ticker := time.NewTicker(tickStep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if current := f.plan.Load(); current != plan { // what was not due may be by now
				plan = current
				for i := range queue {
					queue[i].at = earlier(queue[i].at, now)
				}
			}
			for len(queue) > 0 && !queue[0].at.After(now) {
				queue[0].at = queue[0].node.tick(time.Now())
				heap.Fix(&queue, 0)
			}
		}
	}
}

func (f *Fleet) lag(by time.Duration) {
	for {
		most := f.lagging.Load()
		if int64(by) <= most || f.lagging.CompareAndSwap(most, int64(by)) {
			return
		}
	}
}

// Stats are counters since the start, but Connected, Holding and Lag.
type Stats struct {
	Connected int // nodes
	// Holding is how many frames the spools hold unconfirmed, Unsent those of them
	// that the hub has not acknowledged.
	Holding, Unsent int64
	// BytesOut went to the hub.
	BytesOut                                                   int64
	Hellos, Confirmations, Rewinds, Sealed, Restarts, Renewals int64
	FailedDials, LostLinks, RefusedPublishes, Disputes, Unread int64
	// Lag is how late a frame was written at most since the last call: how much the
	// simulator is behind.
	Lag time.Duration
}

// Stats returns the present figures.
func (f *Fleet) Stats() Stats {
	s := Stats{
		BytesOut: f.bytesOut.Load(), Hellos: f.hellos.Load(), Confirmations: f.confirmations.Load(), Rewinds: f.rewinds.Load(),
		Sealed: f.sealed.Load(), Restarts: f.restarts.Load(), Renewals: f.renewals.Load(), FailedDials: f.failedDials.Load(),
		LostLinks: f.lostLinks.Load(), RefusedPublishes: f.refusedPublishes.Load(), Disputes: f.disputes.Load(), Unread: f.unread.Load(),
		Lag: time.Duration(f.lagging.Swap(0)),
	}
	for _, n := range f.nodes {
		n.mu.Lock()
		if n.up {
			s.Connected++
		}
		for _, l := range n.lanes {
			s.Holding += int64(len(l.held))
			s.Unsent += int64(l.end() - 1 - min(l.shipped, l.end()-1))
		}
		n.mu.Unlock()
	}
	return s
}
