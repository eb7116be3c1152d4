// Package deliver sends a request to a backend over HTTP until the backend has
// given an answer that will not change, or a bounded time has passed.
//
// It promises its callers, the exporters of the relay:
//   - A nil error means the backend answered for good: it took the request
//     (2xx) or refused it (4xx). Deciding what a refusal means is the caller's.
//   - An error means the backend may still take the request later: it could not
//     be reached, did not answer in time, was overloaded (429), failed (5xx), or
//     is set up wrongly (401, 403, 404 and their kin, which an operator will
//     correct). The caller keeps the data and comes again.
//   - A server that asks for patience with Retry-After is left alone until then,
//     by all callers of the same Sender and across calls.
//   - Requests to a backend with several tenants go through Senders, which has a
//     Sender for each: what one tenant is refused holds no other up. How many
//     requests are under way follows what the backend bears.
//   - Nothing else is remembered between calls.
package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

// ErrUnavailable is wrapped by every error of Post except that of a cancelled
// context: the backend has not taken the request, and may take it later.
var ErrUnavailable = errors.New("backend did not take the request")

// maxReplyBytes bounds how much of a backend's answer is read. Loki explains
// every refused entry in one, so it is larger than an error page.
const maxReplyBytes = 4 << 20

// Sender posts requests to one backend, or for one of its tenants (see Senders).
// Its fields are set before the first Post and not changed after; Post may be
// called from several goroutines.
type Sender struct {
	Backend string       // name in messages: "Loki"
	Client  *http.Client // its Timeout bounds one attempt
	Retry   RetryConfig
	Logger  *zap.Logger
	// Hint says in a few words what an operator should do about a status that
	// means the backend or the endpoint is set up wrongly. Optional.
	Hint func(status int) string
	// Answered says of a reply that is not final by its status that the caller
	// wants it nevertheless: it concerns a part of the request only, and says
	// nothing about how busy the backend is. Optional.
	Answered func(Reply) bool

	notBefore atomic.Int64 // unix nanoseconds; the server asked to be left alone until then
	trouble   Burst
	tenant    *tenant // nil for one that did not come from Senders
}

// Reply is a backend's final answer. Body is cut at 4 MiB.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// Accepted says whether the backend took the request.
func (r Reply) Accepted() bool { return r.Status/100 == 2 }

// Post sends body with the headers given until there is a final answer.
func (s *Sender) Post(ctx context.Context, url string, header http.Header, body []byte) (Reply, error) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = s.Retry.InitialInterval
	pause.MaxInterval = s.Retry.MaxInterval
	pause.Reset()

	patience := s.patience()
	giveUp := time.Now().Add(patience.retry)
	var last error
	for {
		if err := s.waitTurn(ctx, giveUp, last); err != nil {
			return Reply{}, err
		}
		slots, err := s.acquire(ctx, max(time.Until(giveUp), patience.slot), last)
		if err != nil {
			return Reply{}, err
		}
		patience.slot = 0
		if s.asked() > 0 { // while this one waited for its slot
			slots.release(silent, silent)
			continue
		}
		reply, err := s.attemptInTime(ctx, url, header, body)
		final := err == nil && s.final(reply)
		slots.release(verdicts(ctx, reply, err, final))
		switch {
		case err != nil && ctx.Err() != nil:
			return Reply{}, fmt.Errorf("send to %s: %w", s.Backend, context.Cause(ctx))
		case err != nil:
			last = err
		case final:
			s.tenant.tookOne()
			return reply, nil
		default:
			last = s.refusal(reply)
			s.complain(url, reply.Status, last)
		}
		s.tenant.refused(last)
		wait := pause.NextBackOff()
		if after := retryAfter(reply.Header, time.Now()); after > wait {
			wait = after
			s.leaveAlone(time.Now().Add(after))
		}
		if time.Now().Add(wait).After(giveUp) {
			return Reply{}, fmt.Errorf("%s: %w: %w", s.Backend, ErrUnavailable, last)
		}
		if err := sleep(ctx, wait); err != nil {
			return Reply{}, fmt.Errorf("send to %s: %w", s.Backend, errors.Join(err, last))
		}
	}
}

// complain tells, once per burst, of a status that an operator has to do
// something about.
func (s *Sender) complain(url string, status int, err error) {
	burst := &s.trouble
	if s.tenant != nil {
		burst = &s.tenant.of.trouble
	}
	if misconfigured(status) && burst.Allow(1) > 0 {
		s.Logger.Warn("Backend refuses requests because of how it or the endpoint is set up; "+
			"the data is kept and sent again until this is corrected",
			zap.String("backend", s.Backend), zap.String("endpoint", url), zap.Error(err))
	}
}

// waitTurn waits until the time the server asked for with Retry-After, unless
// that is later than giveUp.
func (s *Sender) waitTurn(ctx context.Context, giveUp time.Time, last error) error {
	wait := s.asked()
	if wait <= 0 {
		return nil
	}
	if turn := time.Now().Add(wait); turn.After(giveUp) {
		if last == nil {
			last = fmt.Errorf("it asked to be left alone until %s (Retry-After)", turn.UTC().Format(time.RFC3339))
		}
		return fmt.Errorf("%s: %w: %w", s.Backend, ErrUnavailable, last)
	}
	return sleep(ctx, wait)
}

// asked returns for how long the server still asks to be left alone.
func (s *Sender) asked() time.Duration {
	return time.Until(time.Unix(0, s.notBefore.Load()))
}

func (s *Sender) leaveAlone(until time.Time) {
	for {
		old := s.notBefore.Load()
		if until.UnixNano() <= old || s.notBefore.CompareAndSwap(old, until.UnixNano()) {
			return
		}
	}
}

// attemptInTime makes an attempt, and gives it up early if this tenant hangs and
// others do not.
func (s *Sender) attemptInTime(ctx context.Context, url string, header http.Header, body []byte) (Reply, error) {
	began := time.Now()
	bounded, giveUp := context.WithCancel(ctx)
	defer giveUp()
	most, stop := s.tenant.watch(bounded, began, giveUp)
	defer stop()
	reply, err := s.attempt(bounded, url, header, body)
	switch {
	case err == nil:
		s.tenant.answers(began)
	case bounded.Err() != nil && ctx.Err() == nil:
		s.tenant.unanswered(began)
		err = fmt.Errorf("no answer within %s, while other tenants get theirs", most)
	}
	return reply, err
}

func (s *Sender) attempt(ctx context.Context, url string, header http.Header, body []byte) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return Reply{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes))
	if err != nil && resp.StatusCode/100 != 2 {
		return Reply{}, fmt.Errorf("read the answer with status %d: %w", resp.StatusCode, err)
	}
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(text)}, nil
}

// refusal describes a reply that is not final.
func (s *Sender) refusal(reply Reply) error {
	text := strings.TrimSpace(reply.Body)
	if len(text) > 512 {
		text = text[:512] + "…"
	}
	if s.Hint != nil {
		if hint := s.Hint(reply.Status); hint != "" {
			return fmt.Errorf("status %d (%s): %s", reply.Status, hint, text)
		}
	}
	return fmt.Errorf("status %d: %s", reply.Status, text)
}

func (s *Sender) final(reply Reply) bool {
	return Final(reply.Status) || s.Answered != nil && s.Answered(reply)
}

// Final says whether a status is an answer that repeating the same request
// would not change.
func Final(status int) bool {
	switch {
	case status/100 == 2:
		return true
	case status/100 != 4:
		return false
	}
	return status != http.StatusTooManyRequests && status != http.StatusRequestTimeout &&
		status != http.StatusTooEarly && !misconfigured(status)
}

// misconfigured lists what an operator's mistake looks like: a wrong path,
// tenant or credential, or a redirect that the client could not follow. Data is
// never given up for one.
func misconfigured(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return true
	}
	return status/100 == 3
}

// retryAfter reads the header's two forms: seconds, or an HTTP date.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
