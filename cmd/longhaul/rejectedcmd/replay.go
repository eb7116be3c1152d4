package rejectedcmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

// atOnce is how many frames are sent or deleted at the same time: a far hub's
// answers take their time.
const atOnce = 16

var errNoChoice = errors.New("say which: numbers from the first column of `longhaul rejected ls`, or --cluster, --node, --signal, --destination, --reason, --since, or --all")

func newReplayCommand(flags *hubflags.Flags) *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "replay [SEQUENCE|FROM-TO...]",
		Short: "Send rejected frames again",
		Long: `Send rejected frames again, to the destination that refused them: after what made
it refuse them was corrected. Other destinations, which have them, do not get them
twice.

A frame is put on the hub as its edge did it and is then deleted here. The relay
delivers it as backlog; what is accepted is no longer counted as lost (longhaul
gaps), what is refused a second time comes back here with the new reason. What is
not a whole frame cannot be sent again and stays.`,
		Example: `  longhaul rejected replay 17 20-25
  longhaul rejected replay --cluster store-0421 --reason "too far behind"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd, flags, &s, args, func(ctx context.Context, r *rejected, list []*entry, p *progress) error {
				return r.replay(ctx, cmd, list, p)
			})
		},
	}
	s.add(cmd.Flags())
	cmd.Flags().BoolVar(&s.all, "all", false, "all that is there")
	return cmd
}

// run opens the hub and does something with the frames chosen.
func run(cmd *cobra.Command, flags *hubflags.Flags, s *selection, args []string, do func(context.Context, *rejected, []*entry, *progress) error) error {
	if err := s.parse(args); err != nil {
		return err
	}
	if s.isEmpty() {
		return errNoChoice
	}
	r, err := open(cmd.Context(), flags)
	if err != nil {
		return err
	}
	defer r.close()
	p := newProgress(cmd.ErrOrStderr())
	list, err := r.choose(cmd.Context(), s, p)
	if err != nil {
		return err
	}
	return do(cmd.Context(), r, list, p)
}

func (r *rejected) replay(ctx context.Context, cmd *cobra.Command, list []*entry, p *progress) error {
	whole := slices.DeleteFunc(slices.Clone(list), func(e *entry) bool { return e.Damaged != "" })
	for _, e := range list {
		if e.Damaged != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "longhaul: %d is not sent: it is no whole frame (%s)\n", e.Sequence, e.Damaged)
		}
	}
	if err := r.checkDestinations(ctx, whole); err != nil {
		return err
	}
	var sent, items, away atomic.Int64
	err := each(ctx, whole, func(ctx context.Context, e *entry) error {
		gone, err := r.send(ctx, e)
		if gone { // meanwhile, by somebody else
			away.Add(1)
		}
		if err != nil || gone {
			return err
		}
		items.Add(int64(e.Items))
		p.tell("%d of %d frames sent", sent.Add(1), len(whole))
		return nil
	})
	fmt.Fprintf(cmd.OutOrStdout(), "%s with %s on the hub again; what is accepted leaves `longhaul gaps`, what is refused comes back here\n",
		count(sent.Load(), "frame"), count(items.Load(), "item"))
	switch left := len(list) - int(sent.Load()+away.Load()); {
	case err != nil:
		return fmt.Errorf("%w; of %s, %d are left", err, count(int64(len(list)), "frame"), left)
	case len(whole) < len(list):
		return fmt.Errorf("%s not sent, because they are no whole frames: `longhaul rejected drop` deletes them", count(int64(len(list)-len(whole)), "frame"))
	}
	return nil
}

// each does something with every entry, some at a time, until one fails.
func each(ctx context.Context, list []*entry, do func(context.Context, *entry) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, e := range list {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return do(ctx, e)
		})
	}
	return group.Wait()
}

// checkDestinations refuses to send what nobody would take: a destination that is
// not on the hub any more.
func (r *rejected) checkDestinations(ctx context.Context, list []*entry) error {
	type wanted struct {
		signal      frame.Signal
		destination string
	}
	known := make(map[frame.Signal][]string)
	checked := make(map[wanted]struct{})
	for _, e := range list {
		w := wanted{e.signal, e.Destination}
		if _, ok := checked[w]; ok {
			continue
		}
		checked[w] = struct{}{}
		if _, ok := known[e.signal]; !ok {
			names, err := r.destinations(ctx, e.signal)
			if err != nil {
				return err
			}
			known[e.signal] = names
		}
		if !slices.Contains(known[e.signal], e.Destination) {
			return fmt.Errorf("frame %d was refused for the destination %q, which the hub does not serve with %s any more; choose others with --destination, or set the destination up again",
				e.Sequence, e.Destination, e.signal)
		}
	}
	return nil
}

// destinations lists those that read a signal.
func (r *rejected) destinations(ctx context.Context, signal frame.Signal) (names []string, err error) {
	bounded, cancel := r.ask(ctx)
	defer cancel()
	doing := "look who reads the stream " + hub.StreamName(signal)
	stream, err := r.js.Stream(bounded, hub.StreamName(signal))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("the hub at %s has no stream %s: no relay has run on it yet", r.address, hub.StreamName(signal))
	}
	if err != nil {
		return nil, r.explain(doing, err)
	}
	readers, err := hub.Consumers(bounded, stream)
	if err != nil {
		return nil, r.explain(doing, err)
	}
	return readers.Destinations(), nil
}

// send puts a frame on the hub and then deletes it from the rejected stream. It
// returns gone when it is not there any more.
func (r *rejected) send(ctx context.Context, e *entry) (gone bool, err error) {
	bounded, cancel := r.ask(ctx)
	defer cancel()
	doing := fmt.Sprintf("send frame %d again", e.Sequence)
	msg, err := r.stream.GetMsg(bounded, e.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, r.explain(doing, err)
	}
	_, err = r.js.PublishMsg(bounded, &nats.Msg{
		Subject: hub.FrameSubject(e.signal, e.origin),
		Header: nats.Header{
			hub.ReplayHeader: {e.Destination},
			hub.ClassHeader:  {frame.Backlog.String()}, // it is late, whatever it was when it was written
			// The same frame sent twice at a time is one.
			nats.MsgIdHdr: {"replay." + strconv.FormatInt(r.stream.CachedInfo().Created.UnixNano(), 36) + "." + strconv.FormatUint(e.Sequence, 10)},
		},
		Data: msg.Data,
	}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return false, r.explain(doing, err)
	}
	return false, r.delete(ctx, e, "delete frame "+strconv.FormatUint(e.Sequence, 10)+", which is on the hub again")
}

// delete removes a frame from the rejected stream.
func (r *rejected) delete(ctx context.Context, e *entry, doing string) error {
	bounded, cancel := r.ask(ctx)
	defer cancel()
	err := r.stream.DeleteMsg(bounded, e.Sequence)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return r.explain(doing, err)
	}
	return nil
}
