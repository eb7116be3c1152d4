package demo

import (
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
	"github.com/longhaul/longhaul/internal/lab"
)

// totals add up a counter of each signal across restarts of its process.
type totals [len(view.Signals)]struct{ last, sum float64 }

func (t *totals) add(m lab.Metrics, name string) {
	for i, signal := range view.Signals {
		now := m.Sum(name, "signal", signal)
		if now < t[i].last { // the process began anew
			t[i].last = 0
		}
		t[i].sum += now - t[i].last
		t[i].last = now
	}
}

func (t *totals) items() (out view.Items) {
	for i := range t {
		out[i] = int64(t[i].sum)
	}
	return out
}

// edgeReading is what a collector last said of itself.
type edgeReading struct {
	at          time.Time // zero: never read
	in          totals
	waiting     view.Items // in the spool, unconfirmed
	spoolBytes  int64
	spoolLimit  int64
	connected   bool
	oldest      time.Duration // age of the oldest item not yet sent
	unconfirmed time.Duration // age of the oldest item not yet confirmed
}

func (r *edgeReading) update(m lab.Metrics, at time.Time) {
	r.at = at
	r.in.add(m, "longhaul_items_in_total")
	r.oldest, r.unconfirmed = 0, 0
	for i, signal := range view.Signals {
		r.waiting[i] = int64(m.Sum("longhaul_spool_items", "signal", signal))
		r.oldest = max(r.oldest, secs(m.Sum("longhaul_oldest_unsent_age_seconds", "signal", signal)))
		r.unconfirmed = max(r.unconfirmed, secs(m.Sum("longhaul_oldest_unconfirmed_age_seconds", "signal", signal)))
	}
	r.spoolBytes = int64(m.Sum("longhaul_spool_bytes"))
	r.spoolLimit = int64(m.Sum("longhaul_spool_limit_bytes"))
	r.connected = m.Sum("longhaul_link_up") > 0
}

// drained says that all that was there at a time has been confirmed.
func (r *edgeReading) drained(since time.Time) bool {
	return r.at.After(since) && r.connected && r.at.Add(-r.unconfirmed).After(since)
}

// relayReading is what the relay last said of itself.
type relayReading struct {
	delivered totals
}

func (r *relayReading) update(m lab.Metrics) {
	r.delivered.add(m, "longhaul_relay_items_delivered_total")
}

func secs(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
