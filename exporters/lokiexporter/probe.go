package lokiexporter

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/longhaul/longhaul/internal/bytesize"
)

// What Loki accepts is read, not tried: GET /config shows its configuration, and
// GET /config/tenant/v1/limits what holds for a tenant, if Loki is told to
// publish it (tenant_limits_allow_publish). Loki 3 serves both on the port that
// takes pushes; a gateway before it may not.

const (
	// readAgainEvery: settings are read again, because operators change them.
	readAgainEvery = 15 * time.Minute
	// readSoonAfter is the first pause after an attempt that failed; each
	// further one is twice as long.
	readSoonAfter = 5 * time.Second
	// firstReadPatience is how long deliveries wait for the first attempt.
	firstReadPatience = 2 * time.Second
	// maxConfigBytes bounds how much of a configuration is read; Loki's has 100 KB
	// and grows with the tenants' overrides.
	maxConfigBytes = 64 << 20
)

// lokiLimits are the settings of Loki, for all or for a tenant, that say what
// late entries it takes.
type lokiLimits struct {
	RejectOld   bool          `yaml:"reject_old_samples"`
	MaxAge      duration      `yaml:"reject_old_samples_max_age"`
	Grace       duration      `yaml:"creation_grace_period"`
	Rate        bytesize.Size `yaml:"per_stream_rate_limit"` // in units of 1024, which is a little more
	Burst       bytesize.Size `yaml:"per_stream_rate_limit_burst"`
	ShardStream struct {
		TimeSharding bool     `yaml:"time_sharding_enabled"`
		IgnoreRecent duration `yaml:"time_sharding_ignore_recent"`
	} `yaml:"shard_streams"`
}

// oldest is the age of the oldest entry accepted; 0 if of any age.
func (l lokiLimits) oldest() time.Duration {
	if !l.RejectOld {
		return 0
	}
	return time.Duration(l.MaxAge)
}

func (l lokiLimits) rate() streamRate {
	if l.Rate <= 0 || l.Burst <= 0 {
		return defaultStreamRate
	}
	return streamRate{float64(l.Rate), float64(l.Burst)}
}

// tenantLimits are those of them that Loki may publish for a tenant.
type tenantLimits struct {
	RejectOld    *bool     `yaml:"reject_old_samples"`
	MaxAge       *duration `yaml:"reject_old_samples_max_age"`
	ShardStreams *struct {
		TimeSharding bool `yaml:"time_sharding_enabled"`
	} `yaml:"shard_streams"`
}

// override puts a tenant's own limits in place of those for all.
func (l *lokiLimits) override(own tenantLimits) {
	if own.RejectOld != nil {
		l.RejectOld = *own.RejectOld
	}
	if own.MaxAge != nil {
		l.MaxAge = *own.MaxAge
	}
	if own.ShardStreams != nil {
		l.ShardStream.TimeSharding = own.ShardStreams.TimeSharding
	}
}

// lokiSettings is what was read.
type lokiSettings struct {
	maxChunkAge time.Duration
	limits      lokiLimits
}

// duration reads both of the forms in which Loki writes one: 1w and 2h0m0s.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	if plain, err := time.ParseDuration(string(text)); err == nil {
		*d = duration(plain)
		return nil
	}
	long, err := model.ParseDuration(string(text))
	*d = duration(long)
	return err
}

// lateData knows what Loki does with late entries.
type lateData struct {
	cfg       LateDataConfig
	base      string // URL
	header    http.Header
	log       *zap.Logger
	telemetry telemetry

	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}
	first  chan struct{} // closed after the first attempt to read
	again  chan struct{} // asks for another

	mu       sync.Mutex
	settings *lokiSettings // nil: not known
	told     string        // last report, so that it is not repeated
}

func newLateData(cfg *Config, header http.Header, log *zap.Logger, t telemetry) *lateData {
	push, _ := cfg.pushURL() // validated
	base := push
	if u, err := url.Parse(push); err == nil {
		u.Path, u.RawQuery = strings.TrimSuffix(u.Path, pushPath), ""
		base = u.String()
	}
	return &lateData{
		cfg:       cfg.LateData,
		base:      base,
		header:    header,
		log:       log,
		telemetry: t,
		done:      make(chan struct{}),
		first:     make(chan struct{}),
		again:     make(chan struct{}, 1),
	}
}

func (l *lateData) start(client *http.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	l.client, l.cancel = client, cancel
	go l.run(ctx)
}

func (l *lateData) stop() {
	l.cancel()
	<-l.done
}

// await waits for the first attempt to read, but not for long: without it, late
// entries get their label, which is never wrong.
func (l *lateData) await(ctx context.Context) {
	select {
	case <-l.first:
		return
	default:
	}
	timer := time.NewTimer(firstReadPatience)
	defer timer.Stop()
	select {
	case <-l.first:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// doubt has the settings read again, because Loki behaved otherwise.
func (l *lateData) doubt() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

func (l *lateData) run(ctx context.Context) {
	defer close(l.done)
	pause := readSoonAfter
	for attempt := 0; ; attempt++ {
		settings, err := l.read(ctx)
		if ctx.Err() != nil {
			return
		}
		l.learn(settings, err)
		if attempt == 0 {
			close(l.first)
		}
		if pause = min(2*pause, readAgainEvery); err == nil {
			pause = readAgainEvery
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.again:
			pause = readSoonAfter
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// read asks Loki for its settings.
func (l *lateData) read(ctx context.Context) (*lokiSettings, error) {
	var whole struct {
		Ingester struct {
			MaxChunkAge duration `yaml:"max_chunk_age"`
		} `yaml:"ingester"`
		Limits *lokiLimits `yaml:"limits_config"`
	}
	if err := l.get(ctx, "/config", &whole); err != nil {
		return nil, err
	}
	if whole.Limits == nil || whole.Ingester.MaxChunkAge <= 0 {
		return nil, fmt.Errorf("%s/config does not show a configuration of Loki", l.base)
	}
	settings := &lokiSettings{maxChunkAge: time.Duration(whole.Ingester.MaxChunkAge), limits: *whole.Limits}
	var own tenantLimits
	if err := l.get(ctx, "/config/tenant/v1/limits", &own); err == nil {
		settings.limits.override(own)
	}
	return settings, nil
}

func (l *lateData) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path, nil)
	if err != nil {
		return err
	}
	for name, values := range l.header {
		req.Header[name] = values
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxConfigBytes))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s%s: status %d", l.base, path, resp.StatusCode)
	case err != nil:
		return fmt.Errorf("GET %s%s: %w", l.base, path, err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the answer to GET %s%s: %w", l.base, path, err)
	}
	return nil
}

// learn takes what was read, or that nothing could be, and tells what is new.
func (l *lateData) learn(settings *lokiSettings, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.settings = settings
	}
	ctx := context.Background()
	if l.settings == nil {
		l.telemetry.sharding.Record(ctx, -1)
		l.tell(zap.InfoLevel, fmt.Sprintf("Whether Loki takes late entries is not known, because its settings cannot be read; "+
			"until then entries older than %s get the label %s. late_data::mode says otherwise", lateAfter, l.cfg.Label), zap.Error(err))
		return
	}
	if err != nil {
		return // what was read before stands
	}
	limits := settings.limits
	sharding := int64(0)
	if limits.ShardStream.TimeSharding {
		sharding = 1
	}
	l.telemetry.sharding.Record(ctx, sharding)
	l.telemetry.oldestAge.Record(ctx, limits.oldest().Seconds())
	l.report(limits)
}
