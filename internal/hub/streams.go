package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
)

const (
	// DuplicateWindow is how long the hub remembers message ids. It only catches
	// a publish repeated at once; longer repeats are caught by frame numbers.
	DuplicateWindow = 2 * time.Minute
	// AckWait is how long a frame may be in the relay's hands without a sign of life.
	AckWait = time.Minute
	// rejectedAge is how long rejected frames are kept.
	rejectedAge = 30 * 24 * time.Hour
)

// shares divides a hub's disk between the streams, in percent. Logs weigh most
// on a wire; what is left is the rejected frames' and the watermarks'.
var shares = map[frame.Signal]int64{frame.Logs: 50, frame.Metrics: 25, frame.Traces: 20}

const rejectedShare = 4

// Streams are the hub's storage settings.
type Streams struct {
	// MaxBytes bounds everything longhaul keeps on the hub. When a signal's share
	// is full the hub refuses new frames and the edges keep them.
	MaxBytes bytesize.Size `mapstructure:"max_bytes"`
	// Replicas is the number of hub servers that keep each message: 1, 3 or 5.
	Replicas int `mapstructure:"replicas"`
	// Partitions is how many parts each stream is cut into, by cluster and node; relays
	// share them. A relay that starts with another number than the hub has changes it.
	Partitions int `mapstructure:"partitions"`
	// Leave: streams that are there keep the size and the replicas that they have.
	// Relays of two configurations would change them for ever.
	Leave bool `mapstructure:"-"`
}

const (
	// DefaultPartitions lets 16 relays share the work.
	DefaultPartitions = 16
	// MaxPartitions bounds the consumers on a hub: one a signal, partition and destination.
	MaxPartitions = 256
)

// Validate reports every problem with its key.
func (s *Streams) Validate() error {
	var problems []error
	if s.MaxBytes < 64*bytesize.MiB {
		problems = append(problems, fmt.Errorf("max_bytes: %s is too little for a hub; give at least 64MiB", s.MaxBytes))
	}
	if s.Replicas != 1 && s.Replicas != 3 && s.Replicas != 5 {
		problems = append(problems, fmt.Errorf("replicas: must be 1, 3 or 5, not %d", s.Replicas))
	}
	if s.Partitions < 1 || s.Partitions > MaxPartitions {
		problems = append(problems, fmt.Errorf("partitions: must be from 1 to %d, not %d", MaxPartitions, s.Partitions))
	}
	return errors.Join(problems...)
}

// EnsureRejected creates or updates the stream of rejected frames. It drops its
// oldest when full, because it must never stop delivery.
func EnsureRejected(ctx context.Context, js jetstream.JetStream, s Streams) error {
	put := js.CreateOrUpdateStream
	if s.Leave {
		put = js.CreateStream
	}
	_, err := put(ctx, jetstream.StreamConfig{
		Name:        RejectedStream,
		Description: "longhaul frames that a backend refused for good, with the reason",
		Subjects:    []string{rejectedPrefix + "*.*.*"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		MaxBytes:    int64(s.MaxBytes) * rejectedShare / 100,
		MaxAge:      rejectedAge,
		Replicas:    s.Replicas,
		AllowDirect: true,
	})
	if err != nil && !(s.Leave && errors.Is(err, jetstream.ErrStreamNameAlreadyInUse)) {
		return fmt.Errorf("create stream %s: %w", RejectedStream, err)
	}
	return nil
}

// custodyConfig is the bucket's stream: as the client's key-value store makes it,
// and with atomic publishing, so that an owner's watermarks are written in one piece.
func custodyConfig(s Streams) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               "KV_" + CustodyBucket,
		Description:        "longhaul: how far each origin's data was accepted by the backends, and who reads what",
		Subjects:           []string{"$KV." + CustodyBucket + ".>"},
		MaxMsgsPerSubject:  1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		Replicas:           s.Replicas,
		Duplicates:         DuplicateWindow,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		// Revisions are fencing tokens. They must not come again when the bucket was lost
		// and made anew, so it begins with the time: writes are far fewer than a microsecond each.
		FirstSeq: uint64(time.Now().UnixMicro()),
	}
}

// EnsureCustody creates or opens the bucket of watermarks.
func EnsureCustody(ctx context.Context, js jetstream.JetStream, s Streams) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	want := custodyConfig(s)
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another relay was quicker
			stream, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create key-value bucket %s: %w", CustodyBucket, err)
	}
	have := stream.CachedInfo().Config
	if s.Leave {
		want.Replicas = have.Replicas
	}
	if have.Replicas != want.Replicas || !have.AllowAtomicPublish {
		have.Replicas, have.AllowAtomicPublish = want.Replicas, true
		if _, err = js.UpdateStream(ctx, have); err != nil {
			return nil, fmt.Errorf("update key-value bucket %s: %w", CustodyBucket, err)
		}
	}
	bucket, err := js.KeyValue(ctx, CustodyBucket)
	if err != nil {
		return nil, fmt.Errorf("open key-value bucket %s: %w", CustodyBucket, err)
	}
	return bucket, nil
}
