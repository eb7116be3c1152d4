package lease

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

var (
	// ErrReleased is the cause of a claim's end when the partition is given to another
	// relay, or this one stops: settle what is delivered, store it, then return.
	ErrReleased = errors.New("the partition is given on")
	// ErrLost is the cause of a claim's end, and the error of its methods, when another
	// relay owns the partition already: store, acknowledge and confirm nothing.
	ErrLost = errors.New("another relay owns the partition")
)

// Where a destination that is new on the hub begins.
const (
	StartHeld = "held" // with the oldest frame that the hub still holds for another destination
	StartNow  = "now"  // with what comes from now on
)

// Settings are a member's.
type Settings struct {
	// Name is for people: the host's. Which process it is, is told apart by a random id.
	Name string
	// Streams are the hub's storage settings.
	Streams hub.Streams
	// Signals are what each destination reads.
	Signals map[string][]frame.Signal
	// Start says, by destination, where one that is new on this hub begins: StartHeld
	// (also when it is not named here) or StartNow.
	Start map[string]string
	// Drop are destinations to remove from the hub, with what it holds for them.
	Drop []string
}

const (
	// interval is how often a relay says that it lives and looks who else does.
	interval = time.Second
	// expiry is after how long without a sign of life others take a relay for dead.
	expiry = 6 * time.Second
	// holdTime is how long after a sign of life was sent a relay may go on delivering.
	// With MaxPullExpiry it is expiry: nothing is sent to a relay that may be taken for dead.
	holdTime = expiry - MaxPullExpiry
	// outage is how long a relay must not have heard of the hub to believe that others
	// may not have, either; comeBack is how long it then waits for them. A connection
	// is tried again every 15 s at least.
	outage   = 5 * time.Second
	comeBack = 20 * time.Second
	// maxStep bounds what one look adds to the time without a sign of life.
	maxStep = 2 * time.Second
	// releaseTime is how long serve may take to return.
	releaseTime = 5 * time.Second
	// requestTime bounds a request of the heartbeat.
	requestTime = 2 * time.Second
	// buryTime is after how long without a sign of life a relay's member key is removed:
	// the hub gives no more than 1,024 keys in one look, and every relay that was killed
	// leaves one.
	buryTime = time.Minute
)

// Member is one relay among those that share the hub's partitions.
type Member struct {
	js    jetstream.JetStream
	set   Settings
	log   *zap.Logger
	id    string
	value []byte // under the member key
	clock *clock
	serve func(context.Context, *Claim)
	poke  chan struct{} // has the keeper look after the hub now
	wake  chan struct{} // has the heartbeat come at once

	serving sync.WaitGroup
	loader  loader
	batches chan struct{} // bounds the atomic batches under way
	keeping sync.Mutex    // one looks after the hub at a time
	settled bool          // under keeping: the streams were set as configured once
	differs bool          // under keeping: they are set otherwise by now
	silent  atomic.Bool   // for tests: no sign of life is given
	bury    time.Duration // buryTime, or what a test has

	// Of the heartbeat alone.
	census   census
	beatSeq  uint64
	failures int // heartbeats that failed, in a row
	previous *view
	lossAt   time.Duration // of the clock, when the bucket was found to be a new one; 0: never

	mu        sync.Mutex
	changed   chan struct{} // closed when what a claim waits for may have changed
	heldUntil time.Duration // of the clock
	claims    map[part]*Claim
	layout    hub.Layout
	layoutRev uint64
	ready     bool // the hub has what it needs
	stopping  bool
	live      map[string]memberSeen
	dead      map[string]uint64 // members without a sign of life for so long, and their keys' revisions
	owners    map[part]owner
	looks     int
	stores    map[frame.Signal]string // identity of each signal's stream
	bucket    time.Time               // when the bucket was made
	replicas  int                     // of the bucket
}

// New makes a member; nothing happens before Run.
func New(js jetstream.JetStream, set Settings, log *zap.Logger) *Member {
	m := &Member{
		js: js, set: set, log: log, id: nuid.Next(), clock: newClock(),
		poke: make(chan struct{}, 1), wake: make(chan struct{}, 1), batches: make(chan struct{}, batchesAtOnce),
		bury: buryTime, changed: make(chan struct{}), claims: make(map[part]*Claim), stores: make(map[frame.Signal]string),
	}
	value := memberValue{Name: set.Name, Reads: make(map[string][]string), Since: time.Now()}
	for destination, signals := range set.Signals {
		for _, signal := range signals {
			value.Reads[destination] = append(value.Reads[destination], signal.String())
		}
	}
	m.value, _ = json.Marshal(value) // strings and a time
	return m
}

// Run shares until ctx is done, then releases what this relay owns. For each
// partition that it comes to own it calls serve in a goroutine, which has to return
// soon after its ctx is done; context.Cause of it is ErrReleased or ErrLost. When it
// is ErrReleased the partition is given on after serve has returned, or after a few
// seconds. Run does not return before every serve has.
func (m *Member) Run(ctx context.Context, serve func(ctx context.Context, c *Claim)) {
	m.serve = serve
	var keeper sync.WaitGroup
	keeper.Go(func() { m.keep(ctx) })
	beating, stop := context.WithCancel(context.WithoutCancel(ctx)) // to the end of the release
	defer stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	done, late := ctx.Done(), (<-chan time.Time)(nil)
	for over := false; !over; {
		m.tick(beating)
		select {
		case <-done:
			done, late = nil, time.After(releaseTime+requestTime)
			m.stopAll()
		case <-late:
			over = true
		case <-m.wake:
		case <-ticker.C:
		}
		over = over || m.over()
	}
	keeper.Wait()
	m.leave(beating)
	m.serving.Wait()
}
