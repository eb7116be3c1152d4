package natsreceiver

import (
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"

	"github.com/longhaul/longhaul/internal/hub"
)

// outletOf returns the logs outlet of a relay's destination.
func (r *relay) outletOf(destination int) *outlet {
	for _, o := range r.destinations[destination].outlets {
		return o
	}
	return nil
}

// delivered waits until some origins have everything that was sent of them, and are
// told so.
func (s *stores) delivered(t *testing.T, what string, origins ...int) {
	t.Helper()
	eventually(t, what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, i := range origins {
			if s.confirmed[i] < s.sent[i] {
				return false
			}
		}
		return true
	})
}

// publishOf sends the next frame of some origins.
func (s *stores) publishOf(origins ...int) {
	s.mu.Lock()
	for _, i := range origins {
		s.sent[i]++
		s.send(i, s.sent[i])
	}
	s.mu.Unlock()
	<-s.js.PublishAsyncComplete()
}

// noise is text that does not compress well.
func noise(bytes int) string {
	random := make([]byte, bytes*3/4)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	return base64.StdEncoding.EncodeToString(random)
}

func from(first, end int) (numbers []int) {
	for i := first; i < end; i++ {
		numbers = append(numbers, i)
	}
	return numbers
}

func clustersOf(origins []hub.Origin) (names []string) {
	for _, origin := range origins {
		names = append(names, origin.Cluster)
	}
	return names
}

// A tenant with many origins that is refused has sent several times of what the
// relay may hold in memory, before anything of the others came.
func TestRefusedOriginsWithMoreThanTheMemoryHoldLeaveRoomForTheOthers(t *testing.T) {
	t.Parallel()
	h, b, n := startHub(t), &backend{}, &tenants{}
	b.split = n.split
	const refused, healthy = 200, 8
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.MemoryLimit = 16 << 20 }})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, refused+healthy)
	s.pads = []string{noise(100 << 10)}
	n.refuse(clustersOf(s.origins[:refused])...)
	s.publishOf(from(0, refused)...)
	for range 3 {
		s.publishOf(from(refused, refused+healthy)...)
		s.delivered(t, "the others have everything", from(refused, refused+healthy)...)
		s.publishOf(from(0, refused)...)
	}
	s.publishOf(from(refused, refused+healthy)...)
	s.delivered(t, "the others have everything", from(refused, refused+healthy)...)
	n.refuse()
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
	s.mu.Lock()
	if s.resent > 0 {
		t.Errorf("the edges were asked for %d frames again, although there was room for all", s.resent)
	}
	s.mu.Unlock()
	eventually(t, "nothing is held any more", func() bool { return r.outletOf(0).frames.used.Load() == 0 })
}

// There may be more of it than the relay can even keep count of.
func TestRefusedOriginsBeyondAllRoomLeaveRoomForTheOthersAndComeWhole(t *testing.T) {
	t.Parallel()
	h, b, n, tel := startHub(t), &backend{}, &tenants{}, componenttest.NewTelemetry()
	b.split = n.split
	const refused, healthy = 400, 8
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel, set: func(c *Config) {
		c.MemoryLimit = 2 << 20 // less than Validate would have
	}})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, refused+healthy)
	n.refuse(clustersOf(s.origins[:refused])...)
	others := from(refused, refused+healthy)
	for first := 0; first < refused; first += 50 { // more and more of them
		for range 2 {
			s.publishOf(from(first, first+50)...)
			s.publishOf(others...)
			s.delivered(t, "the others have everything", others...)
		}
	}
	if dropped := sumBy(t, tel, "longhaul_relay_frames_dropped", "signal")["logs"]; dropped == 0 {
		t.Error("nothing had to be let go of")
	}
	s.mu.Lock()
	resent := s.resent
	s.mu.Unlock()
	time.Sleep(2 * resendInterval) // an absence can only be waited for
	s.mu.Lock()
	if s.resent > resent {
		t.Errorf("the edges were asked for %d frames while they are refused", s.resent-resent)
	}
	s.mu.Unlock()
	n.refuse()
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
	if lost := sum(t, tel, "longhaul_lost_items"); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	eventually(t, "nothing is held any more", func() bool { return r.outletOf(0).frames.used.Load() == 0 })
}

// outsideTheMemory starts a relay whose backend refuses some origins, and sends more
// of them than it keeps in memory.
func outsideTheMemory(t *testing.T) (*relay, *stores, *backend, *tenants) {
	t.Helper()
	h, b, n := startHub(t), &backend{}, &tenants{}
	b.split = n.split
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.MemoryLimit, c.Deliver.Workers = 16<<20, 1 }})
	s := newStores(t, newFleet(t, h.ClientURL()), 41)
	s.pads = []string{noise(100 << 10)}
	n.refuse(clustersOf(s.origins[:40])...)
	s.publishOf(40)
	for range 3 {
		s.publishOf(from(0, 40)...)
	}
	p := r.outletOf(0).workers[0].parking
	eventually(t, "all wait, some on the hub only", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		waiting, spilled := 0, 0
		for _, one := range p.origins {
			for _, a := range one.arrivals {
				waiting++
				if a.spilled {
					spilled++
				}
			}
		}
		return waiting == 120 && spilled > 60
	})
	return r, s, b, n
}

// The hub brings again what it has handed out. If that were taken for more than may
// wait, and dropped, nobody had it any more.
func TestWhatWaitsOnTheHubSurvivesALostLink(t *testing.T) {
	t.Parallel()
	r, s, b, n := outsideTheMemory(t)
	for range parkedFrames - 3 - 2 {
		s.publishOf(0)
	}
	for range 2 {
		connects := r.connects.Load()
		if err := r.nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the link is back", func() bool { return r.connects.Load() > connects })
		s.publishOf(from(0, 41)...)
		s.delivered(t, "the other goes on", 40)
	}
	n.refuse()
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
	s.mu.Lock()
	if s.resent > 0 {
		t.Errorf("the edges were asked for %d frames again", s.resent)
	}
	s.mu.Unlock()
	eventually(t, "the hub is empty", func() bool { return s.held("LONGHAUL_LOGS") == 0 })
}

func TestWhatWaitedOnAHubThatLosesItsStoreIsAskedOfTheEdges(t *testing.T) {
	t.Parallel()
	r, s, b, n := outsideTheMemory(t)
	stream, err := s.js.Stream(t.Context(), "LONGHAUL_LOGS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.publishOf(from(0, 41)...)
	n.refuse()
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
	eventually(t, "nothing is held any more", func() bool { return r.outletOf(0).frames.used.Load() == 0 && r.handled.Load() == 0 })
}

// While nothing at all is taken it may be the whole backend that is away: nothing of
// anybody is let go of, however much comes.
func TestAnOutageOfTheWholeBackendTakesNothingOffTheHub(t *testing.T) {
	t.Parallel()
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel, set: func(c *Config) { c.MemoryLimit = 2 << 20 }})
	s := newStores(t, newFleet(t, h.ClientURL()), 200)
	s.publish()
	s.drained(t)
	b.refusing(func([]string) error { return errors.New("away") })
	for range 5 {
		s.publish()
	}
	full := func() bool { // and nothing moves any more
		o := r.outletOf(0)
		parked := int64(0)
		for _, w := range o.workers {
			w.parking.mu.Lock()
			parked += w.parking.bytes
			w.parking.mu.Unlock()
		}
		return parked > o.parked*int64(len(o.workers))/2 && o.frames.used.Load() > o.frames.limit*7/10
	}
	eventually(t, "all memory is in use", full)
	s.publish()
	time.Sleep(2 * resendInterval) // an absence can only be waited for
	b.refusing(nil)
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if dropped := sumBy(t, tel, "longhaul_relay_frames_dropped", "signal")["logs"]; dropped > 0 || s.resent > 0 {
		t.Errorf("%d frames were let go of, and the edges were asked for %d", dropped, s.resent)
	}
}

// Where the exporter does not say whose, one refused origin makes a whole request fail:
// the others are found however many are refused.
func TestManyOriginsThatAreRefusedWithoutBeingNamedDoNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	h, b := startHub(t), &backend{}
	startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.Deliver.Workers = 1 }})
	s := newStores(t, newFleet(t, h.ClientURL()), 16)
	const refused = 12
	bad := make(map[string]bool)
	for _, origin := range s.origins[:refused] {
		bad[origin.String()] = true
	}
	b.refusing(func(bodies []string) error {
		for _, body := range bodies {
			if origin, _, _ := strings.Cut(body, ":"); bad[origin] {
				return errors.New("over somebody's limit")
			}
		}
		return nil
	})
	for range 3 {
		s.publish()
	}
	s.delivered(t, "the others have everything", from(refused, 16)...)
	b.refusing(nil)
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 {
		t.Errorf("%d frames were delivered twice", n)
	}
}
