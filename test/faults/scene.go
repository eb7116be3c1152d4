package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

const (
	// settleTime is how long nothing may move while the spool still holds items: far
	// more than a hello interval (45 s), after which an edge knows all there is to
	// know. settleMost bounds the wait as a whole.
	settleTime = 90 * time.Second
	settleMost = 5 * time.Minute
	settlePoll = 500 * time.Millisecond
	// stillFor is how long nothing may have changed before what is missing is
	// taken to be missing for good: a hello may still tell.
	stillFor = 60 * time.Second
)

// errSkip says that this machine cannot do a row's fault.
var errSkip = errors.New("skipped")

// linkKind is what lies between the collector and the hub.
type linkKind int

const (
	direct linkKind = iota
	cuttable
	lossy
)

// stage is how a row's scene is set.
type stage struct {
	rate     int // items/s, default 1000
	pad      int // random bytes per item
	link     linkKind
	linkDown bool // from the beginning, for a cuttable link
	external bool // the hub is a nats-server of its own
	servers  int  // of the external hub, default 1; several are a cluster that keeps everything on three
	relays   int  // default 1; several want an external hub
	edges    int  // collectors, each on a node of its own, default 1
	tenants  bool // each collector is a cluster of its own, and a tenant of Loki
	// partitions of the streams, default the relay's.
	partitions int
	ordered    bool   // nothing seals a lane: what one collector took first arrives first
	spoolMax   string // LONGHAUL_SPOOL_MAX_BYTES
	disk       string // size of the file system of the spool; empty: no own
	// before does what is to be done before the collector starts.
	before func(context.Context, *world, *scene) error
}

// scene is one row's processes: feeder → collectors → hub (of the relay, or
// nats-servers) → relays → gate → Loki.
type scene struct {
	stage    stage
	clusters []string // of the collectors; the first is the row's name
	dir, bin string
	disk     string // mount point of the small file system, or empty
	random   *rand.Rand
	loki     *lab.Loki
	gate     *gate
	servers  []*server // none with the embedded hub
	hub      []string  // its addresses
	relays   []*relay
	link     *lab.Link // nil unless cuttable
	lossy    *lossyLink
	// collector is the first of edges: the one that a row without more of them is about.
	collector *lab.Collector
	edges     []*lab.Collector
	feed      *feeder
	began     time.Time
	backlog   int // items that were in the spool before the row began

	explained int // duplicates: what was on its way at kills
	notes     []string
}

// event writes down what was done, beside the logs.
func (s *scene) event(format string, args ...any) {
	f, err := os.OpenFile(filepath.Join(s.dir, "events.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), fmt.Sprintf(format, args...))
}

func (s *scene) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// open starts a row's processes and feeds.
func (w *world) open(ctx context.Context, cluster string, st stage) (_ *scene, err error) {
	s := &scene{
		stage: st, clusters: []string{cluster}, dir: filepath.Join(w.dir, cluster), bin: w.bin, loki: w.loki, began: time.Now(),
		random: rand.New(rand.NewPCG(w.seed, 0)),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.gate, err = newGate(w.loki.URL); err != nil {
		return nil, err
	}
	if s.hub, err = s.openCentre(ctx, w, st); err != nil {
		return nil, err
	}
	hub, err := s.openLink(st)
	if err != nil {
		return nil, err
	}
	if st.disk != "" {
		s.disk = filepath.Join(s.dir, "spool")
		if err := mountSmallDisk(s.disk, st.disk); err != nil {
			s.disk = ""
			return nil, err
		}
	}
	if err := s.newEdges(w, st, hub); err != nil {
		return nil, err
	}
	if st.before != nil {
		if err := st.before(ctx, w, s); err != nil {
			return nil, err
		}
	}
	for _, edge := range s.edges {
		if err := edge.Start(ctx); err != nil {
			return nil, err
		}
	}
	s.feed.start(ctx)
	return s, lab.Pause(ctx, 2*time.Second) // into its stride
}

// openLink puts what the stage wants between the collectors and the hub, and
// returns where they find it.
func (s *scene) openLink(st stage) (hub []string, err error) {
	switch st.link {
	case cuttable:
		if s.link, err = lab.NewLink(s.hub[0]); err != nil {
			return nil, err
		}
		if st.linkDown {
			s.link.Cut()
		}
		return []string{s.link.Addr()}, nil
	case lossy:
		if s.lossy, err = newLossyLink(s.hub[0], netemShape); err != nil {
			return nil, err
		}
		s.note("%s", s.lossy.how)
		return []string{s.lossy.addr()}, nil
	}
	return s.hub, nil
}

// newEdges prepares the collectors and their feeder.
func (s *scene) newEdges(w *world, st stage, hub []string) error {
	var urls []string
	for i := range max(1, st.edges) {
		node, dir, cluster := fmt.Sprintf("node-%c", 'a'+i), s.dir, s.clusters[0]
		if i > 0 {
			dir = filepath.Join(s.dir, node)
			if st.tenants {
				cluster = fmt.Sprintf("%s-%c", cluster, 'a'+i)
				s.clusters = append(s.clusters, cluster)
			}
		}
		edge, err := lab.NewCollector(lab.CollectorOptions{
			Binary: filepath.Join(w.bin, "longhaul-collector"), Dir: dir,
			Cluster: cluster, Node: node, NATSURL: natsURL(hub),
			Env: map[string]string{"LONGHAUL_SPOOL_MAX_BYTES": st.spoolMax},
		})
		if err != nil {
			return err
		}
		s.edges, urls = append(s.edges, edge), append(urls, edge.OTLPHTTP)
	}
	s.collector = s.edges[0]
	rate := st.rate
	if rate == 0 {
		rate = 1000
	}
	s.feed = newFeeder(urls, rate, st.pad)
	return nil
}

// close ends everything the scene started.
func (s *scene) close() {
	if s.feed != nil && s.feed.finished != nil {
		s.feed.stop()
		s.feed.abandon()
		<-s.feed.finished
	}
	for _, edge := range s.edges {
		_ = edge.Kill()
	}
	for _, r := range s.relays {
		_ = r.Kill()
	}
	for _, one := range s.servers {
		_ = one.Kill()
	}
	if s.link != nil {
		s.link.Close()
	}
	if s.lossy != nil {
		s.lossy.close()
	}
	if s.gate != nil {
		s.gate.close()
	}
	if s.disk != "" {
		unmountSmallDisk(s.disk)
	}
}

// between waits for a random time.
func (s *scene) between(ctx context.Context, least, most time.Duration) error {
	return lab.Pause(ctx, least+time.Duration(s.random.Int64N(int64(most-least))))
}

// killCollector kills with SIGKILL and starts again, as Kubernetes would.
func (s *scene) killCollector(ctx context.Context) error {
	if !s.collector.Running() {
		return fmt.Errorf("the collector had ended by itself; the end of its log:\n%s", s.collector.LogTail(2000))
	}
	_ = s.collector.Kill() // cannot fail
	return s.collector.Start(ctx)
}

// edgeCounts returns what the collectors named as lost, and what they still hold.
func (s *scene) edgeCounts(ctx context.Context) (lost, held int, err error) {
	for _, edge := range s.edges {
		m, err := lab.ReadMetrics(ctx, edge.MetricsURL)
		if err != nil {
			return 0, 0, err
		}
		lost += int(m.Sum("longhaul_items_lost_total", "signal", "logs"))
		held += int(m.Sum("longhaul_spool_items", "signal", "logs"))
	}
	return lost, held, nil
}

// settle ends the feeding, waits until everything has arrived and been confirmed,
// or until nothing moves any more, and says what became of it. What it finds
// wrong beside losses is in problems.
func (s *scene) settle(ctx context.Context) (a account, problems []string, err error) {
	s.feed.finish()
	sent, acked := s.feed.numbers()
	finished, last := time.Now(), time.Now()
	held, heldBefore := 0, 0
	var before account
	for {
		if a, held, err = s.look(ctx, sent, acked); err == nil {
			if a.unnamed() == 0 && a.mistaken() == 0 && held == 0 {
				break
			}
			if a != before || held != heldBefore {
				before, heldBefore, last = a, held, time.Now()
			}
			if held == 0 && time.Since(last) > stillFor {
				break
			}
		}
		if time.Since(last) > settleTime || time.Since(finished) > settleMost {
			break
		}
		if err := lab.Pause(ctx, settlePoll); err != nil {
			return a, nil, err
		}
	}
	if err != nil {
		return a, nil, err
	}
	if a, err = s.ask(ctx, a, sent, acked); err != nil {
		return a, nil, err
	}
	return a, s.judge(a, held, time.Since(finished)), nil
}

func (s *scene) judge(a account, held int, waited time.Duration) (problems []string) {
	for _, edge := range s.edges {
		if !edge.Running() {
			problems = append(problems, "a collector ended by itself")
		}
	}
	for _, r := range s.relays {
		if !r.Running() {
			problems = append(problems, r.name+" ended by itself")
		}
	}
	if s.stage.ordered {
		if n := s.feed.disordered(s.gate.firsts()); n > 0 {
			problems = append(problems, fmt.Sprintf("%d batches arrived before what their collector had acknowledged before it was sent them", n))
		}
	}
	if held > 0 {
		problems = append(problems, fmt.Sprintf("%d items were still in the spool %.0f s after the last was sent", held, waited.Seconds()))
	}
	if a.unanswered > 0 {
		problems = append(problems, fmt.Sprintf("%d items were sent again and again and not acknowledged", a.unanswered))
	}
	if n := a.unnamed(); n > 0 {
		problems = append(problems, fmt.Sprintf("%d acknowledged items are neither in Loki nor named as lost", n))
	}
	if a.duplicates > s.explained {
		problems = append(problems, fmt.Sprintf("%d items arrived more than once; %d were on their way when a relay was killed", a.duplicates, s.explained))
	}
	if edge, relay := a.edgeLost, a.relayLost-a.rejected; edge != relay {
		s.note("the collector counts %d items as lost, the relay %d", edge, relay)
	}
	if a.copies > 0 && a.named() > 0 {
		s.note("%d times an item was sent again and arrived once only: so many of the named losses may be second copies", a.copies)
	}
	if n := a.mistaken(); n > 0 {
		s.note("%d items are named as lost and were delivered", n)
	}
	return problems
}

// heal ends what a row that failed half way left behind.
func (s *scene) heal() error {
	problems := []error{s.gate.behave(behaviour{})}
	for _, r := range s.relays {
		_ = r.Resume() // mostly it is not paused
	}
	if s.link != nil {
		problems = append(problems, s.link.Restore())
	}
	if s.lossy != nil {
		s.lossy.heal()
	}
	if s.disk != "" {
		_ = os.Remove(filepath.Join(s.disk, filler)) // mostly it is not there
	}
	return errors.Join(problems...)
}

// look takes stock from what the gate saw, without asking Loki.
func (s *scene) look(ctx context.Context, sent []uint8, acked []bool) (account, int, error) {
	taken := s.gate.counts()
	found := make(map[int]bool, len(taken))
	for n, times := range taken {
		if times > 0 {
			found[n] = true
		}
	}
	a := count(sent, acked, taken, found)
	return s.withLosses(ctx, a)
}

func (s *scene) withLosses(ctx context.Context, a account) (_ account, held int, err error) {
	if a.edgeLost, held, err = s.edgeCounts(ctx); err != nil {
		return a, 0, fmt.Errorf("the collector does not answer: %w", err)
	}
	if a.relayLost, a.rejected, err = s.relayCounts(ctx); err != nil {
		return a, 0, fmt.Errorf("the relay does not answer: %w", err)
	}
	return a, held, nil
}

// ask replaces what the gate saw by what Loki has.
func (s *scene) ask(ctx context.Context, seen account, sent []uint8, acked []bool) (account, error) {
	query := fmt.Sprintf(`{cluster=~%q, service_name=%q}`, strings.Join(s.clusters, "|"), service)
	var a account
	for try := 0; ; try++ {
		entries, err := s.loki.Entries(ctx, query, s.began.Add(-time.Minute), time.Now().Add(time.Minute))
		if err != nil {
			return seen, err
		}
		found := make(map[int]bool, len(entries))
		for _, e := range entries {
			if n, ok := number(e.Line); ok {
				found[n] = true
			}
		}
		a = count(sent, acked, s.gate.counts(), found)
		a.edgeLost, a.relayLost, a.rejected = seen.edgeLost, seen.relayLost, seen.rejected
		if a.delivered >= seen.delivered || try == 10 {
			return a, nil
		}
		if err := lab.Pause(ctx, time.Second); err != nil {
			return a, err
		}
	}
}

// missing lists the first numbers nobody knows of, for the report.
func (s *scene) missing() string {
	taken := s.gate.counts()
	_, acked := s.feed.numbers()
	var ranges []string
	for n := 1; n < len(acked); n++ {
		gone := func(n int) bool { return n < len(acked) && acked[n] && (n >= len(taken) || taken[n] == 0) }
		if !gone(n) {
			continue
		}
		to := n
		for gone(to + 1) {
			to++
		}
		if ranges = append(ranges, fmt.Sprintf("%d-%d", n, to)); len(ranges) == 20 {
			return strings.Join(ranges, " ") + " …"
		}
		n = to
	}
	return strings.Join(ranges, " ")
}
