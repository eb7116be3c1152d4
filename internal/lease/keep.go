package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// keepInterval is how often it is looked after the streams when nothing calls for it,
	// keepPause how long after a failure, and changeInterval while the layout changes.
	keepInterval   = time.Minute
	keepPause      = 2 * time.Second
	changeInterval = time.Second
	// keepTime bounds one round of it; what it has made by then stays.
	keepTime = 15 * time.Second
)

// keep makes what the relay needs on the hub and sees to it that it stays.
func (m *Member) keep(ctx context.Context) {
	k := &keeper{Member: m, dropping: slices.Clone(m.set.Drop)}
	for ctx.Err() == nil {
		wait := keepPause
		if m.js.Conn().IsConnected() { // else the connection itself has said what is wrong
			bounded, cancel := context.WithTimeout(ctx, keepTime)
			err := m.ensure(bounded)
			if err == nil {
				err = k.clean(bounded)
			}
			if err == nil {
				wait, err = k.change(bounded)
			}
			cancel()
			if err != nil && ctx.Err() == nil {
				m.log.Warn("the hub is not ready for the relay; trying again", zap.Error(err))
			}
			m.wakeUp()
		} else {
			wait = keepPause / 4
		}
		select {
		case <-ctx.Done():
		case <-m.poke:
			// A little apart, so that a bucket without a leader is not asked without end.
			select {
			case <-ctx.Done():
			case <-time.After(keepPause/8 + rand.N(keepPause/8)):
			}
		case <-time.After(wait):
		}
	}
}

// ensure makes what is missing of the bucket, the streams and the consumers.
func (m *Member) ensure(ctx context.Context) error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	if err := newEnough(m.js.Conn().ConnectedServerVersion()); err != nil {
		return err
	}
	streams := m.set.Streams
	streams.Leave = m.settled // what a relay starts with counts, the last one's: see keeper.wanted
	bucket, err := hub.EnsureCustody(ctx, m.js, streams)
	if err != nil {
		return err
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return err
	}
	made, replicas := time.Time{}, streams.Replicas
	if s, ok := status.(*jetstream.KeyValueBucketStatus); ok {
		made, replicas = s.StreamInfo().Created, s.StreamInfo().Config.Replicas
	}
	m.mu.Lock()
	lost := !m.bucket.IsZero() && !m.bucket.Equal(made)
	m.bucket, m.replicas = made, replicas
	m.mu.Unlock()
	layout, err := hub.OpenLayout(ctx, m.js, bucket, streams.Partitions)
	if err != nil {
		return err
	}
	stores, differs := make(map[frame.Signal]string), replicas != streams.Replicas
	for _, signal := range frame.Signals {
		done, err := m.ensureSignal(ctx, signal, streams, layout)
		if err != nil {
			return err
		}
		if !done.Created.IsZero() {
			stores[signal] = strconv.FormatInt(done.Created.UnixNano(), 36)
			differs = differs || streams.Differs(signal, done)
		}
	}
	m.tellDifference(differs)
	m.settled = true
	m.mu.Lock()
	for signal, id := range stores {
		lost = lost || m.stores[signal] != "" && m.stores[signal] != id
	}
	m.stores = stores
	m.ready = true
	if m.layout.Count == 0 {
		m.layout = layout
	}
	var tell []func()
	for _, c := range m.claims {
		if lost && c.storeLost != nil {
			tell = append(tell, c.storeLost)
		}
	}
	m.mu.Unlock()
	if lost {
		m.log.Warn("the hub has a new store; the edges are told to publish again what was not delivered")
	}
	for _, f := range tell {
		f()
	}
	return nil
}

// tellDifference says once that the streams are set otherwise than this relay has it.
func (m *Member) tellDifference(differs bool) {
	if differs && !m.differs {
		m.log.Warn("the hub's streams have another size or other replicas than this relay's streams::max_bytes and streams::replicas: "+
			"what the relay that started last had counts, and they stay as they are; give all relays of a hub the same, and start again one that has it",
			zap.Stringer("max_bytes", m.set.Streams.MaxBytes), zap.Int("replicas", m.set.Streams.Replicas))
	}
	m.differs = differs
}

// ensureSignal makes sure of a stream that this relay reads, or that is there.
func (m *Member) ensureSignal(ctx context.Context, signal frame.Signal, streams hub.Streams, layout hub.Layout) (hub.Ensured, error) {
	var readers []hub.Reader
	for _, destination := range slices.Sorted(maps.Keys(m.set.Signals)) {
		if slices.Contains(m.set.Signals[destination], signal) {
			readers = append(readers, hub.Reader{Destination: destination, Now: m.set.Start[destination] == StartNow})
		}
	}
	if len(readers) == 0 {
		switch _, err := m.js.Stream(ctx, hub.StreamName(signal)); {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return hub.Ensured{}, nil
		case err != nil:
			return hub.Ensured{}, err
		}
	}
	done, err := hub.EnsureSignal(ctx, m.js, signal, streams, layout, readers)
	if done.Replaced {
		m.log.Warn("the stream of an older version was replaced; the edges publish again what was in it", zap.Stringer("signal", signal))
	}
	for _, destination := range done.Begun {
		begins := StartHeld
		if m.set.Start[destination] == StartNow {
			begins = StartNow
		}
		m.log.Info("a destination is new on this hub", zap.String("destination", destination), zap.Stringer("signal", signal), zap.String("begins", begins))
	}
	return done, err
}

// newEnough says whether a server has what this needs: consumers that can be set back.
func newEnough(version string) error {
	var major, minor int
	if n, err := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 || err != nil {
		return nil // not a release; it will tell
	}
	if major < 2 || major == 2 && minor < 14 {
		return fmt.Errorf("the hub runs nats-server %s; longhaul's relay needs 2.14 or newer: upgrade the NATS servers", version)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, jetstream.ErrStreamNotFound) }
