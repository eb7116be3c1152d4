package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

const (
	service = "faults"
	// senders wait for their acknowledgement before they send again, as SDKs do.
	senders     = 8
	batchItems  = 100
	sendTimeout = 15 * time.Second
	retryPause  = 100 * time.Millisecond
	// A collector that is pressed for space may take that long to answer all senders.
	lastAnswer = 45 * time.Second
)

// feeder sends numbered log records by OTLP, each until it is acknowledged. Its
// numbers begin at 1.
type feeder struct {
	url    string
	rate   int // items/s
	pad    int // random bytes a record carries beside its number
	client *http.Client

	mu    sync.Mutex
	sent  []uint8 // times a number may have reached the collector
	acked []bool

	sending  sync.WaitGroup
	stop     context.CancelFunc // no new batches
	abandon  context.CancelFunc // no more attempts either
	finished chan struct{}
}

func newFeeder(collectorHTTP string, rate, pad int) *feeder {
	return &feeder{
		url: collectorHTTP + "/v1/logs", rate: rate, pad: pad,
		client: &http.Client{Timeout: sendTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
		sent:   make([]uint8, 1), acked: make([]bool, 1),
	}
}

// already notes records that were acknowledged before the feeder began.
func (f *feeder) already(items int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range items {
		f.sent, f.acked = append(f.sent, 1), append(f.acked, true)
	}
}

func (f *feeder) start(ctx context.Context) {
	attempts, abandon := context.WithCancel(ctx)
	feeding, stop := context.WithCancel(attempts)
	f.stop, f.abandon, f.finished = stop, abandon, make(chan struct{})
	turns := make(chan struct{})
	f.sending.Go(func() {
		tick := time.NewTicker(time.Second * batchItems / time.Duration(f.rate))
		defer tick.Stop()
		defer close(turns)
		for {
			select {
			case <-feeding.Done():
				return
			case <-tick.C:
			}
			select {
			case turns <- struct{}{}:
			default: // every sender waits for an acknowledgement
			}
		}
	})
	for range senders {
		f.sending.Go(func() {
			for range turns {
				f.deliver(attempts)
			}
		})
	}
	go func() {
		f.sending.Wait()
		close(f.finished)
	}()
}

// finish sends no new batches and waits until those begun are acknowledged, or
// for a bounded time.
func (f *feeder) finish() {
	f.stop()
	select {
	case <-f.finished:
	case <-time.After(lastAnswer):
	}
	f.abandon()
	<-f.finished
	f.client.CloseIdleConnections()
}

// deliver sends one batch until it is acknowledged or ctx is done.
func (f *feeder) deliver(ctx context.Context) {
	first := f.take()
	body, err := f.batch(first).MarshalProto()
	if err != nil {
		panic(err) // a message made here
	}
	for ctx.Err() == nil {
		reached, err := f.post(ctx, body)
		f.note(first, reached, err == nil)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

func (f *feeder) take() (first int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first = len(f.sent)
	f.sent = append(f.sent, make([]uint8, batchItems)...)
	f.acked = append(f.acked, make([]bool, batchItems)...)
	return first
}

func (f *feeder) note(first int, reached, acked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := first; n < first+batchItems; n++ {
		if reached && f.sent[n] < 255 {
			f.sent[n]++
		}
		f.acked[n] = acked
	}
}

// numbers returns copies: how often each number may have reached the collector,
// and whether it was acknowledged.
func (f *feeder) numbers() (sent []uint8, acked []bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]uint8(nil), f.sent...), append([]bool(nil), f.acked...)
}

// post sends a request once. An attempt that found nobody listening cannot have
// reached the collector.
func (f *feeder) post(ctx context.Context, body []byte) (reached bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := f.client.Do(req)
	if err != nil {
		var dial *net.OpError
		return !(errors.As(err, &dial) && dial.Op == "dial"), err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return true, err
	}
	if resp.StatusCode != http.StatusOK {
		return true, fmt.Errorf("status %s", resp.Status)
	}
	response := plogotlp.NewExportResponse()
	if err := response.UnmarshalProto(answer); err != nil {
		return true, err
	}
	if n := response.PartialSuccess().RejectedLogRecords(); n > 0 {
		return true, fmt.Errorf("%d records rejected", n)
	}
	return true, nil
}

func (f *feeder) batch(first int) plogotlp.ExportRequest {
	return logBatch(first, batchItems, f.pad, time.Now())
}

// logBatch makes records numbered from first on, each with so many random bytes.
func logBatch(first, items, pad int, at time.Time) plogotlp.ExportRequest {
	logs := plog.NewLogs()
	rl := logs.ResourceLogs().AppendEmpty()
	rl.Resource().Attributes().PutStr("service.name", service)
	records := rl.ScopeLogs().AppendEmpty().LogRecords()
	records.EnsureCapacity(items)
	noise := make([]byte, pad*3/4)
	for n := first; n < first+items; n++ {
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		record := records.AppendEmpty()
		record.SetTimestamp(pcommon.Timestamp(at.UnixNano() + int64(n-first)))
		record.SetSeverityNumber(plog.SeverityNumberInfo)
		record.Body().SetStr(line(n, base64.StdEncoding.EncodeToString(noise)))
	}
	return plogotlp.NewExportRequestFromLogs(logs)
}

const linePrefix = "record "

func line(n int, pad string) string {
	return linePrefix + strconv.Itoa(n) + " of the till, sold and paid by card " + pad
}

// number reads a record's number from its line.
func number(line string) (n int, ok bool) {
	rest, ok := strings.CutPrefix(line, linePrefix)
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0
}
