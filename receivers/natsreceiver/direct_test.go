package natsreceiver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pipeline"

	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// exportersHost is a host that knows the exporters of logs.
type exportersHost struct {
	component.Host
	exporters map[component.ID]component.Component
}

func (h exportersHost) GetExporters() map[pipeline.Signal]map[component.ID]component.Component {
	return map[pipeline.Signal]map[component.ID]component.Component{pipeline.SignalLogs: h.exporters}
}

// directBackend is a backend that takes requests of frames. What comes to it as pdata
// is the relay's own.
type directBackend struct {
	component.StartFunc
	component.ShutdownFunc
	backend *backend
}

func (b directBackend) ConsumeOTLP(ctx context.Context, pieces []direct.Piece) error {
	all := plog.NewLogs()
	var places []hub.Origin
	for i := range pieces {
		p := &pieces[i]
		places = append(places, hub.Origin{Cluster: p.Cluster, Node: p.Node})
		one, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(p.OTLP)
		if err != nil {
			return &direct.UndecodableError{Piece: i, Err: err}
		}
		for _, resource := range one.ResourceLogs().All() {
			for _, a := range p.AppendOrigin([]otlpwire.Attribute{}) {
				resource.Resource().Attributes().PutStr(a.Key, a.Value.Text())
			}
		}
		one.ResourceLogs().MoveAndAppendTo(all.ResourceLogs())
	}
	err := b.backend.consume(ctx, all)
	failed := make(map[hub.Origin]struct{})
	if err == nil || consumererror.IsPermanent(err) || !collectFailed(err, failed) {
		return err
	}
	partial := &direct.PartialError{Err: err}
	for i, origin := range places {
		if _, ok := failed[origin]; ok {
			partial.Failed = append(partial.Failed, i)
		}
	}
	return partial
}

func TestFramesGoStraightToAnExporterThatTakesThem(t *testing.T) {
	h, b := startHub(t), &backend{}
	startRelay(t, h.ClientURL(), destinationOf{to: b, direct: true})
	f := newFleet(t, h.ClientURL())
	s := newStores(t, f, 20)
	for range 20 {
		s.publish()
	}
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 {
		t.Errorf("%d frames were delivered twice", n)
	}
}

func TestAFrameThatHoldsNoRequestIsRejectedAndTheOthersGoOnStraight(t *testing.T) {
	h, b := startHub(t), &backend{}
	startRelay(t, h.ClientURL(), destinationOf{to: b, direct: true})
	f := newFleet(t, h.ClientURL())
	confirmations := f.confirmations(store1)
	f.publish(store1, encode(t, 1, 1))
	f.publish(store1, noRequest(t, 2))
	f.publish(store1, encode(t, 3, 1))
	eventually(t, "all three are dealt with", func() bool { c, _ := confirmations(); return c == 3 })
	if got, want := b.got(), lines(store1, 1, 3); !slices.Equal(got, want) {
		t.Fatalf("delivered %q; want %q", got, want)
	}
	if n := f.held(hub.RejectedStream); n != 1 {
		t.Fatalf("%d frames are kept as rejected; want 1", n)
	}
}

// noRequest is a sound frame of one item, of something that is no OTLP request.
func noRequest(t *testing.T, number uint64) []byte {
	t.Helper()
	nothing := []byte{0x0a, 0x7f, 1}
	codec := frame.CodecFor(frame.Logs)
	payload, err := codec.Encode(nil, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return frame.Append(nil, &frame.Header{
		Codec: codec.ID(), Signal: frame.Logs, Class: frame.Live, Lane: 1, Items: 1, Epoch: epoch,
		Number: number, Floor: 1, Before: number - 1, Uncompressed: uint32(len(nothing)), PayloadLen: uint32(len(payload)),
	}, payload)
}

func TestWhatAnExporterDoesNotTakeOfSomePiecesWaitsForThemAlone(t *testing.T) {
	h, b := startHub(t), &backend{}
	refused := hub.Origin{Cluster: "store-0002", Node: "a"}
	heal := make(chan struct{})
	b.split = func(ld plog.Logs) (plog.Logs, error) {
		select {
		case <-heal:
			return ld, nil
		default:
		}
		taken, left := plog.NewLogs(), plog.NewLogs()
		for _, r := range ld.ResourceLogs().All() {
			to := taken
			if cluster, _ := r.Resource().Attributes().Get(direct.ClusterAttribute); cluster.Str() == refused.Cluster {
				to = left
			}
			r.CopyTo(to.ResourceLogs().AppendEmpty())
		}
		if left.ResourceLogs().Len() == 0 {
			return taken, nil
		}
		return taken, consumererror.NewLogs(errors.New("over its limit"), left)
	}
	startRelay(t, h.ClientURL(), destinationOf{to: b, direct: true})
	s := newStores(t, newFleet(t, h.ClientURL()), 4)
	for range 5 {
		s.publish()
	}
	count := func(is bool) (n int) {
		for _, line := range b.got() {
			if strings.HasPrefix(line, refused.String()) == is {
				n++
			}
		}
		return n
	}
	eventually(t, "what is taken is there", func() bool { return count(false) == 15 })
	if n := count(true); n != 0 {
		t.Fatalf("%d lines of %s are there, which is refused", n, refused)
	}
	close(heal)
	s.drained(t)
	if n := s.whole(t, b.got()); n > 0 {
		t.Errorf("%d frames were delivered twice", n)
	}
}

// raceDetector is true where pools forget at random, so that allocations say nothing.
var raceDetector bool

// Frames must not be copied as often as there are frames behind them.
func TestManyFramesAreDecompressedInOneBuffer(t *testing.T) {
	otlp := []byte(strings.Repeat("a request that is long enough to be compressed ", 20))
	codec := frame.CodecFor(frame.Traces)
	packed, err := codec.Encode(nil, otlp)
	if err != nil {
		t.Fatal(err)
	}
	arrivals := make([]*arrival, 100)
	for i := range arrivals {
		arrivals[i] = &arrival{header: frame.Header{Codec: codec.ID(), Uncompressed: uint32(len(otlp))}, payload: packed}
	}
	pieces, at, err := decompress(arrivals)
	if err != nil || at >= 0 {
		t.Fatal(at, err)
	}
	for _, p := range pieces {
		if string(p.OTLP) != string(otlp) || cap(p.OTLP) > len(p.OTLP) {
			t.Fatalf("%q of %d bytes", p.OTLP, cap(p.OTLP))
		}
	}
	if raceDetector { // the decoder's pools forget at random
		return
	}
	allocations := testing.AllocsPerRun(10, func() { _, _, _ = decompress(arrivals) })
	if allocations >= float64(len(arrivals)) {
		t.Errorf("%.0f allocations for %d frames", allocations, len(arrivals))
	}
}
