package lease

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/bytesize"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// childEnv has the test program be a relay of the hub at that address.
const childEnv = "LONGHAUL_TEST_LEASE_HUB"

// child is a relay that stores without end whatever it owns, whether it holds it or
// not, and says what it sees.
func child(url string) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		fmt.Println("connect:", err)
		os.Exit(1)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		fmt.Println("JetStream:", err)
		os.Exit(1)
	}
	m := New(js, Settings{
		Name:    "child",
		Streams: hub.Streams{MaxBytes: 64 * bytesize.MiB, Replicas: 1, Partitions: 2},
		Signals: map[string][]frame.Signal{hub.DefaultDestination: {frame.Logs}},
	}, zap.NewNop())
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // should the test die
	defer cancel()
	m.Run(ctx, func(ctx context.Context, c *Claim) {
		for ctx.Err() == nil {
			held := c.Held()
			_, err := c.Store(context.WithoutCancel(ctx), []Record{{key(origin(c.Partition())), []byte("child")}})
			switch {
			case err == nil && held:
				fmt.Println("held and stored")
			case err == nil:
				fmt.Println("stored")
			case errors.Is(err, ErrLost):
				fmt.Println("refused, held", c.Held())
				if held {
					fmt.Println("held before it was refused")
				}
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println("ended:", context.Cause(ctx))
	})
}

func TestAProcessThatWasStoppedWakesUpWithoutItsPartitions(t *testing.T) {
	h := startHub(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+h.url())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	}()
	var mu sync.Mutex
	var lines []string
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			mu.Lock()
			lines = append(lines, scanner.Text())
			mu.Unlock()
		}
	}()
	said := func(from int) []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines[from:]...)
	}
	until(t, "the child stores", func() bool { return strings.Contains(strings.Join(said(0), "\n"), "held and stored") })

	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	b := h.relay("b", h.settings(2), nil)
	shared(t, 2, b)
	for _, c := range b.owned() {
		_, err := c.Store(t.Context(), []Record{{key(origin(c.Partition())), []byte("b")}})
		require.NoError(t, err)
	}
	before := 0 // the pipe is read to its end: the child says nothing
	until(t, "the child is silent", func() bool {
		n := len(said(0))
		silent := n == before
		before = n
		time.Sleep(200 * time.Millisecond)
		return silent
	})

	// A store that was on its way when it was stopped may be told now, or be refused now; none is after that.
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	until(t, "the child has lost what it had", func() bool {
		return strings.Count(strings.Join(said(before), "\n"), "ended: "+ErrLost.Error()) == 2
	})
	late := 0
	for _, line := range said(before) {
		if line == "ended: "+ErrLost.Error() {
			break
		}
		if strings.HasPrefix(line, "held") || strings.HasPrefix(line, "stored") {
			late++
		}
		require.NotEqual(t, "refused, held true", line)
	}
	require.LessOrEqual(t, late, 2, "one a partition, on its way when it was stopped")
	for partition := range 2 {
		if c := b.claim(2, partition); c != nil && c.Held() {
			entry, err := hub.LastInBucket(t.Context(), b.js, key(origin(partition)))
			require.NoError(t, err)
			require.Equal(t, "b", string(entry.Value))
		}
	}
}
