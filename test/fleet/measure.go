package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/book"
)

// reading is what everything has used and done up to a moment.
type reading struct {
	at               time.Time
	relay, hub, self time.Duration // CPU
	counts           map[frame.Signal]book.Counts
	traffic          lab.NATSTraffic
}

func (w *world) read(ctx context.Context) (r reading, err error) {
	for _, relay := range w.relays {
		u, err := lab.UsageOf(relay.PID())
		if err != nil {
			return r, err
		}
		r.relay += u.CPU
	}
	hub, err := lab.UsageOf(w.hub.PID())
	if err != nil {
		return r, err
	}
	self, err := lab.UsageOf(os.Getpid())
	if err != nil {
		return r, err
	}
	r.hub, r.self = hub.CPU, self.CPU
	if r.traffic, err = w.hub.Traffic(ctx); err != nil {
		return r, err
	}
	r.counts, _ = w.book.Counts()
	r.at = time.Now()
	return r, nil
}

// span is what happened between two readings.
type span struct {
	seconds          float64
	relay, hub, self time.Duration
	items            map[frame.Signal]int64 // that arrived, repeats included
	frames           map[frame.Signal]int64
	inBytes          int64 // into the hub
	outBytes         int64 // out of the hub
	messages         int64 // both ways
	delays           book.Delays
	bySignal         map[frame.Signal]book.Delays
}

func (to *reading) since(from *reading) span {
	s := span{
		seconds: to.at.Sub(from.at).Seconds(),
		relay:   to.relay - from.relay, hub: to.hub - from.hub, self: to.self - from.self,
		items: make(map[frame.Signal]int64), frames: make(map[frame.Signal]int64),
		inBytes: to.traffic.InBytes - from.traffic.InBytes, outBytes: to.traffic.OutBytes - from.traffic.OutBytes,
		messages: to.traffic.InMsgs - from.traffic.InMsgs + to.traffic.OutMsgs - from.traffic.OutMsgs,
	}
	for signal, c := range to.counts {
		s.items[signal] = c.Items - from.counts[signal].Items
		s.frames[signal] = c.Arrived + c.Again - from.counts[signal].Arrived - from.counts[signal].Again
	}
	return s
}

func (s *span) allItems() (n int64) {
	for _, items := range s.items {
		n += items
	}
	return n
}

func (s *span) perSecond(n int64) float64 { return float64(n) / s.seconds }

func cores(cpu time.Duration, seconds float64) float64 { return cpu.Seconds() / seconds }

// measure does something between two readings.
func (w *world) measure(ctx context.Context, do func(context.Context) error) (s span, err error) {
	w.book.TakeDelays()
	from, err := w.read(ctx)
	if err != nil {
		return s, err
	}
	if err := do(ctx); err != nil {
		return s, err
	}
	to, err := w.read(ctx)
	if err != nil {
		return s, err
	}
	s = to.since(&from)
	s.delays, s.bySignal = w.book.TakeDelays()
	return s, nil
}

// residents samples the memory of relays and hub, and what the hub stores.
type residents struct {
	mu                    sync.Mutex
	relay, hub, hubStored int64 // most so far, bytes; relay is the largest of them
	cancel                context.CancelFunc
	done                  chan struct{}
}

const residentInterval = 500 * time.Millisecond

func (w *world) watchResidents(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	r := &w.resident
	r.cancel, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		for lab.Pause(ctx, residentInterval) == nil {
			w.sampleResidents(ctx)
		}
	}()
}

func (w *world) sampleResidents(ctx context.Context) {
	var largest int64
	for _, relay := range w.relays {
		if u, err := lab.UsageOf(relay.PID()); err == nil { // it may be down
			largest = max(largest, u.Resident)
		}
	}
	hub, _ := lab.UsageOf(w.hub.PID())
	kept, _ := w.hub.Traffic(ctx)
	r := &w.resident
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relay, r.hub, r.hubStored = max(r.relay, largest), max(r.hub, hub.Resident), max(r.hubStored, kept.JetStream.Stats.Stored)
}

// take returns the most since the last call.
func (r *residents) take() (relay, hub, hubStored int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	relay, hub, hubStored = r.relay, r.hub, r.hubStored
	r.relay, r.hub, r.hubStored = 0, 0, 0
	return relay, hub, hubStored
}

func (r *residents) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.done
	}
}

// profileCPU writes the first relay's CPU profile of so many seconds to a file.
func (w *world) profileCPU(ctx context.Context, name string, d time.Duration) error {
	url := fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/profile?seconds=%d", w.profilePort, int(d.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("profile of the relay: %w", err)
	}
	defer response.Body.Close()
	file, err := os.Create(w.profile + "-" + name + ".pprof")
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}
