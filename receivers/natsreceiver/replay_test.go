package natsreceiver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// rejected returns the last rejected frame of an origin.
func (f *fleet) rejected(origin hub.Origin) *jetstream.RawStreamMsg {
	f.t.Helper()
	stream, err := f.js.Stream(f.t.Context(), hub.RejectedStream)
	if err != nil {
		f.t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(f.t.Context(), hub.RejectedSubject(frame.Logs, origin))
	if err != nil {
		f.t.Fatal(err)
	}
	return msg
}

// replay does what `longhaul rejected replay` does.
func (f *fleet) replay(origin hub.Origin, msg *jetstream.RawStreamMsg) {
	f.t.Helper()
	f.publish(origin, msg.Data, hub.ReplayHeader, msg.Header.Get(hub.DestinationHeader), hub.ClassHeader, frame.Backlog.String())
	stream, err := f.js.Stream(f.t.Context(), hub.RejectedStream)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := stream.DeleteMsg(f.t.Context(), msg.Sequence); err != nil {
		f.t.Fatal(err)
	}
}

// uglySecond refuses the second line for good.
func uglySecond(bodies []string) error {
	if slices.ContainsFunc(bodies, func(b string) bool { return strings.HasSuffix(b, ":line 2") }) {
		return consumererror.NewPermanent(errors.New("too ugly"))
	}
	return nil
}

func TestAReplayedFrameReachesTheDestinationThatRefusedItAndIsNoLongerLost(t *testing.T) {
	h, good, bad, tel := startHub(t), &backend{}, &backend{}, componenttest.NewTelemetry()
	bad.refusing(uglySecond)
	startRelay(t, h.ClientURL(), destinationOf{to: good, tel: tel}, destinationOf{name: "archive", to: bad, tel: tel})
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	for n := uint64(1); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	eventually(t, "the loss is told", func() bool { return sum(t, tel, "longhaul_lost_items")["rejected"] == 1 && len(bad.gaps()) == 1 })
	first := f.rejected(store1)
	if got := first.Header.Get(hub.DestinationHeader); got != "archive" {
		t.Fatalf("refused for %q", got)
	}

	// It is refused a second time: it comes back, and nothing is counted twice.
	f.replay(store1, first)
	eventually(t, "it is back among the rejected", func() bool { return f.held(hub.RejectedStream) == 1 })
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
	second := f.rejected(store1)
	if second.Sequence == first.Sequence || !slices.Equal(second.Data, encode(t, 2, 1)) {
		t.Fatalf("frame %d is rejected", second.Sequence)
	}

	bad.refusing(nil)
	f.replay(store1, second)
	f.publish(store1, second.Data, hub.ReplayHeader, "archive", nats.MsgIdHdr, "again")
	eventually(t, "it is no longer lost", func() bool { return sum(t, tel, "longhaul_recovered_items")["rejected"] == 1 })
	eventually(t, "the correction is told", func() bool { return len(bad.gaps()) == 2 })
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
	f.publish(store1, encode(t, 4, 1))
	eventually(t, "the lane goes on", func() bool { c, _ := confirmations(); return c == 4 })
	if got, want := bad.got(), lines(store1, 1, 3, 2, 4); !slices.Equal(got, want) {
		t.Errorf("the destination that refused has %q; want %q", got, want)
	}
	if got, want := good.got(), lines(store1, 1, 2, 3, 4); !slices.Equal(got, want) {
		t.Errorf("the other has %q; want %q", got, want)
	}
	if lost := sum(t, tel, "longhaul_lost_items")["rejected"]; lost != 1 {
		t.Errorf("%d items counted as lost; want 1", lost)
	}
	if n := sum(t, tel, "longhaul_relay_items_rejected")["backend"]; n > 1 {
		t.Errorf("%d items counted as rejected; want 1", n)
	}
	if held := f.held(hub.RejectedStream); held != 0 {
		t.Errorf("%d frames are rejected", held)
	}
}

// The header that marks a replay is the edge's to set as well: it opens nothing that
// the origin's checks close, and what it lets through is seen.
func TestAnEdgeThatMarksItsFramesAsReplayedPassesNoCheckUnseen(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	logs, seen := observer.New(zap.WarnLevel)
	startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel, log: zap.New(logs)})
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "1 is confirmed", func() bool { c, _ := confirmations(); return c == 1 })

	// Another takes the epoch of a spool that is in use.
	thief := hub.Origin{Cluster: "store-0002", Node: "a"}
	f.publish(thief, encode(t, 7, 1), hub.ReplayHeader, hub.DefaultDestination)
	eventually(t, "it is rejected", func() bool { return f.held(hub.RejectedStream) == 1 })
	if reason := f.rejected(thief).Header.Get(hub.ReasonHeader); !strings.Contains(reason, store1.String()) {
		t.Errorf("rejected for %q", reason)
	}
	eventually(t, "it is counted", func() bool { return sumBy(t, tel, "longhaul_relay_items_rejected", "reason")["origin"] == 1 })

	// An epoch of its own it may use as it likes, but not in silence.
	own := epoch + 1
	for n := uint64(7); n <= 8; n++ {
		f.publish(thief, encodeOf(t, own, 1, n, 1), hub.ReplayHeader, hub.DefaultDestination)
	}
	eventually(t, "they are delivered", func() bool { return len(b.got()) == 3 })
	eventually(t, "they are counted", func() bool { return sumBool(t, tel, "longhaul_relay_frames_replayed", "refused")[false] == 2 })
	if n := sumBool(t, tel, "longhaul_relay_frames_replayed", "refused")[true]; n != 0 {
		t.Errorf("%d are counted as refused before", n)
	}
	if said := seen.FilterMessageSnippet("not known as refused").Len(); said != 1 {
		t.Errorf("said %d times; want once", said)
	}
	if got, want := b.got(), append(lines(store1, 1), lines(thief, 7, 8)...); !slices.Equal(got, want) {
		t.Errorf("delivered %q; want %q", got, want)
	}
}

// A node was renamed, and its spool adopted: what was refused under the old name can be
// sent again while the new one uses the epoch.
func TestARefusedFrameOfARenamedNodeCanBeSentAgain(t *testing.T) {
	h, b, tel := startHub(t), &backend{}, componenttest.NewTelemetry()
	b.refusing(uglySecond)
	r := startRelay(t, h.ClientURL(), destinationOf{to: b, tel: tel})
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	for n := uint64(1); n <= 3; n++ {
		f.publish(store1, encode(t, n, 1))
	}
	eventually(t, "3 is confirmed", func() bool { c, _ := confirmations(); return c == 3 })
	kept := f.rejected(store1)

	renamed := hub.Origin{Cluster: "store-0001", Node: "renamed"}
	now := time.Now()
	r.epochs.Use(custody.Spool{Origin: renamed, Epoch: epoch}, now.Add(2*custody.ConflictSilence), now.Add(2*custody.ConflictSilence))
	b.refusing(nil)
	f.replay(store1, kept)
	eventually(t, "it is delivered", func() bool { return slices.Contains(b.got(), lines(store1, 2)[0]) })
	eventually(t, "it is no longer lost", func() bool { return sum(t, tel, "longhaul_recovered_items")["rejected"] == 1 })
	eventually(t, "it is counted", func() bool { return sumBool(t, tel, "longhaul_relay_frames_replayed", "refused")[true] == 1 })
	if n := sumBool(t, tel, "longhaul_relay_frames_replayed", "refused")[false]; n != 0 {
		t.Errorf("%d are counted as not refused before", n)
	}
	if other, conflict := r.epochs.Of(custody.Spool{Origin: store1, Epoch: epoch}, time.Now()); !conflict || other != renamed {
		t.Errorf("the epoch is %s's by now", other)
	}
}

func sumBool(t *testing.T, tel *componenttest.Telemetry, name, attributeName string) map[bool]int64 {
	t.Helper()
	found := make(map[bool]int64)
	m, err := tel.GetMetric(name)
	if err != nil {
		return found
	}
	for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
		value, _ := point.Attributes.Value(attribute.Key(attributeName))
		found[value.AsBool()] += point.Value
	}
	return found
}

func TestAReplayOfASpoolThatTheRelayHasForgottenIsDelivered(t *testing.T) {
	h, b := startHub(t), &backend{}
	startReceiver(t, h.ClientURL(), b)
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	// The relay makes the stream; nobody else.
	f.publish(store1, encodeLane(t, 1, 7, 1), hub.ReplayHeader, hub.DefaultDestination)
	eventually(t, "it is delivered", func() bool { return slices.Equal(b.got(), lines(store1, 7)) })
	eventually(t, "the hub is empty", func() bool { return f.held("LONGHAUL_LOGS") == 0 })
	f.publish(store1, encode(t, 1, 1))
	eventually(t, "the lane begins", func() bool { c, _ := confirmations(); return c == 1 })
}
