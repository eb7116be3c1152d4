package lokiexporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/klauspost/compress/s2"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// outcome counts entries.
type outcome struct {
	sent, rejected int
	example        string // of a refusal
}

func (o *outcome) add(other outcome) {
	o.sent += other.sent
	o.rejected += other.rejected
	if o.example == "" {
		o.example = other.example
	}
}

// errStream says that a stream is over a limit of its own, or must not come in.
// Others of its tenant are not concerned.
var errStream = errors.New("stream is refused for now")

// ratePatience is how long a stream over its rate is waited for. Its tenant's
// others wait behind it.
const ratePatience = 5 * time.Second

// longestReply is how much of an answer is read. Loki tells about each refused
// entry in some 250 bytes.
const longestReply = 4 << 20

// statusBlocked is Loki's answer, by default, when an operator has blocked a
// tenant or a kind of streams for a time. It looks like a success.
const statusBlocked = 260

// delivery is the delivery of one share.
type delivery struct {
	*lokiExporter
	tenant *tenantState
	batch  *batch
	rate   streamRate
	stuck  map[int32]bool // streams that are refused for now
	sender *deliver.Sender
}

// deliver sends one tenant's share of a call.
func (e *lokiExporter) deliver(ctx context.Context, s *share) result {
	tenant, b := s.tenant, s.batch
	s.earlier = tenant.recall(b)
	var r result
	for _, known := range s.earlier {
		r.outcome.add(outcome{sent: known.Sent, rejected: known.Rejected})
	}
	d := &delivery{lokiExporter: e, tenant: tenant, batch: b, rate: s.late.rate, stuck: make(map[int32]bool), sender: e.senders.For(tenant.name)}
	plan := planner{maxBytes: int(e.cfg.MaxRequestSize), now: e.now(), recent: &tenant.recent, cautious: s.cautious, risky: s.late.risky, rate: s.late.rate}
	for _, request := range plan.pack(plan.split(b)) {
		one := d.send(ctx, request)
		r.add(one)
		if one.err != nil && !errors.Is(one.err, errStream) {
			break
		}
	}
	if r.err != nil {
		r.failed = d.failed()
	}
	return r
}

// failed lists the parts of the call that have entries that are pending.
func (d *delivery) failed() []int32 {
	var list []int32
	for i := range d.batch.entries {
		e := &d.batch.entries[i]
		if e.state == pending && (len(list) == 0 || list[len(list)-1] != e.part) {
			list = append(list, e.part) // entries stand in the order of their parts
		}
	}
	return list
}

// buffers hold requests while they are encoded.
var buffers = sync.Pool{New: func() any { return &encoding{} }}

type encoding struct{ raw, packed []byte }

// encode returns the body of a request. The body is not used again: the HTTP
// client may read it for longer than it takes to answer.
func (d *delivery) encode(r *request) []byte {
	buffer := buffers.Get().(*encoding)
	defer buffers.Put(buffer)
	buffer.raw = r.appendTo(slices.Grow(buffer.raw[:0], r.bytes), d.batch)
	buffer.packed = s2.EncodeSnappy(slices.Grow(buffer.packed[:0], s2.MaxEncodedLen(len(buffer.raw))), buffer.raw)
	return slices.Clone(buffer.packed)
}

// send sends a request, or several in its place, until each of its entries has
// its answer or an error.
func (d *delivery) send(ctx context.Context, r *request) result {
	if len(r.parts) == 1 && d.stuck[r.parts[0].stream] {
		return result{} // what came before in the stream is to be sent first
	}
	reply, err := d.post(ctx, r)
	switch {
	case err != nil:
		d.keep(r, false)
		return result{err: err}
	case reply.Status == statusBlocked || aboutOneStream(reply):
		return d.sendApart(ctx, r, reply)
	case reply.Accepted():
		d.keep(r, true)
		return result{outcome: d.answered(ctx, r, 0, "")}
	case reply.Status == http.StatusRequestEntityTooLarge && r.entries > 1:
		return d.sendHalves(ctx, r)
	case reply.Status == http.StatusBadRequest && len(reply.Body) >= longestReply && r.entries > 1:
		return d.sendHalves(ctx, r) // the end of what Loki said is missing
	case reply.Status == http.StatusBadRequest && len(r.parts) > 1 && byIngester(reply.Body):
		// It hides what was refused of other streams. Those that Loki took it
		// stores once.
		return d.sendApart(ctx, r, reply)
	}
	d.keep(r, false)
	return result{outcome: d.refused(ctx, r, reply)}
}

// post posts a request. Where a stream that travels alone is over its rate, it
// waits.
func (d *delivery) post(ctx context.Context, r *request) (deliver.Reply, error) {
	body := d.encode(r)
	if len(r.parts) > 1 {
		return d.sender.Post(ctx, d.url, d.tenant.header, body)
	}
	// Where streams are not sharded, each attempt spends what its first entries
	// weigh, stored or not: coming again too soon, it would never pass whole.
	refill := time.Duration(1.5 * float64(r.bytes) / d.rate.bytesPerSecond * float64(time.Second))
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = max(refill, d.cfg.Retry.InitialInterval)
	pause.MaxInterval = max(refill, d.cfg.Retry.MaxInterval)
	pause.RandomizationFactor = 0.1
	reply, err := backoff.Retry(ctx, func() (deliver.Reply, error) {
		reply, err := d.sender.Post(ctx, d.url, d.tenant.header, body)
		switch {
		case err != nil:
			return reply, backoff.Permanent(err)
		case overRate(reply):
			return reply, errStream
		}
		return reply, nil
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(min(d.cfg.Retry.MaxElapsedTime, ratePatience)))
	if errors.Is(err, errStream) {
		return reply, nil
	}
	return reply, err
}

// sendApart sends the streams of a request one by one, because one of them, or
// some, got an answer of their own.
func (d *delivery) sendApart(ctx context.Context, r *request, reply deliver.Reply) result {
	if reply.Status == http.StatusTooManyRequests {
		d.tenant.beCautious(d.now())
	}
	if len(r.parts) == 1 {
		d.stuck[r.parts[0].stream] = true
		d.keep(r, false)
		return result{err: fmt.Errorf("%s: %w: %w: status %d: %s", d.sender.Backend, deliver.ErrUnavailable, errStream, reply.Status, shorten(strings.TrimSpace(reply.Body)))}
	}
	var total result
	for _, one := range r.apart() {
		part := d.send(ctx, one)
		total.add(part)
		if part.err != nil && !errors.Is(part.err, errStream) {
			break
		}
	}
	return total
}

// sendHalves sends a request that was too large for the server, or for a proxy
// before it, in two.
func (d *delivery) sendHalves(ctx context.Context, r *request) result {
	first, second := r.halves()
	first.measure(d.batch)
	second.measure(d.batch)
	total := d.send(ctx, first)
	if total.err == nil || errors.Is(total.err, errStream) {
		total.add(d.send(ctx, second))
	}
	return total
}

// keep remembers what the planner must know of the streams of a request.
func (d *delivery) keep(r *request, taken bool) {
	now := d.now()
	for i := range r.parts {
		id := d.batch.streams[r.parts[i].stream].id
		if taken {
			d.tenant.recent.took(id, r.parts[i].bytes, d.rate, now)
		} else {
			d.tenant.recent.forget(id, now)
		}
	}
}

// answered counts and marks the entries of a request, of which some were
// refused.
func (d *delivery) answered(ctx context.Context, r *request, rejected int, example string) outcome {
	left := rejected // which they were is not known in full
	var lines, metadata int
	for i := range r.parts {
		for _, k := range r.parts[i].order {
			e := &d.batch.entries[k]
			if e.state = taken; left > 0 {
				e.state = refused
				left--
			}
			if e.cut != 0 {
				lines += int(e.cut & cutLine)
				metadata += int(e.cut&cutMetadata) / int(cutMetadata)
			}
		}
	}
	d.telemetry.countCuts(ctx, lines, metadata)
	d.telemetry.sent.Add(ctx, int64(r.entries-rejected))
	return outcome{sent: r.entries - rejected, rejected: rejected, example: example}
}

// refused counts and tells what a final 4xx refused.
func (d *delivery) refused(ctx context.Context, r *request, reply deliver.Reply) outcome {
	var refusals []refusal
	switch reply.Status {
	case http.StatusBadRequest:
		refusals = parseRefusals(reply.Body, r)
	case http.StatusRequestEntityTooLarge:
		refusals = []refusal{{reasonRequestTooLarge, r.entries, reply.Body}}
	default:
		refusals = []refusal{{fmt.Sprintf("status_%d", reply.Status), r.entries, reply.Body}}
	}
	rejected, example := 0, ""
	for _, refusal := range refusals {
		if refusal.reason == reasonTooFarBehind {
			d.tenant.beEarly(d.now())
			d.late.doubt()
		}
		d.telemetry.reject(ctx, refusal)
		rejected += refusal.entries
		if example == "" {
			example = shorten(refusal.example)
		}
		d.tell(refusal, reply.Status)
	}
	return d.answered(ctx, r, rejected, example)
}

// tell logs refusals, once per burst and reason.
func (d *delivery) tell(r refusal, status int) {
	d.mu.Lock()
	burst := d.bursts[r.reason]
	if burst == nil {
		burst = &deliver.Burst{}
		d.bursts[r.reason] = burst
	}
	d.mu.Unlock()
	if n := burst.Allow(r.entries); n > 0 {
		d.set.Logger.Error("Loki refused log entries for good; they are lost unless the sender keeps them. "+
			"Counted in longhaul_loki_entries_rejected",
			zap.Int("entries", n), zap.String("reason", r.reason), zap.Int("status", status),
			zap.String("tenant", d.tenant.name), zap.String("example", shorten(r.example)))
	}
}

func shorten(text string) string { return cutAtRune(text, 400) }
