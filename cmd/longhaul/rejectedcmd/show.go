package rejectedcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/hubflags"
	"github.com/longhaul/longhaul/cmd/longhaul/internal/content"
)

func newShowCommand(flags *hubflags.Flags) *cobra.Command {
	output := "text"
	cmd := &cobra.Command{
		Use:   "show SEQUENCE",
		Short: "Show a rejected frame: why, its header, and its items",
		Long: `Show a rejected frame: why it was rejected, its header, and its items as an OTLP
export request in JSON, as longhaul spool cat prints them.`,
		Example: `  longhaul rejected show 17
  longhaul rejected show 17 -o json | jq .request`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output: must be text or json, not %q", output)
			}
			one, err := parseSequences(args[0])
			if err != nil || one.from != one.to {
				return fmt.Errorf("%q: must be a number from the first column of `longhaul rejected ls`", args[0])
			}
			r, err := open(cmd.Context(), flags)
			if err != nil {
				return err
			}
			defer r.close()
			ctx, cancel := r.ask(cmd.Context())
			defer cancel()
			msg, err := r.stream.GetMsg(ctx, one.from)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return missing(one.from)
			}
			if err != nil {
				return r.explain(fmt.Sprintf("read rejected frame %d", one.from), err)
			}
			e := newEntry(msg.Sequence, msg.Time, msg.Subject, msg.Header, msg.Data)
			if output == "json" {
				return showJSON(cmd.OutOrStdout(), e)
			}
			return show(cmd.OutOrStdout(), e)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func show(w io.Writer, e *entry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, value any) { fmt.Fprintf(table, "%s\t%v\n", name, value) }
	line("sequence", e.Sequence)
	line("rejected", e.Rejected.Format(time.RFC3339Nano))
	line("reason", e.Reason)
	line("destination", e.Destination)
	line("signal", e.Signal)
	line("cluster", e.Cluster)
	line("node", e.Node)
	line("bytes", e.Bytes)
	if e.Damaged != "" {
		line("damaged", e.Damaged)
		return table.Flush()
	}
	h := content.HeaderOf(&e.header)
	line("epoch", h.Epoch)
	line("lane", h.Lane)
	line("class", h.Class)
	line("number", h.Number)
	line("codec", h.Codec)
	line("uncompressed", h.Uncompressed)
	line("items", h.Items)
	for _, at := range []struct {
		name string
		time *time.Time
	}{{"first", h.First}, {"last", h.Last}} {
		if at.time != nil {
			line(at.name, at.time.Format(time.RFC3339Nano))
		}
	}
	items, err := e.items()
	if err != nil {
		line("undecodable", printable(err.Error()))
	}
	if err := table.Flush(); err != nil || items == nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s\n", items)
	return err
}

func showJSON(w io.Writer, e *entry) error {
	out := struct {
		*entry
		Header      *content.Header `json:"header,omitempty"`
		Undecodable string          `json:"undecodable,omitempty"`
		Request     json.RawMessage `json:"request,omitempty"`
	}{entry: e}
	if e.Damaged == "" {
		h := content.HeaderOf(&e.header)
		out.Header = &h
		items, err := e.items()
		if err != nil {
			out.Undecodable = err.Error()
		}
		out.Request = items
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}

// items returns the frame's items as an OTLP export request in JSON.
func (e *entry) items() ([]byte, error) {
	var d content.Decoder
	request, err := d.Decode(&e.header, e.payload)
	if err != nil {
		return nil, err
	}
	return request.MarshalJSON()
}
