package containerlogsreceiver

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pipeline"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// generator writes numbered lines.
type generator struct {
	mu     sync.Mutex
	writer *writer
	count  int
}

func (*generator) Start() {}
func (*generator) Stop()  {}

func (g *generator) Generate() []receivertest.UniqueIDAttrVal {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
	body := fmt.Sprint("unique ", g.count)
	g.writer.line(body)
	return []receivertest.UniqueIDAttrVal{receivertest.UniqueIDAttrVal(body)}
}

// identified gives every record the attribute the checker looks for.
type identified struct{ consumer.Logs }

func (c identified) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	for _, resource := range logs.ResourceLogs().All() {
		for _, record := range resource.ScopeLogs().At(0).LogRecords().All() {
			record.Attributes().PutStr(receivertest.UniqueIDAttrName, record.Body().Str())
		}
	}
	return c.Logs.ConsumeLogs(ctx, logs)
}

func TestConsumeContract(t *testing.T) {
	n := newNode(t)
	n.config.PositionFile = filepath.Join(t.TempDir(), "positions.json")
	n.config.Batch.MaxLines = 5
	factory := receiver.NewFactory(componentType, createDefaultConfig, receiver.WithLogs(
		func(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
			r, err := newReceiver(set, cfg.(*Config), identified{next})
			if err == nil {
				r.timing.retryInitial, r.timing.retryMax = time.Millisecond, 10*time.Millisecond
			}
			return r, err
		}, stability))
	receivertest.CheckConsumeContract(receivertest.CheckConsumeContractParams{
		T: t, Factory: factory, Signal: pipeline.SignalLogs, Config: n.config,
		Generator: &generator{writer: newWriter(t, n.log("api"))}, GenerateCount: 300,
	})
}

func TestFactory(t *testing.T) {
	factory := NewFactory()
	if factory.Type() != componentType || factory.LogsStability() != stability {
		t.Fatal(factory.Type(), factory.LogsStability())
	}
	config := factory.CreateDefaultConfig().(*Config)
	config.PositionFile = filepath.Join(t.TempDir(), "positions.json")
	config.Include = []string{filepath.Join(t.TempDir(), "*.log")}
	r, err := factory.CreateLogs(context.Background(), receivertest.NewNopSettings(componentType), config, &sink{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown(context.Background()); err != nil { // without Start
		t.Fatal(err)
	}
}
