package spoolcmd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul/longhaul/cmd/longhaul/internal/content"
	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

func newCatCommand() *cobra.Command {
	var c cat
	cmd := &cobra.Command{
		Use:   "cat DIR",
		Short: "Print what is in a spool as OTLP JSON",
		Long: `Print the frames in a spool, one line each, as OTLP export requests in JSON: what
is not confirmed, and what is and has not been deleted yet.

With --headers, a frame's header instead of its items. Damaged frames are named
on standard error and skipped; that is not a failure here, but it is one to
verify.`,
		Example: `  longhaul spool cat --lane logs/1 --limit 10 /var/lib/longhaul/spool
  longhaul spool cat --headers --lane logs/1 --from 4711 /var/lib/longhaul/spool`,
		Args: directory,
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.to != 0 && c.from > c.to {
				return fmt.Errorf("--from %d is beyond --to %d", c.from, c.to)
			}
			return c.run(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&c.lanes, "lane", nil, "only this lane, such as logs/1; may be repeated")
	flags.Uint64Var(&c.from, "from", 0, "only frames with this number or a higher one")
	flags.Uint64Var(&c.to, "to", 0, "only frames with this number or a lower one")
	flags.Uint64Var(&c.limit, "limit", 0, "at most so many frames; 0 means all")
	flags.BoolVar(&c.headers, "headers", false, "print the frames' headers instead of their items")
	return cmd
}

// cat is one run of the command.
type cat struct {
	lanes    []string
	from, to uint64
	limit    uint64
	headers  bool

	printed uint64
	decoder content.Decoder
}

func (c *cat) run(cmd *cobra.Command, dir string) error {
	in, err := spool.Inspect(dir)
	if err != nil {
		return err
	}
	lanes, err := chosen(in, c.lanes)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	complain := func(text string) {
		out.Flush() // keeps the order where both go to a terminal
		fmt.Fprintf(cmd.ErrOrStderr(), "longhaul: skipped: %s\n", text)
	}
	for _, d := range in.Damage {
		complain(d.String())
	}
	for _, id := range lanes {
		_, err := in.Examine(id, spool.Examination{
			From: c.from, To: c.to, Payloads: true,
			Frame: func(f *spool.FoundFrame) error {
				if c.limit > 0 && c.printed == c.limit {
					return fs.SkipAll
				}
				if err := c.print(out, f, complain); err != nil {
					return err
				}
				return cmd.Context().Err()
			},
			Damage: func(d spool.Damage) { complain(d.String()) },
		})
		if err != nil {
			return errors.Join(err, out.Flush())
		}
	}
	return out.Flush()
}

// chosen returns the lanes asked for, all if none.
func chosen(in *spool.Inspection, names []string) ([]frame.Lane, error) {
	all := in.Lanes()
	if len(names) == 0 {
		return all, nil
	}
	var lanes []frame.Lane
	for _, name := range names {
		id, err := frame.ParseLane(name)
		if err != nil {
			return nil, fmt.Errorf("--lane: %w", err)
		}
		if !slices.Contains(all, id) {
			known := make([]string, len(all))
			for i, id := range all {
				known[i] = id.String()
			}
			return nil, fmt.Errorf("--lane: the spool has no lane %s, only %s", id, strings.Join(known, ", "))
		}
		lanes = append(lanes, id)
	}
	return lanes, nil
}

func (c *cat) print(out io.Writer, f *spool.FoundFrame, complain func(string)) error {
	var line []byte
	var err error
	if c.headers {
		line, err = json.Marshal(headerOf(f))
	} else {
		var r content.Request
		r, err = decode(&c.decoder, f)
		if err != nil {
			d := at(f, err)
			complain(d.String())
			return nil
		}
		line, err = r.MarshalJSON()
	}
	if err != nil {
		return fmt.Errorf("frame %d of %s as JSON: %w", f.Header.Number, f.File, err)
	}
	c.printed++
	_, err = out.Write(append(line, '\n'))
	return err
}

// at says of which frame an error is.
func at(f *spool.FoundFrame, err error) spool.Damage {
	return spool.Damage{
		File: f.File, Offset: f.Offset, Bytes: int64(f.Length),
		From: f.Header.Number, To: f.Header.Number, Items: uint64(f.Header.Items), What: err.Error(),
	}
}

// decode returns the export request in a frame.
func decode(d *content.Decoder, f *spool.FoundFrame) (content.Request, error) {
	if f.Newer {
		return nil, content.ErrNewer
	}
	return d.Decode(&f.Header, f.Payload)
}

// header is a frame's header as cat --headers prints it.
type header struct {
	content.Header
	Settled bool   `json:"settled"` // below the floor of the spool, see ls
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Bytes   int    `json:"bytes"`
}

func headerOf(f *spool.FoundFrame) header {
	return header{Header: content.HeaderOf(&f.Header), Settled: f.Settled, File: f.File, Offset: f.Offset, Bytes: f.Length}
}
