package rejectedcmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/longhaul/longhaul/internal/bytesize"
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
			"hub": startHub, "closedport": closedPort, "relay": relay, "reject": reject, "frames": frames, "fill": fill,
		},
	})
}

var streams = hub.Streams{MaxBytes: 64 * bytesize.MiB, Replicas: 1, Partitions: 4}

// startHub starts a real NATS server and points LONGHAUL_NATS_URL at it. With
// "plain" it has no JetStream, with "password" it wants one, and with "reader" that
// is the URL of a user who may not publish frames. HUB is the URL for the script's
// own commands.
func startHub(ts *testscript.TestScript, _ bool, args []string) {
	options := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: ts.MkAbs("hub" + strconv.FormatInt(time.Now().UnixNano(), 36)),
		NoSigs: true, NoLog: true,
	}
	how := strings.Join(args, " ")
	switch how {
	case "plain":
		options.JetStream = false
	case "password":
		options.Username, options.Password = "relay", "secret"
	case "reader":
		options.Users = []*server.User{
			{Username: "admin", Password: "a"},
			{Username: "reader", Password: "r", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"longhaul.>"}}}},
		}
	}
	s, err := server.NewServer(options)
	ts.Check(err)
	s.Start()
	ts.Defer(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		ts.Fatalf("the hub is not ready")
	}
	as := func(user string) string { return strings.Replace(s.ClientURL(), "nats://", "nats://"+user, 1) }
	ts.Setenv("LONGHAUL_NATS_URL", s.ClientURL())
	ts.Setenv("HUB", s.ClientURL())
	if how == "reader" {
		ts.Setenv("LONGHAUL_NATS_URL", as("reader:r@"))
		ts.Setenv("HUB", as("admin:a@"))
	}
}

// closedPort sets URL to an address nobody listens on.
func closedPort(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv("LONGHAUL_NATS_URL", "nats://"+l.Addr().String())
	ts.Check(l.Close())
}

func onHub(ts *testscript.TestScript, do func(context.Context, jetstream.JetStream) error) {
	nc, err := nats.Connect(ts.Getenv("HUB"))
	ts.Check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ts.Check(do(ctx, js))
}

// relay makes on the hub what a relay with some destinations makes.
func relay(ts *testscript.TestScript, _ bool, destinations []string) {
	onHub(ts, func(ctx context.Context, js jetstream.JetStream) error {
		var readers []hub.Reader
		for _, name := range destinations {
			readers = append(readers, hub.Reader{Destination: name})
		}
		if err := hub.EnsureRejected(ctx, js, streams); err != nil {
			return err
		}
		for _, signal := range frame.Signals {
			if _, err := hub.EnsureSignal(ctx, js, signal, streams, hub.Layout{Count: streams.Partitions}, readers); err != nil {
				return err
			}
		}
		return nil
	})
}

// reject keeps a frame as a relay does: cluster node number items destination reason.
// A number of 0 is bytes that are no frame.
func reject(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 6 {
		ts.Fatalf("usage: reject cluster node number items destination reason")
	}
	number, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	items, err := strconv.Atoi(args[3])
	ts.Check(err)
	data := []byte("this is no frame")
	if number > 0 {
		data = logs(ts, number, items)
	}
	header := nats.Header{hub.ReasonHeader: {args[5]}}
	if args[4] != "-" {
		header.Set(hub.DestinationHeader, args[4])
	}
	onHub(ts, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.PublishMsg(ctx, &nats.Msg{
			Subject: hub.RejectedSubject(frame.Logs, hub.Origin{Cluster: args[0], Node: args[1]}), Header: header, Data: data,
		})
		return err
	})
}

func logs(ts *testscript.TestScript, number uint64, items int) []byte {
	request := plogotlp.NewExportRequest()
	records := request.Logs().ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	for i := range items {
		records.AppendEmpty().Body().SetStr(fmt.Sprintf("line %d of frame %d", i+1, number))
	}
	otlp, err := request.MarshalProto()
	ts.Check(err)
	codec := frame.CodecFor(frame.Logs)
	payload, err := codec.Encode(nil, otlp)
	ts.Check(err)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()
	return frame.Append(nil, &frame.Header{
		Codec: codec.ID(), Signal: frame.Logs, Class: frame.Live, Lane: 1, Items: uint32(items), Epoch: 7, Number: number, Floor: 1,
		First: at, Last: at, Uncompressed: uint32(len(otlp)), PayloadLen: uint32(len(payload)),
	}, payload)
}

// frames writes the log frames that are on the hub to the file FRAMES.
func frames(ts *testscript.TestScript, _ bool, _ []string) {
	var lines []string
	onHub(ts, func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, hub.StreamName(frame.Logs))
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx)
		if err != nil {
			return err
		}
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
			msg, err := stream.GetMsg(ctx, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			_, origin, err := hub.ParseFrameSubject(msg.Subject)
			if err != nil {
				return err
			}
			header, _, _, err := frame.Parse(msg.Data)
			if err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("%s number %d replay for %s class %s\n", origin, header.Number, msg.Header.Get(hub.ReplayHeader), msg.Header.Get(hub.ClassHeader)))
		}
		return nil
	})
	slices.Sort(lines)
	ts.Check(os.WriteFile(ts.MkAbs("FRAMES"), []byte(strings.Join(lines, "")), 0o600))
}

// fill publishes to the hub until it takes no more.
func fill(ts *testscript.TestScript, _ bool, _ []string) {
	onHub(ts, func(ctx context.Context, js jetstream.JetStream) error {
		for number := uint64(1); ; number++ {
			_, err := js.Publish(ctx, hub.FrameSubject(frame.Logs, hub.Origin{Cluster: "a", Node: "b"}), make([]byte, 900_000))
			var api *jetstream.APIError
			if errors.As(err, &api) && api.ErrorCode == codeStreamFull {
				break
			}
			if err != nil {
				return err
			}
		}
		for {
			_, err := js.Publish(ctx, hub.FrameSubject(frame.Logs, hub.Origin{Cluster: "a", Node: "b"}), nil)
			if err != nil {
				return nil //nolint:nilerr // full to the last byte
			}
		}
	})
}
