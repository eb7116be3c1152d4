package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/longhaul/longhaul/internal/kubelet/kubelettest"
)

const patience = 30 * time.Second

// logs are lines of a Source.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func configOf(k *kubelettest.Kubelet) Config {
	config := DefaultConfig()
	config.URL, config.CAFile, config.TokenFile = k.URL, k.CAFile, k.TokenFile
	return config
}

func open(t *testing.T, config Config) (*Source, *logs) {
	t.Helper()
	require.NoError(t, config.Validate())
	l := &logs{}
	s, err := Open(config, l.logger())
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, l
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}

// again asks now, whatever the interval.
func again(t *testing.T, s *Source) {
	t.Helper()
	asked := s.counts.refreshes.Load() + s.failures()
	s.mu.Lock()
	s.lastAsked = time.Time{}
	s.mu.Unlock()
	s.Stale()
	eventually(t, "the kubelet is asked again", func() bool { return s.counts.refreshes.Load()+s.failures() > asked })
}

func (s *Source) failures() (n int64) {
	for _, count := range s.counts.failures {
		n += count.Load()
	}
	return n
}

var (
	byUID  = Ref{UID: "3c7f4a52-5d0a-4f0e-8d7c-6a2b1e9f7d02"}
	byName = Ref{Namespace: "shop", Name: "postgres-0"}
	byIP   = Ref{IP: netip.MustParseAddr("10.42.0.18")}
)

func TestPodsAreFoundByUIDNameAndAddress(t *testing.T) {
	s, _ := open(t, configOf(kubelettest.New(t)))
	for _, ref := range []Ref{byUID, byName, byIP} {
		p := s.Find(t.Context(), ref) // the first waits for the answer
		require.NotNil(t, p, "%v", ref)
		assert.Equal(t, "postgres-0", p.Name)
	}
	// The address of a finished pod that another one has now; one of the node's;
	// the one of a static pod by each of its UIDs.
	assert.Equal(t, "checkout-7d4b9c6f5d-x2x9p", s.Find(t.Context(), Ref{IP: netip.MustParseAddr("10.42.0.17")}).Name)
	assert.Equal(t, "checkout-7d4b9c6f5d-x2x9p", s.Find(t.Context(), Ref{IP: netip.MustParseAddr("fd00:42::17")}).Name)
	assert.Nil(t, s.Find(t.Context(), Ref{IP: netip.MustParseAddr("192.168.10.21")}))
	for _, uid := range []string{"b1c35f6e7b2a4d0f9e8d7c6b5a493827", "c0ffee6e7b2a4d0f9e8d7c6b5a493827", "e0c1b1c2-93d4-4a4e-8c55-7f6e5d4c3b06"} {
		assert.NotNil(t, s.Find(t.Context(), Ref{UID: uid}), uid)
	}
}

func TestEqualConfigurationsShareOneSource(t *testing.T) {
	k := kubelettest.New(t)
	a, _ := open(t, configOf(k))
	b, _ := open(t, configOf(k))
	require.Same(t, a, b)
	other := configOf(k)
	other.PollInterval = time.Minute
	c, _ := open(t, other)
	require.NotSame(t, a, c)
	eventually(t, "each asks once", func() bool { return k.Requests("/pods") == 2 })
}

func TestWithoutURLNothingIsKnownAndNobodyAsked(t *testing.T) {
	s, l := open(t, DefaultConfig())
	assert.Nil(t, s.Find(t.Context(), byUID))
	s.Stale()
	assert.Empty(t, l.String())
}

// A new pod's first line finds it, although the kubelet is polled rarely.
func TestUnknownPodIsAskedForAtOnce(t *testing.T) {
	k := kubelettest.New(t)
	k.List(func(_, name string) bool { return name != "postgres-0" })
	config := configOf(k)
	config.PollInterval = maxPollInterval
	s, _ := open(t, config)
	eventually(t, "the first answer", func() bool { return len(s.State().Pods) == 8 })
	k.List(func(string, string) bool { return true })
	s.mu.Lock()
	s.lastAsked = time.Time{} // some seconds later
	s.mu.Unlock()
	assert.NotNil(t, s.Find(t.Context(), byUID))
}

// Whatever is asked for, the kubelet is not asked more often than it may be, and
// one unknown pod is waited for once.
func TestUnknownPodsDoNotFloodTheKubelet(t *testing.T) {
	k := kubelettest.New(t)
	s, _ := open(t, configOf(k))
	eventually(t, "the first answer", func() bool { return len(s.State().Pods) == 9 })
	begin := time.Now()
	for range 1000 {
		assert.Nil(t, s.Find(t.Context(), Ref{UID: "nobody"}))
	}
	for i := range 2 * maxUnknown {
		s.ask(Ref{UID: fmt.Sprint(i)})
	}
	s.mu.Lock()
	assert.LessOrEqual(t, len(s.unknown), maxUnknown)
	s.mu.Unlock()
	assert.LessOrEqual(t, k.Requests("/pods"), 2+int(time.Since(begin)/refreshGap))
	assert.Nil(t, s.ask(Ref{IP: netip.MustParseAddr("127.0.0.1")}))
}

// A kubelet that does not answer holds nobody up for longer than the bound, and
// a caller that stops waiting goes on at once.
func TestASlowKubeletHoldsNobodyUp(t *testing.T) {
	k := kubelettest.New(t)
	release := make(chan struct{})
	k.Answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	s, _ := open(t, configOf(k))
	eventually(t, "it is asked", func() bool { return k.Requests("/pods") == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Nil(t, s.Find(ctx, byUID))
	assert.Nil(t, s.Find(t.Context(), byName)) // ends although the request never does
	assert.Nil(t, s.ask(byName), "nobody waits twice for the same pod")
}

func TestRenewedTokenIsReadAgain(t *testing.T) {
	k := kubelettest.New(t)
	s, l := open(t, configOf(k))
	eventually(t, "the first answer", func() bool { return s.counts.refreshes.Load() == 1 })
	k.RenewToken("the next token")
	again(t, s)
	assert.EqualValues(t, 2, s.counts.refreshes.Load())
	assert.NotContains(t, l.String(), "WARN")
}

func TestFailuresAreSaidOnceWithWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		spoil  func(*kubelettest.Kubelet, *Config)
		reason string
		want   []string
	}{
		"401": {func(k *kubelettest.Kubelet, _ *Config) { k.SetToken("another") }, reasonUnauthorized, []string{"401", "does not take the token in", "API server"}},
		"401 without a token": {func(_ *kubelettest.Kubelet, c *Config) { c.TokenFile = "" }, reasonUnauthorized,
			[]string{"401", "set token_file"}},
		"403": {func(k *kubelettest.Kubelet, _ *Config) { k.Refuse(http.StatusForbidden) }, reasonForbidden,
			[]string{"403", "ClusterRole with get on nodes/pods and nodes/metrics", "nodes/proxy", "subresource(s)=[pods proxy]"}},
		"503":         {func(k *kubelettest.Kubelet, _ *Config) { k.Refuse(http.StatusServiceUnavailable) }, reasonStatus, []string{"503"}},
		"certificate": {func(_ *kubelettest.Kubelet, c *Config) { c.CAFile = "" }, reasonCertificate, []string{"ca_file", "insecure_skip_verify"}},
		"not there":   {func(_ *kubelettest.Kubelet, c *Config) { c.URL = "https://127.0.0.1:1" }, reasonUnreachable, []string{"connection refused", "url"}},
		"no token file": {func(_ *kubelettest.Kubelet, c *Config) { c.TokenFile += ".gone" }, reasonCredentials,
			[]string{"token.gone", "no such file"}},
		"no CA file":       {func(_ *kubelettest.Kubelet, c *Config) { c.CAFile += ".gone" }, reasonCredentials, []string{"ca.crt.gone"}},
		"CA file is no CA": {func(_ *kubelettest.Kubelet, c *Config) { c.CAFile = c.TokenFile }, reasonCredentials, []string{"holds no certificate"}},
		"garbage":          {answer(`{"kind":"PodList","items":[{]}`), reasonAnswer, []string{"invalid character"}},
		"another kind":     {answer(`{"kind":"Status"}`), reasonAnswer, []string{"Status"}},
		"cut off":          {answer(`{"kind":"PodList","items":[`), reasonAnswer, []string{"EOF"}},
		"a redirect":       {func(k *kubelettest.Kubelet, _ *Config) { k.Answer(redirect) }, reasonStatus, []string{"307"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := kubelettest.New(t)
			config := configOf(k)
			test.spoil(k, &config)
			s, l := open(t, config)
			eventually(t, "the failure is counted", func() bool { return s.counts.failures[test.reason].Load() == 1 })
			again(t, s)
			eventually(t, "the failure is said", func() bool { return strings.Count(l.String(), "WARN") == 1 })
			for _, want := range test.want {
				assert.Contains(t, l.String(), want)
			}
			assert.Nil(t, s.ask(byUID), "nobody waits for a kubelet that fails")
		})
	}
}

func answer(text string) func(*kubelettest.Kubelet, *Config) {
	return func(k *kubelettest.Kubelet, _ *Config) {
		k.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
}

func redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
}

// However long an answer is, no more than the bound is read of it.
func TestHugeAnswersAreCutOff(t *testing.T) {
	k := kubelettest.New(t)
	for _, start := range []string{`{"items":[{"metadata":{"name":"`, `{"x":"`, `{"items":[`, ``} {
		k.Answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, start)
			for piece := bytes.Repeat([]byte(" "), 16<<10); ; {
				if _, err := w.Write(piece); err != nil {
					return // the client has gone
				}
			}
		})
		c, err := newClient(configOf(k))
		require.NoError(t, err)
		c.maxBytes = 256 << 10
		_, err = c.pods(t.Context())
		assert.ErrorIs(t, err, errTooLarge, start)
		c.close()
	}
}

func TestKnownPodsStayKnownWhileTheKubeletIsAway(t *testing.T) {
	k := kubelettest.New(t)
	s, l := open(t, configOf(k))
	require.NotNil(t, s.Find(t.Context(), byUID))
	k.Refuse(http.StatusUnauthorized) // the API server is away, so tokens cannot be checked
	again(t, s)
	assert.NotNil(t, s.Find(t.Context(), byUID))
	assert.NotNil(t, s.Find(t.Context(), byIP))
	k.Answer(nil)
	again(t, s)
	assert.Contains(t, l.String(), "tells its pods again")
}

func TestSelfSignedIsTakenWhenAskedTo(t *testing.T) {
	config := configOf(kubelettest.New(t))
	config.CAFile, config.InsecureSkipVerify = "", true
	s, _ := open(t, config)
	assert.NotNil(t, s.Find(t.Context(), byUID))
}

func TestMetricsOfTheSource(t *testing.T) {
	k := kubelettest.New(t)
	s, _ := open(t, configOf(k))
	require.NotNil(t, s.Find(t.Context(), byUID))
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	require.NoError(t, s.Observe(provider.Meter("test")))
	require.NoError(t, s.Observe(provider.Meter("test"))) // once, for all its users
	k.Refuse(http.StatusForbidden)
	again(t, s)
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	values := map[string]float64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				values[m.Name+p.Attributes.Encoded(nil)] += float64(p.Value)
			}
		case metricdata.Gauge[float64]:
			values[m.Name] = data.DataPoints[0].Value
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				reason, _ := p.Attributes.Value("reason")
				values[m.Name+reason.AsString()] = float64(p.Value)
			}
		}
	}
	assert.EqualValues(t, 1, values["longhaul_podmetadata_refreshes"])
	assert.EqualValues(t, 1, values["longhaul_podmetadata_failuresforbidden"])
	assert.EqualValues(t, 0, values["longhaul_podmetadata_failuresunauthorized"])
	assert.Positive(t, values["longhaul_podmetadata_age"])
}

func TestChangesAreTold(t *testing.T) {
	k := kubelettest.New(t)
	s, _ := open(t, configOf(k))
	changes, stop := s.Changes()
	defer stop()
	require.NotNil(t, s.Find(t.Context(), byUID))
	k.List(func(_, name string) bool { return name != "postgres-0" })
	again(t, s)
	eventually(t, "the change is told", func() bool {
		select {
		case <-changes:
		default:
		}
		return len(s.State().Pods) == 8
	})
}

func TestLogsOfAGonePodAreNamedAfterARestart(t *testing.T) {
	k := kubelettest.New(t)
	config := configOf(k)
	config.CacheFile = filepath.Join(t.TempDir(), "pods.json")
	first, err := Open(config, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NotNil(t, first.Find(t.Context(), byUID))
	first.Close()

	k.List(func(_, name string) bool { return name != "postgres-0" })
	s, l := open(t, config)
	require.NotNil(t, s.Find(t.Context(), byUID), "known before the kubelet said anything")
	assert.Contains(t, l.String(), "known from before the start")
	eventually(t, "the kubelet's answer", func() bool { return len(s.State().Pods) == 8 })
	p := s.Find(t.Context(), byUID)
	require.NotNil(t, p)
	assert.Equal(t, "postgres", p.Workload().StatefulSet)
	assert.NotZero(t, p.GoneUnix)
	assert.NotNil(t, s.Find(t.Context(), byName))
	assert.Nil(t, s.State().find(byIP), "its address may be another pod's by now")
}

func TestCorruptCacheStartsEmptyAndSaysSo(t *testing.T) {
	good, _, err := encodeCache([]*Pod{{UID: "u", Name: "n"}})
	require.NoError(t, err)
	for name, content := range map[string][]byte{
		"empty":       {},
		"garbage":     []byte("\x00\x01"),
		"cut":         good[:len(good)/2],
		"flipped":     bytes.Replace(good, []byte(`"name":"n"`), []byte(`"name":"m"`), 1),
		"new version": bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			config := configOf(kubelettest.New(t))
			config.CacheFile = filepath.Join(t.TempDir(), "pods.json")
			require.NoError(t, os.WriteFile(config.CacheFile, content, 0o600))
			s, l := open(t, config)
			assert.Contains(t, l.String(), "corrupt")
			kept, err := os.ReadFile(config.CacheFile + ".corrupt")
			require.NoError(t, err)
			assert.Equal(t, content, kept)
			require.NotNil(t, s.Find(t.Context(), byUID))
			eventually(t, "a new file", func() bool { _, err := loadCache(config.CacheFile); return err == nil })
		})
	}
}

func TestACacheThatCannotBeWrittenIsSaidAndHarmless(t *testing.T) {
	config := configOf(kubelettest.New(t))
	config.CacheFile = filepath.Join(t.TempDir(), "absent", "pods.json")
	s, l := open(t, config)
	require.NotNil(t, s.Find(t.Context(), byUID))
	eventually(t, "it is said", func() bool { return strings.Contains(l.String(), "cannot be saved") })
}

func TestGonePodsAreKeptForADayAndNotWithoutBound(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	state := newState([]*Pod{{UID: "a", Name: "a"}, {UID: "b", Name: "b"}})
	listed := []*Pod{{UID: "b", Name: "b"}}
	b := state.find(Ref{UID: "b"})
	state, changed := state.next(listed, at)
	assert.True(t, changed)
	assert.Same(t, b, state.find(Ref{UID: "b"}), "an unchanged pod stays the same")
	assert.EqualValues(t, at.Unix(), state.find(Ref{UID: "a"}).GoneUnix)
	state, changed = state.next(listed, at.Add(keepGone))
	assert.False(t, changed)
	assert.NotNil(t, state.find(Ref{UID: "a"}))
	state, changed = state.next(listed, at.Add(keepGone+time.Second))
	assert.True(t, changed)
	assert.Nil(t, state.find(Ref{UID: "a"}))

	var many []*Pod
	for i := range maxGone + 10 {
		many = append(many, &Pod{UID: strings.Repeat("u", i+1), Name: "n", GoneUnix: at.Unix() + int64(i)})
	}
	state, _ = newState(many).next(nil, at)
	assert.Len(t, state.gone, maxGone)
	assert.Nil(t, state.find(Ref{UID: "u"}), "the one gone for longest")

	// A pod of a stateful set that was made again has the name; one that came
	// back is not gone.
	state = newState([]*Pod{{UID: "new", Name: "db-0", CreatedUnix: 1}, {UID: "old", Name: "db-0", CreatedUnix: 2, GoneUnix: 3}})
	assert.Equal(t, "new", state.find(Ref{Name: "db-0"}).UID)
	state, _ = state.next([]*Pod{{UID: "old", Name: "db-0"}}, at)
	assert.Zero(t, state.find(Ref{UID: "old"}).GoneUnix)
}

func TestConfig(t *testing.T) {
	bad := Config{URL: "10.0.0.1:10250", TokenFile: "token", CAFile: "ca", CacheFile: "pods.json", PollInterval: time.Second}
	for _, key := range []string{"url: ", "token_file: ", "ca_file: ", "cache_file: ", "poll_interval: "} {
		assert.ErrorContains(t, bad.Validate(), key)
	}
	for url, want := range map[string]string{
		"https://10.0.0.1:10250":     "https 10.0.0.1:10250",
		"https://10.0.0.1:10250/":    "https 10.0.0.1:10250",
		"http://127.0.0.1:10255":     "http 127.0.0.1:10255",
		"https://[fd00::1]:10250":    "https [fd00::1]:10250",
		"https://fd00::1:10250":      "https [fd00::1]:10250",
		"https://node-a:10250":       "https node-a:10250",
		"https://10.0.0.1":           "",
		"https://10.0.0.1:10250/p":   "",
		"https://u:p@10.0.0.1:10250": "",
		"https://:10250":             "",
		"unix:///x":                  "",
	} {
		config := DefaultConfig()
		config.URL = url
		scheme, address, err := config.Address()
		if want == "" {
			assert.Error(t, err, url)
			assert.ErrorContains(t, config.Validate(), "url: ", url)
			continue
		}
		assert.NoError(t, err, url)
		assert.Equal(t, want, scheme+" "+address)
	}
}
