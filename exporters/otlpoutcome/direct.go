package otlpoutcome

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/internal/direct"
)

// directly is what takes OTLP requests as they are beside upstream's exporter, which
// takes pdata.
type directly struct {
	*sender
	upstream component.Component
	limit    int              // bytes of a request
	progress deliver.Progress // pieces, or parts of large ones, accepted by calls that failed half way
	seed     maphash.Seed
}

func newDirectly(upstream component.Component, s *sender) *directly {
	return &directly{sender: s, upstream: upstream, limit: maxRequestBytes, seed: maphash.MakeSeed()}
}

func (d *directly) Start(ctx context.Context, host component.Host) error {
	if err := d.upstream.Start(ctx, host); err != nil {
		return err
	}
	return d.sender.Start(ctx, host) // if it fails, the collector shuts both down
}

func (d *directly) Shutdown(ctx context.Context) error {
	return errors.Join(d.sender.Shutdown(ctx), d.upstream.Shutdown(ctx))
}

// ConsumeOTLP delivers pieces in as few requests as gRPC servers bear, one after the
// other.
//
// When some of the requests are accepted and others refused for good, the error is a
// *direct.PartialError that is permanent (consumererror.IsPermanent): the failed pieces
// are refused together, and which of them is to blame shows when they come again
// apart. Of one piece that takes several requests, what is refused for good is counted
// when the server took the rest.
func (d *directly) ConsumeOTLP(ctx context.Context, pieces []direct.Piece) error {
	c := call{directly: d, pieces: pieces, recalling: !d.progress.Empty()}
	requests, err := pack(d.signal, pieces, d.limit, c.answered)
	if err != nil {
		return err
	}
	for _, r := range requests {
		c.deliver(ctx, r)
	}
	return c.end()
}

// call is what becomes of the requests of one call.
type call struct {
	*directly
	pieces    []direct.Piece
	recalling bool
	earlier   map[uint64]*repeated // by key, what earlier calls know of
	accepted  []*request
	refused   failures // for good
	failed    failures
}

// repeated is how often a part was accepted by earlier calls, and how often this one
// has it: frames may say the same, and each is to be delivered.
type repeated struct{ accepted, met int }

type failures struct {
	pieces []int
	items  int
	errs   []error
}

func (f *failures) add(r *request, err error) {
	f.pieces = append(f.pieces, r.pieces...)
	f.items += r.body.items
	f.errs = append(f.errs, err)
}

// answered says whether a part of a piece was accepted by an earlier call.
func (c *call) answered(piece, part int) bool {
	if !c.recalling {
		return false
	}
	key := c.key(piece, part)
	known := c.earlier[key]
	if known == nil {
		from, found := c.progress.Answered(key)
		if !found {
			return false
		}
		if c.earlier == nil {
			c.earlier = make(map[uint64]*repeated)
		}
		known = &repeated{accepted: from.Sent}
		c.earlier[key] = known
	}
	if known.met == known.accepted {
		return false
	}
	known.met++
	return true
}

// key is what a part of a piece is known by from one call to the next.
func (c *call) key(piece, part int) uint64 {
	p := &c.pieces[piece]
	var h maphash.Hash
	h.SetSeed(c.seed)
	var head [25]byte
	binary.LittleEndian.PutUint64(head[0:], uint64(part))
	binary.LittleEndian.PutUint64(head[8:], uint64(len(p.Cluster)))
	binary.LittleEndian.PutUint64(head[16:], uint64(len(p.Node)))
	if p.Backlog {
		head[24] = 1
	}
	_, _ = h.Write(head[:])
	_, _ = h.WriteString(p.Cluster)
	_, _ = h.WriteString(p.Node)
	_, _ = h.Write(p.OTLP)
	return h.Sum64()
}

func (c *call) deliver(ctx context.Context, r *request) {
	if most := c.cfg.TimeoutConfig.Timeout; len(c.failed.errs) > 0 && most > 0 {
		// The time for retries went to another request of the call. This one may fare
		// better, and is given the time of one attempt to show it.
		bounded, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		ctx = bounded
	}
	switch err := c.send(ctx, r); {
	case err == nil:
		c.accepted = append(c.accepted, r)
	case consumererror.IsPermanent(err):
		c.refused.add(r, err)
	default:
		c.failed.add(r, err)
	}
}

// end makes one answer of those to the requests.
func (c *call) end() error {
	none := len(c.accepted) == 0 && len(c.earlier) == 0
	switch {
	case len(c.failed.errs) == 0 && len(c.refused.errs) == 0:
		c.forget()
		return nil
	case none && len(c.failed.errs) == 0:
		return errors.Join(c.refused.errs...)
	case none:
		return errors.Join(c.failed.errs...)
	case len(c.failed.errs) == 0 && len(c.pieces) == 1:
		c.forget()
		c.rejected(int64(c.refused.items))
		c.set.Logger.Warn("The server refused a part of a frame for good and took the rest",
			zap.Int(c.signal.dropped, c.refused.items), zap.Error(errors.Join(c.refused.errs...)))
		return nil
	}
	c.remember()
	err := errors.Join(c.failed.errs...)
	if err == nil {
		err = errors.Join(c.refused.errs...)
	}
	if len(c.pieces) == 1 {
		return err
	}
	again := append(c.failed.pieces, c.refused.pieces...)
	slices.Sort(again)
	return &direct.PartialError{Err: err, Failed: slices.Compact(again)}
}

// remember keeps what was accepted until the caller has come again with the rest.
func (c *call) remember() {
	accepted := make(map[uint64]int, len(c.earlier)+len(c.accepted))
	for key, known := range c.earlier {
		accepted[key] = known.accepted
	}
	for _, r := range c.accepted {
		for _, piece := range r.pieces {
			accepted[c.key(piece, r.part)]++
		}
	}
	c.keep(accepted)
}

// forget drops what the call had of what earlier ones know of. It may be a half of
// what was tried together.
func (c *call) forget() {
	left := make(map[uint64]int)
	var done []deliver.Part
	for key, known := range c.earlier {
		if known.met < known.accepted {
			left[key] = known.accepted - known.met
		} else {
			done = append(done, deliver.Part{Hash: key})
		}
	}
	c.progress.Forget(done)
	if len(left) > 0 {
		c.keep(left)
	}
}

func (c *call) keep(accepted map[uint64]int) {
	parts := make([]deliver.Part, 0, len(accepted))
	for key, n := range accepted {
		parts = append(parts, deliver.Part{Hash: key, Sent: n})
	}
	c.progress.Keep(parts)
}
