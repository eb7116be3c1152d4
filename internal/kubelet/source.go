package kubelet

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// What an unknown pod may cost.
const (
	// maxWait is how long Find waits for the kubelet.
	maxWait = time.Second
	// refreshGap is the least time between two requests, failedGap while the
	// kubelet does not answer.
	refreshGap = 3 * time.Second
	failedGap  = 10 * time.Second
	// unknownFor is how long nothing is asked again for a pod that was not found.
	unknownFor = 30 * time.Second
	// maxUnknown bounds the table of those; beyond it nobody waits.
	maxUnknown = 4096
	// sayAgain is the least time between two log lines about the same failure.
	sayAgain = 15 * time.Minute
)

// Source knows the pods of the node. Open makes one, Close gives it back.
type Source struct {
	config Config
	logger *slog.Logger
	client *client // nil without a URL

	state   atomic.Pointer[State]
	fetched atomic.Int64 // Unix nanoseconds of the last answer, 0 before
	failing atomic.Bool
	counts  *counts

	wanted chan struct{} // asks the poller to ask now

	mu         sync.Mutex
	asking     chan struct{} // closed when the request under way has ended; nil if there is none
	pending    chan struct{} // closed when the next request to begin has ended
	lastAsked  time.Time
	unknown    map[Ref]time.Time // since when
	swept      time.Time         // when old ones were last taken out of unknown
	listeners  map[chan struct{}]struct{}
	said       map[string]time.Time // reason → when it was logged
	unregister func() error         // of the metrics; nil until Observe

	savedSum string // of the cache file; the poller's alone
	saveSaid bool

	stop    context.CancelFunc
	stopped chan struct{}
}

var shared = struct {
	sync.Mutex
	sources map[Config]*Source
	users   map[*Source]int
}{sources: map[Config]*Source{}, users: map[*Source]int{}}

// Open returns the Source of the configuration, started if it is the first one.
// Its log lines go to the logger of whoever came first. Without a URL it knows
// no pod and asks nobody. Each Open needs a Close.
func Open(config Config, logger *slog.Logger) (*Source, error) {
	shared.Lock()
	defer shared.Unlock()
	if s := shared.sources[config]; s != nil {
		shared.users[s]++
		return s, nil
	}
	s, err := start(config, logger)
	if err != nil {
		return nil, err
	}
	shared.sources[config], shared.users[s] = s, 1
	return s, nil
}

// Close gives the Source back; the last one stops it and waits until it stopped.
func (s *Source) Close() {
	shared.Lock()
	defer shared.Unlock()
	if shared.users[s]--; shared.users[s] > 0 {
		return
	}
	delete(shared.users, s)
	delete(shared.sources, s.config)
	s.stop()
	<-s.stopped
	if s.unregister != nil {
		if err := s.unregister(); err != nil {
			s.logger.Warn("the metrics about pods could not be taken away", "error", err)
		}
	}
}

func start(config Config, logger *slog.Logger) (*Source, error) {
	s := &Source{
		config:    config,
		logger:    logger,
		wanted:    make(chan struct{}, 1),
		unknown:   map[Ref]time.Time{},
		listeners: map[chan struct{}]struct{}{},
		said:      map[string]time.Time{},
		stopped:   make(chan struct{}),
		counts:    newCounts(),
	}
	s.state.Store(newState(nil))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if config.URL == "" {
		close(s.stopped)
		return s, nil
	}
	var err error
	if s.client, err = newClient(config); err != nil {
		stop()
		return nil, err
	}
	s.load()
	go s.run(ctx)
	return s, nil
}

// State is what is known now.
func (s *Source) State() *State { return s.state.Load() }

// Find returns the pod, or nil. For a pod that is not known it has the kubelet
// asked, and waits for the answer as the package says.
func (s *Source) Find(ctx context.Context, ref Ref) *Pod {
	if p := s.State().find(ref); p != nil {
		return p
	}
	if s.client == nil {
		return nil
	}
	answered := s.ask(ref)
	if answered == nil {
		return nil
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-answered:
	case <-timer.C:
	case <-ctx.Done():
	}
	p := s.State().find(ref)
	if p == nil {
		s.want() // soon, without waiting
	}
	return p
}

// ask has the kubelet asked for an unknown pod. It returns what to wait for, or
// nil if waiting would be in vain.
func (s *Source) ask(ref Ref) <-chan struct{} {
	if ref.IP.IsLoopback() {
		return nil // nobody's address: what is sent from the node itself
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if since, found := s.unknown[ref]; found && now.Sub(since) < unknownFor || !s.roomForUnknown(now) {
		return nil
	}
	s.unknown[ref] = now
	if s.asking != nil && !s.failing.Load() {
		return s.asking // which most likely tells it; else Find has it asked again
	}
	s.want()
	switch {
	case s.failing.Load():
		return nil
	case s.lastAsked.Add(refreshGap).Sub(now) > maxWait:
		return nil
	}
	if s.pending == nil {
		s.pending = make(chan struct{})
	}
	return s.pending
}

// roomForUnknown makes room in the table now and then, not for each unknown pod.
func (s *Source) roomForUnknown(now time.Time) bool {
	if len(s.unknown) >= maxUnknown && now.Sub(s.swept) >= refreshGap {
		s.swept = now
		for ref, since := range s.unknown {
			if now.Sub(since) >= unknownFor {
				delete(s.unknown, ref)
			}
		}
	}
	return len(s.unknown) < maxUnknown
}

// Stale says that something was seen that is newer than what is known: the
// kubelet is asked soon. It does not wait.
func (s *Source) Stale() {
	if s.client != nil {
		s.want()
	}
}

func (s *Source) want() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// run asks at every interval and whenever it is wanted.
func (s *Source) run(ctx context.Context) {
	defer close(s.stopped)
	defer s.client.close()
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-s.wanted:
			if !s.waitForGap(ctx) {
				return
			}
		}
		s.refresh(ctx)
		poll.Reset(s.config.PollInterval)
	}
}

// waitForGap keeps requests apart. It returns false when the Source is stopped.
func (s *Source) waitForGap(ctx context.Context) bool {
	gap := refreshGap
	if s.failing.Load() {
		gap = failedGap
	}
	s.mu.Lock()
	wait := gap - time.Since(s.lastAsked)
	s.mu.Unlock()
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Source) refresh(ctx context.Context) {
	s.mu.Lock()
	if s.asking, s.pending = s.pending, nil; s.asking == nil {
		s.asking = make(chan struct{})
	}
	s.lastAsked = time.Now()
	select {
	case <-s.wanted: // until now
	default:
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		close(s.asking)
		s.asking = nil
		s.mu.Unlock()
	}()
	pods, err := s.client.pods(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.failed(err)
		return
	}
	s.answered(pods)
}

func (s *Source) answered(pods []*Pod) {
	now := time.Now()
	s.counts.refreshes.Add(1)
	s.fetched.Store(now.UnixNano())
	if s.failing.Swap(false) {
		s.logger.Info("The kubelet tells its pods again", "pods", len(pods))
	}
	state, changed := s.State().next(pods, now)
	if !changed {
		return
	}
	s.state.Store(state)
	s.mu.Lock()
	clear(s.unknown)
	for listener := range s.listeners {
		select {
		case listener <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	s.save()
}

func (s *Source) failed(err error) {
	s.failing.Store(true)
	reason := reasonUnreachable
	if f, ok := err.(*failure); ok {
		reason = f.reason
	}
	s.counts.failures[reason].Add(1)
	now := time.Now()
	s.mu.Lock()
	last, found := s.said[reason]
	if say := !found || now.Sub(last) >= sayAgain; !say {
		s.mu.Unlock()
		return
	}
	s.said[reason] = now
	s.mu.Unlock()
	s.logger.Warn("The pods of this node cannot be learnt from the kubelet; telemetry of pods not known yet stays without their names",
		"error", err, "known_pods", len(s.State().Pods), "retry_every", s.config.PollInterval)
}

// Changes returns a channel that gets a value after the State changed. Stop it
// with the function.
func (s *Source) Changes() (changes <-chan struct{}, stop func()) {
	listener := make(chan struct{}, 1)
	s.mu.Lock()
	s.listeners[listener] = struct{}{}
	s.mu.Unlock()
	return listener, func() {
		s.mu.Lock()
		delete(s.listeners, listener)
		s.mu.Unlock()
	}
}

func (s *Source) load() {
	if s.config.CacheFile == "" {
		return
	}
	pods, err := loadCache(s.config.CacheFile)
	if err != nil {
		s.logger.Warn("The pods known before the start cannot be read; logs of pods that are gone stay without their names", "error", err)
	}
	if len(pods) == 0 {
		return
	}
	state := newState(pods)
	state = newState(append(state.Pods, keep(state.gone, time.Now())...))
	s.state.Store(state)
	s.logger.Info("Pods known from before the start", "pods", len(state.Pods), "gone", len(state.gone), "file", s.config.CacheFile)
}

// save keeps the state, if it is another than the saved one.
func (s *Source) save() {
	if s.config.CacheFile == "" {
		return
	}
	content, checksum, err := encodeCache(s.State().all())
	if err == nil {
		if checksum == s.savedSum {
			return
		}
		err = saveCache(s.config.CacheFile, content)
	}
	if err != nil {
		if !s.saveSaid {
			s.logger.Warn("The known pods cannot be saved; after a restart logs of pods that are gone stay without their names", "error", err)
		}
		s.saveSaid = true
		return
	}
	s.savedSum, s.saveSaid = checksum, false
}
