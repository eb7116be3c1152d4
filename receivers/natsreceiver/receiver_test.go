package natsreceiver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	store1 = hub.Origin{Cluster: "store-0001", Node: "a"}
	epoch  = frame.Epoch(0xabc)
)

func startHub(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the hub is not ready")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// backend is a logs backend that can refuse. The relay's own records of gaps it
// keeps apart.
type backend struct {
	mu      sync.Mutex
	bodies  []string
	records []string // "time body {attributes}"
	refuse  func(bodies []string) error

	refuseRecords func(records []string) error
	// split takes a part of what comes, and says by its error what it does not take.
	split func(plog.Logs) (plog.Logs, error)
	calls int
}

func (b *backend) consume(_ context.Context, ld plog.Logs) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var left error
	if b.calls++; b.split != nil {
		ld, left = b.split(ld)
	}
	var bodies, records []string
	for _, resource := range ld.ResourceLogs().All() {
		service, _ := resource.Resource().Attributes().Get("service.name")
		cluster, _ := resource.Resource().Attributes().Get("k8s.cluster.name")
		node, _ := resource.Resource().Attributes().Get("k8s.node.name")
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if service.Str() == "longhaul" {
					records = append(records, fmt.Sprint(record.Timestamp().AsTime().UnixNano(), " ", record.Body().Str(), " ", record.Attributes().AsRaw()))
					continue
				}
				bodies = append(bodies, cluster.Str()+"/"+node.Str()+":"+record.Body().Str())
			}
		}
	}
	if b.refuse != nil {
		if err := b.refuse(bodies); err != nil {
			return err
		}
	}
	if b.refuseRecords != nil && len(records) > 0 {
		if err := b.refuseRecords(records); err != nil {
			return err
		}
	}
	b.bodies = append(b.bodies, bodies...)
	b.records = append(b.records, records...)
	return left
}

func (b *backend) got() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.bodies)
}

func (b *backend) gaps() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.records)
}

func (b *backend) refusing(f func([]string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = f
}

// testPartitions is what the hub is cut into where it does not matter.
const testPartitions = 4

func startReceiver(t *testing.T, url string, b *backend) (stop func()) {
	t.Helper()
	return startMeasured(t, url, b, receivertest.NewNopSettings(Type))
}

func startMeasured(t *testing.T, url string, b *backend, set receiver.Settings) (stop func()) {
	t.Helper()
	set.Logger = zaptest.NewLogger(t)
	config := defaultConfig()
	config.Connection.URLs = url
	config.Streams.MaxBytes = 256 << 20
	config.Streams.Partitions = testPartitions
	next, err := consumer.NewLogs(b.consume)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewFactory().CreateLogs(t.Context(), set, config, next)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			if err := r.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	eventually(t, "the relay reads all partitions", func() bool { return reads(r.(*core)) == testPartitions })
	return stop
}

// reads counts the partitions that a relay reads.
func reads(c *core) (n int) {
	for _, p := range c.partitions() {
		if p.ready.Load() && !p.ended.Load() {
			n++
		}
	}
	return n
}

// fleet publishes as edges do.
type fleet struct {
	t  *testing.T
	nc *nats.Conn
	js jetstream.JetStream
}

func newFleet(t *testing.T, url string) *fleet {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t, nc, js}
	eventually(t, "the relay has made the stream and its consumers", func() bool {
		s, err := js.Stream(t.Context(), hub.StreamName(frame.Logs))
		return err == nil && s.CachedInfo().State.Consumers >= testPartitions
	})
	return f
}

func encode(t testing.TB, number, floor uint64) []byte { return encodeLane(t, 1, number, floor) }

// encodeLane makes a frame of one item: "line N" in lane 1, "lane L line N" in others.
func encodeLane(t testing.TB, lane uint32, number, floor uint64) []byte {
	t.Helper()
	return encodeOf(t, epoch, lane, number, floor)
}

func encodeOf(t testing.TB, epoch frame.Epoch, lane uint32, number, floor uint64) []byte {
	t.Helper()
	text := fmt.Sprint("line ", number)
	if lane != 1 {
		text = fmt.Sprint("lane ", lane, " ", text)
	}
	return encodeText(t, epoch, lane, number, floor, text)
}

// encodeText makes a frame whose item has attributes besides.
func encodeText(t testing.TB, epoch frame.Epoch, lane uint32, number, floor uint64, text string, pads ...string) []byte {
	t.Helper()
	ld := plog.NewLogs()
	record := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	record.Body().SetStr(text)
	for i, pad := range pads {
		record.Attributes().PutStr(fmt.Sprint("pad", i), pad)
	}
	otlp, err := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := codec.Encode(nil, otlp)
	if err != nil {
		t.Fatal(err)
	}
	return frame.Append(nil, &frame.Header{
		Codec: codec.ID(), Signal: frame.Logs, Class: frame.Live, Lane: lane, Items: 1, Epoch: epoch,
		Number: number, Floor: floor, Before: number - 1, Uncompressed: uint32(len(otlp)), PayloadLen: uint32(len(payload)),
	}, payload)
}

func (f *fleet) publish(origin hub.Origin, data []byte, headers ...string) {
	f.t.Helper()
	msg := &nats.Msg{Subject: hub.FrameSubject(frame.Logs, origin), Data: data, Header: nats.Header{}}
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	if _, err := f.js.PublishMsg(f.t.Context(), msg); err != nil {
		f.t.Fatal(err)
	}
}

// confirmations collects what the relay tells an origin.
func (f *fleet) confirmations(origin hub.Origin) func() (confirmed, resend uint64) {
	f.t.Helper()
	var mu sync.Mutex
	var confirmed, resend uint64
	sub, err := f.nc.Subscribe(hub.CustodySubject(origin), func(msg *nats.Msg) {
		c, _, err := custody.ParseConfirmation(msg.Data)
		if err != nil {
			f.t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, lane := range c.Lanes {
			confirmed = max(confirmed, lane.Confirmed)
			resend = max(resend, lane.Resend)
		}
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := f.nc.Flush(); err != nil {
		f.t.Fatal(err)
	}
	return func() (uint64, uint64) {
		mu.Lock()
		defer mu.Unlock()
		return confirmed, resend
	}
}

func (f *fleet) held(stream string) uint64 {
	f.t.Helper()
	s, err := f.js.Stream(f.t.Context(), stream)
	if err != nil {
		f.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	const patience = 2 * time.Minute // of a busy machine
	for deadline := time.Now().Add(patience); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within %s: %s", patience, what)
		}
	}
}

func lines(origin hub.Origin, numbers ...int) (want []string) {
	for _, n := range numbers {
		want = append(want, fmt.Sprintf("%s:line %d", origin, n))
	}
	return want
}

func TestDeliversInOrderOnceThenConfirmsAndFreesTheHub(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	for _, n := range []uint64{1, 2, 2, 1, 3} {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	if got, want := b.got(), lines(store1, 1, 2, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
}

func TestNothingIsConfirmedWhileTheBackendRefuses(t *testing.T) {
	h, b := startHub(t), &backend{}
	b.refusing(func([]string) error { return errors.New("away") })
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	time.Sleep(defaultConfig().ConfirmInterval + storePace + 2*settleInterval) // an absence can only be waited for
	if c, _ := confirmations(); c != 0 || f.held("LONGHAUL_LOGS") != 1 {
		t.Fatalf("confirmed %d, hub holds %d", c, f.held("LONGHAUL_LOGS"))
	}
	b.refusing(nil)
	eventually(t, "1 is confirmed", func() bool { c, _ := confirmations(); return c == 1 })
}

func TestAHoleIsAskedForAndNothingOvertakes(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 3, 1))
	eventually(t, "2 is asked for", func() bool { _, resend := confirmations(); return resend == 2 })
	for n := uint64(2); n <= 4; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "4 is confirmed", func() bool { c, _ := confirmations(); return c == 4 })
	if got, want := b.got(), lines(store1, 1, 2, 3, 4); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

// A lane with two holes shows the second when the first is filled, a moment after
// the edge was asked. It is asked again without having to say hello.
func TestASecondHoleIsAskedForSoonAfterTheFirst(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	asked := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 3, 1))
	f.publish(store1, encode(t, 5, 1))
	eventually(t, "the edge is asked for 2", func() bool { _, resend := asked(); return resend == 2 })
	f.publish(store1, encode(t, 2, 1), jetstream.MsgIDHeader, "again/2")
	f.publish(store1, encode(t, 3, 1), jetstream.MsgIDHeader, "again/3")
	f.publish(store1, encode(t, 5, 1), jetstream.MsgIDHeader, "again/5")
	eventually(t, "the edge is asked for 4", func() bool { _, resend := asked(); return resend == 4 })
	f.publish(store1, encode(t, 4, 1))
	f.publish(store1, encode(t, 5, 1), jetstream.MsgIDHeader, "yet again/5")
	eventually(t, "all are there, once and in order", func() bool {
		return slices.Equal(b.got(), lines(store1, 1, 2, 3, 4, 5))
	})
}

func TestAGapTheEdgeNamesIsPassed(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 5, 1), hub.FloorHeader, "5", hub.LostHeader, "30,0,0,0,0,0,0,0")
	eventually(t, "5 is confirmed", func() bool { c, _ := confirmations(); return c == 5 })
	if got, want := b.got(), lines(store1, 1, 5); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

func TestWhatABackendRefusesForGoodIsKeptWithItsReasonAndHoldsNothingUp(t *testing.T) {
	h, b := startHub(t), &backend{}
	b.refusing(func(bodies []string) error {
		if slices.Contains(bodies, store1.String()+":line 2") {
			return consumererror.NewPermanent(errors.New("too\nugly"))
		}
		return nil
	})
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	for n := uint64(1); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	if got, want := b.got(), lines(store1, 1, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
	stream, err := f.js.Stream(t.Context(), hub.RejectedStream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), hub.RejectedSubject(frame.Logs, store1))
	if err != nil {
		t.Fatal(err)
	}
	if reason := msg.Header.Get(hub.ReasonHeader); !strings.Contains(reason, "too ugly") || !slices.Equal(msg.Data, encode(t, 2, 1)) {
		t.Fatalf("kept with reason %q", reason)
	}
}

func TestAHubThatHasLostTheRejectedStreamIsGivenItAgain(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	b.refusing(uglySecond)
	if err := f.js.DeleteStream(t.Context(), hub.RejectedStream); err != nil {
		t.Fatal(err)
	}
	confirmations := f.confirmations(store1)
	for n := uint64(1); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	if held := f.held(hub.RejectedStream); held != 1 {
		t.Fatalf("%d frames in the rejected stream; want 1", held)
	}
}

func TestDamagedFramesAreKeptAndHoldNothingUp(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	damaged := encode(t, 1, 1)
	damaged[len(damaged)-6] ^= 1
	f.publish(store1, []byte("no frame"))
	f.publish(store1, damaged)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "1 is confirmed", func() bool { c, _ := confirmations(); return c == 1 })
	if held := f.held(hub.RejectedStream); held != 2 {
		t.Fatalf("%d frames in the rejected stream; want 2", held)
	}
}

// A number confirms all before it: a frame that does not decode must not be
// accepted while those it came with still wait for the backend.
func TestAFrameThatDoesNotDecodeConfirmsNothingBeforeIt(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "1 is confirmed", func() bool { c, _ := confirmations(); return c == 1 })
	var refused []string
	b.refusing(func(bodies []string) error { refused = bodies; return errors.New("away") })
	for n := uint64(2); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	f.publish(store1, frame.Append(nil, &frame.Header{
		Codec: frame.OTLPZstd, Signal: frame.Logs, Class: frame.Live, Lane: 1, Items: 1, Epoch: epoch, Number: 4, Floor: 1, Before: 3, Uncompressed: 9,
	}, []byte("not zstd")))
	eventually(t, "2 and 3 are refused together", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Equal(refused, lines(store1, 2, 3))
	})
	time.Sleep(defaultConfig().ConfirmInterval + storePace + 2*settleInterval) // an absence can only be waited for
	if c, _ := confirmations(); c != 1 || f.held(hub.RejectedStream) != 0 {
		t.Fatalf("confirmed %d, %d frames rejected while 2 and 3 wait for the backend", c, f.held(hub.RejectedStream))
	}
	b.refusing(nil)
	eventually(t, "4 is confirmed", func() bool { c, _ := confirmations(); return c == 4 })
	if got, want := b.got(), lines(store1, 1, 2, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

func TestARestartedRelayNeitherRepeatsNorSkips(t *testing.T) {
	h, b := startHub(t), &backend{}
	stop := startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "1 is delivered", func() bool { return len(b.got()) == 1 })
	stop()
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 2, 1))
	startReceiver(t, h.ClientURL(), b)
	eventually(t, "2 is delivered", func() bool { return len(b.got()) == 2 })
	if got, want := b.got(), lines(store1, 1, 2); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

func TestFramesInARelaysHandsComeFirstToItsSuccessor(t *testing.T) {
	h, b := startHub(t), &backend{}
	b.refusing(func([]string) error { return errors.New("away") })
	stop := startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	for n := uint64(1); n <= 20; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	time.Sleep(settleInterval) // let the first relay take some in its hands
	stop()
	b.refusing(nil)
	startReceiver(t, h.ClientURL(), b)
	eventually(t, "20 are delivered", func() bool { return len(b.got()) == 20 })
	var numbers []int
	for n := 1; n <= 20; n++ {
		numbers = append(numbers, n)
	}
	if got, want := b.got(), lines(store1, numbers...); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
}

func TestOnlyARefusalByAllIsPermanent(t *testing.T) {
	permanent, passing := consumererror.NewPermanent(errors.New("400")), errors.New("503")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"permanent":              {permanent, true},
		"wrapped":                {fmt.Errorf("loki: %w", permanent), true},
		"passing":                {passing, false},
		"one of two":             {errors.Join(permanent, passing), false},
		"one of two, wrapped":    {fmt.Errorf("fan-out: %w", errors.Join(passing, permanent)), false},
		"both":                   {errors.Join(permanent, permanent), true},
		"permanent about a list": {consumererror.NewPermanent(errors.Join(passing, passing)), true},
	} {
		if got := isPermanent(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Two exporters of one pipeline: what one of them refuses for good, of whatever
// origins, must not pass for accepted because the other takes a part.
func TestAPartOfOneExporterSaysNothingOfWhatAnotherRefuses(t *testing.T) {
	failed := plog.NewLogs()
	resource := failed.ResourceLogs().AppendEmpty().Resource().Attributes()
	resource.PutStr(direct.ClusterAttribute, store1.Cluster)
	resource.PutStr(direct.NodeAttribute, store1.Node)
	part := consumererror.NewLogs(errors.New("429"), failed)
	arrivals := []*arrival{{key: custody.Key{Origin: store1}}, {key: custody.Key{Origin: hub.Origin{Cluster: "store-0002", Node: "a"}}}}
	if result := judgeError(part, arrivals); len(result.failed) != 1 || result.permanent {
		t.Errorf("a part: %+v", result)
	}
	if result := judgeError(errors.Join(part, part), arrivals); len(result.failed) != 1 {
		t.Errorf("the same part of two: %+v", result)
	}
	if result := judgeError(errors.Join(part, consumererror.NewPermanent(errors.New("400"))), arrivals); result.failed != nil || result.permanent || result.err == nil {
		t.Errorf("a part of one, and all of another refused: %+v", result)
	}
}

func TestAPartitionThatIsGivenOnBeginsNoDelivery(t *testing.T) {
	b := &backend{}
	next, err := consumer.NewLogs(b.consume)
	if err != nil {
		t.Fatal(err)
	}
	o, p := unconnected(t, frame.Logs, logsTo(next))
	for n := uint64(1); n <= 20; n++ {
		o.workers[0].in.push(held(t, o, p, n))
	}
	batch := &batch{}
	late, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o.workers[0].judge(o.workers[0].in.pop(), batch)
	p.end()
	if ours, _ := o.workers[0].enter(late, batch.arrivals); len(ours) > 0 {
		t.Fatal("a frame that was collected before the end is delivered after it")
	}
	o.workers[0].in.push(held(t, o, p, 21)) // its reader was late
	o.workers[0].judge(o.workers[0].in.pop(), batch)
	if len(batch.arrivals) != 1 || o.workers[0].in.pop() != nil {
		t.Fatal("a frame was taken after the end")
	}
	if used := o.frames.used.Load(); used != 0 {
		t.Fatalf("%d bytes of frames are held after the end", used)
	}
}

// unconnected returns an outlet and a partition without a hub.
func unconnected(t testing.TB, signal frame.Signal, to sink) (*outlet, *partition) {
	t.Helper()
	set := receivertest.NewNopSettings(Type)
	telemetry, err := newTelemetry(set.TelemetrySettings)
	if err != nil {
		t.Fatal(err)
	}
	config := defaultConfig()
	config.Deliver.Workers = 1
	c := newCore(config, set, telemetry)
	c.delivering = t.Context()
	d, err := c.destination(config, set)
	if err != nil {
		t.Fatal(err)
	}
	d.outlets[signal] = newOutlet(d, signal, to)
	c.share()
	p := newPartition(c, nil)
	p.ctx = t.Context()
	return d.outlets[signal], p
}

// held returns an arrival as its reader hands it over.
func held(t testing.TB, o *outlet, p *partition, number uint64) *arrival {
	t.Helper()
	msg := &nats.Msg{Subject: hub.StoredSubject(frame.Logs, store1, 16), Data: encode(t, number, 1)}
	a := readArrival(msg, newSource(msg.Subject))
	if a.poison != nil {
		t.Fatal(a.poison)
	}
	a.share, a.out = p.shares[0], o
	a.source.counts = o.telemetry.clusters.of("default", frame.Logs, store1.Cluster)
	var err error
	if a.bytes, err = o.frames.take(t.Context(), int64(len(msg.Data))); err != nil {
		t.Fatal(err)
	}
	a.share.hold(a)
	return a
}

var _ receiver.Logs = (*core)(nil)
