package lokiexporter

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
)

// tenantState is what the exporter knows of one tenant.
type tenantState struct {
	name     string
	header   http.Header
	recent   recentStreams
	guard    *guard // nil: labels have no bounds
	progress deliver.Progress

	mu       sync.Mutex
	used     time.Time
	cautious time.Time // until then, new streams travel alone
	tooLate  time.Time // until then, Loki is known to refuse late entries
}

// maxTenants is how many tenants are remembered; beyond it the ones longest
// unused are forgotten, which costs a few requests more when they come back.
const maxTenants = 16_384

// tenants knows the tenants by their names.
type tenants struct {
	create func(name string) *tenantState
	now    func() time.Time

	mu     sync.Mutex
	byName map[string]*tenantState
}

func (t *tenants) of(name string) *tenantState {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	state := t.byName[name]
	if state == nil {
		if len(t.byName) >= maxTenants {
			t.forget()
		}
		name = strings.Clone(name) // not what it may be a part of
		state = t.create(name)
		t.byName[name] = state
	}
	state.mu.Lock()
	state.used = now
	state.mu.Unlock()
	return state
}

// forget drops the eighth of the tenants that is longest unused.
func (t *tenants) forget() {
	type use struct {
		name string
		at   time.Time
	}
	uses := make([]use, 0, len(t.byName))
	for name, state := range t.byName {
		state.mu.Lock()
		uses = append(uses, use{name, state.used})
		state.mu.Unlock()
	}
	slices.SortFunc(uses, func(a, b use) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	for _, u := range uses[:max(1, len(uses)/8)] {
		t.byName[u.name].guard.close()
		delete(t.byName, u.name)
	}
}

// beCautious remembers that a tenant has met its limit of streams.
func (t *tenantState) beCautious(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cautious = now.Add(cautionFor)
}

// beEarly remembers that Loki refused a tenant's entries for being late.
func (t *tenantState) beEarly(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tooLate = now.Add(cautionFor)
}

func (t *tenantState) care(now time.Time) (cautious, tooLate bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Before(t.cautious), now.Before(t.tooLate)
}

// recall marks the entries of a batch that an earlier attempt got an answer for,
// and returns what is remembered of them.
func (t *tenantState) recall(b *batch) (earlier []deliver.Part) {
	if t.progress.Empty() {
		return nil
	}
	for i := range b.entries {
		e := &b.entries[i]
		known, found := t.progress.Answered(b.key(e))
		if !found {
			continue
		}
		if e.state = taken; known.Rejected > 0 {
			e.state = refused
		}
		earlier = append(earlier, known)
	}
	return earlier
}

// remember keeps what Loki has answered for until the caller has come again.
func (t *tenantState) remember(b *batch, wanted func(*entry) bool) {
	var parts []deliver.Part
	for i := range b.entries {
		e := &b.entries[i]
		if e.state == pending || !wanted(e) {
			continue
		}
		part := deliver.Part{Hash: b.key(e), Sent: 1}
		if e.state == refused {
			part.Sent, part.Rejected = 0, 1
		}
		parts = append(parts, part)
	}
	t.progress.Keep(parts)
}

// open begins a tenant's share of a call.
func (e *lokiExporter) open(name string) *share {
	tenant, now := e.tenants.of(name), e.now()
	cautious, tooLate := tenant.care(now)
	return &share{tenant: tenant, cautious: cautious, late: e.late.policy(now, tooLate), batch: batches.Get().(*batch)}
}

// settle ends a share: it forgets what the caller will not bring again, and remembers
// what was answered for of that which it will. failed are the parts of the call that
// come again; some of them may hold entries of tenants that have all of theirs.
func (s *share) settle(whole bool, failed []int) {
	defer s.batch.release()
	if whole {
		s.tenant.progress.Forget(s.earlier)
	}
	switch {
	case !whole:
		s.tenant.remember(s.batch, func(*entry) bool { return true })
	case len(failed) > 0:
		s.tenant.remember(s.batch, func(e *entry) bool {
			_, found := slices.BinarySearch(failed, int(e.part))
			return found
		})
	}
}
