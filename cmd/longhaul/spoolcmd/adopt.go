package spoolcmd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/spool"
)

func newAdoptCommand() *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use:   "adopt --as CLUSTER/NODE DIR",
		Short: "Give a spool to a node under another name",
		Long: `Give a spool to another owner. A collector refuses the spool of another cluster or
node: it was copied or mounted where it does not belong. Adopt it if the node was
renamed. The collector must be stopped. What the spool holds is then shipped
under the new name.`,
		Example: `  longhaul spool adopt --as store-0421/node-a /var/lib/longhaul/spool`,
		Args:    directory,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOwner(owner); err != nil {
				return fmt.Errorf("--as: %w", err)
			}
			former, err := spool.Adopt(args[0], owner)
			if err != nil {
				return err
			}
			if former == "" {
				former = "nobody"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s belonged to %s and now belongs to %s\n", args[0], former, owner)
			return err
		},
	}
	cmd.Flags().StringVar(&owner, "as", "", "the new owner, as cluster/node")
	return cmd
}

func checkOwner(owner string) error {
	cluster, node, found := strings.Cut(owner, "/")
	if !found {
		return errors.New("name the new owner as cluster/node, such as store-0421/node-a")
	}
	return errors.Join(named("the cluster", cluster), named("the node", node))
}

func named(what, name string) error {
	if err := hub.ValidName(name); err != nil {
		return fmt.Errorf("%s %w", what, err)
	}
	return nil
}
