package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/account"
	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
)

// lineInterval is how often plain lines are printed.
const lineInterval = 5 * time.Second

// ErrMissing says that the backends do not have everything that was sent.
var ErrMissing = errors.New("not everything that was sent was found")

// run is the whole demo, from the first check to the last process's end.
func run(ctx context.Context, o *options, in io.Reader, out io.Writer) error {
	p, err := preflight(o)
	if err != nil {
		return err
	}
	d, err := newDemo(o, p)
	if err != nil {
		return err
	}
	d.story.setEcho(out)
	d.story.add("longhaul demo: everything is under %s", d.dir)

	report, err := d.perform(ctx, in, out)
	d.story.setEcho(out)
	d.story.add("stopping everything")
	keep := err != nil || o.Keep || o.Dir != ""
	err = errors.Join(err, d.close(!keep && o.Seconds == 0))
	if err == nil && report != nil && report.Total().Missing > 0 {
		err = ErrMissing
	}
	if keep || err != nil {
		d.story.add("everything is stopped; logs and data stay in %s", d.dir)
	} else {
		d.remove()
		d.story.add("everything is stopped, and %s removed", d.dir)
	}
	if report != nil {
		// Last, so that the last line is the result.
		if perr := report.print(out); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	return err
}

// perform starts the pipeline and shows it. It returns when the user has
// enough, the script is done or something failed; what it started is still
// running then, but for the builds.
func (d *demo) perform(ctx context.Context, in io.Reader, out io.Writer) (*result, error) {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()

	if err := d.start(ctx); err != nil {
		return nil, err
	}
	background.Go(func() { d.poll(ctx) })
	raised := make(chan error, 1)
	background.Go(func() { raised <- d.raiseBackends(ctx) })

	switch {
	case d.o.Seconds > 0:
		return d.script(ctx, raised)
	case isTerminal(in) && isTerminal(out):
		d.story.setEcho(nil)
		return nil, view.Run(ctx, d, in, out)
	default:
		d.showLines(ctx, nil)
		return nil, nil
	}
}

// showLines prints the state every few seconds until ctx or until is done.
func (d *demo) showLines(ctx context.Context, until <-chan struct{}) {
	t := time.NewTicker(lineInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-until:
			return
		case <-t.C:
			d.story.lines(d.Snapshot().Lines())
		}
	}
}

func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// result is the end of a scripted demo.
type result struct {
	account.Report
	remarks []string
}

func (r *result) print(out io.Writer) error {
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	if err := r.WriteTable(out); err != nil {
		return err
	}
	for _, remark := range r.remarks {
		if _, err := fmt.Fprintln(out, remark); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, r.Result())
	return err
}
