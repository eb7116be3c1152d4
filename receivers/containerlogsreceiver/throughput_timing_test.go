package containerlogsreceiver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// counting accepts and counts; what has a next consumer counts what that took.
type counting struct {
	consumer.Logs
	lines, want atomic.Int64
	done        chan struct{}
}

func (*counting) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (c *counting) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	count := int64(logs.LogRecordCount())
	if c.Logs != nil {
		if err := c.Logs.ConsumeLogs(ctx, logs); err != nil {
			return err
		}
	}
	if c.lines.Add(count) == c.want.Load() {
		close(c.done)
	}
	return nil
}

// BenchmarkReceiver reads b.N lines of ten pods from files to pdata, positions
// saved, with a consumer that does nothing.
func BenchmarkReceiver(b *testing.B) {
	for name, content := range map[string]string{
		"plain": "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_38865049064139660 terminating, received 67108864 bytes from /10.251.91.84",
		"json":  `{"time":"2026-11-23T10:00:00Z","level":"info","msg":"order taken","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","order":17}`,
	} {
		b.Run(name, func(b *testing.B) {
			directory := b.TempDir()
			const pods = 10
			for pod := range pods {
				path := filepath.Join(directory, fmt.Sprintf("shop_till-%d_0f3c/api/0.log", pod))
				var text strings.Builder
				for i := pod; i < b.N; i += pods {
					fmt.Fprintf(&text, "2026-11-23T10:00:00.%09dZ stdout F %s\n", i%1e9, content)
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					b.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					b.Fatal(err)
				}
			}
			config := createDefaultConfig().(*Config)
			config.Include = []string{directory + "/*/*/*.log"}
			config.StartAt = startAtBeginning
			config.PositionFile = filepath.Join(directory, "positions.json")
			sink := &counting{done: make(chan struct{})}
			sink.want.Store(int64(b.N))
			r, err := newReceiver(receivertest.NewNopSettings(componentType), config, sink)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			begin, cpu := time.Now(), cpuSeconds()
			if err := r.Start(context.Background(), componenttest.NewNopHost()); err != nil {
				b.Fatal(err)
			}
			<-sink.done
			elapsed, used := time.Since(begin), cpuSeconds()-cpu
			b.StopTimer()
			if err := r.Shutdown(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/elapsed.Seconds(), "lines/s")
			b.ReportMetric(used/float64(b.N)*1e6, "cpu-s/Mline")
		})
	}
}

func BenchmarkParseCRI(b *testing.B) {
	line := []byte("2026-11-23T10:00:00.123456789Z stdout F order 17 taken")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := parseCRI(line); !ok {
			b.Fatal("not parsed")
		}
	}
}

func BenchmarkParseJSONFile(b *testing.B) {
	line := []byte(`{"log":"order \"17\" taken\n","stream":"stdout","time":"2026-11-23T10:00:00.123456789Z"}`)
	var scratch []byte
	b.ReportAllocs()
	for b.Loop() {
		var ok bool
		if _, scratch, ok = parseJSONFile(line, scratch); !ok {
			b.Fatal("not parsed")
		}
	}
}
