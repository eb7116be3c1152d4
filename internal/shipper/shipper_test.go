package shipper

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	origin   = hub.Origin{Cluster: "store-0001", Node: "node.a"}
	logsLane = frame.Lane{Signal: frame.Logs, Seq: 1}
	settings = hub.Streams{MaxBytes: 256 * bytesize.MiB, Replicas: 1}
)

// hubServer is a real nats-server with JetStream on a port of its own, which it
// keeps when it is started again.
type hubServer struct {
	t    *testing.T
	dir  string
	port int
	*server.Server
}

func newHub(t *testing.T) *hubServer {
	h := &hubServer{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	h.start()
	h.port = h.Addr().(*net.TCPAddr).Port
	t.Cleanup(h.stop)
	return h
}

func (h *hubServer) start() {
	h.t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: h.port, JetStream: true, StoreDir: h.dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		h.t.Fatal("the hub is not ready")
	}
	h.Server = s
}

func (h *hubServer) stop() {
	h.Shutdown()
	h.WaitForShutdown()
}

// prepare makes the stream as the relay does and returns its identity.
func (h *hubServer) prepare() (jetstream.Stream, string) {
	h.t.Helper()
	nc, err := nats.Connect(h.ClientURL())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := hub.EnsureSignal(h.t.Context(), js, frame.Logs, settings, hub.Layout{Count: 4}, []hub.Reader{{Destination: hub.DefaultDestination}}); err != nil {
		h.t.Fatal(err)
	}
	stream, err := js.Stream(h.t.Context(), hub.StreamName(frame.Logs))
	if err != nil {
		h.t.Fatal(err)
	}
	return stream, fmt.Sprint(stream.CachedInfo().Created.UnixNano())
}

// numbers returns the frame numbers that a stream holds, in its order.
func numbers(t *testing.T, stream jetstream.Stream) []uint64 {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found []uint64
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		header, _, _, err := frame.Parse(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, header.Number)
	}
	return found
}

func confirm(t *testing.T, h *hubServer, epoch frame.Epoch, accepted custody.Accepted) {
	t.Helper()
	if accepted.Lane == "" {
		accepted.Lane = logsLane.String()
	}
	say(t, h, custody.Confirmation{Version: 1, Epoch: epoch.String(), Lanes: []custody.Accepted{accepted}})
}

// say publishes a relay's word to the edge.
func say(t *testing.T, h *hubServer, confirmation custody.Confirmation) {
	t.Helper()
	nc, err := nats.Connect(h.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	body, err := json.Marshal(confirmation)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(hub.CustodySubject(origin), body); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

type counting struct {
	mu    sync.Mutex
	items int
}

func (c *counting) Shipped(_ frame.Signal, items, _ int, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items += items
}

// edge is a spool with its shipper, as the nats exporter runs them.
type edge struct {
	*Shipper
	spool *spool.Spool
	stop  func()
}

func startEdge(t *testing.T, dir, url string) *edge {
	t.Helper()
	return startEdgeWith(t, dir, url, Config{})
}

func startEdgeWith(t *testing.T, dir, url string, config Config) *edge {
	t.Helper()
	sp, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	log := zaptest.NewLogger(t)
	config.Origin, config.WindowBytes, config.PublishTimeout = origin, 1<<20, 2*time.Second
	sh := New(config, sp, &counting{}, log)
	connection := hub.Connection{URLs: url}
	nc, err := connection.Connect(t.Context(), "test", nil, sh.Events(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := sh.Run(ctx, nc); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	e := &edge{Shipper: sh, spool: sp, stop: func() {
		once.Do(func() {
			cancel()
			running.Wait()
			nc.Close()
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
		})
	}}
	t.Cleanup(e.stop)
	return e
}

func (e *edge) append(t *testing.T, n int) {
	t.Helper()
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		payload, err := codec.Encode(nil, []byte("payload"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.spool.Append(t.Context(), frame.Header{Codec: codec.ID(), Signal: frame.Logs, Class: frame.Live, Items: 1, Uncompressed: 7}, payload); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *edge) floor() uint64 {
	floor, _ := e.spool.Floor(logsLane)
	return floor
}

// eventually waits for a condition that other processes bring about.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 30 s: %s", what)
		}
	}
}

func TestShipsInOrderWhatWasWrittenBeforeTheHubWasThere(t *testing.T) {
	h := newHub(t)
	url := h.ClientURL()
	h.stop()
	e := startEdge(t, t.TempDir(), url)
	e.append(t, 200)
	if e.LinkUp() {
		t.Fatal("the link is said to be up without a hub")
	}
	h.start()
	stream, _ := h.prepare()
	eventually(t, "200 frames on the hub", func() bool { return e.Unsent(logsLane) == 201 })
	for i, number := range numbers(t, stream) {
		if number != uint64(i+1) {
			t.Fatalf("frame %d came at place %d", number, i+1)
		}
	}
	if got := e.floor(); got != 1 {
		t.Fatalf("floor %d: frames were given up without a confirmation", got)
	}
}

func TestOnlyAConfirmationOfThisSpoolFreesFrames(t *testing.T) {
	h := newHub(t)
	h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 10)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 11 })
	confirm(t, h, e.spool.Epoch()+1, custody.Accepted{Confirmed: 10})
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 4})
	eventually(t, "4 frames freed", func() bool { return e.floor() == 5 })
}

func TestANewHubStoreIsFilledAgain(t *testing.T) {
	h := newHub(t)
	h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 10)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 11 })
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 3, Stream: "one"})
	eventually(t, "confirmed", func() bool { return e.floor() == 4 })

	h.stop()
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	h.start()
	stream, _ := h.prepare()
	eventually(t, "the edge is back", e.LinkUp)
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 3, Stream: "two"})
	eventually(t, "7 frames on the new hub", func() bool { return len(numbers(t, stream)) == 7 })
	for i, number := range numbers(t, stream) {
		if number != uint64(i+4) {
			t.Fatalf("the new hub got %v", numbers(t, stream))
		}
	}
}

func TestResendPublishesAgainPastTheHubsDuplicateWindow(t *testing.T) {
	h := newHub(t)
	stream, _ := h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 5)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 6 })
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Resend: 3})
	eventually(t, "frames 3 to 5 again", func() bool { return len(numbers(t, stream)) == 8 })
	got := fmt.Sprint(numbers(t, stream))
	if want := "[1 2 3 4 5 3 4 5]"; got != want {
		t.Fatalf("the hub holds %s; want %s", got, want)
	}
}

func TestARestartDoesNotPublishAgainWhatTheHubKeeps(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	stream, _ := h.prepare()
	first := startEdge(t, dir, h.ClientURL())
	first.append(t, 5)
	eventually(t, "shipped", func() bool { return first.Unsent(logsLane) == 6 })
	first.stop()
	second := startEdge(t, dir, h.ClientURL())
	second.append(t, 1)
	eventually(t, "shipped", func() bool { return second.Unsent(logsLane) == 7 })
	if got, want := fmt.Sprint(numbers(t, stream)), "[1 2 3 4 5 6]"; got != want {
		t.Fatalf("the hub holds %s; want %s", got, want)
	}
}

func TestTheFirstFrameHeldTellsItsFloorToARelayThatForgot(t *testing.T) {
	h := newHub(t)
	stream, _ := h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 3) // written with floor 1
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 4 })
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 2})
	eventually(t, "confirmed", func() bool { return e.floor() == 3 })
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Resend: 1})
	eventually(t, "frame 3 again", func() bool { return len(numbers(t, stream)) == 4 })
	msg, err := stream.GetMsg(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if got := msg.Header.Get(hub.FloorHeader); got != "3" {
		t.Fatalf("floor %q; frames 1 and 2 will be waited for without end", got)
	}
}
