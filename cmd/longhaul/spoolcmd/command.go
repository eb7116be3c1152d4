// Package spoolcmd is the command `longhaul spool`: it looks into the spool
// directory of a collector that runs, or of one that no longer does. All but adopt
// open files for reading only and take no lock, so they can neither change a spool
// nor get in the way of its collector. Its memory does not depend on the size
// of the spool: it holds one frame at a time.
package spoolcmd

import (
	"errors"

	"github.com/spf13/cobra"
)

// NewCommand returns the command `longhaul spool`.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Look into a spool directory, with the collector running or not",
		Long: `Look into a spool directory: what it holds, what is in it, whether it is whole.

ls, cat and verify change and lock nothing in the directory; the collector may be
running. adopt is for a node that was renamed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newListCommand(), newCatCommand(), newVerifyCommand(), newAdoptCommand())
	return cmd
}

// directory accepts exactly one argument.
func directory(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("name one spool directory, such as /var/lib/longhaul/spool")
	}
	return nil
}
