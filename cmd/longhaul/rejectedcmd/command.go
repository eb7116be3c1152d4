// Package rejectedcmd is the command `longhaul rejected`: frames that a backend
// refused for good are kept on the hub; this shows them, sends them again and
// deletes them. It needs no relay to run; what it sends again waits for one on the
// hub.
package rejectedcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
	"github.com/longhaul/longhaul/internal/hub"
)

// NewCommand returns the command `longhaul rejected`.
func NewCommand() *cobra.Command {
	flags := &hubflags.Flags{}
	cmd := &cobra.Command{
		Use:   "rejected",
		Short: "Look at what backends refused for good, and send it again",
		Long: `Look at the frames that a backend refused for good, or that the relay could not
decode. The relay keeps them, each with the reason, in the hub's stream
` + hub.RejectedStream + `: for 30 days, or until the stream is full and the oldest make
room. Their items count as lost ("rejected" in longhaul gaps) until they are sent
again and accepted.

The credentials need what a relay's may: to read that stream and to delete from
it; to send again, also to publish on the subjects of the frames.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newListCommand(flags), newShowCommand(flags), newReplayCommand(flags), newDropCommand(flags))
	for _, sub := range cmd.Commands() {
		flags.Add(sub.Flags())
	}
	return cmd
}

// rejected is the stream of rejected frames, open.
type rejected struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream
	address string
	timeout time.Duration // of one answer of the hub
}

// open connects to the hub. The caller closes it.
func open(ctx context.Context, flags *hubflags.Flags) (*rejected, error) {
	bounded, cancel := context.WithTimeout(ctx, flags.Timeout)
	defer cancel()
	connection := flags.Connection()
	nc, err := connection.Dial(bounded, "longhaul rejected")
	if err != nil {
		return nil, err
	}
	r := &rejected{nc: nc, address: connection.Address(), timeout: flags.Timeout}
	if r.js, err = jetstream.New(nc); err == nil {
		r.stream, err = r.js.Stream(bounded, hub.RejectedStream)
	}
	if err != nil {
		err = r.explain("open the stream "+hub.RejectedStream, err)
		nc.Close()
		return nil, err
	}
	return r, nil
}

func (r *rejected) close() { r.nc.Close() }

// ask bounds one question to the hub.
func (r *rejected) ask(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.timeout)
}

// codeStreamFull is what the hub's API answers when a stream has no room.
const codeStreamFull = 10077

// explain says what an error of the hub means for the one who asked.
func (r *rejected) explain(doing string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("the hub at %s has no stream %s: no relay has run on it yet", r.address, hub.RejectedStream)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("the server at %s has no JetStream for this account: is it the hub, and are these the relay's credentials? (%w)", r.address, err)
	case errors.Is(r.nc.LastError(), nats.ErrPermissionViolation):
		return fmt.Errorf("%s: these credentials may not do that; use the relay's, or an administrator's: %w", doing, r.nc.LastError())
	case errors.As(err, &api) && api.ErrorCode == codeStreamFull:
		return fmt.Errorf("%s: the hub is full: wait until the relay has brought down what is on it, then go on with the rest (%w)", doing, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("%s: no stream at %s takes it: has a relay run on this hub? (%w)", doing, r.address, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%s: the hub at %s did not answer within %s: it is busy, or these credentials may not do that", doing, r.address, r.timeout)
	case errors.Is(err, nats.ErrConnectionClosed):
		return fmt.Errorf("%s: the connection to the hub at %s broke; go on when it is back", doing, r.address)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
