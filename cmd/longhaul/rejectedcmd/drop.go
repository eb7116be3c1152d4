package rejectedcmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
)

func newDropCommand(flags *hubflags.Flags) *cobra.Command {
	var s selection
	yes := false
	cmd := &cobra.Command{
		Use:   "drop [SEQUENCE|FROM-TO...]",
		Short: "Delete rejected frames for good",
		Long: `Delete rejected frames for good. It asks first, unless --yes is given. Their items
stay counted as lost.`,
		Example: `  longhaul rejected drop 17
  longhaul rejected drop --cluster store-0421 --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd, flags, &s, args, func(ctx context.Context, r *rejected, list []*entry, p *progress) error {
				if !yes {
					if err := confirm(cmd, list); err != nil {
						return err
					}
				}
				return r.drop(ctx, cmd, list, p)
			})
		},
	}
	s.add(cmd.Flags())
	cmd.Flags().BoolVar(&s.all, "all", false, "all that is there")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm asks; anything but yes is an error.
func confirm(cmd *cobra.Command, list []*entry) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "Delete %s for good? [y/N] ", sum(list))
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr())
			return errors.New("nothing was deleted: nobody answered; --yes deletes without asking")
		}
	}
	return errors.New("nothing was deleted")
}

func (r *rejected) drop(ctx context.Context, cmd *cobra.Command, list []*entry, p *progress) error {
	var deleted atomic.Int64
	err := each(ctx, list, func(ctx context.Context, e *entry) error {
		if err := r.delete(ctx, e, "delete frame "+strconv.FormatUint(e.Sequence, 10)); err != nil {
			return err
		}
		p.tell("%d of %d frames deleted", deleted.Add(1), len(list))
		return nil
	})
	fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", count(deleted.Load(), "frame"))
	if err != nil {
		return fmt.Errorf("%w; of %s, %d are left", err, count(int64(len(list)), "frame"), len(list)-int(deleted.Load()))
	}
	return nil
}
