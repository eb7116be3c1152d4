package natsreceiver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/direct"
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
		most := &arrival{header: frame.Header{Signal: signal, Items: frame.MaxItems}}
		if err := o.oversize(most); err != nil {
			t.Errorf("%s: %v", signal, err)
		}
		largest.header.Uncompressed *= 4
		if o.oversize(largest) == nil {
			t.Errorf("%s: four times as much is taken", signal)
		}
	}
}

// field is a protobuf field of type bytes.
func field(number byte, content []byte) []byte {
	out := binary.AppendUvarint([]byte{number<<3 | 2}, uint64(len(content)))
	return append(out, content...)
}

// within puts a message into others, the outermost last.
func within(content []byte, numbers ...byte) []byte {
	for _, number := range numbers {
		content = field(number, content)
	}
	return content
}

// A frame that is whole and honest about its size may still be made to take all memory:
// an empty message is two bytes of OTLP and up to two hundred of pdata.
func TestAFrameOfEmptyMessagesIsNotDelivered(t *testing.T) {
	many := func(number byte) []byte { return bytes.Repeat(field(number, nil), 1<<19) }
	for name, c := range map[string]struct {
		signal frame.Signal
		otlp   []byte
	}{
		"resources of logs": {frame.Logs, many(1)}, "scopes of logs": {frame.Logs, within(many(2), 1)}, "records": {frame.Logs, within(many(2), 2, 1)},
		"attributes of a record": {frame.Logs, within(many(6), 2, 2, 1)}, "attributes of a resource": {frame.Logs, within(many(1), 1, 1)},
		"attributes of a scope": {frame.Logs, within(many(3), 1, 2, 1)}, "entities": {frame.Logs, within(many(3), 1, 1)},
		"metrics": {frame.Metrics, within(many(2), 2, 1)}, "points of a gauge": {frame.Metrics, within(many(1), 5, 2, 2, 1)},
		"points of a sum": {frame.Metrics, within(many(1), 7, 2, 2, 1)}, "histograms": {frame.Metrics, within(many(1), 9, 2, 2, 1)},
		"exponential histograms": {frame.Metrics, within(many(1), 10, 2, 2, 1)}, "summaries": {frame.Metrics, within(many(1), 11, 2, 2, 1)},
		"exemplars": {frame.Metrics, within(many(5), 1, 5, 2, 2, 1)}, "spans": {frame.Traces, within(many(2), 2, 1)},
		"events": {frame.Traces, within(many(11), 2, 2, 1)}, "links": {frame.Traces, within(many(13), 2, 2, 1)},
		"behind a group": {frame.Logs, append([]byte{100<<3&0x7f | 3, 100<<3&0x7f | 4}, within(many(2), 2, 1)...)},
	} {
		t.Run(name, func(t *testing.T) {
			nothing := consumertest.NewNop()
			o, _ := unconnected(t, c.signal, map[frame.Signal]sink{frame.Logs: logsTo(nothing), frame.Metrics: metricsTo(nothing), frame.Traces: tracesTo(nothing)}[c.signal])
			codec := frame.CodecFor(c.signal)
			payload, err := codec.Encode(nil, c.otlp)
			if err != nil {
				t.Fatal(err)
			}
			a := &arrival{out: o, payload: payload, header: frame.Header{Signal: c.signal, Codec: codec.ID(), Items: 1, Uncompressed: uint32(len(c.otlp))}}
			err = a.decode(func([]byte) error { t.Error("pdata is made of it"); return nil })
			if !errors.Is(err, errOversize) && !errors.Is(err, errNoRequest) {
				t.Errorf("error: %v", err)
			}
			if name == "entities" { // of which no exporter makes anything
				return
			}
			straight := directTo(untouched{t: t})
			o, _ = unconnected(t, c.signal, straight)
			a.out = o
			at, err := straight.deliver(t.Context(), []*arrival{a})
			if at != 0 || !errors.Is(err, errOversize) && !errors.Is(err, errNoRequest) {
				t.Errorf("straight to an exporter: %d, error: %v", at, err)
			}
		})
	}
}

// untouched is an exporter that is to be given nothing.
type untouched struct {
	direct.Consumer
	t *testing.T
}

func (u untouched) ConsumeOTLP(context.Context, []direct.Piece) error {
	u.t.Error("it is delivered")
	return nil
}

// What is weighed is what it takes, within reason: or ordinary data would be rejected.
func TestARequestIsWeighedAboutRight(t *testing.T) {
	for _, signal := range frame.Signals {
		otlp := benchOTLP(t, signal, 2000, 1)
		n, err := requests[signal].weigh(otlp, 0)
		if err != nil {
			t.Fatal(err)
		}
		n += int64(len(otlp))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		unmarshal(t, signal, otlp)
		runtime.ReadMemStats(&after)
		took := int64(after.TotalAlloc - before.TotalAlloc)
		if n < took/2 || n > took*2 {
			t.Errorf("%s: weighed %d, took %d", signal, n, took)
		}
		t.Logf("%s: %d bytes, weighed %d, took %d", signal, len(otlp), n, took)
		if outline, err := outlines[signal].weigh(otlp, 0); err != nil || outline > 2*int64(len(otlp)) {
			t.Errorf("%s: straight, %d bytes weigh %d: %v", signal, len(otlp), outline, err)
		}
	}
	// Items that have nothing but a time: honest, and next to nothing.
	ld := plog.NewLogs()
	records := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	for range frame.MaxItems {
		records.AppendEmpty().SetTimestamp(1)
	}
	otlp, err := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := unconnected(t, frame.Logs, logsTo(consumertest.NewNop()))
	a := &arrival{out: o, header: frame.Header{Signal: frame.Logs, Items: frame.MaxItems, Uncompressed: uint32(len(otlp))}}
	if err := errors.Join(o.oversize(a), a.dense(otlp), a.denser(otlp, outlines)); err != nil {
		t.Errorf("records without text: %v", err)
	}
}

// The short way past an attribute passes no message unweighed.
func TestAPlainAttributeHoldsNothingElse(t *testing.T) {
	for name, attribute := range map[string][]byte{
		"text": {10, 1, 'k', 18, 3, 10, 1, 'v'}, "truth": {10, 1, 'k', 18, 2, 16, 1},
		"number": {10, 1, 'k', 18, 3, 24, 128, 1}, "floating point": {10, 1, 'k', 18, 9, 33, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if !plain(attribute) {
			t.Errorf("%s: the common form is not plain", name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 3, 4, 6, 9, 10, 16, 18, 24, 33, 42, 50, 128, 255}), 4, 14).Draw(t, "attribute")
		if rapid.Bool().Draw(t, "begun") {
			some[0], some[1] = 10, byte(rapid.IntRange(0, 3).Draw(t, "key"))
			if at := 2 + int(some[1]); len(some) >= at+4 {
				some[at], some[at+1] = 18, byte(len(some)-at-2)
				v := some[at+2:]
				v[0] = rapid.SampledFrom([]byte{10, 16, 24, 33, 42, 50}).Draw(t, "of type")
				v[1] = rapid.SampledFrom([]byte{byte(len(v) - 2), byte(len(v) - 3), 1, 129}).Draw(t, "and length")
			}
		}
		if !plain(some) {
			return
		}
		if n, err := pair.weigh(some, 0); err != nil || n != value.bytes {
			t.Fatalf("% x is plain, weighs %d: %v", some, n, err)
		}
	})
}

func unmarshal(t *testing.T, signal frame.Signal, otlp []byte) {
	t.Helper()
	var err error
	switch signal {
	case frame.Logs:
		_, err = (&plog.ProtoUnmarshaler{}).UnmarshalLogs(otlp)
	case frame.Metrics:
		_, err = (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(otlp)
	default:
		_, err = (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(otlp)
	}
	if err != nil {
		t.Fatal(err)
	}
}
