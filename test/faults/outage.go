package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// What the row outage-72h and the test that lives through the outage agree on.
const (
	outageRow     = "outage-72h"
	outageNode    = "node-a"
	outageWritten = "items written: "
	outageLength  = 72 * time.Hour
)

// liveOutage makes the spool of a collector that was cut off for three days.
func liveOutage(ctx context.Context, w *world, s *scene) error {
	out, err := runTest(ctx, w, s.dir, "faults.test", "-test.run=TestAnOutageOfDaysIsKept",
		"-outage.dir="+s.collector.SpoolDir, fmt.Sprintf("-outage.hours=%d", int(outageLength.Hours())))
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(out, outageWritten)
	digits, _, _ := strings.Cut(after, "\n")
	items, err := strconv.Atoi(digits)
	if err != nil || items == 0 {
		return fmt.Errorf("the test that lives through the outage does not say how much it wrote:\n%s", out)
	}
	s.feed.already(items)
	s.backlog = items
	s.began = s.began.Add(-outageLength)
	return nil
}

// endOutage lets the link come back to a centre that takes its time, so that
// there is an order to be seen, and notes when live data arrived.
func endOutage(ctx context.Context, s *scene, d dose) error {
	if err := s.gate.behave(behaviour{delay: 300 * time.Millisecond}); err != nil {
		return err
	}
	if err := s.link.Restore(); err != nil {
		return err
	}
	back := time.Now()
	if err := s.awaitFirstLive(ctx, back); err != nil {
		return err
	}
	return s.gate.behave(behaviour{})
}

// awaitFirstLive waits until something that was sent after the outage has
// arrived, and notes how much of the backlog had by then.
func (s *scene) awaitFirstLive(ctx context.Context, back time.Time) error {
	for {
		old, live := 0, 0
		for n, times := range s.gate.counts() {
			switch {
			case times == 0:
			case n <= s.backlog:
				old++
			default:
				live++
			}
		}
		if live > 0 {
			s.note("%.1f s after the link came back the first live data was there, and %d of %d items of the backlog", time.Since(back).Seconds(), old, s.backlog)
			return nil
		}
		if time.Since(back) > settleTime {
			return fmt.Errorf("%v after the link came back no live data had arrived, and %d of %d items of the backlog", settleTime, old, s.backlog)
		}
		if err := lab.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
