package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// requestTime bounds a request to a server that may have no leader to answer it.
const requestTime = 4 * time.Second

// Entry is a value of the custody bucket and its revision.
type Entry struct {
	Value    []byte
	Revision uint64
}

// LastInBucket reads a key of the custody bucket from the leader of its stream. The
// client's Get may be answered by a server that lags behind. The error is
// jetstream.ErrKeyNotFound when there is no such key.
func LastInBucket(ctx context.Context, js jetstream.JetStream, key string) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime) // a server without a leader does not answer
	defer cancel()
	request, _ := json.Marshal(map[string]string{"last_by_subj": KeySubject(key)})
	answer, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+CustodyBucket, request)
	if err != nil {
		return Entry{}, err
	}
	var body struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(answer.Data, &body); {
	case err != nil:
		return Entry{}, err
	case body.Error != nil && body.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound,
		body.Error == nil && bytes.Contains(body.Message.Header, []byte("KV-Operation:")):
		return Entry{}, jetstream.ErrKeyNotFound
	case body.Error != nil:
		return Entry{}, body.Error
	}
	return Entry{body.Message.Data, body.Message.Sequence}, nil
}

// ReadLayout reads the layout and its revision.
func ReadLayout(ctx context.Context, js jetstream.JetStream) (Layout, uint64, error) {
	entry, err := LastInBucket(ctx, js, LayoutKey)
	if err != nil {
		return Layout{}, 0, fmt.Errorf("read the layout of the streams: %w", err)
	}
	l, err := ParseLayout(entry.Value)
	return l, entry.Revision, err
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
