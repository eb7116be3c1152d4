package hub

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// ReadLayout reads the layout and its revision.
func ReadLayout(ctx context.Context, bucket jetstream.KeyValue) (Layout, uint64, error) {
	entry, err := bucket.Get(ctx, LayoutKey)
	if err != nil {
		return Layout{}, 0, fmt.Errorf("read the layout of the streams: %w", err)
	}
	l, err := ParseLayout(entry.Value())
	return l, entry.Revision(), err
}

// ParseLayout reads what stands under LayoutKey.
func ParseLayout(value []byte) (Layout, error) {
	var l Layout
	if err := json.Unmarshal(value, &l); err != nil {
		return Layout{}, fmt.Errorf("read the layout of the streams: %w", err)
	}
	for _, count := range []int{l.Count, l.Next, l.Old} {
		if count < 0 || count > MaxPartitions {
			return Layout{}, fmt.Errorf("read the layout of the streams: %d partitions are not from 1 to %d", count, MaxPartitions)
		}
	}
	if l.Count == 0 {
		return Layout{}, fmt.Errorf("read the layout of the streams: it has no count: %q", value)
	}
	return l, nil
}

// WriteLayout writes the layout if its revision is still the one given; 0: if there is none.
func WriteLayout(ctx context.Context, bucket jetstream.KeyValue, l Layout, revision uint64) error {
	value, err := json.Marshal(l)
	if err == nil && revision == 0 {
		_, err = bucket.Create(ctx, LayoutKey, value)
	} else if err == nil {
		_, err = bucket.Update(ctx, LayoutKey, value, revision)
	}
	if err != nil {
		return fmt.Errorf("write the layout of the streams: %w", err)
	}
	return nil
}
