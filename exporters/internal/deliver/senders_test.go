package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
)

// world is a backend in simulated time: it answers as serve says, which may
// sleep, and knows how many requests it has in its hands.
type world struct {
	serve func(r *http.Request, inFlight int) (status int, header http.Header, err error)

	mu            sync.Mutex
	inFlight, top int
	requests      int
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests++
	w.inFlight++
	w.top = max(w.top, w.inFlight)
	now, serve := w.inFlight, w.serve
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.inFlight--
		w.mu.Unlock()
	}()
	status, header, err := serve(r, now)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func (w *world) change(serve func(*http.Request, int) (int, http.Header, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve, w.top = serve, 0
}

func (w *world) most() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.top
}

func sendersTo(w *world, change ...func(*Settings)) *Senders {
	set := Settings{
		Backend:     "Backend",
		Client:      &http.Client{Transport: w, Timeout: 10 * time.Second},
		Retry:       DefaultRetryConfig(),
		Concurrency: DefaultConcurrencyConfig(),
		Logger:      zap.NewNop(),
	}
	for _, c := range change {
		c(&set)
	}
	return NewSenders(set)
}

func send(ctx context.Context, s *Senders, tenant string) error {
	_, err := s.For(tenant).Post(ctx, "http://backend/push", http.Header{"X-Scope-Orgid": {tenant}}, []byte("body"))
	return err
}

func TestATenantsNameIsNotWhatItWasAPartOf(t *testing.T) {
	s := sendersTo(&world{})
	request := []byte("resource of acme with much more")
	sender := s.For(unsafe.String(&request[12], 4))
	clear(request)
	require.Same(t, sender, s.For("acme"))
	require.Equal(t, "acme", sender.tenant.name)
}

// keepSending has n senders of a tenant post until stopped, with a pause after a
// failure as the caller makes one.
func keepSending(s *Senders, tenant string, n int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				if send(ctx, s, tenant) != nil {
					_ = sleep(ctx, 100*time.Millisecond)
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func limitOf(s *Senders, tenant string) int {
	now, _, _ := s.For(tenant).tenant.limit.state()
	return now
}

func after(d time.Duration, status int) func(*http.Request, int) (int, http.Header, error) {
	return func(r *http.Request, _ int) (int, http.Header, error) {
		return status, nil, sleep(r.Context(), d)
	}
}

func hang(r *http.Request, _ int) (int, http.Header, error) {
	<-r.Context().Done()
	return 0, nil, r.Context().Err()
}

func TestConcurrencyGrowsToItsBoundWhileTheBackendDoesWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{serve: after(10*time.Millisecond, 204)}
		s := sendersTo(w)
		stop := keepSending(s, "", 40)
		time.Sleep(9 * time.Millisecond)
		require.Equal(t, initialLimit, w.most())
		time.Sleep(10 * time.Second)
		stop()
		require.Equal(t, 16, w.most())
		require.Equal(t, 16, limitOf(s, ""))
	})
}

func TestConcurrencyDoesNotGrowUnlessItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sendersTo(&world{serve: after(10*time.Millisecond, 204)})
		stop := keepSending(s, "", 2)
		time.Sleep(10 * time.Second)
		stop()
		require.Equal(t, initialLimit, limitOf(s, ""))
	})
}

func TestConcurrencyIsHalvedOncePerRoundTrip(t *testing.T) {
	for name, serve := range map[string]func(*http.Request, int) (int, http.Header, error){
		"429": after(100*time.Millisecond, 429),
		"408": after(100*time.Millisecond, 408),
		"500": after(100*time.Millisecond, 500),
		"503": after(100*time.Millisecond, 503),
		"transport": func(r *http.Request, _ int) (int, http.Header, error) {
			return 0, nil, errors.Join(errors.New("connection reset"), sleep(r.Context(), 100*time.Millisecond))
		},
		"hanging": hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{serve: after(100*time.Millisecond, 204)}
				s := sendersTo(w, func(set *Settings) {
					// One attempt a call: the next wave begins when told to.
					set.Retry.MaxElapsedTime = 0
				})
				stop := keepSending(s, "", 40)
				time.Sleep(10 * time.Second)
				stop()
				require.Equal(t, 16, limitOf(s, ""))

				w.change(serve)
				for _, want := range []int{8, 4, 2, 1, 1} {
					var wave sync.WaitGroup
					for range limitOf(s, "") {
						wave.Go(func() { require.ErrorIs(t, send(context.Background(), s, ""), ErrUnavailable) })
					}
					wave.Wait()
					require.Equal(t, want, limitOf(s, ""))
				}
				w.change(after(100*time.Millisecond, 204))
				stop = keepSending(s, "", 40)
				time.Sleep(time.Minute)
				stop()
				require.Equal(t, 16, limitOf(s, ""), "it comes back")
			})
		})
	}
}

func TestRefusalsForGoodAndOperatorsMistakesAreNotCongestion(t *testing.T) {
	for _, status := range []int{400, 401, 404, 413} {
		synctest.Test(t, func(t *testing.T) {
			s := sendersTo(&world{serve: after(time.Millisecond, status)})
			for range 20 {
				_ = send(context.Background(), s, "")
			}
			require.Equal(t, initialLimit, limitOf(s, ""), "status %d", status)
		})
	}
}

func TestConcurrencyDoesNotGrowIntoTheBackendsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// It serves 6 at a time; the others wait their turn.
		queueing := func(r *http.Request, inFlight int) (int, http.Header, error) {
			return 204, nil, sleep(r.Context(), 100*time.Millisecond*time.Duration(max(6, inFlight))/6)
		}
		w := &world{serve: queueing}
		s := sendersTo(w, func(set *Settings) { set.Concurrency.Max = 100 })
		stop := keepSending(s, "", 100)
		time.Sleep(20 * time.Second)
		require.Greater(t, limitOf(s, ""), 6)
		require.Less(t, limitOf(s, ""), 24)
		// What is slow for other reasons is usual after a while.
		w.change(after(time.Second, 204))
		time.Sleep(5 * time.Minute)
		stop()
		require.Equal(t, 100, limitOf(s, ""))
	})
}

func TestThoseWhoWaitForASlotAreServedInOrderAndMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		w := &world{serve: func(r *http.Request, _ int) (int, http.Header, error) {
			mu.Lock()
			order = append(order, r.Header.Get("X-Number"))
			mu.Unlock()
			return 204, nil, sleep(r.Context(), time.Second)
		}}
		s := sendersTo(w, func(set *Settings) { set.Concurrency.Max = 1 })
		leaver, leave := context.WithCancelCause(context.Background())
		var all sync.WaitGroup
		for i := range 6 {
			ctx := context.Background()
			if i == 3 {
				ctx = leaver
			}
			all.Go(func() {
				_, err := s.For("").Post(ctx, "http://backend/push", http.Header{"X-Number": {fmt.Sprint(i)}}, nil)
				if i == 3 {
					require.ErrorContains(t, err, "had enough")
				} else {
					require.NoError(t, err)
				}
			})
			synctest.Wait()
		}
		leave(errors.New("had enough"))
		all.Wait()
		require.Equal(t, []string{"0", "1", "2", "4", "5"}, order)
		_, inFlight, waiting := s.For("").tenant.limit.state()
		require.Zero(t, inFlight)
		require.Zero(t, waiting)
		_, inFlight, _ = s.whole.state()
		require.Zero(t, inFlight)
	})
}

func TestWaitingForASlotEndsWithTheCallsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sendersTo(&world{serve: hang}, func(set *Settings) { set.Concurrency.Max = 1 })
		began := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { require.ErrorIs(t, send(context.Background(), s, ""), ErrUnavailable) })
		}
		all.Wait()
		require.LessOrEqual(t, time.Since(began), 30*time.Second+10*time.Second) // the last attempt's own time
	})
}

// byTenant serves each tenant in its own way, all others well.
func byTenant(bad map[string]func(*http.Request, int) (int, http.Header, error)) func(*http.Request, int) (int, http.Header, error) {
	well := after(20*time.Millisecond, 204)
	return func(r *http.Request, n int) (int, http.Header, error) {
		if serve := bad[r.Header.Get("X-Scope-Orgid")]; serve != nil {
			return serve(r, n)
		}
		return well(r, n)
	}
}

func TestATenantThatIsRefusedHoldsNoOtherUp(t *testing.T) {
	for name, serve := range map[string]func(*http.Request, int) (int, http.Header, error){
		"429": after(time.Millisecond, 429),
		"500": after(time.Millisecond, 500),
		"Retry-After": func(*http.Request, int) (int, http.Header, error) {
			return 429, http.Header{"Retry-After": {"3600"}}, nil
		},
		"hanging": hang,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sendersTo(&world{serve: byTenant(map[string]func(*http.Request, int) (int, http.Header, error){"bad": serve})})
				require.NoError(t, send(context.Background(), s, "good"))
				stop := keepSending(s, "bad", 40)
				defer stop()
				for range 200 {
					began := time.Now()
					require.NoError(t, send(context.Background(), s, "good"))
					require.LessOrEqual(t, time.Since(began), time.Second)
					time.Sleep(100 * time.Millisecond)
				}
				now, _, _ := s.whole.state()
				require.GreaterOrEqual(t, now, 16, "one tenant's trouble is not the backend's")
			})
		})
	}
}

func TestARefusedTenantsDataIsHandedBackQuickly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := map[string]func(*http.Request, int) (int, http.Header, error){"a": after(0, 500)}
		w := &world{serve: byTenant(bad)}
		s := sendersTo(w)
		require.NoError(t, send(context.Background(), s, "b"))

		began := time.Now()
		require.ErrorIs(t, send(context.Background(), s, "a"), ErrUnavailable)
		require.LessOrEqual(t, time.Since(began), sharedPatience)
		require.Greater(t, w.requests, 2, "a hiccup is worth a second attempt")

		before := w.requests
		err := send(context.Background(), s, "a")
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, `Backend, tenant "a"`)
		require.ErrorContains(t, err, "status 500")
		require.Equal(t, before+1, w.requests, "it is known to be in trouble")

		delete(bad, "a")
		require.NoError(t, send(context.Background(), s, "a"))
		require.Nil(t, s.For("a").tenant.trouble.Load())
	})
}

func TestATenantThatHangsHandsItsDataBackSoonAndASlowOneIsGivenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{serve: byTenant(map[string]func(*http.Request, int) (int, http.Header, error){"a": hang})}
		s := sendersTo(w)
		stop := keepSending(s, "b", 1)
		defer stop()
		time.Sleep(time.Second)
		gaveUp := func() time.Duration {
			began := time.Now()
			require.ErrorIs(t, send(context.Background(), s, "a"), ErrUnavailable)
			return time.Since(began).Round(100 * time.Millisecond)
		}
		for range 5 {
			require.Equal(t, 3*time.Second, gaveUp())
		}
		time.Sleep(hangingFor - 15*time.Second)
		require.Equal(t, 6*time.Second, gaveUp())
		time.Sleep(hangingFor)
		require.Equal(t, 10*time.Second, gaveUp(), "the client's time")

		// It answers, and takes longer than the time for one that hangs.
		w.change(byTenant(map[string]func(*http.Request, int) (int, http.Header, error){"a": after(5*time.Second, 204)}))
		for range 5 {
			require.NoError(t, send(context.Background(), s, "a"))
		}
	})
}

func TestASlowBackendIsNoTenantThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{serve: after(20*time.Millisecond, 204)}
		s := sendersTo(w)
		for _, tenant := range []string{"a", "b", "c"} {
			require.NoError(t, send(context.Background(), s, tenant))
		}
		time.Sleep(time.Second)
		w.change(after(8*time.Second, 204))
		var all sync.WaitGroup
		for _, tenant := range []string{"a", "b", "c", "a", "b", "c"} {
			all.Go(func() { require.NoError(t, send(context.Background(), s, tenant)) })
		}
		all.Wait()
		require.Equal(t, 9, w.requests)
	})
}

func TestAloneATenantHasTheClientsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sendersTo(&world{serve: after(9*time.Second, 204)})
		require.NoError(t, send(context.Background(), s, "a"))
	})
}

func TestManyTenantsTogetherStayBelowTheWholeBackendsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{serve: after(100*time.Millisecond, 204)}
		s := sendersTo(w, func(set *Settings) { set.Concurrency.Total = 30 })
		for i := range 30 {
			stop := keepSending(s, fmt.Sprint("t", i), 2)
			defer stop()
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, 30, w.most())

		w.change(after(100*time.Millisecond, 429)) // of each tenant by itself
		time.Sleep(10 * time.Second)
		now, _, _ := s.whole.state()
		require.Equal(t, 30, now)

		w.change(after(100*time.Millisecond, 204))
		time.Sleep(20 * time.Second)
		w.change(after(100*time.Millisecond, 503))
		time.Sleep(10 * time.Second)
		now, _, _ = s.whole.state()
		require.Less(t, now, 30)
		w.change(after(100*time.Millisecond, 503))
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, w.most(), 2*initialLimit, "while it is away it is asked gently")

		w.change(after(100*time.Millisecond, 204))
		time.Sleep(20 * time.Second)
		require.Equal(t, 30, w.most())
	})
}

func TestTenantsAreBoundedAndThoseInUseKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sendersTo(&world{serve: byTenant(map[string]func(*http.Request, int) (int, http.Header, error){
			"slow": after(time.Second, 204),
			"asking": func(*http.Request, int) (int, http.Header, error) {
				return 429, http.Header{"Retry-After": {"60"}}, nil
			},
		})}, func(set *Settings) { set.MaxTenants = 10 })
		slow := s.For("slow")
		stop := keepSending(s, "slow", 1)
		require.ErrorIs(t, send(context.Background(), s, "asking"), ErrUnavailable)
		asking := s.For("asking")
		for i := range 1000 {
			require.NotNil(t, s.For(fmt.Sprint("t", i)))
			require.LessOrEqual(t, len(s.tenants), 10)
			time.Sleep(time.Millisecond)
		}
		require.Same(t, slow, s.For("slow"))
		require.Same(t, asking, s.For("asking"))
		stop()
	})
}

func TestLimitsAreReported(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	s := sendersTo(&world{serve: byTenant(map[string]func(*http.Request, int) (int, http.Header, error){"bad": after(0, 429)})},
		func(set *Settings) { set.Retry.MaxElapsedTime = 0 })
	registration, err := s.Observe(meter, "loki/a")
	require.NoError(t, err)
	require.NoError(t, send(context.Background(), s, "good"))
	require.Error(t, send(context.Background(), s, "bad"))

	values := func() map[string]int64 {
		var got metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(context.Background(), &got))
		list := make(map[string]int64)
		for _, scope := range got.ScopeMetrics {
			for _, m := range scope.Metrics {
				var points []metricdata.DataPoint[int64]
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					points = data.DataPoints
				case metricdata.Sum[int64]:
					points = data.DataPoints
				}
				for _, p := range points {
					name, _ := p.Attributes.Value("tenant")
					exporter, _ := p.Attributes.Value("exporter")
					require.Equal(t, "loki/a", exporter.AsString())
					scope, _ := p.Attributes.Value("scope")
					list[strings.TrimSpace(m.Name+" "+scope.AsString()+" "+name.AsString())] = p.Value
				}
			}
		}
		return list
	}
	require.Equal(t, map[string]int64{
		"longhaul_backend_requests_limit tenant good":     4,
		"longhaul_backend_requests_limit tenant bad":      2,
		"longhaul_backend_requests_limit all":             32,
		"longhaul_backend_requests_limit refused":         4,
		"longhaul_backend_requests_in_flight tenant good": 0,
		"longhaul_backend_requests_in_flight tenant bad":  0,
		"longhaul_backend_requests_in_flight all":         0,
		"longhaul_backend_requests_in_flight refused":     0,
		"longhaul_backend_requests_waiting tenant good":   0,
		"longhaul_backend_requests_waiting tenant bad":    0,
		"longhaul_backend_requests_waiting all":           0,
		"longhaul_backend_requests_waiting refused":       0,
		"longhaul_backend_congestions":                    1,
	}, values())

	for i := range namedTenants {
		s.For(fmt.Sprint("t", i))
	}
	require.NotContains(t, values(), "longhaul_backend_requests_limit tenant good", "tenants are not named when they are many")
	require.NoError(t, registration.Unregister())
}

func TestConcurrencyConfigReportsEveryBadKey(t *testing.T) {
	good := DefaultConcurrencyConfig()
	require.NoError(t, good.Validate())
	bad := ConcurrencyConfig{Min: 0, Max: -1, Total: -2}
	err := bad.Validate()
	for _, key := range []string{"min: ", "max: ", "total: "} {
		require.ErrorContains(t, err, key)
	}
}
