package lokiexporter

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/grafana/loki/pkg/push"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/direct"
)

func (r running) consumeOTLP(pieces ...direct.Piece) error {
	return r.Logs.(direct.Consumer).ConsumeOTLP(context.Background(), pieces)
}

// pieceOf is a request with a resource for each team, with a record.
func pieceOf(node string, teams ...string) direct.Piece {
	logs := plog.NewLogs()
	for _, team := range teams {
		addRecord(addLogs(logs, map[string]any{"team": team}), noon, node+" "+team)
	}
	return direct.Piece{OTLP: marshal(logs), Cluster: "store", Node: node}
}

func byTeam(cfg *Config) {
	quick(cfg)
	cfg.Tenant.FromAttribute = "team"
}

func takeAll(_ int, _ []string, w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }

func TestNothingIsSentOfACallWithAnUndecodablePiece(t *testing.T) {
	server := serve(t, takeAll)
	exp := start(t, server.URL, quick)
	bad := pieceOf("n1", "a")
	bad.OTLP = bad.OTLP[:len(bad.OTLP)-1]
	err := exp.consumeOTLP(pieceOf("n0", "a"), bad, pieceOf("n2", "a"))
	var undecodable *direct.UndecodableError
	require.ErrorAs(t, err, &undecodable)
	require.Equal(t, 1, undecodable.Piece)
	require.Zero(t, server.pushes)
	require.Zero(t, exp.sent(t))

	require.NoError(t, exp.consumeOTLP(pieceOf("n0", "a"), pieceOf("n2", "a")))
	require.Equal(t, []string{"n0 a", "n2 a"}, server.taken)
}

func TestAnOriginStandsAboveWhatARequestSays(t *testing.T) {
	server := serve(t, takeAll)
	exp := start(t, server.URL, quick)
	logs := plog.NewLogs()
	addRecord(addLogs(logs, map[string]any{"k8s.cluster.name": "spoofed", "k8s.node.name": "spoofed", "longhaul.lane": "spoofed", "k8s.pod.name": "p"}), noon, "line")
	require.NoError(t, exp.consumeOTLP(direct.Piece{OTLP: marshal(logs), Cluster: "store", Node: "n", Backlog: true}))
	require.Contains(t, server.labels["line"], `cluster="store"`)
	require.Equal(t, map[string]string{"k8s_node_name": "n", "k8s_pod_name": "p"}, server.metadata["line"])
}

// A piece is given back whole, though some of it has its answer: by another tenant, or
// another stream.
func TestOfAPieceThatFailedInPartNothingIsSentTwice(t *testing.T) {
	down := true
	server := serveTenants(t, func(tenant string, _ []push.Stream, w http.ResponseWriter, _ *http.Request) bool {
		switch {
		case tenant == "b" && down:
			w.WriteHeader(http.StatusServiceUnavailable)
		case tenant == "c":
			http.Error(w, "no", http.StatusBadRequest)
		default:
			return false
		}
		return true
	})
	exp := start(t, server.URL, byTeam)
	all := []direct.Piece{pieceOf("n0", "a"), pieceOf("n1", "a", "b", "c"), pieceOf("n2", "b"), pieceOf("n3", "a", "c")}
	var partial *direct.PartialError
	for range 2 {
		err := exp.consumeOTLP(all...)
		require.ErrorAs(t, err, &partial)
		require.ErrorIs(t, err, deliver.ErrUnavailable)
		require.False(t, consumererror.IsPermanent(err))
		require.Equal(t, []int{1, 2}, partial.Failed)
		all = all[1:3]
		if err = exp.consumeOTLP(all...); err == nil {
			t.Fatal("tenant b is down")
		}
		require.NotErrorAs(t, err, &partial, "all that is left failed")
		all = []direct.Piece{pieceOf("n9", "a"), all[0], all[1]}
	}
	require.Equal(t, []string{"n0 a", "n1 a", "n3 a", "n9 a"}, server.lines("a"))
	down = false
	require.NoError(t, exp.consumeOTLP(all[1], all[2]))
	require.Equal(t, []string{"n0 a", "n1 a", "n3 a", "n9 a"}, server.lines("a"), "each once")
	require.Equal(t, []string{"n1 b", "n2 b"}, server.lines("b"))
	require.Equal(t, int64(6), exp.sent(t))
	require.Equal(t, map[string]int64{"other": 2}, exp.rejected(t))

	require.NoError(t, exp.consumeOTLP(all[1]))
	require.Equal(t, int64(8), exp.sent(t), "what was delivered whole is forgotten")
}

func TestWhatIsRefusedForGoodAsAWholeIsPermanent(t *testing.T) {
	server := serve(t, func(_ int, _ []string, w http.ResponseWriter) { http.Error(w, "no", http.StatusBadRequest) })
	exp := start(t, server.URL, quick)
	require.True(t, consumererror.IsPermanent(exp.consumeOTLP(pieceOf("n0", "a"), pieceOf("n1", "a"))))
}

// A relay keeps what it knows for long, and the bytes of requests must not be kept
// with it: here they become those of another request.
func TestNothingThatIsKeptPointsIntoRequests(t *testing.T) {
	server := serveTenants(t, func(string, []push.Stream, http.ResponseWriter, *http.Request) bool { return false })
	exp := start(t, server.URL, byTeam)
	piece, other := pieceOf("n0", "a", "b"), pieceOf("n1", "c", "d")
	require.NoError(t, exp.consumeOTLP(piece))
	copy(piece.OTLP, other.OTLP)
	require.NoError(t, exp.consumeOTLP(piece))
	require.Equal(t, map[string][]string{"a": {"n0 a"}, "b": {"n0 b"}, "c": {"n1 c"}, "d": {"n1 d"}}, server.taken)
	var names []string
	for name, state := range exp.Logs.(*lokiExporter).tenants.byName {
		names = append(names, name)
		require.Equal(t, name, state.name)
	}
	require.ElementsMatch(t, []string{"a", "b", "c", "d"}, names)

	named := func(letter string) plog.Logs {
		logs := plog.NewLogs()
		name := "n" + letter + "_of_something" // a valid one, which stays as it is
		addRecord(addLogs(logs, map[string]any{name: "x"}), noon, letter)
		scope := addLogs(logs, nil)
		record := addRecord(scope, noon, letter)
		record.SetSeverityText(letter + letter)
		record.Attributes().PutStr(name+"_1", letter+strings.Repeat("x", maxRepeatedBytes))
		record.Attributes().PutStr(name+"_2", letter)
		return logs
	}
	translator, origin := testTranslator(), &direct.Piece{Cluster: "c", Node: "n"}
	check := func(request []byte, logs plog.Logs) {
		b := newBatch()
		_, err := translator.translate([]input{{request, origin}}, func(string) *share { return &share{tenant: &tenantState{}, batch: b, late: noneLate} })
		require.NoError(t, err)
		requireOracle(t, translator, b, stamped(logs, origin))
	}
	request := marshal(named("a"))
	for _, letter := range []string{"a", "b", "c", "a"} {
		require.Equal(t, len(request), copy(request, marshal(named(letter))))
		check(request, named(letter))
	}
	clear(request)
	for _, letter := range []string{"a", "b", "c"} {
		check(marshal(named(letter)), named(letter))
	}
}

// raceDetector is true where pools forget at random, so that allocations say nothing.
var raceDetector bool

func TestTranslatingAllocatesNextToNothing(t *testing.T) {
	if raceDetector {
		t.Skip("not with the race detector: pools forget at random there")
	}
	translator := testTranslator()
	var inputs []input
	list := fleetPieces(t, 0, 40, noon)
	for i := range list {
		inputs = append(inputs, input{list[i].OTLP, &list[i]})
	}
	const records = 40 * 50
	b := newBatch()
	open := func(string) *share { return &share{tenant: &tenantState{}, batch: b, late: noneLate} }
	allocations := testing.AllocsPerRun(10, func() {
		_, err := translator.translate(inputs, open)
		require.NoError(t, err)
		require.Len(t, b.entries, records)
		b.reset()
	})
	require.Less(t, allocations, float64(records)/100)
}
