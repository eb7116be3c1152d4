package lease

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// leftoverTime is how long frames of the old generation may stay that every
	// consumer says it is done with: nobody would read them.
	leftoverTime = 30 * time.Second
	// complainInterval is how often a change that waits, or a destination that nobody
	// reads, is spoken of.
	complainInterval = 5 * time.Minute
)

// keeper does, for all relays, what one has to: it moves the layout on.
type keeper struct {
	*Member
	wanted   bool // the configured count was reached once, or a change to it begun
	dropping []string
	begun    time.Time // when this relay first looked whether the old generation is drained
	drained  int       // how often in a row nothing was left of it
	idle     time.Time // since when no consumer has anything left of it
	told     map[string]time.Time
}

// change begins and moves on a change of the layout, and returns when to look again.
func (k *keeper) change(ctx context.Context) (time.Duration, error) {
	bucket, err := k.js.KeyValue(ctx, hub.CustodyBucket)
	if err != nil {
		return keepPause, err
	}
	layout, revision, err := hub.ReadLayout(ctx, k.js)
	if err != nil {
		return keepPause, err
	}
	if len(k.dropping) > 0 {
		if done, err := k.drop(ctx); err != nil || !done {
			return changeInterval, err
		}
	}
	next := layout
	switch first, known := k.first(); {
	case layout.Next != 0:
		if !first {
			return changeInterval, nil
		}
		done, err := k.drain(ctx, layout)
		if err != nil || !done {
			return changeInterval, err
		}
		next = hub.Layout{Count: layout.Next, Old: layout.Count}
	case layout.Old != 0:
		if !first {
			return changeInterval, nil
		}
		done, err := k.clear(ctx, layout)
		if err != nil || !done {
			return changeInterval, err
		}
		next = hub.Layout{Count: layout.Count}
	case layout.Count == k.set.Streams.Partitions:
		k.wanted = true
	case !k.wanted: // only what a relay starts with: else relays of two configurations would change it for ever
		k.wanted = true
		next.Next = k.set.Streams.Partitions
		k.log.Info("the number of partitions changes; what is kept under the old one is delivered first", zap.Int("from", layout.Count), zap.Int("to", next.Next))
	case !known:
		return changeInterval, nil
	}
	if next == layout {
		return keepInterval, k.orphans(ctx)
	}
	k.begun, k.drained, k.idle = time.Time{}, 0, time.Time{}
	if err := hub.WriteLayout(ctx, bucket, next, revision); err != nil {
		return changeInterval, err
	}
	k.log.Info("layout of the streams", zap.Int("partitions", next.Count), zap.Int("next", next.Next), zap.Int("old", next.Old))
	k.pokeKeeper()
	k.wakeUp()
	return changeInterval, nil
}

// first says whether this relay is the one that does what one relay has to do, and
// whether it is known yet who lives.
func (k *keeper) first() (first, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.live {
		if id < k.id {
			return false, true
		}
	}
	return k.looks > 1, k.looks > 1
}

// each does something with every signal's stream there is.
func (k *keeper) each(ctx context.Context, do func(frame.Signal, jetstream.Stream) error) error {
	for _, signal := range frame.Signals {
		stream, err := k.js.Stream(ctx, hub.StreamName(signal))
		if err == nil {
			err = do(signal, stream)
		} else if isNotFound(err) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drain says whether nothing of the old generation is left.
func (k *keeper) drain(ctx context.Context, layout hub.Layout) (bool, error) {
	left, kept := make(map[string]uint64), 0
	err := k.each(ctx, func(signal frame.Signal, stream jetstream.Stream) error {
		if hub.KeptCount(stream.CachedInfo().Config) != layout.Next {
			return fmt.Errorf("stream %s does not keep frames in %d partitions yet", hub.StreamName(signal), layout.Next)
		}
		readers, err := hub.Consumers(ctx, stream)
		if err != nil {
			return err
		}
		for _, r := range readers {
			if r.Count == layout.Count && r.Left() > 0 {
				left[r.Destination] += r.Left()
			}
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(hub.GenerationSubjects(signal, layout.Count)))
		if err != nil {
			return err
		}
		kept += len(info.State.Subjects)
		return nil
	})
	switch {
	case err != nil:
		k.drained, k.idle = 0, time.Time{}
		return false, err
	case len(left) > 0:
		k.drained, k.idle = 0, time.Time{}
		if k.begun.IsZero() {
			k.begun = time.Now()
		}
		if time.Since(k.begun) < leftoverTime {
			return false, nil
		}
		k.complain("drain", "the change of the number of partitions waits until every destination has what is kept under the old one", zap.Any("frames", left))
		return false, nil
	case kept > 0:
		if k.idle.IsZero() {
			k.idle = time.Now()
		}
		k.drained = 0
		return time.Since(k.idle) > leftoverTime, nil
	}
	// Twice: a hub server that lags behind may not have known of the last frames.
	k.drained++
	return k.drained > 1, nil
}

// clear removes the consumers of a generation that nobody reads any more.
func (k *keeper) clear(ctx context.Context, layout hub.Layout) (bool, error) {
	k.mu.Lock()
	for p, at := range k.owners {
		if _, lives := k.live[at.id]; lives && p.count == layout.Old {
			k.mu.Unlock()
			return false, nil
		}
	}
	k.mu.Unlock()
	for _, signal := range frame.Signals {
		if _, err := hub.RemoveReaders(ctx, k.js, signal, func(r hub.PartitionReader) bool { return r.Count == layout.Old }); err != nil {
			return false, err
		}
	}
	for partition := range layout.Old {
		if err := k.purge(ctx, hub.OwnerKey(layout.Old, partition)); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (k *keeper) purge(ctx context.Context, keys string) error {
	stream, err := k.js.Stream(ctx, custodyStream)
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject(hub.KeySubject(keys)))
}

// clean removes the member keys of relays that are long dead. What such a relay writes
// at the same time, because it was only paused, stays: it is a later message.
func (k *keeper) clean(ctx context.Context) error {
	if first, _ := k.first(); !first {
		return nil
	}
	k.mu.Lock()
	dead := maps.Clone(k.dead)
	k.mu.Unlock()
	if len(dead) == 0 {
		return nil
	}
	stream, err := k.js.Stream(ctx, custodyStream)
	if err != nil {
		return err
	}
	for id, revision := range dead {
		err := stream.Purge(ctx, jetstream.WithPurgeSubject(hub.KeySubject(hub.MemberKey(id))), jetstream.WithPurgeSequence(revision+1))
		if err != nil {
			return fmt.Errorf("remove the member key of a relay that is gone: %w", err)
		}
	}
	return nil
}

// reads says whether a relay that lives, this one too, reads a signal for a
// destination; signal "": any.
func (k *keeper) reads(destination, signal string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, member := range k.live {
		signals, ok := member.Reads[destination]
		if ok && (signal == "" || slices.Contains(signals, signal)) {
			return true
		}
	}
	return false
}

// drop removes destinations as configured, each once. false: later.
func (k *keeper) drop(ctx context.Context) (bool, error) {
	if _, known := k.first(); !known {
		return false, nil
	}
	for len(k.dropping) > 0 {
		destination, only, _ := strings.Cut(k.dropping[0], "/")
		if k.reads(destination, only) {
			k.log.Warn("a destination is to be dropped that a relay reads; it is kept: take it out of drop_destinations, or out of that relay's configuration", zap.String("destination", k.dropping[0]))
			k.dropping = k.dropping[1:]
			continue
		}
		for _, signal := range frame.Signals {
			if only != "" && only != signal.String() {
				continue
			}
			left, err := hub.RemoveReaders(ctx, k.js, signal, func(r hub.PartitionReader) bool { return r.Destination == destination })
			if err != nil {
				return false, err
			}
			k.log.Info("destination dropped from the hub", zap.String("destination", destination), zap.Stringer("signal", signal), zap.Uint64("frames", left))
		}
		if only == "" {
			if err := k.purge(ctx, hub.DestinationKeys(destination)); err != nil {
				return false, err
			}
		}
		k.dropping = k.dropping[1:]
	}
	return true, nil
}

// orphans warns of destinations that the hub holds frames for and nobody reads.
func (k *keeper) orphans(ctx context.Context) error {
	if first, _ := k.first(); !first {
		return nil
	}
	return k.each(ctx, func(signal frame.Signal, stream jetstream.Stream) error {
		readers, err := hub.Consumers(ctx, stream)
		if err != nil {
			return err
		}
		left := make(map[string]uint64)
		for _, r := range readers {
			if !k.reads(r.Destination, signal.String()) {
				left[r.Destination] += r.Left()
			}
		}
		for destination, frames := range left {
			k.complain(destination+"/"+signal.String(),
				"no relay reads this destination any more, and the hub holds frames for it until it is full; name it in drop_destinations if it is gone for good",
				zap.String("destination", destination), zap.Stringer("signal", signal), zap.Uint64("frames", frames))
		}
		return nil
	})
}

// complain warns, of each thing now and then.
func (k *keeper) complain(about, text string, fields ...zap.Field) {
	if at, ok := k.told[about]; ok && time.Since(at) < complainInterval {
		return
	}
	if k.told == nil {
		k.told = make(map[string]time.Time)
	}
	k.told[about] = time.Now()
	k.log.Warn(text, fields...)
}
