package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/frame"
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
	m, err := leaderMessage(ctx, js, "KV_"+CustodyBucket, map[string]any{"last_by_subj": KeySubject(key)})
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && bytes.Contains(m.Header, []byte("KV-Operation:")) {
		err = jetstream.ErrKeyNotFound
	}
	if err != nil {
		return Entry{}, err
	}
	return Entry{m.Data, m.Sequence}, nil
}

// StoredFrame reads what a message of a signal's stream holds, from the stream's
// leader. The error is jetstream.ErrMsgNotFound when it is not there any more.
func StoredFrame(ctx context.Context, js jetstream.JetStream, signal frame.Signal, sequence uint64) ([]byte, error) {
	m, err := leaderMessage(ctx, js, StreamName(signal), map[string]any{"seq": sequence})
	return m.Data, err
}

type message struct {
	Sequence uint64 `json:"seq"`
	Header   []byte `json:"hdrs"`
	Data     []byte `json:"data"`
}

// leaderMessage asks the leader of a stream for one message.
func leaderMessage(ctx context.Context, js jetstream.JetStream, stream string, which map[string]any) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime) // a server without a leader does not answer
	defer cancel()
	request, _ := json.Marshal(which)
	answer, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return message{}, err
	}
	var body struct {
		Error   *jetstream.APIError `json:"error"`
		Message message             `json:"message"`
	}
	switch err := json.Unmarshal(answer.Data, &body); {
	case err != nil:
		return message{}, err
	case body.Error != nil && body.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return message{}, jetstream.ErrMsgNotFound
	case body.Error != nil:
		return message{}, body.Error
	}
	return body.Message, nil
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
