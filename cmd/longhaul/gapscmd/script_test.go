package gapscmd

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"longhaul": longhaul})
}

func longhaul() {
	root := &cobra.Command{Use: "longhaul", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(NewCommand())
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "longhaul: %v\n", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"hub": startHub, "lose": lose, "closedport": closedPort,
		},
	})
}

// startHub starts a real NATS server and points LONGHAUL_NATS_URL at it. With
// "plain" it has no JetStream, with "password" it wants one.
func startHub(ts *testscript.TestScript, _ bool, args []string) {
	options := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: ts.MkAbs("hub"), NoSigs: true, NoLog: true,
	}
	if len(args) > 0 && args[0] == "plain" {
		options.JetStream = false
	}
	if len(args) > 0 && args[0] == "password" {
		options.Username, options.Password = "relay", "secret"
	}
	s, err := server.NewServer(options)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		ts.Fatalf("the hub is not ready")
	}
	ts.Setenv("LONGHAUL_NATS_URL", s.ClientURL())
}

// lose puts three spools with losses on the hub, as a relay does, at the default
// destination and at those named.
func lose(ts *testscript.TestScript, _ bool, destinations []string) {
	nc, err := nats.Connect(ts.Getenv("LONGHAUL_NATS_URL"))
	ts.Check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bucket, err := hub.EnsureCustody(ctx, js, hub.Streams{MaxBytes: 64 * bytesize.MiB, Replicas: 1})
	ts.Check(err)
	for _, other := range []string{hub.LayoutKey, hub.MemberKey("id"), hub.OwnerKey(16, 3)} { // stands there, too
		_, err := bucket.Put(ctx, other, []byte("{}"))
		ts.Check(err)
	}

	ledger, at := custody.NewLedger(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	deliver := func(cluster, node string, f custody.Frame, when time.Time) custody.Key {
		key := custody.Key{Origin: hub.Origin{Cluster: cluster, Node: node}, Epoch: 7, Lane: frame.Lane{Signal: frame.Logs, Seq: 1}}
		if verdict := ledger.Take(key, f, when); verdict != custody.Deliver {
			ts.Fatalf("frame %d: verdict %d", f.Number, verdict)
		}
		ledger.Accept(key, f.Number, when)
		return key
	}
	first := custody.Frame{Number: 1, Floor: 1, Items: 100, First: at.UnixNano(), Last: at.UnixNano()}
	behind := custody.Frame{Number: 5, Floor: 5, Items: 100, Before: 400, Lost: custody.Counts{frame.EvictedSpace: 250, frame.Corrupt: 50}, First: at.Add(time.Hour).UnixNano()}
	deliver("store-0001", "a", first, at)
	key := deliver("store-0001", "a", behind, at.Add(2*time.Hour))
	if verdict := ledger.Take(key, custody.Frame{Number: 3, Floor: 1}, at); verdict != custody.Late {
		ts.Fatalf("verdict %d", verdict)
	}
	ledger.Return(key, 3, 100, at.Add(3*time.Hour))
	deliver("store.two", "b", first, at)
	deliver("store.two", "b", custody.Frame{Number: 2, Floor: 1, Items: 1, Before: 100, Lost: custody.Counts{frame.TooLarge: 1}}, time.Now())
	deliver("store-0003", "a", first, at)
	for _, record := range ledger.Dirty(time.Now(), 0, 0) {
		for _, destination := range append(destinations, hub.DefaultDestination) {
			_, err := bucket.Put(ctx, hub.DestinationKey(destination, record.Spool.Origin, record.Spool.Epoch), record.Value)
			ts.Check(err)
		}
	}
}

// closedPort sets URL to an address nobody listens on.
func closedPort(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv("LONGHAUL_NATS_URL", "nats://"+l.Addr().String())
	ts.Check(l.Close())
}
