package shipper

import "time"

const (
	// allowanceStart is how many frames of a sealed lane the hub is given before the
	// relay has confirmed one, allowanceMax how many it holds unconfirmed at most.
	allowanceStart = 4
	allowanceMax   = 1 << 14
	// A frame that is confirmed within soon had no queue before it worth the name: a
	// relay confirms every two seconds, and one of a large fleet stores what it confirms
	// within five. One that took longer than late waited behind others.
	soon = 4 * time.Second
	late = 6 * time.Second
	// forgiveAfter is how long the relay may confirm nothing before what the hub holds
	// no longer counts: a backend that is away must not keep others from the backlog.
	forgiveAfter = time.Minute
)

// Allowance bounds how many frames of a sealed lane the hub holds that the relay has
// not confirmed. What thousands of clusters gathered in an outage would else be on the
// hub minutes before a relay can deliver it, and everything current behind it, because
// a hub hands out what it has in the order in which it came. So a lane learns from the
// time between a frame's publishing and its confirmation: it may have twice as many
// there after each that came soon, and half as many after each that came late; once one
// was late, a quarter more after each that comes soon.
//
// The zero Allowance is one to begin with.
type Allowance struct {
	window   uint64 // 0: allowanceStart
	forgiven uint64 // up to there frames do not count although they are not confirmed
	probe    uint64 // the frame that is timed; 0: none
	sent     time.Time
	heard    time.Time // last confirmation of something new, or the first frame that waits for one
	last     uint64    // highest confirmed
	highest  uint64    // published since the link was there
	pressed  bool      // one was late since the link was there
}

// Room says whether the frame with a number may be published. One may always be there:
// numbers are missing where frames were evicted or damaged.
func (a *Allowance) Room(number uint64) bool {
	done := max(a.last, a.forgiven)
	return a.highest <= done || number <= done+max(a.window, allowanceStart)
}

// Published notes that a frame was published.
func (a *Allowance) Published(number uint64, now time.Time) {
	a.highest = max(a.highest, number)
	if a.probe == 0 {
		a.probe, a.sent = number, now
	}
	if a.heard.IsZero() {
		a.heard = now
	}
}

// Confirmed notes up to where the relay has confirmed the lane.
func (a *Allowance) Confirmed(number uint64, now time.Time) {
	if number <= a.last {
		return
	}
	a.last, a.heard = number, now
	if a.probe == 0 || number < a.probe {
		return
	}
	switch took := now.Sub(a.sent); {
	case took >= late:
		a.window, a.pressed = max(allowanceStart, a.window/2), true
	case took <= soon && a.pressed:
		a.window = min(allowanceMax, a.window+a.window/4)
	case took <= soon:
		a.window = min(allowanceMax, 2*max(a.window, allowanceStart))
	}
	a.probe = 0
}

// Again forgets what is timed: the lane publishes from an earlier frame on.
func (a *Allowance) Again() { a.probe, a.highest, a.heard, a.pressed = 0, 0, time.Time{}, false }

// Tick lets go of waiting for a relay that confirms nothing, of which published is the
// last frame it could confirm. It says whether there is room for more by that.
func (a *Allowance) Tick(published uint64, now time.Time) bool {
	if a.probe == 0 || a.heard.IsZero() || now.Sub(a.heard) < forgiveAfter {
		return false
	}
	a.forgiven, a.window = published, min(allowanceMax, 2*max(a.window, allowanceStart))
	a.probe, a.heard = 0, time.Time{}
	return true
}
