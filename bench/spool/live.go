package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

// live sends lines by OTLP at a steady rate. A request does not wait for the
// answer to the one before: a slow answer must not thin out what is measured.
type live struct {
	url        string
	rate       int
	containers []*container
	client     *http.Client
	sending    sync.WaitGroup
	cancel     context.CancelFunc
}

const (
	liveBatch    = 100
	liveSenders  = 16
	liveTimeout  = 30 * time.Second
	liveAttempts = 3
)

func newLive(url string, rate int, corpus string) (*live, error) {
	containers, err := loadCorpus(corpus)
	if err != nil {
		return nil, err
	}
	return &live{
		url: url + "/v1/logs", rate: rate, containers: containers,
		client: &http.Client{Timeout: liveTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: liveSenders}},
	}, nil
}

func (l *live) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	slots := make(chan struct{}, liveSenders)
	l.sending.Go(func() {
		tick := time.NewTicker(time.Second * liveBatch / time.Duration(l.rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			body, err := l.batch(time.Now())
			if err != nil {
				say("live data: %v", err)
				return
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			l.sending.Go(func() {
				defer func() { <-slots }()
				if err := l.post(ctx, body); err != nil && ctx.Err() == nil {
					say("live data: %v", err)
				}
			})
		}
	})
}

func (l *live) stop() {
	l.cancel()
	l.sending.Wait()
	l.client.CloseIdleConnections()
}

func (l *live) batch(now time.Time) ([]byte, error) {
	logs := plog.NewLogs()
	resource := logs.ResourceLogs().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.name", "live")
	records := resource.ScopeLogs().AppendEmpty().LogRecords()
	for i := range liveBatch {
		record := records.AppendEmpty()
		record.SetTimestamp(pcommon.Timestamp(now.UnixNano()))
		record.Body().SetStr(l.containers[i%len(l.containers)].take())
	}
	return plogotlp.NewExportRequestFromLogs(logs).MarshalProto()
}

// post sends a request until it is taken.
func (l *live) post(ctx context.Context, body []byte) error {
	var problems []error
	for range liveAttempts {
		err := l.postOnce(ctx, body)
		if err == nil {
			return nil
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func (l *live) postOnce(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the collector answers %s: %s", resp.Status, answer)
	}
	return nil
}
