package rejectedcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/pflag"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// selection says which rejected frames are meant: those that fit all that is given.
type selection struct {
	cluster, node, signal, destination, reason string
	since                                      time.Duration
	all                                        bool

	of     []frame.Signal // signal, read
	ranges []sequences    // from the arguments; none: any
}

// sequences is a range of numbers in the stream, both ends included.
type sequences struct{ from, to uint64 }

func (s *selection) add(flags *pflag.FlagSet) {
	flags.StringVar(&s.cluster, "cluster", "", "only of this cluster")
	flags.StringVar(&s.node, "node", "", "only of this node")
	flags.StringVar(&s.signal, "signal", "", "only logs, metrics or traces")
	flags.StringVar(&s.destination, "destination", "", "only what was refused for this destination")
	flags.StringVar(&s.reason, "reason", "", "only where the reason has this in it, whatever the case of its letters")
	flags.DurationVar(&s.since, "since", 0, "only what was rejected within this time, for example 24h (default all)")
}

// parse reads the arguments and reports every problem.
func (s *selection) parse(args []string) error {
	var problems []error
	for _, name := range []struct{ flag, value string }{{"--cluster", s.cluster}, {"--node", s.node}} {
		if name.value != "" {
			if err := hub.ValidName(name.value); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name.flag, err))
			}
		}
	}
	s.of = frame.Signals
	if s.signal != "" {
		signal, err := frame.ParseSignal(s.signal)
		if err != nil {
			problems = append(problems, fmt.Errorf("--signal: %w", err))
		}
		s.of = []frame.Signal{signal}
	}
	if s.since < 0 {
		problems = append(problems, fmt.Errorf("--since: must not be negative, and is %s", s.since))
	}
	for _, arg := range args {
		r, err := parseSequences(arg)
		if err != nil {
			problems = append(problems, err)
		}
		s.ranges = append(s.ranges, r)
	}
	slices.SortFunc(s.ranges, func(a, b sequences) int { return cmp.Compare(a.from, b.from) })
	return errors.Join(problems...)
}

func parseSequences(arg string) (sequences, error) {
	first, last, isRange := strings.Cut(arg, "-")
	from, err := strconv.ParseUint(first, 10, 64)
	to := from
	if err == nil && isRange {
		to, err = strconv.ParseUint(last, 10, 64)
	}
	if err != nil || from == 0 || to < from {
		return sequences{}, fmt.Errorf("%q: must be a number from the first column of `longhaul rejected ls`, or a range such as 10-20", arg)
	}
	return sequences{from, to}, nil
}

// isEmpty says whether nothing was given that makes a choice.
func (s *selection) isEmpty() bool {
	return !s.all && len(s.ranges) == 0 && s.cluster == "" && s.node == "" && s.signal == "" &&
		s.destination == "" && s.reason == "" && s.since == 0
}

// subjects are those to be read.
func (s *selection) subjects() (list []string) {
	for _, signal := range s.of {
		list = append(list, hub.RejectedSubjects(signal, s.cluster, s.node))
	}
	return list
}

func (s *selection) has(e *entry) bool {
	return (s.destination == "" || s.destination == e.Destination) &&
		strings.Contains(strings.ToLower(e.Reason), strings.ToLower(s.reason)) &&
		(len(s.ranges) == 0 || slices.ContainsFunc(s.ranges, func(r sequences) bool { return r.from <= e.Sequence && e.Sequence <= r.to }))
}

// consumer says from where on the stream is to be read.
func (s *selection) consumer(now time.Time) jetstream.OrderedConsumerConfig {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: s.subjects(), DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case len(s.ranges) > 0:
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, s.ranges[0].from
	case s.since > 0:
		from := now.Add(-s.since)
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &from
	}
	return config
}

// beyond says whether nothing from a sequence on is meant.
func (s *selection) beyond(sequence uint64) bool {
	return len(s.ranges) > 0 && !slices.ContainsFunc(s.ranges, func(r sequences) bool { return sequence <= r.to })
}

// read calls each with the frames meant, the oldest first, that are there when it
// begins. What each is given is good until it returns.
func (r *rejected) read(ctx context.Context, s *selection, p *progress, each func(*entry) error) error {
	const doing = "read the stream " + hub.RejectedStream
	now := time.Now()
	bounded, cancel := r.ask(ctx)
	defer cancel()
	consumer, err := r.stream.OrderedConsumer(bounded, s.consumer(now))
	if err != nil {
		return r.explain(doing, err)
	}
	total := consumer.CachedInfo().NumPending
	if total == 0 {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return r.explain(doing, err)
	}
	defer messages.Stop()
	for n := uint64(1); ; n++ {
		next, cancel := r.ask(ctx)
		msg, err := messages.Next(jetstream.NextContext(next))
		cancel()
		if err != nil {
			return r.explain(doing, err)
		}
		at, err := msg.Metadata()
		if err != nil {
			return r.explain(doing, err)
		}
		p.tell("%d of %d frames read", n, total)
		if s.beyond(at.Sequence.Stream) {
			return nil
		}
		e := newEntry(at.Sequence.Stream, at.Timestamp, msg.Subject(), msg.Headers(), msg.Data())
		if s.has(e) && (s.since == 0 || now.Sub(at.Timestamp) <= s.since) {
			if err := each(e); err != nil {
				return err
			}
		}
		if at.NumPending == 0 || n >= total {
			return nil
		}
	}
}

// choose returns the frames meant, without their contents. That nothing fits is an error.
func (r *rejected) choose(ctx context.Context, s *selection, p *progress) ([]*entry, error) {
	var list []*entry
	err := r.read(ctx, s, p, func(e *entry) error {
		e.payload = nil
		list = append(list, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, want := range s.ranges {
		if want.from == want.to && !slices.ContainsFunc(list, func(e *entry) bool { return e.Sequence == want.from }) {
			return nil, missing(want.from)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no rejected frame fits; `longhaul rejected ls` shows what is there")
	}
	return list, nil
}

func missing(sequence uint64) error {
	return fmt.Errorf("no rejected frame %d is there, or it does not fit what was asked for: it was sent again, dropped, or has made room for newer ones; "+
		"`longhaul rejected ls` shows what is there", sequence)
}
