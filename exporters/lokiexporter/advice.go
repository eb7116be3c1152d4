package lokiexporter

import (
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// report tells what Loki does with late entries, and what to change there.
func (l *lateData) report(limits lokiLimits) {
	var advice []string
	level := zap.InfoLevel
	what := "Loki takes late entries: it shards streams by time"
	if !limits.ShardStream.TimeSharding {
		what = fmt.Sprintf("Loki does not shard streams by time; entries older than %s get the label %s, so that it takes them", lateAfter, l.cfg.Label)
		advice = append(advice, "limits_config.shard_streams.time_sharding_enabled: true")
		level = zap.WarnLevel
		if l.cfg.Mode == lateNative {
			what = "Loki does not shard streams by time, and late_data::mode is native: it will refuse entries that are an hour behind the newest of their stream"
		}
	}
	if oldest := limits.oldest(); oldest > 0 && oldest < l.cfg.OldestExpected {
		what += fmt.Sprintf(". It refuses entries older than %s, but spools may send them up to %s late", oldest, l.cfg.OldestExpected)
		advice = append(advice, "limits_config.reject_old_samples_max_age: "+hours(l.cfg.OldestExpected))
		level = zap.WarnLevel
	}
	fields := []zap.Field{zap.Duration("oldest_accepted", limits.oldest())}
	if len(advice) > 0 {
		fields = append(fields, zap.Strings("change_in_loki", advice))
	}
	l.tell(level, what, fields...)
}

// tell logs a report unless it was the last one.
func (l *lateData) tell(level zapcore.Level, what string, fields ...zap.Field) {
	if l.told == what {
		return
	}
	l.told = what
	l.log.Log(level, what, fields...)
}

func hours(d time.Duration) string { return fmt.Sprintf("%.0fh", math.Ceil(d.Hours())) }

// policy says what is to be done with a tenant's late entries now. refused: Loki
// has refused some of late for being late, whatever its settings for all say.
func (l *lateData) policy(now time.Time, refused bool) latePolicy {
	l.mu.Lock()
	settings := l.settings
	l.mu.Unlock()
	p := latePolicy{length: lateStretch, label: true, rate: defaultStreamRate}
	sharding := false
	after := lateAfter
	if settings != nil {
		limits := settings.limits
		half := settings.maxChunkAge / 2
		sharding = limits.ShardStream.TimeSharding
		p.length, p.rate = min(lateStretch, half), limits.rate()
		after = max(0, min(lateAfter, half-time.Duration(limits.Grace)-5*time.Minute))
		p.label = !sharding || refused
		if !p.label {
			// What is older than this is sharded as a whole, so that streams that
			// begin with it do not stand before one that Loki knows.
			p.length, after = half, time.Duration(limits.ShardStream.IgnoreRecent)+time.Minute
		}
	}
	switch l.cfg.Mode {
	case lateNative:
		p.label = false
	case lateLabel:
		p.label = true
	}
	p.risky = refused || settings == nil || !p.label && !sharding
	p.before = now.Add(-after).UnixNano()
	return p
}
