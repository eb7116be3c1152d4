package demo

import (
	"context"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
)

// The methods below implement view.Controls: what the keys do.

func (d *demo) begun() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

// ToggleLink cuts the link of a store or restores it.
func (d *demo) ToggleLink(i int) {
	s := d.stores[i]
	cut := s.view().Link != view.Cut
	if err := s.cut(cut); err != nil {
		d.story.add("%s: %v", s.name, err)
		return
	}
	if cut {
		d.story.add("%s: link cut; the spool holds its data", s.name)
	} else {
		d.story.add("%s: link restored; the spool drains", s.name)
	}
}

// ToggleCollector kills the collector of a store with SIGKILL or starts it again.
func (d *demo) ToggleCollector(i int) {
	s := d.stores[i]
	if !s.begin() {
		return
	}
	d.work.Go(func() {
		defer s.end()
		if s.collector.Running() {
			_ = s.collector.Kill() // it ended by itself meanwhile: the same
			s.setState(view.Killed)
			d.story.add("%s: collector killed (kill -9)", s.name)
			return
		}
		s.setState(view.Starting)
		if err := s.collector.Start(d.begun()); err != nil {
			s.setState(view.Failed)
			d.story.add("%s: the collector does not start: %v", s.name, err)
			return
		}
		s.setState(view.Up)
		d.story.add("%s: collector is up again, with its spool", s.name)
	})
}

// ToggleBackend stops a backend or starts it.
func (d *demo) ToggleBackend(i int) {
	b := d.backends[i]
	state, free := b.begin()
	if !free {
		return
	}
	d.work.Go(func() {
		defer b.end()
		if state != view.Up {
			_ = b.raise(d.begun()) // it tells the story itself
			return
		}
		if err := b.process().Stop(); err != nil {
			d.story.add("%s: %v", b.name, err)
		}
		b.set(view.Stopped, "")
		d.story.add("%s is stopped; the hub holds its data", b.name)
	})
}
