package natsreceiver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// hello says what an edge holds, as its shipper does.
func (f *fleet) hello(origin hub.Origin, instance string, lanes ...custody.HelloLane) {
	f.t.Helper()
	body, err := json.Marshal(custody.Hello{Version: 1, Epoch: epoch.String(), Instance: instance, Lanes: lanes})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.nc.Publish(hub.HelloSubject(origin), body); err != nil {
		f.t.Fatal(err)
	}
}

// listen collects the confirmations that the relay sends to an origin.
func (f *fleet) listen(origin hub.Origin) func() []custody.Confirmation {
	f.t.Helper()
	var mu sync.Mutex
	var heard []custody.Confirmation
	sub, err := f.nc.Subscribe(hub.CustodySubject(origin), func(msg *nats.Msg) {
		c, _, err := custody.ParseConfirmation(msg.Data)
		if err != nil {
			f.t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, c)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := f.nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	return func() []custody.Confirmation {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
}

// last returns what was heard last.
func last(heard []custody.Confirmation) (c custody.Confirmation) {
	if len(heard) > 0 {
		c = heard[len(heard)-1]
	}
	return c
}

// confirmedLane returns the highest number confirmed of a lane.
func confirmedLane(heard []custody.Confirmation, lane string) (number uint64) {
	for _, c := range heard {
		for _, l := range c.Lanes {
			if l.Lane == lane {
				number = max(number, l.Confirmed)
			}
		}
	}
	return number
}

// sum reads a counter of a relay, with the causes added up by name.
func sum(t *testing.T, tel *componenttest.Telemetry, name string) map[string]int64 {
	t.Helper()
	return sumBy(t, tel, name, "cause")
}

func sumBy(t *testing.T, tel *componenttest.Telemetry, name, attributeName string) map[string]int64 {
	t.Helper()
	found := make(map[string]int64)
	m, err := tel.GetMetric(name)
	if err != nil {
		return found
	}
	for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
		value, _ := point.Attributes.Value(attribute.Key(attributeName))
		found[value.AsString()] += point.Value
	}
	return found
}

// stored returns the value the hub keeps of an origin's spool; "" if none.
func (f *fleet) stored(origin hub.Origin) string {
	f.t.Helper()
	bucket, err := f.js.KeyValue(f.t.Context(), hub.CustodyBucket)
	if err != nil {
		return ""
	}
	entry, err := bucket.Get(f.t.Context(), hub.CustodyKey(origin, epoch))
	if err != nil {
		return ""
	}
	return string(entry.Value())
}

func TestAGapIsAMetricAndALogRecord(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 5, 1), hub.FloorHeader, "5", hub.LostHeader, "2,0,0,0,0,0,0,0")
	f.publish(store1, encode(t, 6, 1), hub.FloorHeader, "5", hub.LostHeader, "2,0,1,0,0,0,0,0")
	eventually(t, "the loss is a metric", func() bool {
		lost, recovered := sum(t, tel, "longhaul_lost_items"), sum(t, tel, "longhaul_recovered_items")
		return lost["evicted_space"] == 2 && lost["unknown"]-recovered["unknown"] == 0 && lost["corrupt"] == 1
	})
	eventually(t, "the loss is a log record", func() bool { return len(b.gaps()) > 0 })
	got := b.gaps()[0]
	for _, want := range []string{"lost 2 log records of store-0001/a: evicted_space, frames 2 to 4", "cause:evicted_space", "from:2", "to:4", "items:2", "lane:logs/1", "signal:logs"} {
		if !strings.Contains(got, want) {
			t.Errorf("record %q lacks %q", got, want)
		}
	}
	if want := lines(store1, 1, 5, 6); !slices.Equal(b.got(), want) {
		t.Fatalf("delivered %q; want %q", b.got(), want)
	}
}

func TestAFrameAfterItsGapIsDeliveredAndCorrectsIt(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 4, 1), hub.FloorHeader, "4", hub.LostHeader, "2,0,0,0,0,0,0,0")
	eventually(t, "the gap is told", func() bool { return len(b.gaps()) == 1 })
	f.publish(store1, encode(t, 3, 1))
	f.publish(store1, encode(t, 3, 1))
	eventually(t, "the correction is a metric", func() bool { return sum(t, tel, "longhaul_recovered_items")["evicted_space"] == 1 })
	eventually(t, "the correction is told", func() bool { return len(b.gaps()) == 2 })
	if got := b.gaps()[1]; !strings.Contains(got, "1 of 2 lost log records of store-0001/a arrived after all: evicted_space, frames 2 to 4") &&
		!strings.Contains(got, "1 of 2 lost log records of store-0001/a arrived after all: evicted_space, frames 2 to 3") {
		t.Errorf("record %q", got)
	}
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
	if got, want := b.got(), lines(store1, 1, 4, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

func TestAGapIsToldByTheNextRelayWithTheSameTimeAndLine(t *testing.T) {
	t.Parallel()
	h, b := startHub(t), &backend{}
	var seen sync.Map // records that were refused
	first := &recording{backend: b, seen: &seen}
	b.refusing(nil)
	stop := startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	b.mu.Lock()
	b.refuseRecords = first.refuse
	b.mu.Unlock()
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 4, 1), hub.FloorHeader, "4", hub.LostHeader, "2,0,0,0,0,0,0,0")
	eventually(t, "the record was tried", func() bool { return len(slices.Collect(first.keys())) == 1 })
	if want := lines(store1, 1, 4); !slices.Equal(b.got(), want) {
		t.Fatalf("delivered %q; want %q: a record that is refused holds frames up", b.got(), want)
	}
	stop()
	b.mu.Lock()
	b.refuseRecords = nil
	b.mu.Unlock()
	stop = startReceiver(t, h.ClientURL(), b)
	eventually(t, "the next relay tells it", func() bool { return len(b.gaps()) == 1 })
	if tried := slices.Collect(first.keys()); b.gaps()[0] != tried[0] {
		t.Fatalf("told %q; tried before %q", b.gaps()[0], tried[0])
	}
	stop()
	startReceiver(t, h.ClientURL(), b)
	f.publish(store1, encode(t, 5, 1))
	eventually(t, "5 is delivered", func() bool { return len(b.got()) == 3 })
	time.Sleep(2 * tellInterval) // an absence can only be waited for
	if n := len(b.gaps()); n != 1 {
		t.Fatalf("told %d times", n)
	}
}

// recording refuses records of gaps and remembers them.
type recording struct {
	*backend
	seen *sync.Map
}

func (r *recording) refuse(records []string) error {
	for _, one := range records {
		r.seen.Store(one, nil)
	}
	return fmt.Errorf("away")
}

func (r *recording) keys() func(func(string) bool) {
	return func(yield func(string) bool) {
		r.seen.Range(func(key, _ any) bool { return yield(key.(string)) })
	}
}

// An edge whose lane lost its end has nothing to send that would tell; its hello does.
func TestTheLostEndOfALaneIsNamedFromAHelloAndTheLaneRetires(t *testing.T) {
	t.Parallel()
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encodeLane(t, 2, 1, 1))
	eventually(t, "the live lane is confirmed", func() bool { return confirmedLane(heard(), "logs/2") == 1 })
	backlog := custody.HelloLane{Lane: "logs/1", Class: "backlog", Floor: 8, Next: 8, Before: 7, Shipped: 4, Lost: []uint64{4, 0, 2}}
	live := custody.HelloLane{Lane: "logs/2", Class: "live", Floor: 2, Next: 2, Before: 1, Shipped: 1}
	f.hello(store1, "x", backlog, live)
	// The live lane goes on meanwhile: the hub is never quite empty.
	var number uint64 = 1
	eventually(t, "the backlog is confirmed to its end", func() bool {
		number++
		f.publish(store1, encodeLane(t, 2, number, 1))
		return confirmedLane(heard(), "logs/1") == 7
	})
	if lost := sum(t, tel, "longhaul_lost_items"); !maps.Equal(lost, map[string]int64{"evicted_space": 4, "corrupt": 2}) {
		t.Fatalf("lost %v", lost)
	}
	f.hello(store1, "x", live)
	eventually(t, "the lane's watermark has gone", func() bool {
		value := f.stored(store1)
		return strings.Contains(value, `"retired":{"logs":2}`) && !strings.Contains(value, `"logs/1":{`)
	})
	f.publish(store1, encode(t, 3, 1))
	f.publish(store1, encodeLane(t, 2, number+1, 1))
	eventually(t, "the live lane goes on", func() bool { return confirmedLane(heard(), "logs/2") == number+1 })
	if slices.Contains(b.got(), store1.String()+":line 3") {
		t.Fatal("a late repeat of a retired lane was delivered")
	}
}

// A new node that lost all it had before it ever reached the hub.
func TestWhatWasLostBeforeTheFirstFrameIsNamedFromAHello(t *testing.T) {
	t.Parallel()
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	eventually(t, "the relay answers", func() bool {
		f.hello(store1, "x", custody.HelloLane{Lane: "logs/1", Floor: 5, Next: 5, Before: 2000, Lost: []uint64{0, 0, 2000}})
		return len(heard()) > 0
	})
	eventually(t, "the lane is confirmed to its end", func() bool { return confirmedLane(heard(), "logs/1") == 4 })
	if lost := sum(t, tel, "longhaul_lost_items"); !maps.Equal(lost, map[string]int64{"corrupt": 2000}) {
		t.Fatalf("lost %v", lost)
	}
}

// A hello that overtakes frames must not make losses of them.
func TestWhatIsOnTheHubIsNotNamedAsLost(t *testing.T) {
	t.Parallel()
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	b.refusing(func([]string) error { return fmt.Errorf("away") })
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	for n := uint64(1); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	// The edge has evicted them all while the backend is away.
	f.hello(store1, "x", custody.HelloLane{Lane: "logs/1", Floor: 4, Next: 4, Before: 3, Shipped: 3, Lost: []uint64{3}})
	time.Sleep(underWay + 2*suspectInterval) // an absence can only be waited for
	b.refusing(nil)
	eventually(t, "3 is confirmed", func() bool { return confirmedLane(heard(), "logs/1") == 3 })
	if got, want := b.got(), lines(store1, 1, 2, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
	f.publish(store1, encode(t, 4, 1), hub.FloorHeader, "4", hub.LostHeader, "3,0,0,0,0,0,0,0")
	eventually(t, "4 is confirmed", func() bool { return confirmedLane(heard(), "logs/1") == 4 })
	if lost := sum(t, tel, "longhaul_lost_items"); len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
}

func TestAHoleInTheBacklogDoesNotHoldUpTheLiveLane(t *testing.T) {
	t.Parallel()
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 3, 1))
	for n := uint64(1); n <= 5; n++ {
		f.publish(store1, encodeLane(t, 2, n, 1))
	}
	eventually(t, "the live lane is confirmed", func() bool { return confirmedLane(heard(), "logs/2") == 5 })
	if n := confirmedLane(heard(), "logs/1"); n > 1 {
		t.Fatalf("backlog confirmed to %d over a hole", n)
	}
}

func TestCopiedSpoolsAreToldAndConfirmedNothing(t *testing.T) {
	t.Parallel()
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	startMeasured(t, h.ClientURL(), b, set)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	lane := custody.HelloLane{Lane: "logs/1", Floor: 1, Next: 2, Shipped: 1}
	for _, instance := range []string{"one", "one", "two", "two"} { // a restart
		f.hello(store1, instance, lane)
	}
	eventually(t, "four answers", func() bool { return len(heard()) == 4 })
	for _, c := range heard() {
		if c.Conflict != "" {
			t.Fatalf("a restart is taken for a copy: %s", c.Conflict)
		}
	}
	f.hello(store1, "one", lane)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "the conflict is told", func() bool { return last(heard()).Conflict != "" })
	if text := heard()[4].Conflict; !strings.Contains(text, "instances one, two") || len(heard()[4].Lanes) > 0 {
		t.Fatalf("answer %+v", heard()[4])
	}
	m, err := tel.GetMetric("longhaul_origin_conflicts")
	if err != nil {
		t.Fatal(err)
	}
	if points := m.Data.(metricdata.Gauge[int64]).DataPoints; len(points) != 1 || points[0].Value != 2 {
		t.Fatalf("conflicts %+v", points)
	}
	eventually(t, "frame 1 is delivered and settled", func() bool { return len(b.got()) == 1 && f.held("LONGHAUL_LOGS") == 0 })
	time.Sleep(2 * defaultConfig().ConfirmInterval) // an absence can only be waited for
	if n := confirmedLane(heard(), "logs/1"); n != 0 {
		t.Fatalf("confirmed %d to two spools with different frames of that number", n)
	}
}

func TestAWipedHubIsFilledAgainAndTheRelayGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	options := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true}
	start := func() *server.Server {
		o := options
		s, err := server.NewServer(&o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		if !s.ReadyForConnections(30 * time.Second) {
			t.Fatal("the hub is not ready")
		}
		return s
	}
	h := start()
	options.Port = h.Addr().(*net.TCPAddr).Port
	b := &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	heard := f.listen(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encodeLane(t, 2, 1, 1))
	eventually(t, "both lanes are confirmed", func() bool {
		return confirmedLane(heard(), "logs/1") == 1 && confirmedLane(heard(), "logs/2") == 1
	})
	was := last(heard()).Lanes[0].Stream

	h.Shutdown()
	h.WaitForShutdown()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h = start()
	t.Cleanup(func() { h.Shutdown(); h.WaitForShutdown() })
	eventually(t, "the new hub knows the watermarks", func() bool { return f.nc.IsConnected() && f.stored(store1) != "" })
	stream := func() string {
		f.hello(store1, "x", custody.HelloLane{Lane: "logs/1", Floor: 2, Next: 2, Before: 1, Shipped: 1}, custody.HelloLane{Lane: "logs/2", Floor: 1, Next: 3, Before: 2, Shipped: 2})
		if c := last(heard()); len(c.Lanes) > 0 {
			return c.Lanes[0].Stream
		}
		return ""
	}
	eventually(t, "the edge hears of the new store", func() bool { now := stream(); return now != "" && now != was })
	eventually(t, "the new stream takes frames", func() bool {
		_, err := f.js.PublishMsg(t.Context(), &nats.Msg{Subject: hub.FrameSubject(frame.Logs, store1), Data: encodeLane(t, 2, 2, 2)}, jetstream.WithRetryAttempts(0))
		return err == nil
	})
	eventually(t, "lane 2 goes on", func() bool { return confirmedLane(heard(), "logs/2") == 2 })
	want := []string{"store-0001/a:line 1", "store-0001/a:lane 2 line 1", "store-0001/a:lane 2 line 2"}
	if got := b.got(); !slices.Equal(got, want) || len(b.gaps()) > 0 {
		t.Fatalf("delivered %q, told %q; want %q", got, b.gaps(), want)
	}
}

// A thousand origins at one frame a second: however many frames and lanes, one
// message an origin every ConfirmInterval, and about one write of its watermarks a storePace.
// An edge that forgets its spool at every start, or one that means harm: neither may
// fill the hub's bucket and the relay's memory.
func TestAnOriginThatBeginsSpoolsWithoutEndIsForgottenInPart(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel})
	f := newFleet(t, h.ClientURL())
	const spools = 3 * custody.MaxSpools
	for n := range frame.Epoch(spools) {
		f.publish(store1, encodeOf(t, epoch+n, 1, 1, 1))
	}
	eventually(t, "all are delivered", func() bool { return len(b.got()) == spools })
	keys := func() (n int) {
		bucket, err := f.js.KeyValue(t.Context(), hub.CustodyBucket)
		if err != nil {
			t.Fatal(err)
		}
		for _, pattern := range hub.ClusterKeys(store1.Cluster) {
			lister, err := bucket.ListKeysFiltered(t.Context(), pattern)
			if err != nil {
				t.Fatal(err)
			}
			for range lister.Keys() {
				n++
			}
		}
		return n
	}
	eventually(t, "the bucket has as many as are kept", func() bool { return keys() == custody.MaxSpools })
	eventually(t, "so has the ledger", func() bool {
		n := 0
		for _, p := range r.partitions() {
			n += len(p.shares[0].ledger.Spools())
		}
		return n == custody.MaxSpools
	})
	if n := sumBy(t, tel, "longhaul_relay_spools_forgotten", "destination"); n["default"] != spools-custody.MaxSpools {
		t.Errorf("forgotten: %v", n)
	}
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
}

func TestAThousandOriginsAreConfirmedEconomically(t *testing.T) {
	const origins, frames = 1000, 5
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	var mu sync.Mutex
	messages, confirmed := make(map[string]int), make(map[string]uint64)
	sub, err := f.nc.Subscribe(hub.CustodySubject(hub.Origin{Cluster: "*", Node: "*"}), func(msg *nats.Msg) {
		c, _, err := custody.ParseConfirmation(msg.Data)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		messages[msg.Subject]++
		confirmed[msg.Subject] = max(confirmed[msg.Subject], confirmedLane([]custody.Confirmation{c}, "logs/1"))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := f.nc.Flush(); err != nil {
		t.Fatal(err)
	}

	writesOf := func() uint64 {
		bucket, err := f.js.Stream(t.Context(), "KV_"+hub.CustodyBucket)
		if err != nil {
			t.Fatal(err)
		}
		return bucket.CachedInfo().State.LastSeq
	}
	before, began := writesOf(), time.Now()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := uint64(1); n <= frames; n++ {
		for lane := uint32(1); lane <= 2; lane++ {
			for i := range origins {
				data := encodeOf(t, epoch+frame.Epoch(i), lane, n, 1)
				subject := hub.FrameSubject(frame.Logs, hub.Origin{Cluster: fmt.Sprintf("store-%04d", i), Node: "a"})
				if _, err := f.js.PublishAsync(subject, data); err != nil {
					t.Fatal(err)
				}
			}
		}
		select {
		case <-f.js.PublishAsyncComplete():
		case <-time.After(time.Minute):
			t.Fatal("the hub takes no frames")
		}
		<-second.C
	}
	eventually(t, "all is confirmed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, number := range confirmed {
			if number == frames {
				n++
			}
		}
		return n == origins
	})
	took := time.Since(began)

	mu.Lock()
	defer mu.Unlock()
	total, most := 0, 0
	for _, n := range messages {
		total, most = total+n, max(most, n)
	}
	if bound := int(took/defaultConfig().ConfirmInterval) + 1; most > bound {
		t.Errorf("%d messages to one origin in %s; at most %d were due", most, took, bound)
	}
	writes := writesOf() - before
	free := uint64(origins)                                    // before it is known how many there are
	others := testPartitions + 10 + 2*uint64(took/time.Second) // of the relay itself: who owns what
	if bound := origins*uint64(took/storePace+1) + free + others; writes > bound {
		t.Errorf("%d writes of watermarks in %s; at most %d were due", writes, took, bound)
	}
	t.Logf("%d frames of %d origins in %s: %d confirmations (at most %d to one origin), %d writes", 2*frames*origins, origins, took, total, most, writes)
}
