package lease

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		child(url)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of the tests: the machine may be busy.
const patience = 90 * time.Second

// testHub is a real nats-server, or three that share a store.
type testHub struct {
	t        *testing.T
	replicas int
	servers  []*server.Server
	options  []*server.Options
}

func startHub(t *testing.T) *testHub {
	t.Helper()
	h := &testHub{t: t, replicas: 1}
	h.add(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	t.Cleanup(h.stopAll)
	return h
}

// startCluster starts three servers that keep everything three times.
func startCluster(t *testing.T) *testHub {
	t.Helper()
	h := &testHub{t: t, replicas: 3}
	t.Cleanup(h.stopAll)
	ports := freePorts(t, 3) // every server has to know where the others will be
	for i, port := range ports {
		options := &server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			ServerName: fmt.Sprintf("hub-%d", i), Cluster: server.ClusterOpts{Name: "hub", Host: "127.0.0.1", Port: port},
		}
		for _, other := range ports {
			options.Routes = append(options.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", other)})
		}
		h.add(options)
	}
	h.ready()
	return h
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// ready waits until the cluster has a leader and all of its servers are up to date.
func (h *testHub) ready() {
	until(h.t, "the cluster has a leader", func() bool {
		for _, s := range h.servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(h.servers) {
				return true
			}
		}
		return false
	})
}

// leader is the server that leads a stream.
func (h *testHub) leader(stream string) int {
	leader := -1
	until(h.t, "stream "+stream+" has a leader", func() bool {
		for i, s := range h.servers {
			if s.Running() && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

func (h *testHub) add(options *server.Options) {
	h.t.Helper()
	h.options = append(h.options, options)
	h.servers = append(h.servers, nil)
	h.start(len(h.servers) - 1)
}

func (h *testHub) start(i int) {
	h.t.Helper()
	options := *h.options[i]
	s, err := server.NewServer(&options)
	require.NoError(h.t, err)
	s.Start()
	require.True(h.t, s.ReadyForConnections(patience))
	h.options[i].Port = s.Addr().(*net.TCPAddr).Port
	h.servers[i] = s
}

func (h *testHub) stop(i int) {
	h.servers[i].Shutdown()
	h.servers[i].WaitForShutdown()
}

func (h *testHub) stopAll() {
	for i := range h.servers {
		h.stop(i)
	}
}

func (h *testHub) url() string {
	urls := ""
	for _, s := range h.servers {
		urls += s.ClientURL() + ","
	}
	return urls[:len(urls)-1]
}

func (h *testHub) connect() jetstream.JetStream {
	h.t.Helper()
	nc, err := nats.Connect(h.url(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	require.NoError(h.t, err)
	h.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(h.t, err)
	return js
}

func (h *testHub) settings(partitions int) Settings {
	return Settings{
		Streams: hub.Streams{MaxBytes: 64 * bytesize.MiB, Replicas: h.replicas, Partitions: partitions},
		Signals: map[string][]frame.Signal{hub.DefaultDestination: {frame.Logs}},
	}
}

// relay is a member whose serve notes what it owns.
type relay struct {
	*Member
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}

	lock   sync.Mutex
	owns   map[part]*Claim
	causes []error
	lost   int // calls of OnStoreLost
}

// start runs a relay. each, when not nil, is run for every claim.
func (h *testHub) relay(name string, set Settings, each func(context.Context, *Claim)) *relay {
	h.t.Helper()
	return h.relayLogging(name, set, each, zaptest.NewLogger(h.t, zaptest.Level(zap.InfoLevel)).Named(name))
}

func (h *testHub) relayLogging(name string, set Settings, each func(context.Context, *Claim), log *zap.Logger) *relay {
	h.t.Helper()
	set.Name = name
	r := &relay{Member: New(h.connect(), set, log), t: h.t, done: make(chan struct{}), owns: make(map[part]*Claim)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.done)
		r.Run(ctx, func(ctx context.Context, c *Claim) { r.serve(ctx, c, each) })
	}()
	h.t.Cleanup(r.end)
	return r
}

func (r *relay) serve(ctx context.Context, c *Claim, each func(context.Context, *Claim)) {
	c.OnStoreLost(func() {
		r.lock.Lock()
		defer r.lock.Unlock()
		r.lost++
	})
	r.lock.Lock()
	r.owns[c.part] = c
	r.lock.Unlock()
	if each != nil {
		each(ctx, c)
	}
	<-ctx.Done()
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.owns, c.part)
	r.causes = append(r.causes, context.Cause(ctx))
}

func (r *relay) end() {
	r.stop()
	<-r.done
}

func (r *relay) owned() []*Claim {
	r.lock.Lock()
	defer r.lock.Unlock()
	var claims []*Claim
	for _, c := range r.owns {
		claims = append(claims, c)
	}
	return claims
}

// claim is the relay's claim on a partition; nil: none.
func (r *relay) claim(count, partition int) *Claim {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.owns[part{count, partition}]
}

func (r *relay) ends() []error {
	r.lock.Lock()
	defer r.lock.Unlock()
	return append([]error(nil), r.causes...)
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// shared waits until the relays own all partitions, as evenly as can be.
func shared(t *testing.T, count int, relays ...*relay) time.Duration {
	t.Helper()
	return until(t, fmt.Sprintf("%d partitions shared by %d", count, len(relays)), func() bool {
		seen := make(map[part]bool)
		for _, r := range relays {
			claims := r.owned()
			if n := len(claims); n < count/len(relays) || n > (count+len(relays)-1)/len(relays) {
				return false
			}
			for _, c := range claims {
				if c.Count() != count || seen[c.part] || !c.Held() {
					return false
				}
				seen[c.part] = true
			}
		}
		return len(seen) == count
	})
}

func put(t *testing.T, js jetstream.JetStream, o hub.Origin, text string) {
	t.Helper()
	until(t, "the hub takes a frame", func() bool {
		_, err := js.Publish(t.Context(), hub.FrameSubject(frame.Logs, o), []byte(text), jetstream.WithRetryAttempts(0))
		return err == nil
	})
}

func origin(i int) hub.Origin {
	return hub.Origin{Cluster: fmt.Sprintf("store-%04d", i), Node: "a.b"}
}

func key(o hub.Origin) string { return hub.CustodyKey(o, frame.Epoch(7)) }
