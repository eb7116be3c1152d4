// Command longhaul is the operator's tool.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/demo"
	"github.com/longhaul/longhaul/cmd/longhaul/gapscmd"
	"github.com/longhaul/longhaul/cmd/longhaul/rejectedcmd"
	"github.com/longhaul/longhaul/cmd/longhaul/spoolcmd"
	"github.com/longhaul/longhaul/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		if err != demo.ErrMissing { //nolint:errorlint // the bare error: the demo's last line has said it
			fmt.Fprintf(os.Stderr, "longhaul: %v\n", err)
		}
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "longhaul",
		Short:         "Telemetry from many small clusters, over links that fail, to one place",
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.SetVersionTemplate(version.Line("longhaul") + "\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newVersionCommand(), demo.NewCommand(), gapscmd.NewCommand(), rejectedcmd.NewCommand(), spoolcmd.NewCommand())
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(command *cobra.Command, _ []string) {
			fmt.Fprintln(command.OutOrStdout(), version.Line("longhaul"))
		},
	}
}
