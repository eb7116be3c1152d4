package prometheusexporter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// TestTheSameFromRequests has what is promised of metrics kept when they come as
// requests: in these tests ConsumeMetrics hands them to ConsumeOTLP.
func TestTheSameFromRequests(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"overload":           TestOverloadIsWaitedOut,
		"not taken":          TestWhatIsNotTakenIsRetryable,
		"hanging":            TestAHangingServerDoesNotHoldTheCall,
		"old server":         TestAServerOfOldIsSpokenToInItsProtocol,
		"partial write":      TestAPartialWriteIsCountedAndNeverRepeated,
		"all refused":        TestARefusalOfEverythingIsPermanent,
		"too large":          TestATooLargeRequestIsHalved,
		"repeated":           TestARepeatedCallDoesNotSendAgainWhatWasTaken,
		"everything":         TestEverythingAMetricHasIsWritten,
		"no form":            TestWhatPrometheusHasNoFormForIsCounted,
		"nothing":            TestNothingIsSentForNothing,
		"real refusals":      TestRefusalsOfARealPrometheusAreCountedExactly,
		"late":               TestHoursOldSamplesLandBesideNewOnes,
		"exponential":        TestExponentialHistogramsAreStoredExactly,
		"deltas":             TestDeltasAddUpToACounter,
		"deltas repeated":    TestARepeatedCallAddsNothingTwice,
		"deltas by tenant":   TestATenantsDeltasAreAddedWhenItsServerTakesThem,
		"deltas back-filled": TestBackFilledDeltasAreNeitherLostNorCountedTwice,
		"deltas restarted":   TestARestartIsACounterReset,
		"deltas refused":     TestOddIntervalsAreRefusedAndCounted,
		"levels":             TestALevelOfDeltasGoesOnOverGaps,
		"deltas bounded":     TestRememberedSeriesAreBounded,
		"deltas at once":     TestCallsForTheSameSeriesDoNotMixUp,
		"instrumented":       TestInstrumentedMetricsGetTheLabelsOfTheirResource,
		"refused once":       TestRefusalsAreCountedOnceWhateverIsRepeated,
		"scraped":            TestScrapedMetricsAreStoredAsADirectScrapeStoresThem,
		"outage":             TestABackFilledOutageIsNoEndOfASeriesAndARemovedTargetIs,
		"tenants":            TestARequestHoldsOneTenantsMetrics,
		"tenant alone":       TestATenantThatIsRefusedComesBackAlone,
		"tenant refused":     TestARefusalForGoodOfOneTenantIsNotAnError,
		"tenant hanging":     TestAHangingTenantDoesNotHoldOthers,
	} {
		t.Run(name, test)
	}
}

// fromRequests says whether a test is one of TestTheSameFromRequests.
func fromRequests(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestTheSameFromRequests/") }

// ConsumeMetrics hands metrics to the exporter, as requests if the test is about that.
func (r running) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	if !r.fromRequests {
		return r.Metrics.ConsumeMetrics(ctx, md)
	}
	err := r.consumeOTLP(ctx, piecesOf(md))
	var partial *direct.PartialError
	if !errors.As(err, &partial) {
		return err
	}
	rest := pmetric.NewMetrics()
	for _, i := range partial.Failed {
		md.ResourceMetrics().At(i).CopyTo(rest.ResourceMetrics().AppendEmpty())
	}
	return consumererror.NewMetrics(partial.Err, rest)
}

func (r running) consumeOTLP(ctx context.Context, pieces []direct.Piece) error {
	return r.Metrics.(direct.Consumer).ConsumeOTLP(ctx, pieces)
}

func marshal(md pmetric.Metrics) []byte {
	request, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	if err != nil {
		panic(err) // it never is
	}
	return request
}

// piecesOf makes a request of each resource, whose origin is beside it only.
func piecesOf(md pmetric.Metrics) []direct.Piece {
	var pieces []direct.Piece
	for _, of := range md.ResourceMetrics().All() {
		alone := pmetric.NewMetrics()
		of.CopyTo(alone.ResourceMetrics().AppendEmpty())
		attributes := alone.ResourceMetrics().At(0).Resource().Attributes()
		take := func(key string) string {
			value, found := attributes.Get(key)
			if !found {
				return ""
			}
			text := value.AsString()
			attributes.RemoveIf(func(k string, _ pcommon.Value) bool { return k == key })
			return text
		}
		pieces = append(pieces, direct.Piece{
			Cluster: take(direct.ClusterAttribute), Node: take(direct.NodeAttribute), Backlog: take(direct.LaneAttribute) != "",
			OTLP: marshal(alone),
		})
	}
	return pieces
}

// stamped is what the receiver makes of pieces for exporters that take pdata.
func stamped(t fataler, pieces []direct.Piece) pmetric.Metrics {
	all := pmetric.NewMetrics()
	for _, piece := range pieces {
		md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(piece.OTLP)
		require.NoError(t, err)
		for _, of := range md.ResourceMetrics().All() {
			attributes := of.Resource().Attributes()
			attributes.PutStr(direct.ClusterAttribute, piece.Cluster)
			attributes.PutStr(direct.NodeAttribute, piece.Node)
			attributes.Remove(direct.LaneAttribute)
			if piece.Backlog {
				attributes.PutStr(direct.LaneAttribute, "backlog")
			}
		}
		md.ResourceMetrics().MoveAndAppendTo(all.ResourceMetrics())
	}
	return all
}

// recorder is a server that keeps requests, as they are before compression.
type recorder struct{ requests []string }

func (s *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	raw, err := snappy.Decode(nil, body)
	s.requests = append(s.requests, r.Header.Get("X-Scope-OrgID")+" "+string(raw))
	header := http.Header{}
	header.Set("X-Prometheus-Remote-Write-Samples-Written", "1000000000")
	return &http.Response{StatusCode: http.StatusNoContent, Header: header, Body: http.NoBody, Request: r}, err
}

// requireSameRequests compares what an exporter that has seen a lot makes of
// requests with what a new one makes of the same metrics in pdata.
func requireSameRequests(t fataler, exp running, server *recorder, fresh running, freshServer *recorder, pieces []direct.Piece) {
	t.Helper()
	for range 3 { // what is met again is remembered, and then known
		server.requests = nil
		refused, freshRefused := exp.rejected(t), fresh.rejected(t)
		err := exp.consumeOTLP(context.Background(), pieces)
		freshServer.requests = nil
		freshErr := fresh.Metrics.ConsumeMetrics(context.Background(), stamped(t, pieces))
		require.Equal(t, freshErr, err)
		require.Equal(t, freshServer.requests, server.requests)
		require.Equal(t, difference(fresh.rejected(t), freshRefused), difference(exp.rejected(t), refused))
	}
}

func difference(a, b map[string]int64) map[string]int64 {
	rest := make(map[string]int64)
	for reason, n := range a {
		if n != b[reason] {
			rest[reason] = n - b[reason]
		}
	}
	return rest
}

func TestFramesOfAFleetComeToTheSameAsTheirMetrics(t *testing.T) {
	server, freshServer := &recorder{}, &recorder{}
	exp, fresh := startQuiet(t, server, nil), startQuiet(t, freshServer, nil)
	requireSameRequests(t, exp, server, fresh, freshServer, fleetPieces(t, 10))
	require.NotEmpty(t, server.requests)
}

func TestAnyRequestsComeToTheSameAsTheirMetrics(t *testing.T) {
	server := &recorder{}
	exp := startQuiet(t, server, nil)
	rapid.Check(t, func(rt *rapid.T) {
		md := drawMetrics(rt)
		spoil(rt, md)
		if rapid.IntRange(0, 9).Draw(rt, "full") == 0 {
			exp.fill()
		}
		exp.Metrics.(*prometheusExporter).accumulator = newAccumulator(createDefaultConfig().(*Config).Delta)
		var pieces []direct.Piece
		for _, piece := range piecesOf(md) {
			piece.Cluster = rapid.SampledFrom([]string{"", "store-0001", "store-0002"}).Draw(rt, "cluster")
			piece.Node = rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "node")
			piece.Backlog = rapid.Bool().Draw(rt, "backlog")
			pieces = append(pieces, piece)
		}
		freshServer := &recorder{}
		fresh := startQuiet(t, freshServer, nil)
		requireSameRequests(rt, exp, server, fresh, freshServer, pieces)
		require.NoError(rt, fresh.Shutdown(context.Background()))
	})
}

// fill makes what an exporter remembers seem too much.
func (r running) fill() {
	for _, t := range r.Metrics.(*prometheusExporter).translations.idle {
		t.bytes = maxShapeBytes
	}
}

// What is remembered is of the software, not of the nodes it runs on, and bounded.
func TestMemoryDoesNotGrowWithTheFleet(t *testing.T) {
	exp := startQuiet(t, &recorder{}, nil)
	of := func(node int) []direct.Piece {
		md := pmetric.NewMetrics()
		scope := addMetrics(md, map[string]any{"service.name": fmt.Sprint("job-", node)})
		for i := range 20 {
			p := addGauge(scope, "same", time.UnixMilli(1795473620776), 1)
			p.Attributes().PutStr("cpu", fmt.Sprint(i))
			p = addGauge(scope, "own", time.UnixMilli(1795473620776), 1)
			p.Attributes().PutStr("pod", fmt.Sprint(node, "-", i))
		}
		return []direct.Piece{{OTLP: marshal(md), Cluster: "c", Node: fmt.Sprint("node-", node)}}
	}
	remembered := func() (texts, points, bytes int) {
		lent := exp.Metrics.(*prometheusExporter).translations
		require.Len(t, lent.idle, 1, "one call after the other")
		return len(lent.idle[0].symbols.numbers), len(lent.idle[0].points), lent.idle[0].bytes
	}
	consume := func(from, to int) {
		for node := from; node < to; node++ {
			require.NoError(t, exp.consumeOTLP(t.Context(), of(node)))
		}
	}
	consume(0, 5)
	texts, points, bytes := remembered()
	require.Equal(t, 20, points)
	consume(5, 100)
	moreTexts, morePoints, moreBytes := remembered()
	require.Equal(t, []int{texts, points, bytes}, []int{moreTexts, morePoints, moreBytes})
	exp.fill()
	consume(100, 101)
	_, none, _ := remembered()
	require.Zero(t, none)
	consume(101, 104)
	_, points, _ = remembered()
	require.Equal(t, 20, points)
}

// spoil makes something of metrics that Prometheus has no form for, or a delta.
func spoil(t *rapid.T, md pmetric.Metrics) {
	for _, of := range md.ResourceMetrics().All() {
		for _, scope := range of.ScopeMetrics().All() {
			for _, m := range scope.Metrics().All() {
				temporality := pmetric.AggregationTemporality(rapid.SampledFrom([]int32{0, 1, 2, 2, 2, 2}).Draw(t, "temporality"))
				how := rapid.IntRange(0, 12).Draw(t, "spoilt")
				switch {
				case how == 0:
					m.SetName("___")
				case m.Type() == pmetric.MetricTypeSum:
					m.Sum().SetAggregationTemporality(temporality)
					if p := m.Sum().DataPoints().At(0); how == 1 {
						p.Attributes().PutStr("___", "a")
					} else if how == 2 {
						p.Attributes().PutEmptyMap("a.b").PutInt("c", 1)
					}
				case m.Type() == pmetric.MetricTypeHistogram:
					m.Histogram().SetAggregationTemporality(temporality)
				case m.Type() == pmetric.MetricTypeExponentialHistogram:
					m.ExponentialHistogram().SetAggregationTemporality(temporality)
				}
			}
		}
	}
}

// fleetPieces are the requests of a delivery: one scrape of one of the targets of
// each of some nodes.
func fleetPieces(t testing.TB, nodes int) []direct.Piece {
	t.Helper()
	maker, err := frames.NewMaker("../../"+frames.CorpusDir, frames.DefaultSizes)
	require.NoError(t, err)
	at := time.UnixMilli(1795473620776)
	round, err := maker.Round(at)
	require.NoError(t, err)
	unpack, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer unpack.Close()
	var pieces []direct.Piece
	for n := range nodes {
		template := round[frame.Metrics][n%len(round[frame.Metrics])]
		payload := template.AppendPayload(nil, &frames.Numbers{Origin: uint32(n), Number: uint64(n), Written: at})
		otlp, err := unpack.DecodeAll(payload, nil)
		require.NoError(t, err)
		pieces = append(pieces, direct.Piece{OTLP: otlp, Cluster: fmt.Sprintf("store-%04d", n/3), Node: fmt.Sprintf("node-%d", n%3)})
	}
	return pieces
}

// A piece that is no request is told of before anything of the others is sent, also
// where they are of other tenants.
func TestNothingIsSentBesideWhatCannotBeRead(t *testing.T) {
	server := &recorder{}
	for name, change := range map[string]func(*Config){"one tenant": nil, "several": byCluster} {
		exp := startQuiet(t, server, change)
		for what, bad := range malformed(t) {
			pieces := piecesOf(clusters("a", "b"))
			pieces = append(pieces, direct.Piece{OTLP: bad, Cluster: "c"})
			err := exp.consumeOTLP(context.Background(), pieces)
			var undecodable *direct.UndecodableError
			require.True(t, errors.As(err, &undecodable), "%s, %s: %v", name, what, err)
			require.Equal(t, 4, undecodable.Piece)
			require.Empty(t, server.requests, "%s, %s", name, what)
		}
	}
}

// malformed are requests that are none, in various depths.
func malformed(t fataler) map[string][]byte {
	t.Helper()
	nest := func(message []byte, fields ...byte) []byte {
		for _, field := range fields {
			message = append([]byte{field<<3 | 2, byte(len(message))}, message...)
		}
		return message
	}
	bad := []byte{0xff}
	text := nest([]byte("name"), 1)
	all := map[string][]byte{
		"request":            bad,
		"resource":           nest(bad, 1),
		"resource attribute": nest(bad, 1, 1, 1),
		"scope":              nest(bad, 2, 1),
		"scope itself":       nest(bad, 1, 2, 1),
		"metric":             nest(bad, 2, 2, 1),
		"metric's metadata":  nest(append(nest(bad, 12), text...), 2, 2, 1),
		"point":              nest(append(nest(bad, 1, 5), text...), 2, 2, 1),
		"point's time":       nest(append(nest([]byte{3 << 3, 1}, 1, 5), text...), 2, 2, 1),
		"point's attribute":  nest(append(nest(bad, 7, 1, 5), text...), 2, 2, 1),
		"point's value":      nest(append(nest(bad, 2, 7, 1, 5), text...), 2, 2, 1),
		"exemplar":           nest(append(nest(bad, 5, 1, 7), text...), 2, 2, 1),
		"sum":                nest(append(nest([]byte{2<<3 | 2, 0}, 7), text...), 2, 2, 1),
		"refused sum":        nest(append(nest(bad, 1, 7), text...), 2, 2, 1),
		"histogram":          nest(append(nest(bad, 1, 9), text...), 2, 2, 1),
		"summary":            nest(append(nest(bad, 1, 11), text...), 2, 2, 1),
	}
	for name, request := range all {
		_, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(request)
		require.Error(t, err, name)
	}
	return all
}

// A piece with the metrics of several tenants comes again when one of them has
// failed. What the others had of it is not sent again, in whatever company it comes.
func TestAPieceOfSeveralTenantsIsDeliveredOnceToEach(t *testing.T) {
	down := map[string]bool{"b": true}
	sent := make(map[string]int)
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		if down[in.tenant] {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		sent[in.tenant] += in.samples
	})
	exp := start(t, server.URL, func(cfg *Config) {
		quick(cfg)
		cfg.Tenant.FromAttribute = "team"
	})
	of := func(node string, teams ...string) direct.Piece {
		md := pmetric.NewMetrics()
		for _, team := range teams {
			addGauge(addMetrics(md, map[string]any{"team": team}), "g", time.UnixMilli(1795473620776), 1)
		}
		return direct.Piece{OTLP: marshal(md), Cluster: "c", Node: node}
	}
	pieces := []direct.Piece{of("1", "a", "b"), of("2", "a"), of("3", "b", "c"), {}}
	err := exp.consumeOTLP(context.Background(), pieces)
	var partial *direct.PartialError
	require.True(t, errors.As(err, &partial), "%v", err)
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	require.False(t, consumererror.IsPermanent(err))
	require.Equal(t, []int{0, 2}, partial.Failed)
	require.Equal(t, map[string]int{"a": 2, "c": 1}, sent)

	again := []direct.Piece{of("4", "a", "d"), pieces[0], pieces[2]}
	err = exp.consumeOTLP(context.Background(), again)
	require.True(t, errors.As(err, &partial), "%v", err)
	require.Equal(t, []int{1, 2}, partial.Failed)
	clear(down)
	require.NoError(t, exp.consumeOTLP(context.Background(), again[1:]))
	require.Equal(t, map[string]int{"a": 3, "b": 2, "c": 1, "d": 1}, sent)
	require.Empty(t, exp.rejected(t))

	require.NoError(t, exp.consumeOTLP(context.Background(), again[1:]))
	require.Equal(t, map[string]int{"a": 4, "b": 4, "c": 2, "d": 1}, sent, "a new call with the same content is sent")
}

// A piece of which one tenant has its part is not refused, whatever another one's server
// says when it comes again.
func TestAPieceThatWasTakenInPartIsNotRefused(t *testing.T) {
	status := map[string]int{"b": http.StatusServiceUnavailable}
	server := serveWrites(t, func(in write, w http.ResponseWriter) {
		if s := status[in.tenant]; s != 0 {
			w.WriteHeader(s)
		}
	})
	exp := start(t, server.URL, func(cfg *Config) {
		quick(cfg)
		cfg.Tenant.FromAttribute = "team"
	})
	md := pmetric.NewMetrics()
	for _, team := range []string{"a", "b"} {
		addGauge(addMetrics(md, map[string]any{"team": team}), "g", time.UnixMilli(1795473620776), 1)
	}
	pieces := []direct.Piece{{OTLP: marshal(md), Cluster: "c", Node: "n"}}
	err := exp.consumeOTLP(context.Background(), pieces)
	require.ErrorIs(t, err, deliver.ErrUnavailable)
	status["b"] = http.StatusUnprocessableEntity
	require.NoError(t, exp.consumeOTLP(context.Background(), pieces))
	require.Len(t, exp.rejected(t), 1, "it is counted")
}

// FuzzConsumeOTLP: no bytes make the exporter panic or hang, and what pdata reads is
// read as pdata does, or refused as no request.
func FuzzConsumeOTLP(f *testing.F) {
	for _, request := range malformed(f) {
		f.Add(request, "c")
	}
	f.Add(marshal(clusters("a", "b")), "c")
	f.Add(marshal(deltas(0, 10, 3)), "c")
	f.Add(odd(), "")
	server, freshServer := &recorder{}, &recorder{}
	exp, fresh := startQuiet(f, server, nil), startQuiet(f, freshServer, nil)
	f.Fuzz(func(t *testing.T, request []byte, cluster string) {
		for _, e := range []running{exp, fresh} {
			e.Metrics.(*prometheusExporter).accumulator = newAccumulator(createDefaultConfig().(*Config).Delta)
		}
		server.requests, freshServer.requests = nil, nil
		piece := direct.Piece{OTLP: request, Cluster: cluster}
		err := exp.consumeOTLP(context.Background(), []direct.Piece{piece})
		var undecodable *direct.UndecodableError
		if errors.As(err, &undecodable) {
			require.Empty(t, server.requests)
			return
		}
		if _, theirs := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(request); theirs != nil {
			return // what nothing is made of is not looked into
		}
		freshErr := fresh.Metrics.ConsumeMetrics(context.Background(), stamped(t, []direct.Piece{piece}))
		require.Equal(t, freshErr, err)
		require.Equal(t, freshServer.requests, server.requests)
	})
}

func TestOddRequestsAreReadAsPdataDoes(t *testing.T) {
	server, freshServer := &recorder{}, &recorder{}
	exp, fresh := startQuiet(t, server, nil), startQuiet(t, freshServer, nil)
	requireSameRequests(t, exp, server, fresh, freshServer, []direct.Piece{{OTLP: odd(), Cluster: "c"}})
	require.Len(t, server.requests, 1)
	require.Contains(t, server.requests[0], "os_type", "of the second half of the resource")
}

// odd is a request as no sender writes it, and protobuf allows it.
func odd() []byte {
	field := func(key byte, message ...byte) []byte { return append([]byte{key, byte(len(message))}, message...) }
	attribute := func(key, value string) []byte {
		return slices.Concat(field(1<<3|2, []byte(key)...), field(2<<3|2, field(1<<3|2, []byte(value)...)...))
	}
	at := append([]byte{3<<3 | 1}, 0, 0, 1, 2, 3, 4, 5, 6)
	point := slices.Concat(
		field(7<<3|2, attribute("a", "1")...), at, field(7<<3|2, attribute("b", "2")...), // not together
		append([]byte{6<<3 | 1}, 7, 0, 0, 0, 0, 0, 0, 0), []byte{8 << 3, 0x82, 0x00}, // a number with a byte too many
		append([]byte{4<<3 | 1}, 0, 0, 0, 0, 0, 0, 0, 0x40), []byte{15 << 3, 1}, // another value, and what is not known
	)
	metric := slices.Concat(
		field(5<<3|2, field(1<<3|2, point...)...), field(1<<3|2, 'm'), field(1<<3|2, 'n'), // the last name counts
	)
	scope := slices.Concat(field(2<<3|2, metric...), field(1<<3|2, field(1<<3|2, 's')...))
	resource := slices.Concat(
		field(2<<3|2, scope...),
		field(1<<3|2, field(1<<3|2, attribute("service.name", "x")...)...), // twice: both count
		field(1<<3|2, field(1<<3|2, attribute("os.type", "y")...)...),
	)
	return append([]byte{1<<3 | 2, 0x80 | byte(len(resource)&0x7f), byte(len(resource) >> 7)}, resource...)
}
