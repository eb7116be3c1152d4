package lease

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
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

// Member is one relay among those that share the hub's partitions.
type Member struct {
	js  jetstream.JetStream
	set Settings
	log *zap.Logger
}

// New makes a member; nothing happens before Run.
func New(js jetstream.JetStream, set Settings, log *zap.Logger) *Member {
	return &Member{js: js, set: set, log: log}
}

// Run shares until ctx is done, then releases what this relay owns. For each
// partition that it comes to own it calls serve in a goroutine, which has to return
// soon after its ctx is done; context.Cause of it is ErrReleased or ErrLost. When it
// is ErrReleased the partition is given on after serve has returned, or after a few
// seconds.
func (m *Member) Run(ctx context.Context, serve func(ctx context.Context, c *Claim)) {
	<-ctx.Done()
}
