package containerlogsreceiver

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// limits holds the limiters of all containers.
//
// What a container may write is measured by the times its runtime gave the
// lines, not by when they are read: a backlog that is caught up with after an
// outage is judged as it would have been without, and lines that are read again
// after a kill nearly as before. That is why golang.org/x/time/rate does not
// serve: the two streams of a container are slightly out of order, and each
// step back in time would let it refill once more.
type limits struct {
	config RateLimitConfig
	period int64 // ns between two lines at the limit
	slack  int64 // ns by which a container may be ahead of the limit: its burst
	of     map[limitKey]*limiter
	pruned time.Time
}

// limitKey names a container; path alone a file outside the layout of
// Kubernetes.
type limitKey struct{ namespace, pod, container, path string }

// limiter is the limit of one container (generic cell rate algorithm: one
// number says how far ahead of the limit the container is).
type limiter struct {
	ahead int64 // time (ns since 1970) up to which the limit is used up
	last  int64 // newest time judged
	timed bool  // lines of it say when they were written
	over  int64 // lines above the limit, for sampling

	source    *source   // of the file that a line was left out of last
	left      int64     // lines left out that no record has told of
	from, to  int64     // when the first and the last of them were written
	quietAt   time.Time // when the last was left out
	announced time.Time // when a record told of some last
	used      time.Time // when it last judged

	batch uint64 // number of the batch that counts lines left out
	at    int    // and where there
}

// limitStep is how far back in time a line must be to show that the clock was
// set; less is disorder between two streams.
const limitStep = int64(time.Minute)

// keepLimiter is how long the limiter of a container without files is kept: its
// log may be between two files.
const keepLimiter = time.Minute

// newLimits returns nil when nothing is limited.
func newLimits(config RateLimitConfig) *limits {
	if config.LinesPerSecond == 0 {
		return nil
	}
	period := int64(time.Second) / int64(config.LinesPerSecond)
	return &limits{
		config: config, period: period, slack: int64(config.burst()-1) * period,
		of: map[limitKey]*limiter{},
	}
}

// limiterOf is the limiter of the container a file belongs to.
func (l *limits) limiterOf(f *file) *limiter {
	if f.limiter == nil {
		s := &f.source
		key := limitKey{namespace: s.namespace, pod: s.pod, container: s.container}
		if s.namespace == "" {
			key.path = f.path
		}
		found := l.of[key]
		if found == nil {
			found = &limiter{}
			l.of[key] = found
		}
		f.limiter = found
	}
	return f.limiter
}

// clock says by what time a line is judged that was written at written (0 when
// it does not say) and read at observed. It does not go back, so that a line which
// is a little late is judged like its neighbours, except with the clock of the
// node.
func (l *limiter) clock(written, observed int64) int64 {
	switch {
	case written != 0:
		l.timed = true
	case l.timed:
		written = l.last
	default:
		written = observed
	}
	if back := l.last - written; back > limitStep {
		l.ahead -= back
	} else if back > 0 {
		return l.last
	}
	l.last = written
	return written
}

// allow says whether a line written at now is kept.
func (l *limits) allow(c *limiter, now int64) bool {
	c.ahead = max(c.ahead, now)
	if c.ahead-now <= l.slack {
		c.ahead += l.period
		return true
	}
	c.over++
	return l.config.Policy == policySample && c.over%int64(l.config.SampleOneIn) == 0
}

// limit judges a record that is about to get into the batch. One that is left
// out counts as read with the batch, as if it were in it.
func (r *reader) limit(ctx context.Context, f *file, rec *record) (leftOut bool, err error) {
	c := r.limits.limiterOf(f)
	c.used = time.Unix(0, r.observed)
	now := c.clock(rec.time, r.observed)
	if c.left > 0 && (now-c.from >= int64(r.timing.limitedGap) || now < c.from) {
		if err := r.announce(ctx, c); err != nil {
			return false, err
		}
	}
	if r.limits.allow(c, now) {
		return false, nil
	}
	if r.batch == nil {
		if err := r.begin(ctx); err != nil {
			return false, err
		}
	}
	if c.left == 0 {
		c.from = now
	}
	c.left++
	c.to, c.source, c.quietAt = now, &f.source, c.used
	r.batch.leaveOut(c)
	r.touch(f)
	return true, nil
}

// announce puts a record into the batch that tells of lines left out, at the
// time of the last of them.
func (r *reader) announce(ctx context.Context, c *limiter) error {
	if b := r.batch; b != nil && len(b.records)+len(b.notices) >= r.config.Batch.MaxLines {
		if err := r.cut(ctx); err != nil {
			return err
		}
	}
	if r.batch == nil {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	now := time.Now()
	r.batch.notices = append(r.batch.notices, notice{
		source: r.batch.sourceOf(c.source), time: c.to, observed: now.UnixNano(), lines: c.left,
		body: r.limits.config.describe(c.left, time.Unix(0, c.from), time.Unix(0, c.to)),
	})
	c.left, c.announced = 0, now
	return nil
}

// announceEnded tells of the containers that keep to their limit again, which
// their own lines may never show.
func (r *reader) announceEnded(ctx context.Context) error {
	if r.limits == nil {
		return nil
	}
	now := time.Now()
	for _, c := range r.limits.of {
		if c.left == 0 || now.Sub(c.quietAt) < r.timing.limitedQuiet || now.Sub(c.announced) < r.timing.limitedGap {
			continue
		}
		if err := r.announce(ctx, c); err != nil {
			return err
		}
	}
	if now.Sub(r.limits.pruned) >= keepLimiter {
		r.limits.pruned = now
		r.forgetLimiters(now)
	}
	return nil
}

// forgetLimiters forgets the containers that are gone.
func (r *reader) forgetLimiters(now time.Time) {
	held := map[*limiter]bool{}
	for _, f := range r.files {
		held[f.limiter] = true
	}
	for key, c := range r.limits.of {
		if !held[c] && c.left == 0 && now.Sub(c.used) >= keepLimiter {
			delete(r.limits.of, key)
		}
	}
}

// announceLast tells at the end of reading of what no record has told of yet,
// if the pipeline takes it at once.
func (r *reader) announceLast(ctx context.Context) {
	if r.limits == nil || r.delivery.stuck() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.timing.lastNotices)
	defer cancel()
	some := false
	for _, c := range r.limits.of {
		if c.left == 0 {
			continue
		}
		some = true
		if r.announce(ctx, c) != nil {
			return
		}
	}
	if some {
		_ = r.cut(ctx) // what it does not deliver is read again
	}
}

// leftOut counts lines of a container that the limit kept out of the pipeline.
type leftOut struct {
	namespace, container string
	lines                int64
}

// notice is a record of the receiver's own: lines of a source were left out.
type notice struct {
	source         int32
	time, observed int64 // ns since 1970
	lines          int64
	body           string
}

// leaveOut counts a line that was left out with this batch.
func (b *batch) leaveOut(c *limiter) {
	if c.batch != b.number {
		c.batch, c.at = b.number, len(b.leftOut)
		b.leftOut = append(b.leftOut, leftOut{c.source.namespace, c.source.container, 0})
	}
	b.leftOut[c.at].lines++
}

// sourceOf is the index of a source in the batch.
func (b *batch) sourceOf(s *source) int32 {
	if at := slices.Index(b.sources, s); at >= 0 {
		return int32(at)
	}
	b.sources = append(b.sources, s)
	return int32(len(b.sources) - 1)
}

// describe is the body of the record that tells of lines left out.
func (c *RateLimitConfig) describe(lines int64, from, to time.Time) string {
	const layout = "2006-01-02T15:04:05.000Z07:00"
	noun := "lines"
	if lines == 1 {
		noun = "line"
	}
	text := fmt.Sprintf("longhaul left out %d %s of this container between %s and %s: more than rate_limit allows (%d lines/s, burst %d)",
		lines, noun, from.UTC().Format(layout), to.UTC().Format(layout), c.LinesPerSecond, c.burst())
	if c.Policy == policySample {
		text += fmt.Sprintf("; of those above it 1 in %d was kept", c.SampleOneIn)
	}
	return text
}
