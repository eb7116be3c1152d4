package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Answers of tens of thousands of log lines fit; more is a mistake.
const maxAnswerBytes = 512 << 20

// client keeps no idle connections: servers come and go under it.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}

// httpReady returns a readiness check: the URL answers 200.
func httpReady(target string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := get(ctx, target, nil, nil)
		return err
	}
}

// get returns the body of a 200 answer; any other answer is an error that shows
// its text.
func get(ctx context.Context, target string, query url.Values, header http.Header) ([]byte, error) {
	if query != nil {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	return do(req, header)
}

// postForm is get for queries too long for a URL.
func postForm(ctx context.Context, target string, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	return do(req, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
}

func do(req *http.Request, header http.Header) ([]byte, error) {
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL, resp.Status, strings.TrimSpace(string(body[:min(len(body), 2000)])))
	}
	return body, nil
}

// decode reads the "data" member that Loki, Prometheus and Jaeger share.
func decode(body []byte, data any) error {
	envelope := struct {
		Data any `json:"data"`
	}{Data: data}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("understand an answer: %w", err)
	}
	return nil
}
