package natsreceiver

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// relay is a relay process of a test: one core, with a destination for each backend.
type relay struct {
	*core
	stop func()
}

// destinationOf is a destination of a test.
type destinationOf struct {
	name  string
	start string
	to    *backend
	set   func(*Config)
	tel   *componenttest.Telemetry
	// direct: the backend is an exporter with nothing between, which takes requests.
	direct bool
	log    *zap.Logger // the test's, if nil
}

// startRelay starts a relay. Its stop is that of an orderly shutdown.
func startRelay(t *testing.T, url string, destinations ...destinationOf) *relay {
	t.Helper()
	factory, host := NewFactory(), exportersHost{componenttest.NewNopHost(), make(map[component.ID]component.Component)}
	var receivers []receiver.Logs
	for _, d := range destinations {
		config := defaultConfig()
		config.Connection.URLs = url
		config.Streams.MaxBytes = 256 << 20
		config.Streams.Partitions = testPartitions
		if d.name != "" {
			config.Destination = d.name
		}
		if d.start != "" {
			config.Start = d.start
		}
		if d.set != nil {
			d.set(config)
		}
		if d.direct {
			id := component.NewIDWithName(component.MustNewType("loki"), config.Destination)
			host.exporters[id] = directBackend{backend: d.to}
			config.Direct = direct.Exporters{"logs": id}
		}
		set := receivertest.NewNopSettings(Type)
		set.ID = component.NewIDWithName(Type, config.Destination)
		set.Logger = zaptest.NewLogger(t)
		if d.tel != nil {
			set.TelemetrySettings = d.tel.NewTelemetrySettings()
			set.Logger = zaptest.NewLogger(t)
		}
		if d.log != nil {
			set.Logger = d.log
		}
		next, err := consumer.NewLogs(d.to.consume)
		if err != nil {
			t.Fatal(err)
		}
		r, err := factory.CreateLogs(t.Context(), set, config, next)
		if err != nil {
			t.Fatal(err)
		}
		receivers = append(receivers, r)
	}
	for _, r := range receivers {
		if err := r.Start(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			for _, r := range receivers {
				if err := r.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Cleanup(stop)
	return &relay{receivers[0].(*core), stop}
}

// kill cuts a relay off the hub for good: it gives nothing on, stores nothing and
// says nothing.
func (r *relay) kill() { r.nc.Close() }

// stores is a fleet of origins that behave as edges do: they number their frames,
// say hello, and publish again what the relay asks for.
type stores struct {
	*fleet
	mu        sync.Mutex
	origins   []hub.Origin
	sent      []uint64
	confirmed []uint64
	resent    int
	pads      []string // go into each frame besides its line
}

func newStores(t *testing.T, f *fleet, n int) *stores {
	t.Helper()
	s := &stores{fleet: f, sent: make([]uint64, n), confirmed: make([]uint64, n)}
	at := make(map[string]int)
	for i := range n {
		s.origins = append(s.origins, hub.Origin{Cluster: fmt.Sprintf("store-%04d", i), Node: "a"})
		at[hub.CustodySubject(s.origins[i])] = i
	}
	sub, err := f.nc.Subscribe(hub.CustodySubject(hub.Origin{Cluster: "*", Node: "*"}), func(msg *nats.Msg) {
		c, _, err := custody.ParseConfirmation(msg.Data)
		if err != nil {
			t.Error(err)
		}
		if i, ok := at[msg.Subject]; ok {
			s.heard(i, c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return s
}

func (s *stores) epoch(i int) frame.Epoch { return epoch + frame.Epoch(i) }

func (s *stores) heard(i int, c custody.Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lane := range c.Lanes {
		s.confirmed[i] = max(s.confirmed[i], lane.Confirmed)
		for n := lane.Resend; n > 0 && n <= s.sent[i]; n++ {
			s.resent++
			s.send(i, n)
		}
	}
}

// send publishes a frame; what the hub does not take is asked for again.
func (s *stores) send(i int, number uint64) {
	_, err := s.js.PublishAsync(hub.FrameSubject(frame.Logs, s.origins[i]), encodeText(s.t, s.epoch(i), 1, number, 1, fmt.Sprint("line ", number), s.pads...), jetstream.WithRetryAttempts(10))
	if err != nil {
		s.t.Error(err)
	}
}

// publish sends each origin's next frame.
func (s *stores) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.origins {
		s.sent[i]++
		s.send(i, s.sent[i])
	}
}

// hello has every origin say what it holds.
func (s *stores) hello() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.origins {
		if s.confirmed[i] == s.sent[i] {
			continue
		}
		lane := custody.HelloLane{Lane: "logs/1", Class: "live", Floor: s.confirmed[i] + 1, Next: s.sent[i] + 1, Before: s.sent[i], Shipped: s.sent[i]}
		body, err := json.Marshal(custody.Hello{Version: 1, Epoch: s.epoch(i).String(), Instance: "x", Lanes: []custody.HelloLane{lane}})
		if err != nil {
			s.t.Error(err)
		}
		if err := s.nc.Publish(hub.HelloSubject(s.origins[i]), body); err != nil {
			s.t.Error(err)
		}
	}
}

// drained waits until all is confirmed.
func (s *stores) drained(t *testing.T) {
	t.Helper()
	last := time.Now()
	eventually(t, "everything is confirmed", func() bool {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			s.hello()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.origins {
			if s.confirmed[i] < s.sent[i] {
				return false
			}
		}
		return true
	})
}

// whole checks that a backend got every frame of every origin, first and in order,
// and returns how many it got again.
func (s *stores) whole(t *testing.T, got []string) (duplicates int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	last := make(map[string]uint64)
	for _, one := range got {
		origin, line, _ := strings.Cut(one, ":line ")
		n, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", one, err)
		}
		switch {
		case n == last[origin]+1:
			last[origin] = n
		case n <= last[origin]:
			duplicates++
		default:
			t.Fatalf("%s: %d came after %d", origin, n, last[origin])
		}
	}
	for i, origin := range s.origins {
		if last[origin.String()] != s.sent[i] {
			t.Fatalf("%s: %d frames arrived of %d", origin, last[origin.String()], s.sent[i])
		}
	}
	return duplicates
}
