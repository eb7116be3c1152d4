package lokiexporter

import (
	"errors"
	"fmt"
	"time"
)

// Late entries. Loki refuses an entry that is more than half of its
// max_chunk_age (2h by default) behind the newest entry of its stream, unless
// time sharding is on. After an outage that is all of a backlog: its streams go
// on with live entries, and the backlogs of a cluster's nodes come in turns.
//
// So where Loki does not shard by time, the exporter does as Loki would: entries
// of each full hour long past go to a stream of their own, which an additional
// label tells apart (backfill="2026-11-24T13"). Whatever the order in which
// they come, no two entries of such a stream are an hour apart. It is decided by
// the age of an entry and not by the lane that brought it, because a live lane
// brings old entries too (a file found late, a slow clock), and young entries
// of a backlog need no stream of their own.
//
// That costs streams: for each stream of an origin one per hour of its outage,
// of which those are active at a time whose hours are being drained.

// LateDataConfig says how late entries get into Loki.
type LateDataConfig struct {
	// Mode is auto, native or label. auto asks Loki for its settings and chooses;
	// as long as it does not know, it labels. native relies on time sharding
	// being on, label never does. Default auto.
	Mode string `mapstructure:"mode"`
	// Label is the label of late entries where Loki does not shard by time. Its
	// value is the hour of the entry, in UTC. Default "backfill".
	Label string `mapstructure:"label"`
	// OldestExpected is how old entries may be when they come: the longest outage
	// that spools are to bridge. Nothing is dropped by it; what Loki accepts is
	// checked against it at start. Default 168h.
	OldestExpected time.Duration `mapstructure:"oldest_expected"`

	// prevent unkeyed literal initialization
	_ struct{}
}

const (
	lateAuto   = "auto"
	lateNative = "native"
	lateLabel  = "label"
)

// Validate reports every bad key.
func (c *LateDataConfig) Validate() error {
	var errs []error
	switch c.Mode {
	case lateAuto, lateNative, lateLabel:
	default:
		errs = append(errs, fmt.Errorf("mode: must be auto, native or label, is %q", c.Mode))
	}
	if !validLabel(c.Label) && (c.Label != "" || c.Mode != lateNative) {
		errs = append(errs, fmt.Errorf("label: %q is not a label name ([a-zA-Z_][a-zA-Z0-9_]*, not beginning with __)", c.Label))
	}
	if c.OldestExpected < 0 {
		errs = append(errs, fmt.Errorf("oldest_expected: must not be negative, is %s", c.OldestExpected))
	}
	return errors.Join(errs...)
}

// latePolicy says which entries are late and what becomes of them.
type latePolicy struct {
	before int64         // unix nanoseconds; entries before it are late
	length time.Duration // of a stretch of time that gets a stream of its own
	label  bool          // late entries get the label, not only streams apart
	risky  bool          // late entries may be refused nevertheless
	rate   streamRate
}

const (
	// lateAfter is the age from which an entry is late. The newest of its stream
	// can be creation_grace_period (10m) ahead of the clock, so what is younger
	// cannot be refused down to a max_chunk_age of 80 minutes.
	lateAfter = 30 * time.Minute
	// lateStretch is half of Loki's default max_chunk_age.
	lateStretch = time.Hour
)

// stretch returns the beginning of the stretch of time that at is in; never 0.
func (p latePolicy) stretch(at int64) int64 {
	length := int64(p.length)
	start := at - at%length
	if at < 0 && start > at {
		start -= length
	}
	if start == 0 {
		return 1
	}
	return start
}

// stretchText names a stretch of time by its beginning.
func stretchText(start int64) string {
	layout := "2006-01-02T15"
	if start%int64(time.Hour) != 0 {
		layout = "2006-01-02T15:04"
	}
	return time.Unix(0, start).UTC().Format(layout)
}
