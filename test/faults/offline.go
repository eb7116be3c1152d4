package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

// A spool that is damaged without a collector: small, so that every file and
// every kind of place is hit often, and of all signals.
const (
	offlineSegment   = 8 << 10
	offlineFrames    = 24 // per signal
	offlineConfirmed = 5  // of those
	offlineChain     = 5  // damages to one spool, a start after each
	offlineTemplates = 20 // chains that begin from the same spool
)

// offlineFrame is a frame as it was appended.
type offlineFrame struct {
	items   int
	payload []byte
}

type offlineSpool struct {
	dir    string
	before map[frame.Lane]uint64                  // items of the frames that were confirmed
	frames map[frame.Lane]map[uint64]offlineFrame // acknowledged and not confirmed
	files  map[string][]byte
	extra  []offlineNumber // appended since the files were read
}

type offlineNumber struct {
	lane   frame.Lane
	number uint64
}

// damageOffline damages a spool and opens it, d.times times, and reads all that
// is left. It is package spool that starts here, in this process, not a
// collector: the rows spool-damage and spool-damage-cold start that.
func damageOffline(ctx context.Context, w *world, dir string, d dose) (a account, notes, problems []string, err error) {
	random := rand.New(rand.NewPCG(w.seed, 0))
	var o *offlineSpool
	for trial := 0; trial < d.times; {
		if trial/offlineChain%offlineTemplates == 0 {
			if o, err = newOfflineSpool(ctx, filepath.Join(dir, "spool"), random); err != nil {
				return a, nil, problems, err
			}
		} else if err := o.restore(); err != nil {
			return a, nil, problems, err
		}
		var history []string
		var one account
		for step := 0; step < offlineChain && trial < d.times; step++ {
			if err := ctx.Err(); err != nil {
				return a, nil, problems, err
			}
			trial++
			what, err := damage(o.dir, random)
			if err != nil {
				return a, nil, problems, err
			}
			history = append(history, what)
			var unnamed []string
			if one, unnamed, err = o.start(ctx); err != nil {
				problems = append(problems, fmt.Sprintf("start %d, after %q: %v", trial, history, err))
				break
			}
			if len(unnamed) > 0 {
				problems = append(problems, fmt.Sprintf("start %d: %s, after %q", trial, strings.Join(unnamed, "; "), history))
				break
			}
		}
		a = a.plus(one)
		if trial%200 < offlineChain {
			say("%d of %d damages: %d of %d items missing, %d named", trial, d.times, a.missing(), a.in, a.named())
		}
	}
	if n := a.relayLost - a.edgeLost; n > 0 {
		notes = append(notes, fmt.Sprintf("%d items are not counted by the spool, whose ledger was destroyed too; the relay learns of them from the frames behind", n))
	}
	return a, notes, problems, nil
}

func (a account) plus(b account) account {
	a.in += b.in
	a.delivered += b.delivered
	a.duplicates += b.duplicates
	a.edgeLost += b.edgeLost
	a.relayLost += b.relayLost
	a.surplus += b.surplus
	return a
}

func (o *offlineSpool) open() (*spool.Spool, error) {
	return spool.Open(spool.Options{Dir: o.dir, MaxBytes: 16 << 20, SegmentBytes: offlineSegment, Logger: slog.New(slog.DiscardHandler)})
}

func newOfflineSpool(ctx context.Context, dir string, random *rand.Rand) (*offlineSpool, error) {
	o := &offlineSpool{dir: dir, before: make(map[frame.Lane]uint64), frames: make(map[frame.Lane]map[uint64]offlineFrame)}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	s, err := o.open()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(o.fill(ctx, s, random), s.Close()); err != nil {
		return nil, err
	}
	o.files = make(map[string][]byte)
	return o, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		o.files[path], err = os.ReadFile(path)
		return err
	})
}

// fill appends one frame after the other, so that a seed gives the same spool again.
func (o *offlineSpool) fill(ctx context.Context, s *spool.Spool, random *rand.Rand) error {
	for range offlineFrames {
		for _, signal := range frame.Signals {
			payload := make([]byte, 16+random.IntN(1500))
			for i := range payload {
				payload[i] = byte(random.Uint32())
			}
			items := 1 + random.IntN(50)
			number, lane, err := appendOffline(ctx, s, signal, items, payload)
			if err != nil {
				return err
			}
			if o.frames[lane] == nil {
				o.frames[lane] = make(map[uint64]offlineFrame)
			}
			o.frames[lane][number] = offlineFrame{items, payload}
		}
	}
	for lane, frames := range o.frames {
		s.Confirm(lane, offlineConfirmed)
		maps.DeleteFunc(frames, func(number uint64, f offlineFrame) bool {
			if number <= offlineConfirmed {
				o.before[lane] += uint64(f.items)
			}
			return number <= offlineConfirmed
		})
	}
	return nil
}

// appendOffline also tells the lane: the newest of the signal.
func appendOffline(ctx context.Context, s *spool.Spool, signal frame.Signal, items int, payload []byte) (uint64, frame.Lane, error) {
	number, err := s.Append(ctx, frame.Header{
		Codec: frame.OTLPZstd, Signal: signal, Class: frame.Live, Items: uint32(items), Uncompressed: crc32.ChecksumIEEE(payload) % frame.MaxUncompressed,
	}, payload)
	var newest frame.Lane
	for _, lane := range s.Lanes() {
		if lane.Signal == signal {
			newest = lane
		}
	}
	return number, newest, err
}

// restore puts the files back as they were before the damages, in place.
func (o *offlineSpool) restore() error {
	for _, e := range o.extra {
		delete(o.frames[e.lane], e.number)
	}
	o.extra = nil
	err := filepath.WalkDir(o.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if _, ok := o.files[path]; !ok {
			return os.Remove(path)
		}
		return nil
	})
	for path, body := range o.files {
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, body, 0o644))
	}
	return err
}

// start opens the spool, reads every frame, compares, and appends one. It tells
// what is missing and unnamed, signal by signal.
func (o *offlineSpool) start(ctx context.Context) (a account, unnamed []string, err error) {
	s, err := o.open()
	if err != nil {
		return a, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	got := make(map[frame.Lane][]frame.Header)
	for _, lane := range s.Lanes() {
		if got[lane], err = o.read(s, lane); err != nil {
			return a, nil, err
		}
	}
	stats := s.Stats()
	for _, signal := range frame.Signals {
		one, gone := o.compare(signal, got)
		for _, lane := range stats.Lanes {
			if lane.Lane.Signal == signal {
				for _, n := range lane.Lost {
					one.edgeLost += int(n)
				}
			}
		}
		one.relayLost = max(one.edgeLost, one.relayLost)
		if n := one.unnamed(); n > 0 {
			unnamed = append(unnamed, fmt.Sprintf("%d %s items are gone and unnamed: %d of frames %s are, and the spool counts %d", n, signal, one.missing(), strings.Join(gone, " "), one.edgeLost))
		}
		one.surplus = max(0, one.named()-one.missing())
		a = a.plus(one)
	}
	return a, unnamed, o.goesOn(ctx, s)
}

// compare says which frames of a signal are gone, and as relayLost how many items
// a relay learns to be missing from the frames behind them: each says how many
// items came before it.
func (o *offlineSpool) compare(signal frame.Signal, got map[frame.Lane][]frame.Header) (a account, gone []string) {
	for lane, frames := range o.frames {
		if lane.Signal != signal {
			continue
		}
		after := o.before[lane]
		there := make(map[uint64]bool)
		for _, h := range got[lane] {
			if h.Number <= offlineConfirmed && o.before[lane] > 0 {
				continue // held and confirmed
			}
			there[h.Number] = true
			if h.Before > after {
				a.relayLost += int(h.Before - after)
			}
			after = max(after, h.Before+uint64(h.Items))
		}
		for number, f := range frames {
			a.in += f.items
			if there[number] {
				a.delivered += f.items
			} else {
				gone = append(gone, fmt.Sprintf("%s/%d", lane, number))
			}
		}
	}
	slices.Sort(gone)
	return a, gone
}

// read reads a lane to its end and returns the headers of what it gave out.
func (o *offlineSpool) read(s *spool.Spool, lane frame.Lane) (got []frame.Header, err error) {
	for from := uint64(0); ; {
		records, err := s.Read(lane, from, 64<<10)
		if err != nil {
			return nil, fmt.Errorf("read %s from %d: %w", lane, from, err)
		}
		if len(records) == 0 {
			return got, nil
		}
		for _, r := range records {
			was, known := o.frames[lane][r.Number]
			h, payload, _, err := frame.Parse(r.Bytes)
			if err != nil || known && !bytes.Equal(payload, was.payload) {
				return nil, fmt.Errorf("%s: frame %d was given out and is not what was appended (%w)", lane, r.Number, errors.Join(err, errDamagedFrame))
			}
			got = append(got, h)
			from = r.Number + 1
		}
	}
}

var errDamagedFrame = errors.New("damaged frame")

// goesOn checks that the spool still takes a frame and gives it out.
func (o *offlineSpool) goesOn(ctx context.Context, s *spool.Spool) error {
	payload := []byte("one more")
	number, lane, err := appendOffline(ctx, s, frame.Logs, 1, payload)
	if err != nil {
		return fmt.Errorf("append after the damage: %w", err)
	}
	if _, used := o.frames[lane][number]; used {
		return fmt.Errorf("%s: number %d was given to a second frame", lane, number)
	}
	records, err := s.Read(lane, number, 64<<10)
	if err != nil {
		return fmt.Errorf("read what was appended after the damage: %w", err)
	}
	if len(records) == 0 || records[0].Number != number {
		return fmt.Errorf("%s: frame %d was acknowledged after the damage and cannot be read", lane, number)
	}
	if o.frames[lane] == nil {
		o.frames[lane] = make(map[uint64]offlineFrame)
	}
	o.frames[lane][number] = offlineFrame{1, payload}
	o.extra = append(o.extra, offlineNumber{lane, number})
	return nil
}
