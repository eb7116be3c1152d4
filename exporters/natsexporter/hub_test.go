package natsexporter

import (
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// testHub is a real nats-server that keeps its port and store over restarts, and
// a relay that confirms what it is told to.
type testHub struct {
	t    *testing.T
	dir  string
	port int
	srv  *server.Server
}

func newTestHub(t *testing.T) *testHub {
	h := &testHub{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	h.start()
	h.port = h.srv.Addr().(*net.TCPAddr).Port
	t.Cleanup(h.stop)
	return h
}

func (h *testHub) start() {
	h.t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: h.port, JetStream: true, StoreDir: h.dir, NoSigs: true, NoLog: true})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		h.t.Fatal("the hub is not ready")
	}
	h.srv = s
}

func (h *testHub) stop() {
	h.srv.Shutdown()
	h.srv.WaitForShutdown()
}

// relay makes the stream of logs and answers every hello: all that the edge has
// shipped is confirmed once confirm is true.
func (h *testHub) relay(confirm *confirming) jetstream.Stream {
	h.t.Helper()
	nc, err := nats.Connect(h.srv.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		h.t.Fatal(err)
	}
	settings := hub.Streams{MaxBytes: 64 * bytesize.MiB, Replicas: 1}
	if _, err := hub.EnsureSignal(h.t.Context(), js, frame.Logs, settings, hub.Layout{Count: 4}, []hub.Reader{{Destination: hub.DefaultDestination}}); err != nil {
		h.t.Fatal(err)
	}
	stream, err := js.Stream(h.t.Context(), hub.StreamName(frame.Logs))
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = nc.Subscribe(hub.HelloSubjects, func(msg *nats.Msg) {
		hello, _, err := custody.ParseHello(msg.Data)
		if err != nil {
			return
		}
		origin, err := hub.ParseHelloSubject(msg.Subject)
		if err != nil {
			return
		}
		answer := custody.Confirmation{Version: custody.Version, Epoch: hello.Epoch}
		for _, l := range hello.Lanes {
			accepted := custody.Accepted{Lane: l.Lane}
			if confirm.is() {
				accepted.Confirmed = l.Shipped
			}
			answer.Lanes = append(answer.Lanes, accepted)
		}
		if body, err := json.Marshal(answer); err == nil {
			_ = nc.Publish(hub.CustodySubject(origin), body) // while the hub is away nobody hears it
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		h.t.Fatal(err)
	}
	return stream
}

// confirming says whether the relay confirms.
type confirming struct{ on chan struct{} }

func newConfirming() *confirming { return &confirming{make(chan struct{})} }

func (c *confirming) is() bool {
	select {
	case <-c.on:
		return true
	default:
		return false
	}
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 2 m: %s", what)
		}
	}
}

// value reads a metric of the exporter's own; attributes are key, value, …; -1 if
// there is none.
func value(t *testing.T, telemetry *componenttest.Telemetry, name string, attributes ...string) float64 {
	t.Helper()
	m, err := telemetry.GetMetric(name)
	if err != nil {
		return -1
	}
	var want []attribute.KeyValue
	for i := 0; i < len(attributes); i += 2 {
		want = append(want, attribute.String(attributes[i], attributes[i+1]))
	}
	set := attribute.NewSet(want...)
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			if p.Attributes.Equals(&set) {
				return float64(p.Value)
			}
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			if p.Attributes.Equals(&set) {
				return float64(p.Value)
			}
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			if p.Attributes.Equals(&set) {
				return p.Value
			}
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			if p.Attributes.Equals(&set) {
				return float64(p.Count)
			}
		}
	}
	return -1
}

// An outage from the first append to the last confirmation, as an operator sees
// it in the exporter's own metrics.
func TestAnOutageInTheMetrics(t *testing.T) {
	h := newTestHub(t)
	url := h.srv.ClientURL()
	h.stop()
	config := testConfig(t)
	config.Connection.URLs = url
	telemetry := componenttest.NewTelemetry()
	t.Cleanup(func() {
		if err := telemetry.Shutdown(t.Context()); err != nil {
			t.Log(err)
		}
	})
	run := func() (consume func(string), stop func()) {
		set := exportertest.NewNopSettings(Type)
		set.TelemetrySettings = telemetry.NewTelemetrySettings()
		set.Logger = zaptest.NewLogger(t)
		e, err := NewFactory().CreateLogs(t.Context(), set, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
		return func(body string) {
				t.Helper()
				if err := e.ConsumeLogs(t.Context(), logs(body)); err != nil {
					t.Fatal(err)
				}
			}, func() {
				if err := e.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
	}
	consume, stop := run()
	for i := range 4 { // as much of a backlog as the hub is given unconfirmed
		consume(fmt.Sprint(i))
	}
	if got := value(t, telemetry, "longhaul_link_up"); got != 0 {
		t.Fatalf("link %v without a hub", got)
	}
	stop()
	consume, stop = run() // what an earlier life left behind becomes backlog
	defer stop()
	consume("current")
	for _, c := range []struct {
		name       string
		attributes []string
		want       float64
	}{
		{"longhaul_spool_lanes", []string{"signal", "logs", "class", "live"}, 1},
		{"longhaul_spool_lanes", []string{"signal", "logs", "class", "backlog"}, 1},
		{"longhaul_spool_lanes", []string{"signal", "traces", "class", "backlog"}, 0},
		{"longhaul_spool_items", []string{"signal", "logs"}, 5},
		{"longhaul_items_in", []string{"signal", "logs"}, 5},
		{"longhaul_items_confirmed", []string{"signal", "logs"}, 0},
		{"longhaul_origin_conflict", nil, 0},
	} {
		if got := value(t, telemetry, c.name, c.attributes...); got != c.want {
			t.Errorf("%s%v = %v, want %v", c.name, c.attributes, got, c.want)
		}
	}
	if live, backlog := value(t, telemetry, "longhaul_spool_lane_bytes", "signal", "logs", "class", "live"),
		value(t, telemetry, "longhaul_spool_lane_bytes", "signal", "logs", "class", "backlog"); live <= 0 || backlog <= live || live+backlog != value(t, telemetry, "longhaul_spool_bytes") {
		t.Errorf("%v bytes live, %v backlog", live, backlog)
	}

	h.start()
	confirm := newConfirming()
	stream := h.relay(confirm)
	eventually(t, "all frames are on the hub", func() bool {
		return value(t, telemetry, "longhaul_items_shipped", "signal", "logs") == 5
	})
	first, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if header, _, _, err := frame.Parse(first.Data); err != nil || header.Lane != 2 {
		t.Errorf("the first frame on the hub is of lane %d: %v", header.Lane, err)
	}
	if value(t, telemetry, "longhaul_link_up") != 1 || value(t, telemetry, "longhaul_publish_duration", "signal", "logs") != 5 || value(t, telemetry, "longhaul_fsync_duration") < 5 {
		t.Error("link, publish or fsync are not told")
	}
	close(confirm.on)
	eventually(t, "all is confirmed and the sealed lane is gone", func() bool {
		return value(t, telemetry, "longhaul_items_confirmed", "signal", "logs") == 5 &&
			value(t, telemetry, "longhaul_spool_lanes", "signal", "logs", "class", "backlog") == 0
	})
	if items, unconfirmed, bytes := value(t, telemetry, "longhaul_spool_items", "signal", "logs"), value(t, telemetry, "longhaul_oldest_unconfirmed_age", "signal", "logs"), value(t, telemetry, "longhaul_bytes_confirmed", "signal", "logs"); items != 0 || unconfirmed != 0 || bytes <= 0 {
		t.Errorf("%v items left, oldest %v s, %v bytes confirmed", items, unconfirmed, bytes)
	}
}
