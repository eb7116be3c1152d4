package natsreceiver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// The hub says of a filled pull that it is over. Taken for the word on the next one,
// each filled pull left one more open, until the client dropped frames.
func TestABacklogIsReadByOnePullAtATime(t *testing.T) {
	const frames = 20 * pullMessages
	h, b := startHub(t), &backend{}
	stop := startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	stop()
	var want []int
	for n := uint64(1); n <= frames; n++ {
		f.publish(store1, encode(t, n, 1))
		want = append(want, int(n))
	}
	partition := hub.PartitionConsumer(hub.DefaultDestination, testPartitions, hub.Partition(store1, testPartitions))
	startReceiver(t, h.ClientURL(), b)
	eventually(t, fmt.Sprintf("%d are delivered", frames), func() bool {
		consumer, err := f.js.Consumer(t.Context(), hub.StreamName(frame.Logs), partition)
		if err != nil {
			t.Fatal(err)
		}
		if open := consumer.CachedInfo().NumWaiting; open > 1 {
			t.Fatalf("%d pulls are open at a time", open)
		}
		return len(b.got()) >= frames
	})
	if !slices.Equal(b.got(), lines(store1, want...)) {
		t.Fatal("not delivered in order, each once")
	}
}
