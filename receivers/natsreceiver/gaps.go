package natsreceiver

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

const (
	// tellInterval is how often it is looked whether there is a gap to tell of.
	tellInterval = time.Second
	// tellAtOnce bounds the gaps of one delivery.
	tellAtOnce = 256
)

// report names changes of what is lost: as a metric and in the relay's own log.
func (s *share) report(reports []custody.Report) {
	for i := range reports {
		r := &reports[i]
		s.telemetry.changed(s.dest.name, r)
		fields := []zap.Field{
			zap.Stringer("origin", r.Key.Origin), zap.Stringer("epoch", r.Key.Epoch), zap.Stringer("lane", r.Key.Lane),
			zap.Uint64("from", r.Gap.From), zap.Uint64("to", r.Gap.To), zap.String("destination", s.dest.name),
		}
		lost, recovered := named(r.Lost), named(r.Recovered)
		switch {
		case len(recovered) == 0:
			s.log.Warn("items are lost", append(fields, zap.Any("items", lost))...)
		case len(lost) == 0:
			s.log.Info("items named as lost arrived after all", append(fields, zap.Any("items", recovered))...)
		default:
			s.log.Info("the edge names why items were lost", append(fields, zap.Any("items", lost))...)
		}
	}
}

func named(items custody.Counts) map[string]uint64 {
	result := make(map[string]uint64)
	for cause, count := range items {
		if count > 0 {
			result[frame.Cause(cause).String()] = count
		}
	}
	return result
}

// tellGaps sends a log record of every gap through the logs pipeline, until ctx is
// done. A gap is told once the pipeline has accepted its record, and that is
// stored; a relay killed in between tells it again, with the same time and line,
// which Loki stores once. Nothing waits for it.
func (s *share) tellGaps(ctx context.Context) {
	retry := &backoff.ExponentialBackOff{InitialInterval: tellInterval, MaxInterval: retryMax, Multiplier: 2, RandomizationFactor: 0.5}
	retry.Reset()
	wait := tellInterval
	records := s.recordsOf()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		untold := s.ledger.Untold(tellAtOnce)
		if len(untold) == 0 || !s.claim.Held() || !s.enter() {
			wait = tellInterval
			continue
		}
		told := s.tellAll(records, untold)
		s.leave()
		wait = tellInterval
		if !told {
			wait = retry.NextBackOff()
			continue
		}
		retry.Reset()
	}
}

// tellAll reports whether the records are accepted, or refused for good.
func (s *share) tellAll(records logsConsumer, untold []custody.Untold) bool {
	if records != nil {
		ctx, cancel := context.WithCancel(s.delivering)
		defer cancel()
		defer context.AfterFunc(s.lost, cancel)()
		err := records.ConsumeLogs(ctx, gapRecords(s.dest.name, untold))
		if err != nil && !isPermanent(err) {
			s.log.Debug("the log records of gaps are not accepted; they are sent again", zap.Int("gaps", len(untold)), zap.Error(err))
			return false
		}
		if err != nil {
			s.log.Error("the log records of gaps are refused; the gaps stand in this log, in longhaul_lost_items and in `longhaul gaps`",
				zap.Int("gaps", len(untold)), zap.Error(err))
		}
	}
	s.ledger.Told(untold)
	return true
}

// recordsOf returns the logs pipeline that is told of gaps: the destination's own,
// or, where it has none, another's.
func (s *share) recordsOf() logsConsumer {
	if s.dest.records != nil {
		return s.dest.records
	}
	for _, d := range s.destinations {
		if d.records != nil {
			return d.records
		}
	}
	return nil
}

// gapRecords makes the log records of gaps: one per gap and cause.
func gapRecords(destination string, untold []custody.Untold) plog.Logs {
	logs := plog.NewLogs()
	for i := range untold {
		u := &untold[i]
		resource := logs.ResourceLogs().AppendEmpty()
		resource.Resource().Attributes().PutStr("service.name", "longhaul")
		resource.Resource().Attributes().PutStr(direct.ClusterAttribute, u.Spool.Origin.Cluster)
		resource.Resource().Attributes().PutStr(direct.NodeAttribute, u.Spool.Origin.Node)
		records := resource.ScopeLogs().AppendEmpty().LogRecords()
		items := u.Gap.Items
		if u.Back {
			items = u.Gap.Recovered
		}
		for cause, n := range items {
			if n > 0 {
				record := records.AppendEmpty()
				gapRecord(record, u, frame.Cause(cause), n)
				record.Attributes().PutStr("destination", destination)
			}
		}
	}
	return logs
}

func gapRecord(record plog.LogRecord, u *custody.Untold, cause frame.Cause, n uint64) {
	g := &u.Gap
	at := g.At
	if u.Back {
		at = g.RecoveredAt
		record.SetEventName("longhaul.recovered")
		record.SetSeverityNumber(plog.SeverityNumberInfo)
		record.SetSeverityText("INFO")
		record.Body().SetStr(fmt.Sprintf("%d of %d lost %s of %s arrived after all: %s%s",
			n, g.Items[cause], items(g.Lane.Signal, g.Items[cause]), u.Spool.Origin, cause, where(g)))
	} else {
		record.SetEventName("longhaul.gap")
		record.SetSeverityNumber(plog.SeverityNumberWarn)
		record.SetSeverityText("WARN")
		record.Body().SetStr(fmt.Sprintf("lost %d %s of %s: %s%s", n, items(g.Lane.Signal, n), u.Spool.Origin, cause, where(g)))
	}
	record.SetTimestamp(pcommon.NewTimestampFromTime(at))
	record.SetObservedTimestamp(pcommon.NewTimestampFromTime(at))
	attributes := record.Attributes()
	attributes.PutStr("signal", g.Lane.Signal.String())
	attributes.PutStr("lane", g.Lane.String())
	attributes.PutStr("epoch", u.Spool.Epoch.String())
	attributes.PutStr("cause", cause.String())
	attributes.PutInt("items", int64(n))
	if g.To > 0 {
		attributes.PutInt("to", int64(g.To))
	}
	if g.From > 0 {
		attributes.PutInt("from", int64(g.From))
	}
	if g.After > 0 {
		attributes.PutStr("after", time.Unix(0, g.After).UTC().Format(time.RFC3339Nano))
	}
	if g.Before > 0 {
		attributes.PutStr("before", time.Unix(0, g.Before).UTC().Format(time.RFC3339Nano))
	}
}

// items is what a signal's items are called.
func items(signal frame.Signal, n uint64) string {
	name := map[frame.Signal]string{frame.Logs: "log record", frame.Metrics: "data point", frame.Traces: "span"}[signal]
	if n != 1 {
		name += "s"
	}
	return name
}

// where says which frames a gap is.
func where(g *custody.Gap) (text string) {
	switch {
	case g.To == 0:
		return ", no frame could hold them"
	case g.From == 0:
		text = fmt.Sprintf(", among the frames up to %d", g.To)
	case g.From == g.To:
		text = fmt.Sprintf(", frame %d", g.To)
	default:
		text = fmt.Sprintf(", frames %d to %d", g.From, g.To)
	}
	if g.Kept {
		text += ", kept in " + hub.RejectedStream
	}
	return text
}
