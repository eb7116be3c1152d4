package containerlogsreceiver

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/longhaul/longhaul/exporters/natsexporter"
)

// cpuSeconds is what this process has used so far, user and system.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// writePods writes count CRI lines of about 215 bytes into ten pods' files: the
// forms of log lines that are common on a node, with varying contents.
func writePods(b *testing.B, directory string, count int) {
	const pods = 10
	random := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for pod := range pods {
		path := filepath.Join(directory, fmt.Sprintf("shop_till-%d_0f3c/api/0.log", pod))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		file, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		out := bufio.NewWriterSize(file, 1<<20)
		for i := pod; i < count; i += pods {
			at = at.Add(time.Duration(random.IntN(1e6)))
			out.Write(at.AppendFormat(out.AvailableBuffer(), "2006-01-02T15:04:05.000000000Z07:00"))
			out.WriteString(" stdout F ")
			writeBody(out, random, at, pod)
			out.WriteByte('\n')
		}
		if err := out.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := file.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func writeBody(out *bufio.Writer, random *rand.Rand, at time.Time, pod int) {
	switch pod % 5 {
	case 0:
		fmt.Fprintf(out, `{"time":"%s","level":"info","logger":"shop.order","msg":"order taken","order":%d,"table":%d,"amount":"%d.%02d","trace_id":"%016x%016x"}`,
			at.Format(time.RFC3339), random.IntN(1e7), random.IntN(60), random.IntN(200), random.IntN(100), random.Uint64(), random.Uint64())
	case 1:
		fmt.Fprintf(out, `%s INFO [http-nio-8080-exec-%d] c.l.shop.PaymentController : payment of terminal %d authorised in %d ms, reference %08x, attempt %d of 3, issuer %d`,
			at.Format("2006-01-02 15:04:05.000"), random.IntN(20), random.IntN(12), random.IntN(900), random.Uint32(), 1+random.IntN(3), random.IntN(40))
	case 2:
		fmt.Fprintf(out, `I1123 10:00:00.%06d       1 reconciler.go:%d] "operationExecutor.MountVolume succeeded for volume \"kube-api-access-%05x\" (UniqueName: \"kubernetes.io/projected/%08x\") pod=\"shop/till-%d\""`,
			random.IntN(1e6), 200+random.IntN(40), random.IntN(1<<20), random.Uint32(), random.IntN(30))
	case 3:
		fmt.Fprintf(out, `10.42.%d.%d - - [23/Nov/2026:10:00:00 +0000] "GET /api/v1/orders/%d?expand=lines HTTP/1.1" 200 %d "https://till.local/orders" "Mozilla/5.0 (X11; Linux x86_64)" rt=0.%03d`,
			random.IntN(4), random.IntN(255), random.IntN(1e7), random.IntN(20000), random.IntN(1000))
	default:
		fmt.Fprintf(out, `time=%s level=info msg="synchronised catalogue" component=catalogue items=%d changed=%d duration=%dms source=https://hub.example/catalogue etag=%016x`,
			at.Format(time.RFC3339Nano), random.IntN(9000), random.IntN(50), random.IntN(4000), random.Uint64())
	}
}

// intoSpool starts this receiver, the memory limiter and the nats exporter as in
// the built-in configuration, fsync included, without a hub.
func intoSpool(b *testing.B, directory string, counted *counting) (start func(), stop func()) {
	config := createDefaultConfig().(*Config)
	config.Include = []string{directory + "/*/*/*.log"}
	config.PositionFile = filepath.Join(directory, "positions.json")
	config.StartAt = startAtBeginning

	exporters := natsexporter.NewFactory()
	export := exporters.CreateDefaultConfig().(*natsexporter.Config)
	export.Cluster, export.Node, export.Connection.URLs = "store-0001", "a", "nats://127.0.0.1:1"
	export.Spool.Directory = filepath.Join(directory, "spool")
	exporter, err := exporters.CreateLogs(b.Context(), exportertest.NewNopSettings(exporters.Type()), export)
	if err != nil {
		b.Fatal(err)
	}
	limiters := memorylimiterprocessor.NewFactory()
	limit := limiters.CreateDefaultConfig().(*memorylimiterprocessor.Config)
	limit.CheckInterval, limit.MemoryLimitMiB, limit.MemorySpikeLimitMiB = time.Second, 100, 20
	counted.Logs, counted.done = exporter, make(chan struct{})
	limiter, err := limiters.CreateLogs(b.Context(), processortest.NewNopSettings(limiters.Type()), limit, counted)
	if err != nil {
		b.Fatal(err)
	}
	r, err := newReceiver(receivertest.NewNopSettings(componentType), config, limiter)
	if err != nil {
		b.Fatal(err)
	}
	host := componenttest.NewNopHost()
	if err := exporter.Start(b.Context(), host); err != nil {
		b.Fatal(err)
	}
	if err := limiter.Start(b.Context(), host); err != nil {
		b.Fatal(err)
	}
	start = func() {
		if err := r.Start(b.Context(), host); err != nil {
			b.Fatal(err)
		}
	}
	stop = func() {
		for _, stop := range []func(context.Context) error{r.Shutdown, limiter.Shutdown, exporter.Shutdown} {
			if err := stop(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	return start, stop
}

// BenchmarkIntoTheSpool reads b.N lines of ten pods from files into a spool.
func BenchmarkIntoTheSpool(b *testing.B) {
	directory := b.TempDir()
	writePods(b, directory, b.N)
	counted := &counting{}
	counted.want.Store(int64(b.N))
	start, stop := intoSpool(b, directory, counted)
	b.ReportAllocs()
	b.ResetTimer()
	begin, cpu := time.Now(), cpuSeconds()
	start()
	<-counted.done
	elapsed, used := time.Since(begin), cpuSeconds()-cpu
	b.StopTimer()
	stop()
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "lines/s")
	b.ReportMetric(used/float64(b.N)*1e6, "cpu-s/Mline")
}

// BenchmarkQuietFiles writes 10 lines a second into each of 300 files for b.N
// seconds, and reports what reading them into a spool takes of one core, without
// what the writing takes.
func BenchmarkQuietFiles(b *testing.B) {
	const files, perSecond = 300, 10
	directory := b.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	out := bufio.NewWriter(&text)
	var logs []*os.File
	for i := range files {
		path := filepath.Join(directory, fmt.Sprintf("shop_till-%d_0f3c/api/0.log", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		file, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		logs = append(logs, file)
	}
	write := func(seconds int) (cpu float64) {
		before := cpuSeconds()
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for range seconds * perSecond {
			now := time.Now()
			for i, file := range logs {
				text.Reset()
				text.WriteString(now.Format("2006-01-02T15:04:05.000000000Z07:00") + " stdout F ")
				writeBody(out, random, now, i)
				out.WriteByte('\n')
				_ = out.Flush()
				if _, err := file.WriteString(text.String()); err != nil {
					b.Fatal(err)
				}
			}
			<-tick.C
		}
		return cpuSeconds() - before
	}
	alone := write(3) / 3
	start, stop := intoSpool(b, directory, &counting{})
	start()
	write(2) // what was there before
	b.ResetTimer()
	used := write(b.N) / float64(b.N)
	b.StopTimer()
	stop()
	b.ReportMetric((used-alone)*100, "%core")
}

var _ consumer.Logs = (*counting)(nil)
