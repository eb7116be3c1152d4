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
	urls   []string // of collectors, in turn
	rate   int      // items/s
	pad    int      // random bytes a record carries beside its number
	client *http.Client

	mu    sync.Mutex
	sent  []uint8 // times a number may have reached the collector
	acked []bool
	// batches in the order in which they were begun. Beginnings and acknowledgements
	// are numbered together, so that it can be said what came before what.
	batches []batch
	events  int

	sending  sync.WaitGroup
	stop     context.CancelFunc // no new batches
	abandon  context.CancelFunc // no more attempts either
	finished chan struct{}
}

// batch is a request of batchItems records.
type batch struct {
	first int // number of its first record
	to    int // which collector
	begun int // event
	acked int // event, 0 if not acknowledged
}

func newFeeder(collectors []string, rate, pad int) *feeder {
	return &feeder{
		urls: collectors, rate: rate, pad: pad,
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
	index, b := f.take()
	body, err := logBatch(b.first, batchItems, f.pad, time.Now()).MarshalProto()
	if err != nil {
		panic(err) // a message made here
	}
	for ctx.Err() == nil {
		reached, err := f.post(ctx, f.urls[b.to]+"/v1/logs", body)
		f.note(index, reached, err == nil)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

func (f *feeder) take() (index int, b batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events++
	index = len(f.batches)
	b = batch{first: len(f.sent), to: index % len(f.urls), begun: f.events}
	f.batches = append(f.batches, b)
	f.sent = append(f.sent, make([]uint8, batchItems)...)
	f.acked = append(f.acked, make([]bool, batchItems)...)
	return index, b
}

func (f *feeder) note(index int, reached, acked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &f.batches[index]
	if acked {
		f.events++
		b.acked = f.events
	}
	for n := b.first; n < b.first+batchItems; n++ {
		if reached && f.sent[n] < 255 {
			f.sent[n]++
		}
		f.acked[n] = acked
	}
}

// begun returns how many batches were begun.
func (f *feeder) begun() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.batches)
}

// arrivedFromAll says whether of each collector a batch has arrived that was begun
// behind the first so many.
func (f *feeder) arrivedFromAll(behind int, firsts []int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	arrived := make(map[int]struct{})
	for _, b := range f.batches[behind:] {
		if _, last := b.span(firsts); last > 0 {
			arrived[b.to] = struct{}{}
		}
	}
	return len(arrived) == len(f.urls)
}

// disordered counts the batches of which something arrived before something that
// the same collector had acknowledged before the batch was begun. firsts says for
// each number with which push it arrived first, 0 if never.
func (f *feeder) disordered(firsts []int) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	type event struct{ batch, collector int }
	begun, acked := make(map[int]event), make(map[int]event)
	for i, b := range f.batches {
		begun[b.begun] = event{i, b.to}
		if b.acked > 0 {
			acked[b.acked] = event{i, b.to}
		}
	}
	newest := make([]int, len(f.urls)) // push, of all that was acknowledged so far
	for at := 1; at <= f.events; at++ {
		if e, ok := acked[at]; ok {
			_, last := f.batches[e.batch].span(firsts)
			newest[e.collector] = max(newest[e.collector], last)
		}
		if e, ok := begun[at]; ok {
			if first, last := f.batches[e.batch].span(firsts); last > 0 && first < newest[e.collector] {
				n++
			}
		}
	}
	return n
}

// span returns the pushes with which the first and the last of its records
// arrived; 0 and 0 if none has.
func (b *batch) span(firsts []int) (first, last int) {
	for n := b.first; n < b.first+batchItems && n < len(firsts); n++ {
		if at := firsts[n]; at > 0 {
			if first == 0 || at < first {
				first = at
			}
			last = max(last, at)
		}
	}
	return first, last
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
func (f *feeder) post(ctx context.Context, url string, body []byte) (reached bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
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
