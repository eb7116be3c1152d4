package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// defaultMaxTenants is more than a fleet has clusters; what names tenants is
	// not always under the operator's hand.
	defaultMaxTenants = 16_384
	// sharedPatience is for how long a tenant's request is repeated when there
	// are others, whose data may wait behind it in the same call.
	sharedPatience = 2 * time.Second
	// sharedAttempt is how long such a request is given to be answered while requests
	// of others that began no earlier are answered in half the time or less: so it is
	// not the backend that is slow. It is twice what the tenant's last answer took, if
	// that is more, and grows with each hangingFor in which the tenant had no answer.
	sharedAttempt = 3 * time.Second
	hangingFor    = 30 * time.Second
	// sameTime is how far apart two requests may begin and count as begun together.
	sameTime = 100 * time.Millisecond
)

// Settings is what the senders of one backend have in common.
type Settings struct {
	Backend     string       // name in messages: "Loki"
	Client      *http.Client // its Timeout bounds one attempt
	Retry       RetryConfig
	Concurrency ConcurrencyConfig
	Logger      *zap.Logger
	Hint        func(status int) string // see Sender; optional
	Answered    func(Reply) bool        // see Sender; optional
	// MaxTenants is how many tenants are told apart at a time. Those longest out
	// of use are forgotten above it, so it is exceeded only by those in use.
	// Default 16384.
	MaxTenants int
}

// Senders has a Sender for each tenant of a backend. What the backend asks of
// one (Retry-After) and how much it bears of one is a matter of that tenant
// alone. Above them stands one limit for all, so that many tenants do not topple
// together what each would spare, and a smaller one for those that are refused,
// so that they do not take the room of the others.
//
// As long as there is one tenant, Post is as patient as the settings say. With
// several, one that is refused hands its data back after 2 seconds, one that gets no
// answer after 3 (if it had been quicker before), and as long as that goes on, after
// one attempt, or at once if there are attempts enough under way: the caller has
// others to serve.
type Senders struct {
	set     Settings
	whole   *limit // of tenants that are well
	probes  *limit // of tenants in trouble
	trouble Burst
	halved  atomic.Int64
	newest  atomic.Pointer[latest] // of all tenants, the one whose request began last

	mu      sync.Mutex
	tenants map[string]*Sender
}

// latest is when a request began and how long its answer took.
type latest struct {
	began time.Time
	took  time.Duration
}

// tenant is what a Sender knows of its tenant.
type tenant struct {
	of    *Senders
	name  string
	limit *limit
	users atomic.Int32 // calls of Post
	last  atomic.Int64 // unix nanoseconds of the last use
	// trouble is why the last attempt was in vain, nil if it was not.
	trouble atomic.Pointer[error]
	hangs   atomic.Int64 // unix nanoseconds since when it has had no answer, 0: it has
	took    atomic.Int64 // nanoseconds that the last answer took
}

// NewSenders returns the senders of a backend.
func NewSenders(set Settings) *Senders {
	set.MaxTenants = cmp.Or(set.MaxTenants, defaultMaxTenants)
	total := set.Concurrency.total()
	whole := newLimit(set.Concurrency.Min, total/2, total)
	whole.majority = true
	return &Senders{
		set:     set,
		whole:   whole,
		probes:  newLimit(min(initialLimit, total), initialLimit, total),
		tenants: make(map[string]*Sender),
	}
}

// For returns the Sender of a tenant; the empty name stands for a backend
// without tenants. It is for the next Post, not for keeping.
func (s *Senders) For(name string) *Sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	sender := s.tenants[name]
	if sender == nil {
		if len(s.tenants) >= s.set.MaxTenants {
			s.forgetLocked()
		}
		name = strings.Clone(name) // not what it may be a part of
		sender = s.newSender(name)
		s.tenants[name] = sender
	}
	sender.tenant.last.Store(time.Now().UnixNano())
	return sender
}

func (s *Senders) newSender(name string) *Sender {
	backend := s.set.Backend
	if name != "" {
		backend = fmt.Sprintf("%s, tenant %q", backend, name)
	}
	return &Sender{
		Backend:  backend,
		Client:   s.set.Client,
		Retry:    s.set.Retry,
		Logger:   s.set.Logger,
		Hint:     s.set.Hint,
		Answered: s.set.Answered,
		tenant:   &tenant{of: s, name: name, limit: newLimit(s.set.Concurrency.Min, initialLimit, s.set.Concurrency.Max)},
	}
}

// forgetLocked drops an eighth of the tenants, those that are longest out of use.
func (s *Senders) forgetLocked() {
	var idle []*tenant
	for _, sender := range s.tenants {
		if sender.tenant.users.Load() == 0 && sender.asked() <= 0 {
			idle = append(idle, sender.tenant)
		}
	}
	slices.SortFunc(idle, func(a, b *tenant) int { return cmp.Compare(a.last.Load(), b.last.Load()) })
	for _, t := range idle[:min(len(idle), max(1, s.set.MaxTenants/8))] {
		delete(s.tenants, t.name)
	}
}

func (s *Senders) several() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tenants) > 1
}

// patience is how long a call of Post may take: retry until no attempt is begun,
// slot at least for the first one's turn.
type patience struct{ retry, slot time.Duration }

func (s *Sender) patience() patience {
	p := patience{retry: s.Retry.MaxElapsedTime, slot: s.Client.Timeout}
	if s.tenant == nil || !s.tenant.of.several() {
		return p
	}
	if s.tenant.trouble.Load() != nil {
		return patience{}
	}
	p.retry = min(p.retry, sharedPatience)
	return p
}

// watch gives up an attempt that hangs while other tenants' requests are answered.
// ctx is the attempt's own. It returns how long it lets an attempt be and what ends
// the watch.
func (t *tenant) watch(ctx context.Context, began time.Time, giveUp context.CancelFunc) (most time.Duration, stop func()) {
	if t == nil || !t.of.several() {
		return 0, func() {}
	}
	most = max(sharedAttempt, 2*time.Duration(t.took.Load()))
	if since := t.hangs.Load(); since != 0 {
		most <<= min(time.Since(time.Unix(0, since))/hangingFor, 8)
	}
	var timer *time.Timer
	set := make(chan struct{})
	timer = time.AfterFunc(most, func() {
		<-set
		other := t.of.newest.Load()
		switch {
		case ctx.Err() != nil:
		case other != nil && !other.began.Before(began.Add(-sameTime)) && other.took <= time.Since(began)/2:
			giveUp()
		default:
			timer.Reset(sharedAttempt / 6)
		}
	})
	close(set)
	return most, func() { timer.Stop() }
}

// slots are those an attempt holds. The zero value holds none.
type slots struct {
	tenant      *tenant
	own, shared slot
	of          *limit // that shared is of, nil if there is one tenant only
	began       time.Time
}

// acquire waits for the slots of an attempt.
func (s *Sender) acquire(ctx context.Context, patience time.Duration, last error) (slots, error) {
	t := s.tenant
	if t == nil {
		return slots{}, nil
	}
	t.users.Add(1)
	giveUp := time.Now().Add(patience)
	own, err := t.limit.acquire(ctx, patience)
	if err == nil {
		var shared slot
		of := t.sharedLimit()
		if of != nil {
			shared, err = of.acquire(ctx, time.Until(giveUp))
		}
		if err == nil {
			return slots{t, own, shared, of, time.Now()}, nil
		}
		t.limit.release(own, 0, silent)
	}
	t.users.Add(-1)
	if !errors.Is(err, errBusy) {
		return slots{}, fmt.Errorf("send to %s: %w", s.Backend, err)
	}
	if trouble := t.trouble.Load(); last == nil && trouble != nil {
		last = *trouble
	}
	if last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return slots{}, fmt.Errorf("%s: %w: %w", s.Backend, ErrUnavailable, err)
}

// sharedLimit is the limit that a tenant's requests share with those of others.
func (t *tenant) sharedLimit() *limit {
	switch {
	case !t.of.several():
		return nil
	case t.trouble.Load() != nil:
		return t.of.probes
	}
	return t.of.whole
}

// release gives the slots back with what the attempt's end said about the tenant
// and about the backend.
func (s slots) release(own, shared verdict) {
	if s.tenant == nil {
		return
	}
	took := time.Since(s.began)
	if s.tenant.limit.release(s.own, took, own) {
		s.tenant.of.halved.Add(1)
	}
	if s.of != nil && s.of.release(s.shared, took, shared) {
		s.tenant.of.halved.Add(1)
	}
	s.tenant.users.Add(-1)
}

// verdicts says what an attempt's end means for the limit of its tenant and for
// the one shared with others. Being told to slow down (429) is a matter of the tenant:
// backends count their rates by tenant.
func verdicts(ctx context.Context, reply Reply, err error, final bool) (own, shared verdict) {
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return silent, silent // the caller's wish
	case final:
		return borne, borne
	case err != nil, reply.Status/100 == 5, reply.Status == http.StatusRequestTimeout:
		return congested, congested
	case reply.Status == http.StatusTooManyRequests:
		return congested, silent
	case misconfigured(reply.Status):
		return silent, silent
	}
	return borne, borne
}

// unanswered notes an attempt that was given up without an answer.
func (t *tenant) unanswered(began time.Time) { t.hangs.CompareAndSwap(0, began.UnixNano()) }

// answers notes an attempt that had an answer.
func (t *tenant) answers(began time.Time) {
	if t == nil {
		return
	}
	took := time.Since(began)
	t.hangs.Store(0)
	t.took.Store(int64(took))
	for {
		old := t.of.newest.Load()
		if old != nil && old.began.After(began) || t.of.newest.CompareAndSwap(old, &latest{began, took}) {
			return
		}
	}
}

func (t *tenant) tookOne() {
	if t != nil {
		t.trouble.Store(nil)
	}
}

func (t *tenant) refused(err error) {
	if t != nil {
		t.trouble.Store(&err)
	}
}
