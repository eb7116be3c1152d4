package edge

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/test/fleet/book"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const patience = time.Minute

// startHub starts a nats-server with a stream for frames of logs. It can be started
// again on the same port and store.
func startHub(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	return s
}

// relay takes frames from the hub and remembers them; it confirms what it is told to.
type relay struct {
	t    *testing.T
	nc   *nats.Conn
	mu   sync.Mutex
	seen map[custody.Key][]*nats.Msg
	bad  error
}

func startRelay(t *testing.T, url string) *relay {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: hub.StreamName(frame.Logs), Subjects: []string{"longhaul.frames.logs.*.*"}})
	require.NoError(t, err)
	consumer, err := stream.CreateOrUpdateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "test", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	r := &relay{t: t, nc: nc, seen: make(map[custody.Key][]*nats.Msg)}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) { r.take(msg) })
	require.NoError(t, err)
	t.Cleanup(func() { consuming.Stop(); <-consuming.Closed() })
	return r
}

func (r *relay) take(msg jetstream.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, origin, err := hub.ParseFrameSubject(msg.Subject())
	h, _, n, parse := frame.Parse(msg.Data())
	if err := errors.Join(err, parse); err != nil || n != len(msg.Data()) {
		r.bad = errors.Join(r.bad, err, errors.New("not exactly a frame"))
	}
	key := custody.Key{Origin: origin, Epoch: h.Epoch, Lane: h.LaneID()}
	r.seen[key] = append(r.seen[key], &nats.Msg{Data: msg.Data(), Header: msg.Headers()})
	_ = msg.Ack()
}

func (r *relay) say(key custody.Key, accepted custody.Accepted) {
	accepted.Lane = key.Lane.String()
	body, err := json.Marshal(custody.Confirmation{Version: custody.Version, Epoch: key.Epoch.String(), Lanes: []custody.Accepted{accepted}})
	require.NoError(r.t, err)
	require.NoError(r.t, r.nc.Publish(hub.CustodySubject(key.Origin), body))
}

// lanes returns what was seen, without repeats, after checking that it is in order
// and that the numbers of items add up.
func (r *relay) lanes() map[custody.Key][]*nats.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	require.NoError(r.t, r.bad)
	lanes := make(map[custody.Key][]*nats.Msg)
	for key, messages := range r.seen {
		var before uint64
		for _, m := range messages {
			h, _, _, err := frame.Parse(m.Data)
			require.NoError(r.t, err)
			if h.Number <= uint64(len(lanes[key])) {
				require.Equal(r.t, lanes[key][h.Number-1].Data, m.Data, "a frame that is sent again is the same")
				continue
			}
			require.EqualValues(r.t, len(lanes[key])+1, h.Number, "%v", key)
			require.Equal(r.t, before, h.Before)
			before += uint64(h.Items)
			lanes[key] = append(lanes[key], m)
		}
	}
	return lanes
}

func (r *relay) confirmAll() {
	for key, messages := range r.lanes() {
		r.say(key, custody.Accepted{Confirmed: uint64(len(messages))})
	}
}

// startFleet lets two clusters of two nodes write a frame of logs each every 50 ms.
func startFleet(t *testing.T, address string, o Options) (*Fleet, *book.Book) {
	t.Helper()
	maker, err := frames.NewMaker("../../../"+frames.CorpusDir, frames.DefaultSizes)
	require.NoError(t, err)
	o.Hub, o.Clusters, o.PerNode = address, 2, 2
	b := book.New(4)
	f, err := New(o, b, maker)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx, 2) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	f.Follow(&Plan{Every: map[frame.Signal]time.Duration{frame.Logs: 50 * time.Millisecond}})
	return f, b
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 20*time.Millisecond, what)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// What is confirmed is let go of, and nothing else.
func TestConfirmedFramesAreForgotten(t *testing.T) {
	for name, connections := range map[string]int{"a connection each": 0, "shared": 2} {
		t.Run(name, func(t *testing.T) {
			s := startHub(t, t.TempDir(), -1)
			t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
			r := startRelay(t, s.ClientURL())
			f, b := startFleet(t, s.Addr().String(), Options{SealAfter: patience, Connections: connections})
			eventually(t, "every node ships", func() bool { return len(r.lanes()) == 4 })
			require.Equal(t, 4, f.Stats().Connected)
			require.Equal(t, map[int]int{0: 4, 2: 2}[connections], f.Links())
			f.Follow(&Plan{})
			eventually(t, "all is shipped", func() bool { return f.Stats().Unsent == 0 })
			require.Positive(t, f.Stats().Holding)
			eventually(t, "all is let go of", func() bool { r.confirmAll(); return f.Stats().Holding == 0 })
			_, unconfirmed := b.Open()
			require.Zero(t, unconfirmed)
			_, wrongs := b.Counts()
			require.EqualValues(t, 4, wrongs.Untrue, "the book was told that nothing arrived")
		})
	}
}

// The relay asks again for a frame: it and all behind it come again, byte for byte,
// under ids that the hub does not know.
func TestFramesAreSentAgainWhenTheRelayAsks(t *testing.T) {
	s := startHub(t, t.TempDir(), -1)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	r := startRelay(t, s.ClientURL())
	f, _ := startFleet(t, s.Addr().String(), Options{SealAfter: patience})
	eventually(t, "some frames have come", func() bool {
		lanes := r.lanes()
		for _, messages := range lanes {
			if len(messages) < 5 {
				return false
			}
		}
		return len(lanes) == 4
	})
	f.Follow(&Plan{})
	eventually(t, "all is shipped", func() bool { return f.Stats().Unsent == 0 })
	var key custody.Key
	for key = range r.lanes() {
		break
	}
	r.say(key, custody.Accepted{Confirmed: 2, Resend: 4})
	eventually(t, "the fourth comes again", func() bool {
		r.lanes() // compares
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.seen[key][len(r.seen[key])-1]
		return strings.HasSuffix(last.Header.Get(jetstream.MsgIDHeader), "#1")
	})
	require.EqualValues(t, 1, f.Stats().Rewinds)
}

// A hub that is away for longer than SealAfter finds two lanes of each node: what is
// current first, and what was left behind marked so. Nothing is missing.
func TestAnOutageSealsTheLane(t *testing.T) {
	dir := t.TempDir()
	s := startHub(t, dir, -1)
	address := s.Addr().String()
	r := startRelay(t, s.ClientURL())
	f, _ := startFleet(t, address, Options{SealAfter: 2 * time.Second})
	eventually(t, "every node ships", func() bool { return len(r.lanes()) == 4 })
	_, port, _ := strings.Cut(address, ":")
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, "every node seals", func() bool { return f.Stats().Sealed >= 4 })
	s = startHub(t, dir, atoi(t, port))
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	eventually(t, "what is current comes, in a lane of its own", func() bool {
		later := make(map[hub.Origin]bool)
		for key := range r.lanes() {
			if key.Lane.Seq > 1 {
				later[key.Origin] = true
			}
		}
		return len(later) == 4
	})
	f.Follow(&Plan{})
	eventually(t, "all is shipped", func() bool { r.confirmAll(); return f.Stats().Unsent == 0 })
	eventually(t, "all is let go of", func() bool { r.confirmAll(); return f.Stats().Holding == 0 })
	left := make(map[hub.Origin]bool)
	for key, messages := range r.lanes() {
		if messages[len(messages)-1].Header.Get(hub.ClassHeader) == frame.Backlog.String() {
			left[key.Origin] = true
		}
	}
	require.Len(t, left, 4, "each node marks what was left behind")
}

func atoi(t *testing.T, text string) (n int) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &n))
	return n
}
