package shipper

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// arrived is a frame as the hub holds it.
type arrived struct {
	lane   uint32
	number uint64
	class  string // what the message says beside the frame
}

func arrivals(t *testing.T, stream jetstream.Stream) (found []arrived) {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		header, _, _, err := frame.Parse(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, arrived{header.Lane, header.Number, msg.Header.Get(hub.ClassHeader)})
	}
	return found
}

func logsLaneAt(seq uint32) frame.Lane { return frame.Lane{Signal: frame.Logs, Seq: seq} }

// hears subscribes to the edge's hellos.
func (h *hubServer) hears() <-chan custody.Hello {
	h.t.Helper()
	nc, err := nats.Connect(h.ClientURL())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	hellos := make(chan custody.Hello, 100)
	_, err = nc.Subscribe(hub.HelloSubject(origin), func(msg *nats.Msg) {
		var hello custody.Hello
		if json.Unmarshal(msg.Data, &hello) == nil {
			hellos <- hello
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		h.t.Fatal(err)
	}
	return hellos
}

// appendLarge appends frames of 4 KiB.
func (e *edge) appendLarge(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := e.spool.Append(t.Context(), frame.Header{Codec: frame.OTLPZstd, Signal: frame.Logs, Items: 1, Uncompressed: 4096}, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
}

// answers is a relay that has nothing yet: edges need not wait for its word.
func (h *hubServer) answers() {
	h.t.Helper()
	nc, err := nats.Connect(h.ClientURL(), nats.ReconnectWait(100*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	_, err = nc.Subscribe(hub.HelloSubject(origin), func(msg *nats.Msg) {
		hello, _, err := custody.ParseHello(msg.Data)
		if err != nil {
			return
		}
		answer := custody.Confirmation{Version: 1, Epoch: hello.Epoch}
		for _, l := range hello.Lanes {
			answer.Lanes = append(answer.Lanes, custody.Accepted{Lane: l.Lane})
		}
		if body, err := json.Marshal(answer); err == nil {
			_ = nc.Publish(hub.CustodySubject(origin), body) // while the hub is away there is nobody to hear it
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		h.t.Fatal(err)
	}
}

// confirmShipped is a relay that has all that the hub has of the first lanes, which are
// sealed: the hub is given little more than the relay confirms.
func (e *edge) confirmShipped(t *testing.T, h *hubServer, lanes uint32) {
	t.Helper()
	for seq := range lanes {
		if n := e.Unsent(logsLaneAt(seq + 1)); n > 1 {
			confirm(t, h, e.spool.Epoch(), custody.Accepted{Lane: logsLaneAt(seq + 1).String(), Confirmed: n - 1})
		}
	}
}

func TestWhatIsCurrentDoesNotWaitBehindAnOutage(t *testing.T) {
	h := newHub(t)
	h.prepare()
	h.answers()
	e := startEdgeWith(t, t.TempDir(), h.ClientURL(), Config{SealAfter: 6 * time.Second})
	e.append(t, 1)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 2 })
	h.stop()
	eventually(t, "the edge has noticed", func() bool { return !e.LinkUp() })
	e.appendLarge(t, 300)
	eventually(t, "the lane is sealed", func() bool { return e.spool.Live(frame.Logs) == logsLaneAt(2) })
	e.append(t, 3)
	// Once: what comes later in the same outage stays in one lane.
	time.Sleep(3 * watchInterval) // nothing to wait for: it must not happen
	if live := e.spool.Live(frame.Logs); live != logsLaneAt(2) {
		t.Fatalf("sealed again: %s", live)
	}
	h.start()
	stream, _ := h.prepare()
	eventually(t, "all frames on the hub", func() bool { e.confirmShipped(t, h, 1); return len(arrivals(t, stream)) == 304 })
	got := arrivals(t, stream)
	// The backlog begins with a window of a few frames.
	if first := slices.IndexFunc(got, func(a arrived) bool { return a.lane == 2 }); first > 150 {
		t.Fatalf("what is current came after %d frames of the backlog", first)
	}
	var numbers []uint64
	for _, a := range got[1:] {
		if a.lane == 1 {
			if a.class != "backlog" {
				t.Fatalf("a sealed lane's frame came as %q", a.class)
			}
			numbers = append(numbers, a.number)
		}
	}
	if !slices.IsSorted(numbers) || len(numbers) != 300 || numbers[0] != 2 {
		t.Fatalf("the sealed lane came as %v", numbers)
	}
	if got[0].class != "" {
		t.Fatalf("a live frame came as %q", got[0].class)
	}
}

func TestWhatAnOutageGatheredIsLeftBehindWhenItEnds(t *testing.T) {
	h := newHub(t)
	h.prepare()
	e := startEdgeWith(t, t.TempDir(), h.ClientURL(), Config{SealAfter: 2 * time.Second})
	eventually(t, "connected", e.LinkUp)
	h.stop()
	eventually(t, "the edge has noticed", func() bool { return !e.LinkUp() })
	e.append(t, 10)
	eventually(t, "the lane is sealed", func() bool { return e.spool.Live(frame.Logs) == logsLaneAt(2) })
	e.append(t, 100)
	second := e.lanes.get(logsLaneAt(2))
	eventually(t, "the second lane waits for long", func() bool { return second.stalled(time.Now()) })
	h.start()
	stream, _ := h.prepare()
	eventually(t, "the second lane is sealed too", func() bool { return e.spool.Live(frame.Logs) == logsLaneAt(3) })
	e.append(t, 1)
	eventually(t, "all frames on the hub", func() bool { e.confirmShipped(t, h, 2); return len(arrivals(t, stream)) == 111 })
	var order []uint32
	for _, a := range arrivals(t, stream) {
		if n := len(order); n == 0 || order[n-1] != a.lane {
			order = append(order, a.lane)
		}
	}
	first, last := slices.Index(order, 1), len(order)-1-slices.Index(reversed(order), 2)
	if first < 0 || last < first {
		t.Fatalf("the older sealed lane did not come first: %v", order)
	}
}

func TestTheHubIsGivenLittleOfAnOutageThatTheRelayDoesNotConfirm(t *testing.T) {
	h := newHub(t)
	url, dir := h.ClientURL(), t.TempDir()
	h.stop()
	e := startEdge(t, dir, url)
	e.append(t, 50)
	e.stop()
	e = startEdge(t, dir, url) // with unsent data: sealed at once
	e.append(t, 20)
	h.start()
	stream, _ := h.prepare()
	eventually(t, "what is current is on the hub", func() bool { return e.Unsent(logsLaneAt(2)) == 21 })
	eventually(t, "some of the outage too", func() bool { return e.Unsent(logsLaneAt(1)) == allowanceStart+1 })
	time.Sleep(time.Second) // an absence can only be waited for
	if n := len(arrivals(t, stream)); n != 20+allowanceStart {
		t.Fatalf("%d frames are on the hub; want 20 that are current and %d", n, allowanceStart)
	}
	eventually(t, "all is there", func() bool { e.confirmShipped(t, h, 1); return len(arrivals(t, stream)) == 70 })
}

// A lane that another's goroutine began goes on when that other has left.
func TestALaneOutlivesTheOneItFollows(t *testing.T) {
	h := newHub(t)
	h.prepare()
	h.answers()
	e := startEdgeWith(t, t.TempDir(), h.ClientURL(), Config{SealAfter: 2 * time.Second})
	eventually(t, "connected", e.LinkUp)
	h.stop()
	eventually(t, "the edge has noticed", func() bool { return !e.LinkUp() })
	e.append(t, 10)
	eventually(t, "the lane is sealed", func() bool { return e.spool.Live(frame.Logs) == logsLaneAt(2) })
	e.append(t, 10)
	second := e.lanes.get(logsLaneAt(2))
	eventually(t, "the second lane waits for long", func() bool { return second.stalled(time.Now()) })
	h.start()
	h.prepare()
	eventually(t, "the second lane is sealed too", func() bool { return e.spool.Live(frame.Logs) == logsLaneAt(3) })
	var third *lane // the shipper hears of it a moment later
	eventually(t, "the third lane is known", func() bool { third = e.lanes.get(logsLaneAt(3)); return third != nil })
	eventually(t, "the sealed lanes leave", func() bool {
		e.confirmShipped(t, h, 2)
		return !slices.ContainsFunc(e.spool.Lanes(), func(l frame.Lane) bool { return l.Signal == frame.Logs && l.Seq < 3 })
	})
	e.append(t, 5)
	eventually(t, "the third lane is shipped", func() bool { return third.shipped.Load() == 5 })
}

func TestALaneThatTheSpoolHasLetGoEnds(t *testing.T) {
	h := newHub(t)
	h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	eventually(t, "connected", e.LinkUp)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l := e.newLane(logsLaneAt(99))
		l.fresh = true
		l.run(t.Context())
	}()
	eventually(t, "it ends", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}

func reversed(s []uint32) []uint32 {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

func TestInOrderNeverSeals(t *testing.T) {
	h := newHub(t)
	url, dir := h.ClientURL(), t.TempDir()
	h.stop()
	config := Config{SealAfter: 10 * time.Millisecond, Recovery: InOrder}
	e := startEdgeWith(t, dir, url, config)
	e.append(t, 20)
	time.Sleep(3 * watchInterval) // nothing to wait for: it must not happen
	e.stop()
	e = startEdgeWith(t, dir, url, config)
	e.append(t, 20)
	h.start()
	stream, _ := h.prepare()
	eventually(t, "all frames on the hub", func() bool { return len(arrivals(t, stream)) == 40 })
	for i, a := range arrivals(t, stream) {
		if a != (arrived{1, uint64(i + 1), ""}) {
			t.Fatalf("frame %d is %+v", i, a)
		}
	}
}

func TestASealedLaneLeavesOnlyWhenItIsConfirmedToItsEnd(t *testing.T) {
	h := newHub(t)
	url, dir := h.ClientURL(), t.TempDir()
	h.stop()
	e := startEdge(t, dir, url)
	e.append(t, 4) // as much as the hub is given unconfirmed
	e.stop()
	e = startEdge(t, dir, url) // with unsent data: sealed at once
	if live := e.spool.Live(frame.Logs); live != logsLaneAt(2) {
		t.Fatalf("live: %s", live)
	}
	e.append(t, 2)
	h.start()
	h.prepare()
	hellos := h.hears()
	eventually(t, "both lanes shipped", func() bool { return e.Unsent(logsLaneAt(1)) == 5 && e.Unsent(logsLaneAt(2)) == 3 })

	e.askHello()
	eventually(t, "a hello with both lanes", func() bool {
		select {
		case hello := <-hellos:
			i := slices.IndexFunc(hello.Lanes, func(l custody.HelloLane) bool { return l.Lane == "logs/1" })
			if i < 0 || i+1 == len(hello.Lanes) || hello.Instance == "" {
				return false
			}
			first, second := hello.Lanes[i], hello.Lanes[i+1]
			return first.Class == "backlog" && first.Next == 5 && first.Before == 4 && second.Lane == "logs/2" && second.Class == "live" && second.Before == 2
		default:
			return false
		}
	})
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 3})
	eventually(t, "confirmed in part", func() bool { return e.floor() == 4 })
	if !slices.Contains(e.spool.Lanes(), logsLaneAt(1)) {
		t.Fatal("the lane left before its last frame was confirmed")
	}
	eventually(t, "the lane leaves", func() bool {
		confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 4})
		return !slices.Contains(e.spool.Lanes(), logsLaneAt(1))
	})
	eventually(t, "a hello without it", func() bool {
		e.askHello()
		select {
		case hello := <-hellos:
			return !slices.ContainsFunc(hello.Lanes, func(l custody.HelloLane) bool { return l.Lane == "logs/1" })
		default:
			return false
		}
	})
	e.append(t, 1)
	eventually(t, "the live lane goes on", func() bool { return e.Unsent(logsLaneAt(2)) == 4 })
}

func TestAConflictStopsShippingUntilItIsOver(t *testing.T) {
	h := newHub(t)
	stream, _ := h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 3)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 4 })
	conflict := custody.Confirmation{Version: 1, Epoch: e.spool.Epoch().String(), Conflict: "another instance",
		Lanes: []custody.Accepted{{Lane: logsLane.String(), Confirmed: 3}}}
	say(t, h, conflict)
	eventually(t, "the edge knows", func() bool { return e.Conflict() == "another instance" })
	e.append(t, 5) // taken all the same
	time.Sleep(time.Second)
	if got := len(arrivals(t, stream)); got != 3 {
		t.Fatalf("%d frames on the hub during the conflict", got)
	}
	if got := e.floor(); got != 1 {
		t.Fatalf("floor %d: confirmed by what may be the other's", got)
	}
	conflict.Conflict = ""
	say(t, h, conflict)
	eventually(t, "shipping goes on", func() bool { return e.Unsent(logsLane) == 9 && e.floor() == 4 })
}

func TestASpoolThatWasSetBackBeginsNewLanes(t *testing.T) {
	h := newHub(t)
	h.prepare()
	e := startEdge(t, t.TempDir(), h.ClientURL())
	e.append(t, 2)
	eventually(t, "shipped", func() bool { return e.Unsent(logsLane) == 3 })
	confirm(t, h, e.spool.Epoch(), custody.Accepted{Confirmed: 7})
	eventually(t, "a new lane", func() bool { return e.spool.Live(frame.Logs).Seq > 2 })
	live := e.spool.Live(frame.Logs)
	e.append(t, 4)
	// With the two whose numbers the relay knew of other frames.
	eventually(t, "the new lane is shipped", func() bool { return e.Unsent(live) == 7 })
}

func TestPaceGrowsWhilePromptAndShrinksWhenLate(t *testing.T) {
	now := time.Now()
	p := pace{limit: 1 << 20}
	p.reset()
	if !p.take(500 << 10) {
		t.Fatal("one frame may always go")
	}
	if p.take(1) {
		t.Fatal("beyond the window")
	}
	p.give(500 << 10)
	for range 100 {
		p.learn(100<<10, 300*time.Millisecond, now) // a long way, not a full one
	}
	if p.window != p.limit {
		t.Fatalf("window %d after prompt acknowledgements", p.window)
	}
	for range 100 {
		now = now.Add(time.Second)
		p.learn(0, 900*time.Millisecond, now) // live data has to wait
	}
	if p.window != 1 {
		t.Fatalf("window %d while live data waits", p.window)
	}
	p.learn(0, 300*time.Millisecond, now)
	if p.window != 1 {
		t.Fatal("live data widened the window of what was left behind")
	}
}
