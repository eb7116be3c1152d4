package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/internal/frame"
)

const (
	// consumersAtOnce bounds how many consumers are made at the same time.
	consumersAtOnce = 8
	// inHands bounds the frames of one signal and destination that are in the relays'
	// hands: waiting, or delivered within the second or so until that is stored; and inHandsMin what one partition may have of it.
	inHands, inHandsMin = 16 * 1024, 4 * 1024
)

// PartitionReader is a consumer of one partition on the hub.
type PartitionReader struct {
	Destination      string
	Count, Partition int
	Info             *jetstream.ConsumerInfo
}

// Left is how many frames it has not acknowledged.
func (r PartitionReader) Left() uint64 {
	return r.Info.NumPending + uint64(r.Info.NumAckPending)
}

// PartitionReaders are the consumers of a stream, by name.
type PartitionReaders map[string]PartitionReader

// Destinations are whom they read for.
func (p PartitionReaders) Destinations() []string {
	var names []string
	for _, r := range p {
		names = append(names, r.Destination)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Consumers lists the consumers of a stream that read a partition.
func Consumers(ctx context.Context, stream jetstream.Stream) (PartitionReaders, error) {
	readers := make(PartitionReaders)
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if destination, count, partition, ok := ParsePartitionConsumer(info.Name); ok {
			readers[info.Name] = PartitionReader{destination, count, partition, info}
		}
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return nil, fmt.Errorf("list the consumers of stream %s: %w", stream.CachedInfo().Config.Name, err)
	}
	return readers, nil
}

// MaxInHands is how many frames of one partition, signal and destination the hub
// hands out before the first of them is acknowledged or given back.
func MaxInHands(count int) int { return max(inHands/count, inHandsMin) }

// partitionConfig is the consumer of a partition.
func partitionConfig(signal frame.Signal, r Reader, count, partition int) jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable:       PartitionConsumer(r.Destination, count, partition),
		FilterSubject: PartitionSubjects(signal, count, partition),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxAckPending: MaxInHands(count),
		MaxDeliver:    -1,
	}
	if r.Now {
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	return config
}

// ensureGeneration makes the consumers that are missing. Returned are the
// destinations that had none at all.
func ensureGeneration(ctx context.Context, stream jetstream.Stream, signal frame.Signal, count int, readers []Reader, have PartitionReaders) ([]string, error) {
	known := have.Destinations()
	var begun []string
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(consumersAtOnce)
	for _, r := range readers {
		if !slices.Contains(known, r.Destination) && !slices.Contains(begun, r.Destination) {
			begun = append(begun, r.Destination)
		}
		for partition := range count {
			want := partitionConfig(signal, r, count, partition)
			if old, ok := have[want.Durable]; ok {
				is := old.Info.Config
				if is.AckWait == want.AckWait && is.MaxAckPending == want.MaxAckPending && is.MaxDeliver == want.MaxDeliver {
					continue
				}
				want.DeliverPolicy = is.DeliverPolicy // cannot be changed
			}
			group.Go(func() error { return ensureConsumer(ctx, stream, want) })
		}
	}
	return begun, group.Wait()
}

func ensureConsumer(ctx context.Context, stream jetstream.Stream, want jetstream.ConsumerConfig) error {
	_, err := stream.CreateOrUpdateConsumer(ctx, want)
	if err != nil && strings.Contains(err.Error(), "deliver policy can not be updated") {
		return nil // another relay was quicker, and says otherwise where it begins
	}
	if err != nil {
		return fmt.Errorf("create consumer %s of stream %s: %w", want.Durable, stream.CachedInfo().Config.Name, err)
	}
	return nil
}

// RemoveReaders deletes the consumers that match. What the hub held for them alone
// is gone with them. A stream that nobody reads any more goes, too: it would say yes
// to frames and drop them.
func RemoveReaders(ctx context.Context, js jetstream.JetStream, signal frame.Signal, match func(PartitionReader) bool) (left uint64, err error) {
	stream, err := js.Stream(ctx, StreamName(signal))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open stream %s: %w", StreamName(signal), err)
	}
	readers, err := Consumers(ctx, stream)
	if err != nil {
		return 0, err
	}
	stay := 0
	for name, r := range readers {
		if !match(r) {
			stay++
			continue
		}
		left += r.Left()
		if err := stream.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return left, fmt.Errorf("delete consumer %s of stream %s: %w", name, StreamName(signal), err)
		}
	}
	if stay == 0 && len(readers) > 0 {
		if err := js.DeleteStream(ctx, StreamName(signal)); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return left, fmt.Errorf("delete stream %s: %w", StreamName(signal), err)
		}
	}
	return left, nil
}
