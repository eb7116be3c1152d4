package hub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/frame"
)

// Layout says into how many partitions the streams are cut. It stands in the
// custody bucket, so that all relays go by one.
//
// The count is part of the subject that a frame is kept under, so frames of an
// old count and of a new one (two generations) are told apart. A change goes
// Count → Count and Next → (when nothing of the old generation is left to read)
// Count and Old → Count. Only Count's partitions are read.
type Layout struct {
	// Count is the generation that is read.
	Count int `json:"count"`
	// Next is the generation that new frames are kept in while Count is read to its
	// end; 0: none, they are kept in Count.
	Next int `json:"next,omitempty"`
	// Old is a generation that is read to its end and not cleared away yet; 0: none.
	Old int `json:"old,omitempty"`
}

// Keeps is the generation that new frames are kept in.
func (l Layout) Keeps() int {
	if l.Next != 0 {
		return l.Next
	}
	return l.Count
}

// Reader is a destination that reads a signal.
type Reader struct {
	Destination string
	// Now: one that is new on this hub begins with what comes from now on, not with
	// what the hub still holds for others.
	Now bool
}

// Ensured is what EnsureSignal found and made.
type Ensured struct {
	// Created is when the stream was made; it names the store.
	Created time.Time
	// Replaced: a stream of an older version was in the way and is gone, with frames
	// that the edges hold still and publish again.
	Replaced bool
	// MaxBytes and Replicas are the stream's, where Streams.Leave left them as they were.
	MaxBytes int64
	Replicas int
	// Begun are readers that were new on this hub.
	Begun []string
}

// setupSubject keeps a stream that is being made from taking frames that nobody
// reads yet: the hub drops those.
func setupSubject(signal frame.Signal) string { return "longhaul.setup." + signal.String() }

func transform(signal frame.Signal, count int) *jetstream.SubjectTransformConfig {
	return &jetstream.SubjectTransformConfig{
		Source:      framesPrefix + signal.String() + ".*.*",
		Destination: fmt.Sprintf("%s%s.%d.{{partition(%d,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}", partsPrefix, signal, count, count),
	}
}

// KeptCount is the generation that a stream keeps new frames in; 0: it is not ready.
func KeptCount(config jetstream.StreamConfig) int {
	if config.SubjectTransform == nil {
		return 0
	}
	rest, ok := strings.CutPrefix(config.SubjectTransform.Destination, partsPrefix)
	fields := strings.SplitN(rest, ".", 3)
	if !ok || len(fields) != 3 {
		return 0
	}
	count, err := strconv.Atoi(fields[1])
	if err != nil || count < 1 || count > MaxPartitions {
		return 0
	}
	return count
}

// signalConfig is the stream of a signal. count 0: it takes nothing yet.
//
// Frames are kept until every destination that reads them has acknowledged them
// (interest). A full stream refuses what is new, which pushes back to the edges' disks.
func signalConfig(signal frame.Signal, s Streams, count int) jetstream.StreamConfig {
	config := jetstream.StreamConfig{
		Name:        StreamName(signal),
		Description: "longhaul " + signal.String() + " on their way from the edges to the backends",
		Subjects:    []string{setupSubject(signal)},
		Retention:   jetstream.InterestPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		MaxBytes:    int64(s.MaxBytes) * shares[signal] / 100,
		Replicas:    s.Replicas,
		Duplicates:  DuplicateWindow,
		AllowDirect: true,
	}
	if count != 0 {
		config.Subjects = []string{framesPrefix + signal.String() + ".*.*"}
		config.SubjectTransform = transform(signal, count)
	}
	return config
}

// EnsureSignal makes sure of a signal's stream and of the consumers of its readers.
// It may be called by several relays at once and any number of times. Consumers
// come before the frames they are to read.
func EnsureSignal(ctx context.Context, js jetstream.JetStream, signal frame.Signal, s Streams, l Layout, readers []Reader) (Ensured, error) {
	var done Ensured
	stream, err := openSignal(ctx, js, signal, s, &done)
	if err != nil {
		return done, err
	}
	is := stream.CachedInfo().Config
	done.Created = stream.CachedInfo().Created
	have, err := Consumers(ctx, stream)
	if err != nil {
		return done, err
	}
	if done.Begun, err = ensureGeneration(ctx, stream, signal, l.Count, readers, have); err != nil {
		return done, err
	}
	if l.Next != 0 {
		// Whoever reads the old generation has to read the new one, from its first frame.
		var all []Reader
		for _, destination := range have.Destinations() {
			all = append(all, Reader{Destination: destination})
		}
		for _, r := range readers {
			all = append(all, Reader{Destination: r.Destination})
		}
		if _, err := ensureGeneration(ctx, stream, signal, l.Next, all, have); err != nil {
			return done, err
		}
	}
	want := signalConfig(signal, s, l.Keeps())
	if s.Leave {
		want.MaxBytes, want.Replicas = is.MaxBytes, is.Replicas
	}
	done.MaxBytes, done.Replicas = want.MaxBytes, want.Replicas
	return done, serve(ctx, js, is, want)
}

// Differs says whether a signal's stream has another size or other replicas than s has.
func (s *Streams) Differs(signal frame.Signal, is Ensured) bool {
	want := signalConfig(signal, *s, 0)
	return is.MaxBytes != want.MaxBytes || is.Replicas != want.Replicas
}

// openSignal opens the stream, or makes one that takes nothing yet.
func openSignal(ctx context.Context, js jetstream.JetStream, signal frame.Signal, s Streams, done *Ensured) (jetstream.Stream, error) {
	name := StreamName(signal)
	for {
		stream, err := js.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			stream, err = js.CreateStream(ctx, signalConfig(signal, s, 0))
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				continue // another relay was quicker
			}
			if err != nil {
				return nil, fmt.Errorf("create stream %s: %w", name, err)
			}
			return stream, nil
		case err != nil:
			return nil, fmt.Errorf("open stream %s: %w", name, err)
		case stream.CachedInfo().Config.Retention == jetstream.InterestPolicy:
			return stream, nil
		}
		// Retention cannot be changed. The edges still hold what is in it.
		if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("remove the stream %s of an older version: %w", name, err)
		}
		done.Replaced = true
	}
}

// serve has the stream take frames, as configured.
func serve(ctx context.Context, js jetstream.JetStream, have, want jetstream.StreamConfig) error {
	if len(have.Subjects) == 1 && have.Subjects[0] == want.Subjects[0] && KeptCount(have) == KeptCount(want) &&
		have.MaxBytes == want.MaxBytes && have.Replicas == want.Replicas && have.Duplicates == want.Duplicates &&
		have.Discard == want.Discard && have.AllowDirect == want.AllowDirect {
		return nil
	}
	if _, err := js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("update stream %s: %w", want.Name, err)
	}
	return nil
}

// OpenLayout reads the layout from the bucket, or begins one. The streams say what
// it was if the bucket was lost and they were not.
func OpenLayout(ctx context.Context, js jetstream.JetStream, bucket jetstream.KeyValue, count int) (Layout, error) {
	for {
		l, _, err := ReadLayout(ctx, js)
		if !errors.Is(err, jetstream.ErrKeyNotFound) {
			return l, err
		}
		if l, err = guessLayout(ctx, js, count); err != nil {
			return l, err
		}
		if err = WriteLayout(ctx, bucket, l, 0); !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return l, err
		}
	}
}

func guessLayout(ctx context.Context, js jetstream.JetStream, count int) (Layout, error) {
	for _, signal := range frame.Signals {
		stream, err := js.Stream(ctx, StreamName(signal))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return Layout{}, fmt.Errorf("open stream %s: %w", StreamName(signal), err)
		}
		kept := KeptCount(stream.CachedInfo().Config)
		if kept == 0 {
			continue
		}
		consumers, err := Consumers(ctx, stream)
		if err != nil {
			return Layout{}, err
		}
		for _, c := range consumers {
			if c.Count != kept {
				return Layout{Count: c.Count, Next: kept}, nil // perhaps not read to its end
			}
		}
		return Layout{Count: kept}, nil
	}
	return Layout{Count: count}, nil
}
