package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lab"
)

const (
	// takenOverWithin is how soon the partitions of a relay that is gone have to be
	// another's, and shares even again. The rows note what it took.
	takenOverWithin = 10 * time.Second
	// liveWithin is how late live data may be while one tenant is refused.
	liveWithin = 10 * time.Second
)

// killReplica kills the busiest of several relays and, when the others have taken
// over, starts it again.
func killReplica(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.between(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
			return err
		}
		r, err := s.busiest(ctx)
		if err != nil {
			return err
		}
		s.remember(ctx, r)
		_ = r.Kill() // cannot fail
		s.explained += s.gate.onTheWay(r.name, notedWithin)
		s.event("%s killed", r.name)
		if err := s.noteTakeover(ctx, r, "was killed"); err != nil {
			return err
		}
		if err := r.Start(ctx); err != nil {
			return err
		}
		if err := lab.Pause(ctx, 3*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// pauseReplica stops the busiest of several relays for so long that the others
// take over, and lets it go on.
func pauseReplica(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		r, err := s.busiest(ctx)
		if err != nil {
			return err
		}
		if err := r.Pause(); err != nil {
			return err
		}
		paused := time.Now()
		s.event("%s paused", r.name)
		// What it has sent is with Loki, or soon is: the gate passes it on.
		if err := lab.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		s.explained += s.gate.onTheWay(r.name, notedWithin+time.Since(paused))
		if err := s.noteTakeover(ctx, r, "was paused"); err != nil {
			return err
		}
		if err := lab.Pause(ctx, d.hold-time.Since(paused)); err != nil {
			return err
		}
		if err := r.Resume(); err != nil {
			return err
		}
		woke := time.Now()
		s.event("%s resumed", r.name)
		if err := lab.Pause(ctx, 8*time.Second); err != nil {
			return err
		}
		items, repeats := s.gate.takenFrom(r.name, time.Since(woke))
		s.note("in the 8 s after it woke %s delivered %d items, %d of which others had delivered", r.name, items, repeats)
	}
	return nil
}

// busiest returns the relay that delivers most at the moment.
func (s *scene) busiest(ctx context.Context) (*relay, error) {
	deadline := time.Now().Add(settleTime)
	for {
		before := make(map[*relay]float64)
		for _, r := range s.relays {
			m, err := lab.ReadMetrics(ctx, r.MetricsURL)
			if err != nil {
				return nil, err
			}
			before[r] = m.Sum("longhaul_relay_items_delivered_total", "signal", "logs")
		}
		if err := lab.Pause(ctx, 1500*time.Millisecond); err != nil {
			return nil, err
		}
		var most *relay
		var delivered float64
		for _, r := range s.relays {
			m, err := lab.ReadMetrics(ctx, r.MetricsURL)
			if err != nil {
				return nil, err
			}
			if n := m.Sum("longhaul_relay_items_delivered_total", "signal", "logs") - before[r]; n > delivered {
				most, delivered = r, n
			}
		}
		if most != nil {
			return most, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no relay has delivered anything for %v", settleTime)
		}
	}
}

// noteTakeover waits until something that was sent after now by each collector has
// arrived, without the relay that is gone.
func (s *scene) noteTakeover(ctx context.Context, gone *relay, how string) error {
	began := time.Now()
	if err := s.awaitFlow(ctx); err != nil {
		return fmt.Errorf("after %s %s: %w", gone.name, how, err)
	}
	s.note("%.1f s after %s %s, new data of every collector had arrived (%v are promised until another relay reads)",
		time.Since(began).Seconds(), gone.name, how, takenOverWithin)
	return nil
}

// awaitFlow waits until something that was sent after now by each collector has arrived.
func (s *scene) awaitFlow(ctx context.Context) error {
	began, from := time.Now(), s.feed.begun()
	for !s.feed.arrivedFromAll(from, s.gate.firsts()) {
		if time.Since(began) > settleTime {
			return fmt.Errorf("for %v not every collector's data has arrived", settleTime)
		}
		if err := lab.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// wipeServer kills a server of a hub of three, deletes its store and starts it
// again; the next one only when it has caught up.
func wipeServer(ctx context.Context, s *scene, d dose) error {
	for i := range d.times {
		one := s.servers[(i+s.random.IntN(len(s.servers)))%len(s.servers)]
		if err := s.between(ctx, time.Second, 3*time.Second); err != nil {
			return err
		}
		_ = one.Kill() // cannot fail
		s.event("%s killed", one.Name())
		if err := wipe(one.store); err != nil {
			return err
		}
		if err := s.between(ctx, 3*time.Second, 5*time.Second); err != nil {
			return err
		}
		if err := one.Start(ctx); err != nil {
			return err
		}
		s.event("%s started with an empty store", one.Name())
		began := time.Now()
		if err := one.awaitHealth(ctx); err != nil {
			return err
		}
		s.note("%.1f s after it had come back with an empty store %s had caught up", time.Since(began).Seconds(), one.Name())
	}
	return lab.Pause(ctx, 2*time.Second)
}

// refuseTenant lets the backend refuse one of several tenants, in several ways, and
// looks how the others fare.
func refuseTenant(ctx context.Context, s *scene, d dose) error {
	refused := s.clusters[0]
	ways := []behaviour{
		{status: http.StatusTooManyRequests, tenant: refused},
		{status: http.StatusInternalServerError, tenant: refused},
		{hang: true, tenant: refused},
	}
	for range d.times {
		for _, b := range ways {
			if err := s.gate.behave(b); err != nil {
				return err
			}
			met := s.gate.met()
			if err := lab.Pause(ctx, time.Second); err != nil { // what was with Loki is taken
				return err
			}
			s.gate.watchDelays()
			if err := lab.Pause(ctx, d.hold); err != nil {
				return err
			}
			if s.gate.met() == met {
				return errors.New("no push met the trouble: the row has shown nothing")
			}
			if n := len(s.gate.delaysOf(refused)); n > 0 {
				return fmt.Errorf("%d items of the tenant that got %s were taken", n, b.answer())
			}
			if err := s.gate.behave(behaviour{}); err != nil {
				return err
			}
			if err := s.awaitFlow(ctx); err != nil { // what was held up has come by then, too
				return err
			}
			if err := s.noteDelays(refused, fmt.Sprintf("while the tenant %s got %s", refused, b.answer())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b behaviour) answer() string {
	if b.hang {
		return "no answer"
	}
	return strconv.Itoa(b.status)
}

// noteDelays notes how late the data of all tenants but one was.
func (s *scene) noteDelays(but, when string) error {
	for _, tenant := range s.clusters {
		if tenant == but {
			continue
		}
		delays := s.gate.delaysOf(tenant)
		if len(delays) == 0 {
			return fmt.Errorf("%s, nothing of the tenant %s arrived", when, tenant)
		}
		half, late := delays[len(delays)/2], delays[len(delays)*99/100]
		s.note("%s, %d items of %s arrived, half of them within %.1f s and 99 of 100 within %.1f s", when, len(delays), tenant, half.Seconds(), late.Seconds())
		if late > liveWithin {
			return fmt.Errorf("%s, the data of %s was %.1f s late (99 of 100 items); %v are promised", when, tenant, late.Seconds(), liveWithin)
		}
	}
	return nil
}

const (
	partitionsBefore = 16
	partitionsAfter  = 32
)

// repartition starts one relay after the other with twice as many partitions while
// the hub holds what a slow backend has not taken yet.
func repartition(ctx context.Context, s *scene, _ dose) error {
	if err := s.gate.behave(behaviour{delay: 300 * time.Millisecond}); err != nil {
		return err
	}
	if err := lab.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	for _, r := range s.relays {
		s.remember(ctx, r)
		if err := r.Stop(); err != nil {
			return err
		}
		if err := r.configure(s.stage, partitionsAfter); err != nil {
			return err
		}
		s.event("%s stopped", r.name)
		if err := r.Start(ctx); err != nil {
			return err
		}
		s.event("%s started with %d partitions", r.name, partitionsAfter)
		if err := lab.Pause(ctx, 3*time.Second); err != nil {
			return err
		}
	}
	if err := s.gate.behave(behaviour{}); err != nil {
		return err
	}
	return s.awaitLayout(ctx, partitionsAfter)
}

// awaitLayout waits until the hub says that it is read in so many partitions and
// nothing is left of an earlier layout.
func (s *scene) awaitLayout(ctx context.Context, count int) error {
	nc, err := nats.Connect(natsURL(s.hub))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	began := time.Now()
	var layout hub.Layout
	for {
		layout, _, err = hub.ReadLayout(ctx, js)
		if err == nil && layout == (hub.Layout{Count: count}) {
			s.note("%.1f s after the last relay had started, the hub was read in %d partitions", time.Since(began).Seconds(), count)
			return nil
		}
		if time.Since(began) > settleTime {
			return fmt.Errorf("%v after the last relay was started with %d partitions the layout is %+v (%w)", settleTime, count, layout, err)
		}
		if err := lab.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
