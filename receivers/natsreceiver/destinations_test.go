package natsreceiver

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lease"
)

func TestADestinationThatIsDownDoesNotDelayTheOther(t *testing.T) {
	h, up, down := startHub(t), &backend{}, &backend{}
	away := errors.New("away")
	down.refusing(func([]string) error { return away })
	startRelay(t, h.ClientURL(), destinationOf{to: up}, destinationOf{name: "archive", to: down})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 20)
	for range 20 {
		s.publish()
	}
	eventually(t, "the one that is up has all", func() bool { return len(up.got()) == 400 })
	s.hello()
	time.Sleep(2 * defaultConfig().ConfirmInterval) // an absence can only be waited for
	s.mu.Lock()
	for i, n := range s.confirmed {
		if n != 0 {
			t.Fatalf("%s hears %d confirmed that one destination does not have", s.origins[i], n)
		}
	}
	s.mu.Unlock()
	down.refusing(nil)
	s.drained(t)
	for _, b := range []*backend{up, down} {
		if n := s.whole(t, b.got()); n > 0 {
			t.Errorf("%d frames were delivered twice", n)
		}
	}
}

func TestADestinationThatIsAddedBeginsWithWhatIsHeldOrNow(t *testing.T) {
	for _, start := range []string{lease.StartHeld, lease.StartNow} {
		t.Run(start, func(t *testing.T) {
			h, old, added := startHub(t), &backend{}, &backend{}
			first := startRelay(t, h.ClientURL(), destinationOf{to: old})
			f := newFleet(t, h.ClientURL())
			s := newStores(t, f, 10)
			for range 5 {
				s.publish()
			}
			s.drained(t)
			old.refusing(func([]string) error { return errors.New("away") })
			for range 3 { // held by the hub
				s.publish()
			}
			eventually(t, "the hub holds them", func() bool { return f.held("LONGHAUL_LOGS") == 30 })
			first.stop()

			tel := componenttest.NewTelemetry()
			now := startRelay(t, h.ClientURL(), destinationOf{to: old, tel: tel}, destinationOf{name: "archive", start: start, to: added})
			evenly(t, testPartitions, now)
			from := 6
			if start == lease.StartHeld {
				eventually(t, "what is held is delivered to the added one", func() bool { return len(added.got()) == 30 })
			} else {
				from = 9
			}
			for range 2 {
				s.publish()
			}
			eventually(t, "the added one goes on", func() bool { return len(added.got()) == 10*(10-from+1) })
			old.refusing(nil)
			s.drained(t)
			if n := s.whole(t, old.got()); n > 0 {
				t.Errorf("%d frames were delivered to the old one twice", n)
			}
			for _, origin := range s.origins {
				var numbers []int
				for n := from; n <= 10; n++ {
					numbers = append(numbers, n)
				}
				if got, want := of(added.got(), origin), lines(origin, numbers...); !slices.Equal(got, want) {
					t.Fatalf("the added one got %q; want %q", got, want)
				}
			}
			if lost := sum(t, tel, "longhaul_lost_items"); len(lost) > 0 || len(added.gaps()) > 0 {
				t.Fatalf("lost %v, told %q: a destination that is added has lost nothing", lost, added.gaps())
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.resent > 0 {
				t.Errorf("the edges were asked for %d frames again", s.resent)
			}
		})
	}
}

// of returns what is of an origin.
func of(got []string, origin hub.Origin) (its []string) {
	for _, one := range got {
		if strings.HasPrefix(one, origin.String()+":") {
			its = append(its, one)
		}
	}
	return its
}

// tenants makes a backend refuse what is of some clusters, and take the rest of the
// same request, as an exporter with tenants does.
type tenants struct {
	mu      sync.Mutex
	refused map[string]bool
}

func (n *tenants) refuse(clusters ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = make(map[string]bool)
	for _, c := range clusters {
		n.refused[c] = true
	}
}

func (n *tenants) split(ld plog.Logs) (taken plog.Logs, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken, failed := plog.NewLogs(), plog.NewLogs()
	for _, r := range ld.ResourceLogs().All() {
		cluster, _ := r.Resource().Attributes().Get(direct.ClusterAttribute)
		if n.refused[cluster.Str()] {
			r.CopyTo(failed.ResourceLogs().AppendEmpty())
		} else {
			r.CopyTo(taken.ResourceLogs().AppendEmpty())
		}
	}
	switch {
	case failed.ResourceLogs().Len() == 0:
		return taken, nil
	case taken.ResourceLogs().Len() == 0:
		return taken, errors.New("over the limit")
	}
	return taken, consumererror.NewLogs(errors.New("over the limit"), failed)
}

func TestATenantThatIsRefusedDoesNotHoldUpTheOthersAndComesWholeWhenItHeals(t *testing.T) {
	h, b, n := startHub(t), &backend{}, &tenants{}
	b.split = n.split
	startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.Deliver.Workers = 1 }})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 10)
	bad := []string{s.origins[0].Cluster, s.origins[7].Cluster}
	n.refuse(bad...)
	const frames = 2*parkedFrames + 40 // more than may wait for a parked origin
	for range frames {
		s.publish()
	}
	eventually(t, "all others have everything, and are confirmed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.origins {
			if i != 0 && i != 7 && s.confirmed[i] < frames {
				return false
			}
		}
		return true
	})
	for _, i := range []int{0, 7} {
		if got := of(b.got(), s.origins[i]); len(got) > 0 {
			t.Fatalf("%d frames of a refused tenant were taken", len(got))
		}
	}
	s.hello()
	s.publish()
	n.refuse(bad[1])
	eventually(t, "one is whole again", func() bool {
		s.hello()
		time.Sleep(time.Second) // edges do not say hello without pause
		return len(of(b.got(), s.origins[0])) == frames+1
	})
	n.refuse()
	s.drained(t)
	if again := s.whole(t, b.got()); again > 0 {
		t.Errorf("%d frames were delivered twice", again)
	}
}

// What an edge was told is confirmed before a destination was added is on the hub only:
// a refused tenant's frames of then must not be let go of.
func TestAnAddedDestinationsRefusedTenantLosesNothingThatOnlyTheHubHolds(t *testing.T) {
	h, old, added, n := startHub(t), &backend{}, &backend{}, &tenants{}
	first := startRelay(t, h.ClientURL(), destinationOf{to: old})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 4)
	s.publish()
	s.drained(t)
	// As a relay that is rolled out with another destination does, before it owns anything.
	if _, err := hub.EnsureSignal(t.Context(), f.js, frame.Logs, first.config.Streams, hub.Layout{Count: testPartitions},
		[]hub.Reader{{Destination: hub.DefaultDestination}, {Destination: "archive"}}); err != nil {
		t.Fatal(err)
	}
	const frames = 2*parkedFrames + 40
	for range frames {
		s.publish()
	}
	s.drained(t)
	first.stop()

	n.refuse(s.origins[0].Cluster)
	added.split = n.split
	tel := componenttest.NewTelemetry()
	startRelay(t, h.ClientURL(), destinationOf{to: old, tel: tel},
		destinationOf{name: "archive", to: added, tel: tel, set: func(c *Config) { c.Deliver.Workers, c.Deliver.MaxItems = 1, 16 }})
	eventually(t, "all others have everything", func() bool { return len(added.got()) == 3*frames })
	n.refuse()
	s.publish()
	eventually(t, "the last frame has come", func() bool {
		return slices.Contains(added.got(), lines(s.origins[0], frames+2)[0])
	})
	var all []int
	for number := range frames + 1 { // the first frame went before the destination was there
		all = append(all, number+2)
	}
	if got, want := of(added.got(), s.origins[0]), lines(s.origins[0], all...); !slices.Equal(got, want) {
		t.Fatalf("%d frames arrived of %d, or not in order", len(got), len(want))
	}
	if lost := sum(t, tel, "longhaul_lost_items"); len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
}

// A tenant whose frames are all that there is to deliver is refused without anybody
// to tell it from a backend that is away: what comes after it tells.
func TestARefusedTenantThatIsAloneDoesNotHoldUpWhatComesAfterIt(t *testing.T) {
	h, b, n := startHub(t), &backend{}, &tenants{}
	b.split = n.split
	startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.Deliver.Workers = 1 }})
	f := newFleet(t, h.ClientURL())
	n.refuse(store1.Cluster)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "it was tried", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.calls > 0 })
	other := hub.Origin{Cluster: "store-0002", Node: "a"}
	f.publish(other, encodeOf(t, epoch+1, 1, 1, 1))
	f.publish(store1, encode(t, 2, 1))
	eventually(t, "the other is delivered", func() bool { return slices.Equal(b.got(), lines(other, 1)) })
	n.refuse()
	eventually(t, "all is delivered", func() bool { return slices.Equal(of(b.got(), store1), lines(store1, 1, 2)) })
}

// An exporter that cannot say which part of a request is refused makes one origin's
// refusal that of all that travel with it: it is found by trying fewer.
func TestAnOriginThatIsRefusedWithoutBeingNamedDoesNotHoldUpTheOthers(t *testing.T) {
	h, b := startHub(t), &backend{}
	startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.Deliver.Workers = 1 }})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 8)
	bad := s.origins[3].String()
	b.refusing(func(bodies []string) error {
		if slices.ContainsFunc(bodies, func(body string) bool { return strings.HasPrefix(body, bad+":") }) {
			return errors.New("over somebody's limit")
		}
		return nil
	})
	for range 3 {
		s.publish()
	}
	eventually(t, "all others have everything", func() bool { return len(b.got()) == 7*3 })
	b.refusing(nil)
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 {
		t.Errorf("%d frames were delivered twice", n)
	}
}

// A refused tenant that has sent more than a delivery holds, so that nothing else
// joins one, holds up nobody.
func TestARefusedTenantWithABacklogDoesNotHoldUpWhatComesAfterIt(t *testing.T) {
	h, b, n := startHub(t), &backend{}, &tenants{}
	b.split = n.split
	startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) { c.Deliver.Workers, c.Deliver.MaxItems = 1, 8 }})
	f := newFleet(t, h.ClientURL())
	n.refuse(store1.Cluster)
	var all []int
	for number := uint64(1); number <= 40; number++ {
		f.publish(store1, encode(t, number, 1))
		all = append(all, int(number))
	}
	eventually(t, "it was tried", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.calls > 1 })
	other := hub.Origin{Cluster: "store-0002", Node: "a"}
	for number := uint64(1); number <= 20; number++ {
		f.publish(other, encodeOf(t, epoch+1, 1, number, 1))
	}
	eventually(t, "the other is delivered, in order", func() bool { return slices.Equal(b.got(), lines(other, all[:20]...)) })
	n.refuse()
	eventually(t, "all is delivered", func() bool { return slices.Equal(of(b.got(), store1), lines(store1, all...)) })
}

func TestAFrameThatClaimsAnothersOriginIsRejectedAndCounted(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel})
	f := newFleet(t, h.ClientURL())
	thief := hub.Origin{Cluster: "store-0666", Node: "a"}
	heard := f.listen(thief)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "1 is delivered", func() bool { return len(b.got()) == 1 })
	f.publish(thief, encode(t, 2, 1))
	eventually(t, "the frame is in the rejected stream", func() bool { return f.held(hub.RejectedStream) == 1 })
	f.publish(store1, encode(t, 2, 1))
	eventually(t, "2 of the true origin is delivered", func() bool { return slices.Equal(b.got(), lines(store1, 1, 2)) })
	if n := sumBy(t, tel, "longhaul_relay_items_rejected", "reason")["origin"]; n != 1 {
		t.Fatalf("%d items counted as rejected for their origin", n)
	}
	f.hello(thief, "x")
	eventually(t, "it is told why", func() bool { return strings.Contains(last(heard()).Conflict, store1.String()) })
}

func TestBacklogIsMarked(t *testing.T) {
	h, b := startHub(t), &backend{}
	var mu sync.Mutex
	marked := make(map[string]string)
	b.split = func(ld plog.Logs) (plog.Logs, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range ld.ResourceLogs().All() {
			if value, ok := r.Resource().Attributes().Get(direct.LaneAttribute); ok {
				marked[r.ScopeLogs().At(0).LogRecords().At(0).Body().Str()] = value.AsString()
			}
		}
		return ld, nil
	}
	startRelay(t, h.ClientURL(), destinationOf{to: b})
	f := newFleet(t, h.ClientURL())
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, encode(t, 2, 1), hub.ClassHeader, frame.Backlog.String())
	eventually(t, "both are delivered", func() bool { return len(b.got()) == 2 })
	mu.Lock()
	defer mu.Unlock()
	if len(marked) != 1 || marked["line 2"] != "backlog" {
		t.Fatalf("marked %q", marked)
	}
}

func TestManySmallFramesBecomeFewDeliveries(t *testing.T) {
	h, b := startHub(t), &backend{}
	startRelay(t, h.ClientURL(), destinationOf{to: b})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 500)
	s.publish()
	s.publish()
	s.drained(t)
	s.whole(t, b.got())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls > 500 {
		t.Fatalf("1000 frames made %d deliveries", b.calls)
	}
	t.Logf("1000 frames made %d deliveries", b.calls)
}

func TestAFrameLargerThanTheBudgetPassesAlone(t *testing.T) {
	h, b := startHub(t), &backend{}
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, set: func(c *Config) {
		c.MemoryLimit = 1 // as Validate would not have it
		c.Deliver.MaxDelay = 0
	}})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 10)
	for range 10 {
		s.publish()
	}
	s.drained(t)
	s.whole(t, b.got())
	for _, o := range r.destinations[0].outlets {
		eventually(t, "nothing is held any more", func() bool { return o.frames.used.Load() == 0 && o.decoded.used.Load() == 0 })
	}
}
