package natsreceiver

import (
	"testing"
	"time"
)

// evenly waits until relays share all partitions, and checks that they do so evenly.
func evenly(t *testing.T, count int, relays ...*relay) {
	t.Helper()
	most := (count + len(relays) - 1) / len(relays)
	eventually(t, "the relays share the partitions evenly", func() bool {
		total := 0
		for _, r := range relays {
			n := 0
			for _, p := range r.partitions() {
				if p.ready.Load() && !p.ended.Load() && p.claim.Count() == count {
					n++
				}
			}
			if n > most {
				return false
			}
			total += n
		}
		return total == count
	})
}

func TestRelaysThatJoinLeaveAndDieLoseNothingAndKeepTheOrder(t *testing.T) {
	h, b := startHub(t), &backend{}
	to := destinationOf{to: b}
	first := startRelay(t, h.ClientURL(), to)
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 40)
	rounds := func(n int) {
		for range n {
			s.publish()
			time.Sleep(20 * time.Millisecond) // the pace of the edges
		}
	}
	evenly(t, testPartitions, first)
	rounds(20)
	second := startRelay(t, h.ClientURL(), to)
	rounds(20)
	evenly(t, testPartitions, first, second)
	third := startRelay(t, h.ClientURL(), to)
	rounds(20)
	evenly(t, testPartitions, first, second, third)
	rounds(10)
	first.stop()
	rounds(20)
	evenly(t, testPartitions, second, third)
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 { // none, unless a busy machine has kept a relay from saying that it lives
		t.Logf("%d frames were delivered twice although every relay left in order", n)
	}
	rounds(10)
	second.kill()
	rounds(20)
	evenly(t, testPartitions, third)
	s.drained(t)
	duplicates := s.whole(t, b.got())
	s.mu.Lock()
	defer s.mu.Unlock()
	// What the dead relay had delivered and not stored: some intervals of settling at the
	// pace of the edges, of the partitions that were its own.
	if most := 40 * 40; duplicates > most {
		t.Errorf("%d frames were delivered twice; at most %d may be", duplicates, most)
	}
	t.Logf("%d frames of %d origins, %d twice, %d asked for again", len(b.got()), len(s.origins), duplicates, s.resent)
}

func TestAChangeOfThePartitionCountUnderLoadLosesNothingAndKeepsTheOrder(t *testing.T) {
	h, b := startHub(t), &backend{}
	old := startRelay(t, h.ClientURL(), destinationOf{to: b})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 40)
	evenly(t, testPartitions, old)
	for range 20 {
		s.publish()
	}
	old.stop()
	for range 5 {
		s.publish()
	}
	more := func(c *Config) { c.Streams.Partitions = 2 * testPartitions }
	now := startRelay(t, h.ClientURL(), destinationOf{to: b, set: more})
	for range 30 {
		s.publish()
		time.Sleep(20 * time.Millisecond) // the pace of the edges
	}
	evenly(t, 2*testPartitions, now)
	for range 5 {
		s.publish()
	}
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 {
		t.Errorf("%d frames were delivered twice", n)
	}
}
