package hub

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
)

var hubSettings = Streams{MaxBytes: 64 * bytesize.MiB, Replicas: 1, Partitions: 4}

func startHub(t *testing.T) jetstream.JetStream {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(30*time.Second))
	nc, err := nats.Connect(s.ClientURL())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func origins(n int) []Origin {
	all := make([]Origin, n)
	for i := range all {
		all[i] = Origin{fmt.Sprintf("store-%04d", i), fmt.Sprintf("node.%d", i%3)}
	}
	return all
}

func publish(t *testing.T, js jetstream.JetStream, o Origin, text string) {
	t.Helper()
	_, err := js.Publish(t.Context(), FrameSubject(frame.Logs, o), []byte(text), jetstream.WithRetryAttempts(0))
	require.NoError(t, err)
}

// hears is how long a consumer may take to hear of a message after its publisher was
// told that it is stored.
const hears = 500 * time.Millisecond

// fetch takes all there is from the consumers of a generation and acknowledges it.
func fetch(t *testing.T, js jetstream.JetStream, destination string, count int) map[Origin][]string {
	t.Helper()
	var batches []jetstream.MessageBatch
	for p := range count {
		c, err := js.Consumer(t.Context(), StreamName(frame.Logs), PartitionConsumer(destination, count, p))
		require.NoError(t, err)
		batch, err := c.Fetch(1000, jetstream.FetchMaxWait(hears))
		require.NoError(t, err)
		batches = append(batches, batch)
	}
	got := make(map[Origin][]string)
	for p, batch := range batches {
		for msg := range batch.Messages() {
			stored, err := ParseStoredSubject(msg.Subject())
			require.NoError(t, err)
			require.Equal(t, p, stored.Partition)
			require.Equal(t, count, stored.Count)
			require.Equal(t, p, Partition(stored.Origin, count), "the server and Partition do not agree")
			require.Equal(t, StoredSubject(frame.Logs, stored.Origin, count), msg.Subject())
			require.NoError(t, msg.DoubleAck(t.Context()))
			got[stored.Origin] = append(got[stored.Origin], string(msg.Data()))
		}
		require.NoError(t, batch.Error())
	}
	return got
}

func TestTheServerCutsTheStreamAsPartitionSays(t *testing.T) {
	js := startHub(t)
	done, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4}, []Reader{{Destination: DefaultDestination}})
	require.NoError(t, err)
	require.Equal(t, []string{DefaultDestination}, done.Begun)
	require.False(t, done.Replaced)
	for _, o := range origins(50) {
		publish(t, js, o, "1")
		publish(t, js, o, "2")
	}
	got := fetch(t, js, DefaultDestination, 4)
	require.Len(t, got, 50)
	for o, texts := range got {
		require.Equal(t, []string{"1", "2"}, texts, o)
	}
	stream, err := js.Stream(t.Context(), StreamName(frame.Logs))
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().State.Msgs, "what all have acknowledged is gone")
}

func TestRelaysThatStartAtOnceMakeOneHub(t *testing.T) {
	js := startHub(t)
	group, ctx := errgroup.WithContext(t.Context())
	for range 5 {
		group.Go(func() error {
			bucket, err := EnsureCustody(ctx, js, hubSettings)
			if err != nil {
				return err
			}
			l, err := OpenLayout(ctx, js, bucket, 4)
			if err != nil {
				return err
			}
			for _, signal := range frame.Signals {
				if _, err := EnsureSignal(ctx, js, signal, hubSettings, l, []Reader{{Destination: "a"}, {Destination: "b", Now: true}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	publish(t, js, origins(1)[0], "1")
	require.Len(t, fetch(t, js, "a", 4), 1)
	require.Len(t, fetch(t, js, "b", 4), 1)
}

// While relays make the stream an edge publishes without a pause. Whatever the hub
// has said yes to is delivered.
func TestNothingIsTakenBeforeSomebodyReadsIt(t *testing.T) {
	js := startHub(t)
	publishing, stop := context.WithCancel(t.Context())
	taken := make(chan int)
	go func() {
		n := 0
		for publishing.Err() == nil {
			if _, err := js.Publish(t.Context(), FrameSubject(frame.Logs, origins(20)[n%20]), []byte("x"), jetstream.WithRetryAttempts(0)); err == nil {
				n++
			}
		}
		taken <- n
	}()
	for range 3 {
		_, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4}, []Reader{{Destination: "a"}})
		require.NoError(t, err)
	}
	_, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4, Next: 8}, []Reader{{Destination: "a"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := js.Stream(t.Context(), StreamName(frame.Logs))
		return err == nil && info.CachedInfo().State.Msgs > 200
	}, 30*time.Second, 10*time.Millisecond)
	stop()
	n, got := <-taken, 0
	for _, count := range []int{4, 8} {
		of := 0
		for _, texts := range fetch(t, js, "a", count) {
			of += len(texts)
		}
		require.Positive(t, of, "of %d partitions", count)
		got += of
	}
	require.Equal(t, n, got)
}

func TestAStreamOfAnOlderVersionIsReplaced(t *testing.T) {
	js := startHub(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: StreamName(frame.Logs), Subjects: []string{framesPrefix + "logs.*.*"}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(t, err)
	_, err = js.CreateConsumer(t.Context(), StreamName(frame.Logs), jetstream.ConsumerConfig{Durable: "relay", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	publish(t, js, origins(1)[0], "old")
	done, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4}, []Reader{{Destination: "a"}})
	require.NoError(t, err)
	require.True(t, done.Replaced)
	publish(t, js, origins(1)[0], "new")
	require.Equal(t, map[Origin][]string{origins(1)[0]: {"new"}}, fetch(t, js, "a", 4))
}

func TestADestinationThatIsNewBeginsWhereItIsTold(t *testing.T) {
	js := startHub(t)
	o := origins(1)[0]
	ensure := func(readers ...Reader) Ensured {
		done, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4}, readers)
		require.NoError(t, err)
		return done
	}
	ensure(Reader{Destination: "a"})
	publish(t, js, o, "1")
	require.Equal(t, []string{"held", "now"}, ensure(Reader{Destination: "a"}, Reader{Destination: "held"}, Reader{Destination: "now", Now: true}).Begun)
	publish(t, js, o, "2")
	require.Empty(t, ensure(Reader{Destination: "a"}, Reader{Destination: "held", Now: true}, Reader{Destination: "now"}).Begun, "where it began cannot be changed any more")
	_, err := js.ResetConsumer(t.Context(), StreamName(frame.Logs), PartitionConsumer("now", 4, Partition(o, 4)))
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, fetch(t, js, "a", 4)[o])
	require.Equal(t, []string{"1", "2"}, fetch(t, js, "held", 4)[o])
	publish(t, js, o, "3")
	left, err := RemoveReaders(t.Context(), js, frame.Logs, func(r PartitionReader) bool { return r.Destination == "held" })
	require.NoError(t, err)
	require.EqualValues(t, 1, left)
	require.Equal(t, []string{"2", "3"}, fetch(t, js, "now", 4)[o])
	require.Equal(t, []string{"3"}, fetch(t, js, "a", 4)[o])
	stream, err := js.Stream(t.Context(), StreamName(frame.Logs))
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().State.Msgs, "what was held for the destination alone is gone with it")
	_, err = RemoveReaders(t.Context(), js, frame.Logs, func(PartitionReader) bool { return true })
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), FrameSubject(frame.Logs, o), nil, jetstream.WithRetryAttempts(0))
	require.Error(t, err, "a frame that nobody would read is not taken")
}

func TestTheLayoutIsFoundAgainWhenTheBucketIsLost(t *testing.T) {
	js := startHub(t)
	open := func(configured int) Layout {
		bucket, err := EnsureCustody(t.Context(), js, hubSettings)
		require.NoError(t, err)
		l, err := OpenLayout(t.Context(), js, bucket, configured)
		require.NoError(t, err)
		return l
	}
	ensure := func(l Layout) {
		_, err := EnsureSignal(t.Context(), js, frame.Metrics, hubSettings, l, []Reader{{Destination: "a"}})
		require.NoError(t, err)
	}
	require.Equal(t, Layout{Count: 4}, open(4))
	require.Equal(t, Layout{Count: 4}, open(8), "what stands there goes before what is configured")
	ensure(Layout{Count: 4})
	require.NoError(t, js.DeleteKeyValue(t.Context(), CustodyBucket))
	require.Equal(t, Layout{Count: 4}, open(8))
	ensure(Layout{Count: 4, Next: 8})
	require.NoError(t, js.DeleteKeyValue(t.Context(), CustodyBucket))
	require.Equal(t, Layout{Count: 4, Next: 8}, open(8))
}

func TestRevisionsDoNotComeAgainWhenTheBucketIsLost(t *testing.T) {
	js := startHub(t)
	var last uint64
	for range 3 {
		bucket, err := EnsureCustody(t.Context(), js, hubSettings)
		require.NoError(t, err)
		for range 50 {
			revision, err := bucket.Put(t.Context(), "a.b.c", nil)
			require.NoError(t, err)
			require.Greater(t, revision, last)
			last = revision
		}
		_, err = EnsureCustody(t.Context(), js, hubSettings)
		require.NoError(t, err)
		require.NoError(t, js.DeleteKeyValue(t.Context(), CustodyBucket))
	}
}

func TestConsumerNamesAndKeysGiveBackWhatTheyWereMadeOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		destination := rapid.StringMatching(`[A-Za-z0-9_-]{1,32}`).Draw(t, "destination")
		count := rapid.IntRange(1, MaxPartitions).Draw(t, "count")
		partition := rapid.IntRange(0, count-1).Draw(t, "partition")
		require.NoError(t, ValidDestination(destination))
		d, c, p, ok := ParsePartitionConsumer(PartitionConsumer(destination, count, partition))
		require.True(t, ok)
		require.Equal(t, []any{destination, count, partition}, []any{d, c, p})
		c, p, ok = ParseOwnerKey(OwnerKey(count, partition))
		require.True(t, ok)
		require.Equal(t, []int{count, partition}, []int{c, p})
		o := Origin{names().Draw(t, "cluster"), names().Draw(t, "node")}
		epoch := frame.Epoch(rapid.Uint64Min(1).Draw(t, "epoch"))
		d, got, e, err := ParseDestinationKey(DestinationKey(destination, o, epoch))
		require.NoError(t, err)
		require.Equal(t, []any{destination, o, epoch}, []any{d, got, e})
		_, _, _, err = ParseDestinationKey(OwnerKey(count, partition))
		require.Error(t, err)
	})
	for _, key := range []string{"owner.16", "owner.16-16", "owner.016-1", "owner.0-0", "owner.300-1", "owner.16-1-1", "member.16-1"} {
		_, _, ok := ParseOwnerKey(key)
		require.False(t, ok, key)
	}
	for _, name := range []string{"relay", "a-16", "-16-1", "a-16-16", "a-x-1"} {
		_, _, _, ok := ParsePartitionConsumer(name)
		require.False(t, ok, name)
	}
}

func TestAStoredFrameIsReadAgainHoweverLarge(t *testing.T) {
	js := startHub(t)
	_, err := EnsureSignal(t.Context(), js, frame.Logs, hubSettings, Layout{Count: 4}, []Reader{{Destination: "a"}})
	require.NoError(t, err)
	largest := bytes.Repeat([]byte("frame"), int(js.Conn().MaxPayload())/5)
	ack, err := js.Publish(t.Context(), FrameSubject(frame.Logs, origins(1)[0]), largest)
	require.NoError(t, err)
	got, err := StoredFrame(t.Context(), js, frame.Logs, ack.Sequence)
	require.NoError(t, err)
	require.Equal(t, largest, got)
	_, err = StoredFrame(t.Context(), js, frame.Logs, ack.Sequence+1)
	require.ErrorIs(t, err, jetstream.ErrMsgNotFound)
}
