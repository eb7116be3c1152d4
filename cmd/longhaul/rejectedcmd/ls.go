package rejectedcmd

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
	"github.com/longhaul/longhaul/internal/bytesize"
)

// reasonWidth is how much of a reason the table shows; show and JSON have it all.
const reasonWidth = 100

func newListCommand(flags *hubflags.Flags) *cobra.Command {
	var s selection
	output := "text"
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the rejected frames, the oldest first",
		Example: `  longhaul rejected ls --cluster store-0421 --since 24h
  longhaul rejected ls --reason "too far behind" -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output: must be text or json, not %q", output)
			}
			if err := s.parse(nil); err != nil {
				return err
			}
			r, err := open(cmd.Context(), flags)
			if err != nil {
				return err
			}
			defer r.close()
			list := []*entry{}
			err = r.read(cmd.Context(), &s, newProgress(cmd.ErrOrStderr()), func(e *entry) error {
				e.payload = nil
				list = append(list, e)
				return nil
			})
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(struct {
					Rejected []*entry `json:"rejected"`
				}{list})
			}
			return printList(cmd.OutOrStdout(), list)
		},
	}
	s.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printList(w io.Writer, list []*entry) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no rejected frames")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SEQUENCE\tREJECTED\tCLUSTER\tNODE\tLANE\tNUMBER\tITEMS\tBYTES\tDESTINATION\tREASON")
	for _, e := range list {
		lane, number, items := e.Lane, strconv.FormatUint(e.Number, 10), strconv.FormatUint(uint64(e.Items), 10)
		if e.Damaged != "" {
			lane, number, items = e.Signal, "-", "-"
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", e.Sequence, e.Rejected.Format(time.DateTime),
			e.Cluster, e.Node, lane, number, items, e.Bytes, e.Destination, shorten(e.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s; times are UTC\n", sum(list))
	return err
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > reasonWidth {
		return string(runes[:reasonWidth-1]) + "…"
	}
	return text
}

// sum says in words what a list holds.
func sum(list []*entry) string {
	clusters := make(map[string]struct{})
	var items, bytes int64
	for _, e := range list {
		clusters[e.Cluster] = struct{}{}
		items += int64(e.Items)
		bytes += int64(e.Bytes)
	}
	return fmt.Sprintf("%s with %s of %s, %s", count(int64(len(list)), "frame"), count(items, "item"),
		count(int64(len(clusters)), "cluster"), bytesize.Size(bytes))
}

func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
