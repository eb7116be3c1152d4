package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// row is one fault.
type row struct {
	name, about string
	// times the fault happens, and with FAULTS_FULL=1.
	times, full int
	// hold is how long it lasts each time, if it lasts.
	hold, fullHold time.Duration
	stage          stage
	// mayLose: the fault destroys data, and named losses are what is asked for.
	mayLose bool
	skip    func() string // why it cannot be done here, or ""
	run     func(context.Context, *scene, dose) error
	// offline does a row without a scene, and accounts for it itself.
	offline func(ctx context.Context, w *world, dir string, d dose) (a account, notes, problems []string, err error)
}

// dose is how much of a fault there is.
type dose struct {
	times int
	hold  time.Duration
}

func (d dose) String() string {
	if d.hold == 0 {
		return fmt.Sprint(d.times)
	}
	return fmt.Sprintf("%d x %v", d.times, d.hold)
}

// cutWithin bytes is a few frames of the row link-cut, whose records do not compress.
const cutWithin = 300 << 10

var rows = []row{
	{name: "collector-kill", about: "kill -9 of the collector in steady state", times: 20, full: 34, run: killInSteadyState},
	{name: "collector-kill-outage", about: "kill -9 of the collector while the link is down", times: 10, full: 33, stage: stage{link: cuttable}, run: killInOutage},
	{name: "collector-kill-catchup", about: "kill -9 of the collector while it catches up", times: 10, full: 33, stage: stage{link: cuttable}, run: killInCatchUp},
	{name: "relay-kill", about: "kill -9 of the relay and its embedded hub, while it delivers", times: 3, full: 20, run: killRelay},
	{name: "hub-wiped", about: "the embedded hub's store deleted while it holds undelivered frames", times: 3, full: 10, run: wipeHub},
	{name: "nats-kill", about: "kill -9 of an external hub under a living relay", times: 5, full: 20, stage: stage{external: true}, run: killNATS},
	{name: "nats-wiped", about: "an external hub's store deleted under a living relay", times: 3, full: 10, stage: stage{external: true}, run: wipeNATS},
	{name: "replicas-kill", about: "kill -9 of the busiest of three relays", times: 2, full: 10,
		stage: stage{external: true, relays: 3, edges: 4, ordered: true}, run: killReplica},
	{name: "replicas-pause", about: "the busiest of three relays is stopped (SIGSTOP), loses its partitions, and goes on", times: 1, full: 3, hold: 30 * time.Second, fullHold: 30 * time.Second,
		stage: stage{external: true, relays: 3, edges: 4, ordered: true}, run: pauseReplica},
	{name: "cluster-node-wiped", about: "a server of a hub of three is killed and its store deleted", times: 1, full: 6,
		stage: stage{external: true, servers: 3, relays: 2, edges: 2}, run: wipeServer},
	{name: "repartition", about: "relays are started anew with 32 partitions for 16, one after the other, with data on its way", times: 1, full: 1,
		stage: stage{external: true, relays: 2, edges: 4, partitions: partitionsBefore, ordered: true}, run: repartition},
	{name: "tenant-refused", about: "Loki answers one of three tenants 429, then 500, then nothing: the others' data is not late", times: 1, full: 1, hold: 8 * time.Second, fullHold: time.Minute,
		stage: stage{edges: 3, tenants: true}, run: refuseTenant},
	{name: "backend-refuses", about: "Loki refuses connections", times: 1, full: 1, hold: 20 * time.Second, fullHold: 2 * time.Minute, run: trouble(behaviour{refuse: true})},
	{name: "backend-hangs", about: "Loki accepts and never answers", times: 1, full: 1, hold: 25 * time.Second, fullHold: 2 * time.Minute, run: trouble(behaviour{hang: true})},
	{name: "backend-500", about: "Loki answers 500", times: 1, full: 1, hold: 20 * time.Second, fullHold: 2 * time.Minute, run: trouble(behaviour{status: http.StatusInternalServerError})},
	{name: "backend-429", about: "Loki answers 429 and Retry-After: 3", times: 1, full: 1, hold: 20 * time.Second, fullHold: 2 * time.Minute, run: trouble(behaviour{status: http.StatusTooManyRequests, retryAfter: 3 * time.Second})},
	{name: "backend-400", about: "Loki answers 400: what it refuses is lost, and named", times: 1, full: 1, hold: 20 * time.Second, fullHold: 2 * time.Minute, mayLose: true, run: trouble(behaviour{status: http.StatusBadRequest})},
	{name: "rejected-replay", about: "Loki answers 400 for a while; then what it refused is sent again with longhaul rejected replay: nothing is lost", times: 1, full: 3, hold: 8 * time.Second, fullHold: 20 * time.Second, run: replayRejected},
	{name: "link-cut", about: "the link is reset in the middle of publishes", times: 10, full: 50, stage: stage{link: cuttable, pad: 200}, run: cutLink},
	{name: "link-half-open", about: "the link swallows everything, then resets or goes on", times: 3, full: 10, hold: 8 * time.Second, fullHold: 90 * time.Second, stage: stage{link: cuttable}, run: halfOpenLink},
	{name: "outage", about: "the link is down long enough for lanes to be sealed twice, and nothing is started again", times: 1, full: 3, hold: 75 * time.Second, fullHold: 75 * time.Second, stage: stage{link: cuttable}, run: outage(15 * time.Second)},
	{name: "link-lossy", about: "300 ms delay, three packets of ten lost", times: 1, full: 1, hold: 25 * time.Second, fullHold: 2 * time.Minute, stage: stage{link: lossy, rate: 500}, run: bearLossyLink},
	{name: "disk-full", about: "a 64 MiB file system is full while the link is down: evictions are named", times: 1, full: 1, hold: 30 * time.Second, fullHold: 2 * time.Minute,
		stage: stage{link: cuttable, rate: 500, pad: 1024, spoolMax: "32MiB", disk: "64m"}, mayLose: true, skip: smallDisk, run: fillDisk},
	{name: "quota", about: "the spool reaches max_bytes in an outage: evictions are named", times: 1, full: 1, hold: 20 * time.Second, fullHold: 2 * time.Minute,
		stage: stage{link: cuttable, rate: 1000, pad: 1536, spoolMax: "8MiB"}, mayLose: true, run: outage(3 * time.Second)},
	{name: "spool-damage", about: "bits flipped in a spool's files, or files cut short, then a start: losses are named", times: 50, full: 1000, stage: stage{link: cuttable}, mayLose: true, run: damageSpool},
	{name: "spool-damage-cold", about: "the same to a spool from which nothing has left and into which nothing comes: what is named is what is missing", times: 20, full: 200,
		stage: stage{link: cuttable, linkDown: true, pad: 768, spoolMax: "8MiB"}, mayLose: true, run: damageColdSpool},
	{name: "spool-damage-offline", about: "the same to a small spool, opened in this process: no collector starts", times: 1000, full: 10_000, mayLose: true, offline: damageOffline},
	{name: "power-cut", about: "power cuts of a spool on a recorded disk: what was not synced is dropped or reordered (property tests)", times: 1000, full: 20_000, offline: cutPower},
	{name: outageRow, about: "an outage of 72 h, lived through by the exporter with an injected clock; then the link comes back", times: 1, full: 1,
		stage: stage{link: cuttable, linkDown: true, rate: 500, before: liveOutage}, run: endOutage},
	{name: "spool-emptied", about: "all frames cut off while the link is down, and nothing new comes: the relay hears of the loss all the same", times: 1, full: 1,
		stage: stage{link: cuttable, linkDown: true}, mayLose: true, run: emptySpool},
}

func killInSteadyState(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.between(ctx, 100*time.Millisecond, 1500*time.Millisecond); err != nil {
			return err
		}
		if err := s.killCollector(ctx); err != nil {
			return err
		}
	}
	return nil
}

func killInOutage(ctx context.Context, s *scene, d dose) error {
	s.link.Cut()
	if err := killInSteadyState(ctx, s, d); err != nil {
		return err
	}
	return s.link.Restore()
}

// killInCatchUp keeps the backend slow, so that there is a backlog to kill in.
func killInCatchUp(ctx context.Context, s *scene, d dose) error {
	if err := s.gate.behave(behaviour{delay: 200 * time.Millisecond}); err != nil {
		return err
	}
	for range d.times {
		s.link.Cut()
		if err := lab.Pause(ctx, 1500*time.Millisecond); err != nil {
			return err
		}
		if err := s.link.Restore(); err != nil {
			return err
		}
		if err := s.between(ctx, 50*time.Millisecond, 2*time.Second); err != nil {
			return err
		}
		if err := s.killCollector(ctx); err != nil {
			return err
		}
	}
	return s.gate.behave(behaviour{})
}

// killRelay kills it while it delivers: one that was killed before holds its
// partitions for some seconds yet.
func killRelay(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.awaitFlow(ctx); err != nil {
			return err
		}
		if err := s.between(ctx, 300*time.Millisecond, 2500*time.Millisecond); err != nil {
			return err
		}
		if err := s.killRelay(ctx, s.relays[0], notedWithin, nil); err != nil {
			return err
		}
	}
	return nil
}

// wipeHub lets the hub fill up with what Loki does not take, and deletes it.
func wipeHub(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.gate.behave(behaviour{status: http.StatusServiceUnavailable}); err != nil {
			return err
		}
		if err := s.between(ctx, 3*time.Second, 5*time.Second); err != nil {
			return err
		}
		if err := s.killRelay(ctx, s.relays[0], toldWithin, func() error { return wipe(s.relays[0].DataDir) }); err != nil {
			return err
		}
		if err := s.gate.behave(behaviour{}); err != nil {
			return err
		}
		if err := lab.Pause(ctx, 3*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func killNATS(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.between(ctx, time.Second, 4*time.Second); err != nil {
			return err
		}
		_ = s.servers[0].Kill() // cannot fail
		if err := s.between(ctx, 100*time.Millisecond, time.Second); err != nil {
			return err
		}
		if err := s.servers[0].Start(ctx); err != nil {
			return err
		}
	}
	return lab.Pause(ctx, 2*time.Second)
}

func wipeNATS(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := s.gate.behave(behaviour{status: http.StatusServiceUnavailable}); err != nil {
			return err
		}
		if err := s.between(ctx, 3*time.Second, 5*time.Second); err != nil {
			return err
		}
		_ = s.servers[0].Kill() // cannot fail
		if err := wipe(s.servers[0].store); err != nil {
			return err
		}
		if err := s.servers[0].Start(ctx); err != nil {
			return err
		}
		if err := s.gate.behave(behaviour{}); err != nil {
			return err
		}
		if err := lab.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// trouble lets the backend misbehave for a while.
func trouble(b behaviour) func(context.Context, *scene, dose) error {
	return func(ctx context.Context, s *scene, d dose) error {
		for range d.times {
			if err := s.gate.behave(b); err != nil {
				return err
			}
			if err := lab.Pause(ctx, d.hold); err != nil {
				return err
			}
			if err := s.gate.behave(behaviour{}); err != nil {
				return err
			}
			if err := lab.Pause(ctx, 3*time.Second); err != nil {
				return err
			}
		}
		if !b.refuse && s.gate.met() == 0 {
			return errors.New("no push met the trouble: the row has shown nothing")
		}
		return nil
	}
}

// cutLink resets the connection after a random number of bytes: while a frame is
// on its way, since frames are most of what passes. With the link back the same
// frame comes again, so most cuts hit a repetition, too.
func cutLink(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		cut := s.link.CutAfter(1 + s.random.Int64N(cutWithin))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
		case <-time.After(settleTime):
			return fmt.Errorf("nothing passed the link for %v", settleTime)
		}
		if err := s.between(ctx, 50*time.Millisecond, 400*time.Millisecond); err != nil {
			return err
		}
		if err := s.link.Restore(); err != nil {
			return err
		}
	}
	return nil
}

// outage takes the link away for as long as the dose says, and leaves it alone for a
// while after that. Longer than twice ship::seal_after, the live lane is sealed during
// the outage and again at its end.
func outage(after time.Duration) func(context.Context, *scene, dose) error {
	return func(ctx context.Context, s *scene, d dose) error {
		for range d.times {
			s.link.Cut()
			if err := lab.Pause(ctx, d.hold); err != nil {
				return err
			}
			if err := s.link.Restore(); err != nil {
				return err
			}
			if err := lab.Pause(ctx, after); err != nil {
				return err
			}
		}
		return nil
	}
}

// halfOpenLink ends the black hole with a reset, and every third time by going
// on as if nothing had been.
func halfOpenLink(ctx context.Context, s *scene, d dose) error {
	for i := range d.times {
		if err := s.link.BlackHole(); err != nil {
			return err
		}
		if err := lab.Pause(ctx, d.hold); err != nil {
			return err
		}
		if i%3 != 0 {
			s.link.Cut()
			if err := lab.Pause(ctx, 500*time.Millisecond); err != nil {
				return err
			}
		}
		if err := s.link.Restore(); err != nil {
			return err
		}
		if err := lab.Pause(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// bearLossyLink wants something to arrive in spite of it.
func bearLossyLink(ctx context.Context, s *scene, d dose) error {
	if err := lab.Pause(ctx, d.hold); err != nil {
		return err
	}
	arrived := 0
	for _, times := range s.gate.counts() {
		if times > 0 {
			arrived++
		}
	}
	s.note("%d items arrived in %v", arrived, d.hold)
	s.lossy.heal()
	return nil
}

// filler is the other file on the spool's file system.
const filler = "filler"

// fillDisk lets another file take all that is left of the spool's file system.
func fillDisk(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		s.link.Cut()
		if err := lab.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
		path := filepath.Join(s.disk, filler)
		if err := fill(path); err != nil {
			return err
		}
		if err := lab.Pause(ctx, d.hold); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := s.link.Restore(); err != nil {
			return err
		}
		if err := lab.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	for _, block := range []int{1 << 20, 4 << 10, 1} {
		b := make([]byte, block)
		for err = nil; err == nil; {
			_, err = f.Write(b)
		}
		if !isDiskFull(err) {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}

// damageSpool damages a spool with the link down four times of five, so that it
// holds data, and with the link up the fifth time.
func damageSpool(ctx context.Context, s *scene, d dose) error {
	s.link.Cut()
	for i := range d.times {
		if err := s.between(ctx, 100*time.Millisecond, 700*time.Millisecond); err != nil {
			return err
		}
		if i%5 == 4 {
			if err := s.link.Restore(); err != nil {
				return err
			}
			if err := s.between(ctx, 0, 2*time.Second); err != nil {
				return err
			}
		}
		if err := s.killAndDamage(ctx); err != nil {
			return err
		}
		if i%5 == 4 {
			s.link.Cut()
		}
	}
	return s.link.Restore()
}

// damageColdSpool leaves no excuse for naming more than is missing: nothing was
// delivered before, and everything was acknowledged. What comes at the end tells
// the relay.
func damageColdSpool(ctx context.Context, s *scene, d dose) error {
	if err := lab.Pause(ctx, 8*time.Second); err != nil {
		return err
	}
	s.feed.finish()
	for range d.times {
		if err := s.killAndDamage(ctx); err != nil {
			return err
		}
	}
	if err := s.link.Restore(); err != nil {
		return err
	}
	s.feed.start(ctx)
	return lab.Pause(ctx, 3*time.Second)
}

func emptySpool(ctx context.Context, s *scene, d dose) error {
	s.feed.finish()
	_ = s.collector.Kill() // cannot fail
	files, err := spoolFiles(s.collector.SpoolDir)
	if err != nil {
		return err
	}
	for _, path := range files {
		if filepath.Ext(path) == segmentExt {
			if err := os.Truncate(path, 0); err != nil {
				return fmt.Errorf("empty the spool: %w", err)
			}
		}
	}
	if err := s.collector.Start(ctx); err != nil {
		return err
	}
	return s.link.Restore()
}

// killAndDamage kills the collector, damages its spool and starts it again.
func (s *scene) killAndDamage(ctx context.Context) error {
	if !s.collector.Running() {
		return fmt.Errorf("the collector had ended by itself; the end of its log:\n%s", s.collector.LogTail(2000))
	}
	_ = s.collector.Kill() // cannot fail
	what, err := damage(s.collector.SpoolDir, s.random)
	if err != nil {
		return err
	}
	s.event("%s", what)
	if err := s.collector.Start(ctx); err != nil {
		return fmt.Errorf("after this damage: %s: %w", what, err)
	}
	return nil
}
