package natsexporter

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/shipper"
	"github.com/longhaul/longhaul/internal/spool"
)

// otlpFront is a real OTLP receiver before the exporter, and its clients.
func otlpFront(t *testing.T, e exporters) (grpcClient plogotlp.GRPCClient, httpPost func(plogotlp.ExportRequest) int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lh") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // leaves a directory in /tmp if it fails
	grpcSocket, httpSocket := filepath.Join(dir, "grpc"), filepath.Join(dir, "http")
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	err = confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{
		"grpc": map[string]any{"endpoint": grpcSocket, "transport": "unix"},
		"http": map[string]any{"endpoint": httpSocket, "transport": "unix"},
	}}).Unmarshal(config)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := factory.CreateLogs(t.Context(), receivertest.NewNopSettings(factory.Type()), config, e.logs)
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+grpcSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", httpSocket)
	}}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := receiver.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return plogotlp.NewGRPCClient(conn), func(request plogotlp.ExportRequest) int {
		body, err := request.MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Post("http://otlp/v1/logs", "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode
	}
}

func TestAFullSpoolThatBlocksTellsClientsToTryAgain(t *testing.T) {
	config := testConfig(t)
	config.Spool.MaxBytes = minSpoolBytes
	config.Spool.OnFull = spool.Block
	config.Recovery = shipper.InOrder // one lane, however slow the machine
	config.Batch.EagerItems = 1
	e, _ := start(t, config)
	grpcClient, httpPost := otlpFront(t, e)
	small := plogotlp.NewExportRequestFromLogs(logs("one more"))
	if _, err := grpcClient.Export(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	accepted := 1
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for e.logs.ConsumeLogs(ctx, logs(noise(200<<10))) == nil {
		accepted++
	}
	if ctx.Err() != nil {
		t.Fatal("the spool never refused")
	}
	if _, err := grpcClient.Export(t.Context(), plogotlp.NewExportRequestFromLogs(logs(noise(200<<10)))); status.Code(err) != codes.Unavailable {
		t.Fatalf("gRPC: %v", err)
	}
	if code := httpPost(plogotlp.NewExportRequestFromLogs(logs(noise(200 << 10)))); code != http.StatusServiceUnavailable {
		t.Fatalf("HTTP: %d", code)
	}

	// The other signals have room of their own.
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(5)
	if err := e.metrics.ConsumeMetrics(t.Context(), md); err != nil {
		t.Fatal(err)
	}

	sp := e.logs.(signalExporter).spool
	stats := sp.Stats().Lanes[0]
	if lost := stats.Lost; lost != [frame.NumCauses]uint64{} || stats.Items != int64(accepted) {
		t.Fatalf("%d accepted, %d held, lost %v", accepted, stats.Items, lost)
	}
	sp.Confirm(stats.Lane, stats.Next-2) // leaves the last segment, and little in it
	if _, err := grpcClient.Export(t.Context(), small); err != nil {
		t.Fatalf("refused although there is room: %v", err)
	}
	if code := httpPost(small); code != http.StatusOK {
		t.Fatalf("HTTP: %d", code)
	}
}
