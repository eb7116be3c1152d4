package dashboards

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// What the panels about loss are for: a store is cut off for longer than its
// spool lasts, and sends entries that Loki will never take.
func TestPanelsShowLoss(t *testing.T) {
	w := theWorld(t)
	const cluster = "store-0666"
	link, err := lab.NewLink(w.relay.NATSAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	collector, err := lab.NewCollector(lab.CollectorOptions{
		Binary: filepath.Join(w.bin, "longhaul-collector"), Dir: filepath.Join(workDir, cluster),
		Cluster: cluster, Node: "node-a", NATSURL: "nats://" + link.Addr(),
		Env: map[string]string{"LONGHAUL_SPOOL_MAX_BYTES": "8MiB"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := startProcess(ctx, collector.Process); err != nil {
		t.Fatal(err)
	}
	send(t, collector, time.Now().Add(-30*24*time.Hour), 10, 10) // too old for Loki
	time.Sleep(3 * time.Second)                                  // and shipped before the link is cut
	link.Cut()
	for range 40 {
		send(t, collector, time.Now(), 300, 2000) // random, so it does not compress
	}
	if err := link.Restore(); err != nil {
		t.Fatal(err)
	}

	// A panel of growth shows the loss while it is fresh; the last five minutes are
	// looked at.
	g := &grafana{w: w, values: map[string]string{"cluster": cluster}}
	for _, d := range load(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				if !strings.Contains(q.Expr, "lost") && !strings.Contains(q.Expr, "loki_entries_rejected") {
					continue
				}
				eventually(t, d.file+": "+p.Title, func(ctx context.Context) error {
					points, err := g.points(ctx, q)
					for _, v := range points {
						if v > 0 {
							return err
						}
					}
					return errors.Join(err, fmt.Errorf("nothing but zero: %s", g.fill(q.Expr)))
				})
			}
		}
	}
}

// send hands the collector log records over OTLP.
func send(t *testing.T, c *lab.Collector, at time.Time, records, bytes int) {
	t.Helper()
	var b strings.Builder
	for i := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"timeUnixNano":"%d","body":{"stringValue":"`, at.UnixNano()+int64(i))
		for range bytes {
			b.WriteByte('0' + byte(rand.IntN(64))) //nolint:gosec // noise
		}
		b.WriteString(`"}}`)
	}
	body := strings.NewReplacer(`\`, "-").Replace(b.String())
	response, err := http.Post(c.OTLPHTTP+"/v1/logs", "application/json", strings.NewReader(
		`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`+body+`]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %s", response.Status, text)
	}
}
