package deliver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// answer is what a scripted server says, in place of the network so that time
// can be simulated.
type answer struct {
	status     int
	retryAfter string
	body       string
	err        error
}

type script struct {
	answers []answer // the last is repeated
	at      []time.Duration
	began   time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	s.at = append(s.at, time.Since(s.began))
	a := s.answers[min(len(s.at), len(s.answers))-1]
	if a.err != nil {
		return nil, a.err
	}
	header := http.Header{}
	if a.retryAfter != "" {
		header.Set("Retry-After", a.retryAfter)
	}
	return &http.Response{StatusCode: a.status, Header: header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func scripted(answers ...answer) (*Sender, *script, *observer.ObservedLogs) {
	s := &script{answers: answers, began: time.Now()}
	core, logs := observer.New(zapcore.InfoLevel)
	return &Sender{
		Backend: "Backend",
		Client:  &http.Client{Transport: s},
		Retry:   DefaultRetryConfig(),
		Logger:  zap.New(core),
		Hint: func(status int) string {
			if status == http.StatusNotFound {
				return "check the endpoint"
			}
			return ""
		},
	}, s, logs
}

func post(s *Sender) (Reply, error) {
	return s.Post(context.Background(), "http://backend/push", http.Header{"X-A": {"b"}}, []byte("body"))
}

func TestPostLeavesTheServerAloneAsLongAsItAsks(t *testing.T) {
	for name, retryAfter := range map[string]func() string{
		"seconds": func() string { return "7" },
		"date":    func() string { return time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sender, server, _ := scripted(answer{status: 429, retryAfter: retryAfter()}, answer{status: 204})
				reply, err := post(sender)
				require.NoError(t, err)
				require.True(t, reply.Accepted())
				require.Len(t, server.at, 2)
				require.GreaterOrEqual(t, server.at[1], 6*time.Second) // a date has whole seconds
				require.LessOrEqual(t, server.at[1], 8*time.Second)
			})
		})
	}
}

func TestRetryAfterBindsLaterCallsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, server, _ := scripted(answer{status: 503, retryAfter: "120"}, answer{status: 204})
		_, err := post(sender)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Zero(t, time.Since(server.began), "there is no point in waiting for longer than the caller does")

		_, err = post(sender)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "Retry-After")
		require.Len(t, server.at, 1)

		time.Sleep(100 * time.Second)
		_, err = post(sender) // 20 s are left, which fit the bound
		require.NoError(t, err)
		require.Equal(t, 120*time.Second, server.at[1])
	})
}

func TestPostGivesUpAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, server, _ := scripted(answer{err: errors.New("connection refused")}, answer{status: 500, body: "boom"})
		_, err := post(sender)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "boom")
		require.LessOrEqual(t, time.Since(server.began), sender.Retry.MaxElapsedTime)
		require.Greater(t, len(server.at), 5)
		for i := 1; i < len(server.at); i++ {
			require.LessOrEqual(t, server.at[i]-server.at[i-1], sender.Retry.MaxInterval*3/2) // jitter
		}
	})
}

func TestZeroTimeMeansOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, server, _ := scripted(answer{status: 503})
		sender.Retry.MaxElapsedTime = 0
		_, err := post(sender)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Len(t, server.at, 1)
	})
}

func TestFinalAnswersAreNotRepeated(t *testing.T) {
	final := map[int]bool{
		200: true, 204: true, 400: true, 409: true, 413: true, 415: true, 422: true,
		301: false, 308: false, 401: false, 403: false, 404: false, 405: false, 407: false, 408: false, 425: false, 429: false,
		500: false, 501: false, 502: false, 503: false, 504: false,
	}
	for status, want := range final {
		require.Equal(t, want, Final(status), "status %d", status)
	}
	sender, server, _ := scripted(answer{status: 400, body: "no"})
	reply, err := post(sender)
	require.NoError(t, err)
	require.False(t, reply.Accepted())
	require.Equal(t, "no", reply.Body)
	require.Len(t, server.at, 1)
}

func TestAnAnswerTheCallerWantsIsNotRepeated(t *testing.T) {
	sender, server, _ := scripted(answer{status: 429, body: "one stream"})
	sender.Answered = func(r Reply) bool { return r.Body == "one stream" }
	reply, err := post(sender)
	require.NoError(t, err)
	require.False(t, reply.Accepted())
	require.Equal(t, 429, reply.Status)
	require.Len(t, server.at, 1)
}

func TestAnOperatorsMistakeIsToldOnceAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, server, logs := scripted(answer{status: 404, body: "no such page"})
		_, err := post(sender)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "status 404 (check the endpoint): no such page")
		require.Greater(t, len(server.at), 5)
		require.Equal(t, 1, logs.Len())
		require.Contains(t, logs.All()[0].Message, "the data is kept")
	})
}

func TestCancelEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, server, _ := scripted(answer{status: 503})
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err := sender.Post(ctx, "http://backend/push", nil, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(server.began))
	})
}

func TestAHangingServerIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(release)
	sender, _, _ := scripted(answer{})
	sender.Client = &http.Client{Timeout: 50 * time.Millisecond}
	defer sender.Client.CloseIdleConnections()
	sender.Retry = RetryConfig{InitialInterval: time.Millisecond, MaxInterval: time.Millisecond, MaxElapsedTime: 200 * time.Millisecond}
	_, err := sender.Post(context.Background(), server.URL, nil, []byte("x"))
	require.ErrorIs(t, err, ErrUnavailable)
	require.Greater(t, calls.Load(), int32(1))
}

func TestABurstIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Burst
		require.Equal(t, 3, b.Allow(3))
		require.Zero(t, b.Allow(4))
		time.Sleep(time.Minute - 1)
		require.Zero(t, b.Allow(5))
		time.Sleep(time.Nanosecond)
		require.Equal(t, 10, b.Allow(1))
	})
}

func TestProgressLastsUntilTheCallSucceedsOrIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Progress
		require.True(t, p.Empty())
		p.Keep([]Part{{Hash: 1, Sent: 10}, {Hash: 2, Rejected: 3}})
		require.False(t, p.Empty())
		part, found := p.Answered(2)
		require.True(t, found)
		require.Equal(t, Part{Hash: 2, Rejected: 3}, part)
		p.Forget([]Part{{Hash: 2}})
		_, found = p.Answered(2)
		require.False(t, found)
		time.Sleep(progressLife - 1)
		require.False(t, p.Empty())
		time.Sleep(2 * time.Nanosecond)
		require.True(t, p.Empty())
		_, found = p.Answered(1)
		require.False(t, found)
	})
}

func TestRetryConfigReportsEveryBadKey(t *testing.T) {
	good := DefaultRetryConfig()
	require.NoError(t, good.Validate())
	bad := RetryConfig{InitialInterval: 0, MaxInterval: -1, MaxElapsedTime: -1}
	err := bad.Validate()
	for _, key := range []string{"initial_interval", "max_interval", "max_elapsed_time"} {
		require.ErrorContains(t, err, key)
	}
}
