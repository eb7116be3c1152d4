package prometheusexporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/storage/remote"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// delivery is one call's requests for one tenant.
type delivery struct {
	*prometheusExporter
	tenant   string
	header1  http.Header
	header2  http.Header
	repeated bool // an earlier call failed half way: this may be its repetition

	answered []answer
	earlier  []deliver.Part // answered for in an earlier attempt
}

// answer is what the server said for good about a request.
type answer struct {
	*batch
	outcome
}

// deliver sends batches, except those that an earlier attempt of the same call
// got an answer for.
func (e *prometheusExporter) deliver(ctx context.Context, tenant string, batches []*batch) (outcome, error) {
	d := &delivery{prometheusExporter: e, tenant: tenant, repeated: !e.progress.Empty()}
	d.header1, d.header2 = e.headers(tenant)
	var total outcome
	for _, b := range batches {
		done, err := d.send(ctx, b)
		total.add(done)
		if err != nil {
			e.progress.Keep(d.parts())
			return total, err
		}
	}
	e.progress.Forget(d.earlier)
	return total, nil
}

// parts lists what the server answered for.
func (d *delivery) parts() []deliver.Part {
	parts := make([]deliver.Part, 0, len(d.answered)+len(d.earlier))
	for _, a := range d.answered {
		parts = append(parts, deliver.Part{Hash: a.hash(d.tenant), Sent: a.sent, Rejected: a.refused.samples()})
	}
	return append(parts, d.earlier...)
}

// known returns what became of a request in an earlier attempt.
func (d *delivery) known(b *batch) (outcome, bool) {
	if !d.repeated {
		return outcome{}, false
	}
	part, found := d.progress.Answered(b.hash(d.tenant))
	if !found {
		return outcome{}, false
	}
	d.earlier = append(d.earlier, part)
	done := outcome{part.Sent, make(refusals)}
	done.refused.add(reasonEarlier, part.Rejected, "refused in an earlier attempt")
	return done, true
}

// send delivers a batch in the protocol the server speaks.
func (d *delivery) send(ctx context.Context, b *batch) (outcome, error) {
	if d.cfg.Protocol == Protocol1 || d.cfg.Protocol == ProtocolAuto && time.Now().UnixNano() < d.speak1Until.Load() {
		return d.send1(ctx, b)
	}
	done, err := d.send2(ctx, b)
	if !errors.Is(err, errNotUnderstood) || d.cfg.Protocol == Protocol2 {
		return done, err
	}
	d.set.Logger.Warn("Server does not speak remote write 2.0; speaking 1.0, which has no start timestamps and stores a request whole or not at all",
		zap.String("endpoint", d.cfg.Endpoint), zap.Duration("try_again_in", fallbackFor), zap.Error(err))
	d.speak1Until.Store(time.Now().Add(fallbackFor).UnixNano())
	return d.send1(ctx, b)
}

func (d *delivery) send2(ctx context.Context, b *batch) (outcome, error) {
	if done, known := d.known(b); known {
		return done, nil
	}
	body, err := b.encode2()
	if err != nil {
		return outcome{}, fmt.Errorf("encode remote write 2.0: %w", err)
	}
	reply, err := d.senders.For(d.tenant).Post(ctx, d.cfg.Endpoint, d.header2, body)
	if err != nil {
		return outcome{}, err
	}
	stats, err := remote.ParseWriteResponseStats(&http.Response{Header: reply.Header})
	if err != nil {
		d.set.Logger.Debug("Headers that say how much was written are not numbers", zap.Error(err))
	}
	switch {
	case reply.Status == http.StatusUnsupportedMediaType:
		return outcome{}, fmt.Errorf("%w: status 415: %s", errNotUnderstood, firstLine(reply.Body))
	case reply.Accepted() && !stats.Confirmed:
		return outcome{}, fmt.Errorf("%w: status %d without the headers that say how much was written", errNotUnderstood, reply.Status)
	case reply.Status == http.StatusRequestEntityTooLarge && b.samples > 1:
		return d.sendHalves(ctx, b, d.send2)
	case reply.Accepted(), reply.Status == http.StatusBadRequest:
		return d.account(ctx, b, parsedRefusals(reply.Body, stats, b.counts)), nil
	}
	return d.account(ctx, b, wholeRefusal(b, reply)), nil
}

// maxSplits bounds the requests spent on finding the bad samples of one batch
// with a server of 1.0.
const maxSplits = 64

func (d *delivery) send1(ctx context.Context, b *batch) (outcome, error) {
	var total outcome
	parts, err := b.forVersion1(int(d.cfg.MaxRequestSize))
	if err != nil {
		return total, err
	}
	for _, part := range parts {
		splits := maxSplits
		done, err := d.sendPart1(ctx, part, &splits)
		total.add(done)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// sendPart1 sends a request of 1.0. A server of 1.0 stores all of it or nothing,
// and tells one reason: when it refuses, the good samples are found by halving.
func (d *delivery) sendPart1(ctx context.Context, b *batch, splits *int) (outcome, error) {
	if done, known := d.known(b); known {
		return done, nil
	}
	body, err := b.encode1()
	if err != nil {
		return outcome{}, fmt.Errorf("encode remote write 1.0: %w", err)
	}
	reply, err := d.senders.For(d.tenant).Post(ctx, d.cfg.Endpoint, d.header1, body)
	if err != nil {
		return outcome{}, err
	}
	halve := reply.Status == http.StatusBadRequest || reply.Status == http.StatusRequestEntityTooLarge
	switch {
	case reply.Accepted():
		return d.account(ctx, b, partRefusals{}), nil
	case halve && b.samples > 1 && *splits > 0:
		*splits--
		return d.sendHalves(ctx, b, func(ctx context.Context, half *batch) (outcome, error) {
			return d.sendPart1(ctx, half, splits)
		})
	case reply.Status == http.StatusBadRequest:
		return d.account(ctx, b, parsedRefusals(reply.Body, remote.WriteResponseStats{}, b.counts)), nil
	}
	return d.account(ctx, b, wholeRefusal(b, reply)), nil
}

func (d *delivery) sendHalves(ctx context.Context, b *batch, send func(context.Context, *batch) (outcome, error)) (outcome, error) {
	var total outcome
	first, second, err := b.halves()
	if err != nil {
		return total, err
	}
	for _, half := range []*batch{first, second} {
		done, err := send(ctx, half)
		total.add(done)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// partRefusals is what of one request was refused.
type partRefusals struct{ samples, exemplars refusals }

func parsedRefusals(body string, stats remote.WriteResponseStats, sent counts) partRefusals {
	samples, exemplars := parseRefusals(body, stats, sent)
	return partRefusals{samples, exemplars}
}

func wholeRefusal(b *batch, reply deliver.Reply) partRefusals {
	reason := fmt.Sprintf("status_%d", reply.Status)
	if reply.Status == http.StatusRequestEntityTooLarge {
		reason = reasonRequestTooLarge
	}
	samples := make(refusals)
	samples.add(reason, b.samples, firstLine(reply.Body))
	return partRefusals{samples: samples}
}

// account counts what became of a request.
func (d *delivery) account(ctx context.Context, b *batch, refused partRefusals) outcome {
	d.refuse(ctx, refused.samples)
	count(ctx, d.telemetry.exemplarsRejected, refused.exemplars)
	sent := b.samples - refused.samples.samples()
	d.telemetry.sent.Add(ctx, int64(sent))
	done := outcome{sent: sent, refused: refused.samples}
	d.answered = append(d.answered, answer{b, done})
	return done
}

// refuse counts and tells refused samples, the latter once per burst and reason.
func (e *prometheusExporter) refuse(ctx context.Context, refused refusals) {
	count(ctx, e.telemetry.rejected, refused)
	for reason, r := range refused {
		e.mu.Lock()
		burst := e.bursts[reason]
		if burst == nil {
			burst = &deliver.Burst{}
			e.bursts[reason] = burst
		}
		e.mu.Unlock()
		if n := burst.Allow(r.samples); n > 0 {
			e.set.Logger.Error("Samples were refused for good; they are lost unless the sender keeps them. "+
				"Counted in longhaul_prometheus_samples_rejected",
				zap.Int("samples", n), zap.String("reason", reason), zap.String("example", shorten(r.example)))
		}
	}
}

func shorten(text string) string {
	const most = 400
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
