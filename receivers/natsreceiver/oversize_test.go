package natsreceiver

import (
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// A frame may weigh a few KiB and claim, truthfully or not, 256 MiB.
func TestAFrameThatWouldTakeAllMemoryIsRejectedHoldsNothingUpAndCanBeSentAgain(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	start := func(limit bytesize.Size) *relay {
		return startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel, set: func(c *Config) { c.MemoryLimit = limit }})
	}
	small := start(64 * bytesize.MiB)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	bomb := encodeText(t, epoch, 1, 2, 1, "line 2"+strings.Repeat(" ", 30<<20))
	if len(bomb) > 64<<10 {
		t.Fatalf("the frame has %d bytes", len(bomb))
	}
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, bomb)
	f.publish(store1, encode(t, 3, 1))
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	if got, want := b.got(), lines(store1, 1, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %d lines; want %q", len(got), want)
	}
	eventually(t, "the loss is counted", func() bool { return sum(t, tel, "longhaul_lost_items")["rejected"] == 1 })
	if n := sumBy(t, tel, "longhaul_relay_items_rejected", "reason"); n["oversize"] != 1 {
		t.Errorf("rejected: %v", n)
	}
	kept := f.rejected(store1)
	if reason := kept.Header.Get(hub.ReasonHeader); !slices.Equal(kept.Data, bomb) || !strings.Contains(reason, "memory_limit") {
		t.Fatalf("kept: %d bytes, for the reason %q", len(kept.Data), reason)
	}

	small.stop()
	start(512 * bytesize.MiB)
	f.replay(store1, kept)
	eventually(t, "it is delivered", func() bool { return len(b.got()) == 3 })
	eventually(t, "it is no longer lost", func() bool { return sum(t, tel, "longhaul_recovered_items")["rejected"] == 1 })
}

func TestNoFrameOfAnEdgeIsTooLargeForARelay(t *testing.T) {
	nothing := consumertest.NewNop()
	for signal, to := range map[frame.Signal]sink{frame.Logs: logsTo(nothing), frame.Metrics: metricsTo(nothing), frame.Traces: tracesTo(nothing)} {
		o, _ := unconnected(t, signal, to)
		o.limit(1)
		largest := &arrival{header: frame.Header{Signal: signal, Uncompressed: frame.MaxRequest}}
		if err := o.oversize(largest); err != nil {
			t.Errorf("%s: %v", signal, err)
		}
		largest.header.Uncompressed *= 4
		if o.oversize(largest) == nil {
			t.Errorf("%s: four times as much is taken", signal)
		}
	}
}
