// Package gapscmd is the command `longhaul gaps`: it reads from the hub what the
// relay knows to be lost. It changes nothing there, and needs no relay to run.
package gapscmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
	"github.com/longhaul/longhaul/internal/custody"
	"github.com/longhaul/longhaul/internal/hub"
)

type options struct {
	hub     hubflags.Flags
	cluster string
	since   time.Duration
	output  string
}

// NewCommand returns the command `longhaul gaps`.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "gaps",
		Short: "Show what is lost for good, and why",
		Long: `Show what the relay knows to be lost: which frames of which lane, how many
items, for what cause, and what of it arrived after all.

It reads what the relay keeps on the hub: the last 32 gaps of every lane, and as
many of lanes that are no more. Older ones are in Loki (service_name="longhaul").

The credentials need what a relay's may: to read the key-value bucket
` + hub.CustodyBucket + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			gaps, err := o.read(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			if o.output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(struct {
					Gaps []gap `json:"gaps"`
				}{gaps})
			}
			return print(cmd.OutOrStdout(), gaps)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.cluster, "cluster", "", "only this cluster")
	flags.DurationVar(&o.since, "since", 0, "only what was found within this time, for example 24h (default all)")
	flags.StringVarP(&o.output, "output", "o", "text", "text or json")
	o.hub.Add(flags)
	return cmd
}

func (o *options) validate() error {
	var problems []error
	if o.cluster != "" {
		if err := hub.ValidName(o.cluster); err != nil {
			problems = append(problems, fmt.Errorf("--cluster: %w", err))
		}
	}
	if o.since < 0 {
		problems = append(problems, fmt.Errorf("--since: must not be negative, and is %s", o.since))
	}
	if o.output != "text" && o.output != "json" {
		problems = append(problems, fmt.Errorf("--output: must be text or json, not %q", o.output))
	}
	return errors.Join(problems...)
}

// read returns the gaps that the hub keeps, oldest first.
func (o *options) read(ctx context.Context, now time.Time) ([]gap, error) {
	ctx, cancel := context.WithTimeout(ctx, o.hub.Timeout)
	defer cancel()
	connection := o.hub.Connection()
	nc, err := connection.Dial(ctx, "longhaul gaps")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	values, err := o.values(ctx, nc)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound):
		return nil, fmt.Errorf("the hub at %s has no bucket %s: no relay has run on it yet", connection.Address(), hub.CustodyBucket)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("the server at %s has no JetStream for this account: is it the hub, and are these the relay's credentials? (%w)", connection.Address(), err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("the hub at %s did not answer within %s: it is busy, or these credentials may not read the bucket %s", connection.Address(), o.hub.Timeout, hub.CustodyBucket)
	case err != nil:
		return nil, fmt.Errorf("read the bucket %s: %w", hub.CustodyBucket, err)
	}
	gaps := []gap{}
	for of, value := range values {
		kept, err := custody.Gaps(value)
		if err != nil {
			return nil, fmt.Errorf("%s, epoch %s: %w", of.spool.Origin, of.spool.Epoch, err)
		}
		for i := range kept {
			if o.since == 0 || now.Sub(kept[i].At) <= o.since {
				gaps = append(gaps, newGap(of, &kept[i]))
			}
		}
	}
	slices.SortFunc(gaps, compare)
	return gaps, nil
}

// key is what the relay keeps a value for.
type key struct {
	destination string
	spool       custody.Spool
}

func (o *options) values(ctx context.Context, nc *nats.Conn) (map[key][]byte, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	bucket, err := js.KeyValue(ctx, hub.CustodyBucket)
	if err != nil {
		return nil, err
	}
	watcher, err := bucket.WatchFiltered(ctx, hub.ClusterKeys(o.cluster), jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = watcher.Stop() }() // the connection ends with it
	values := make(map[key][]byte)
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil, errors.New("interrupted")
			}
			if entry == nil {
				return values, nil
			}
			destination, origin, epoch, err := hub.ParseDestinationKey(entry.Key())
			if err != nil {
				continue // of another version
			}
			values[key{destination, custody.Spool{Origin: origin, Epoch: epoch}}] = entry.Value()
		}
	}
}
