package lokiexporter

import (
	"sync"
	"time"
)

// recentFor: a stream that Loki took this recently is still open there, so it is
// not one that a limit of streams could refuse. Loki closes a stream after 30
// minutes without entries.
const recentFor = 10 * time.Minute

// streamRate is how much Loki takes of a stream: its per_stream_rate_limit and
// per_stream_rate_limit_burst.
type streamRate struct{ bytesPerSecond, burst float64 }

// defaultStreamRate is Loki's own.
var defaultStreamRate = streamRate{3 << 20, 15 << 20}

// recentStreams remembers which streams Loki took lately, and how near each is
// to its rate limit, in two generations, so that it forgets without being swept.
type recentStreams struct {
	mu       sync.Mutex
	young    map[uint64]fill
	old      map[uint64]fill
	youngest time.Time // when young began
}

// fill is how full the bucket of a stream's rate limit is.
type fill struct {
	bytes float64
	at    int64 // unix nanoseconds
}

// leaked is what is left of it now.
func (f fill) leaked(bytesPerSecond float64, now int64) float64 {
	return max(0, f.bytes-bytesPerSecond*float64(max(0, now-f.at))/nanosPerSecond)
}

func (r *recentStreams) turn(now time.Time) {
	if age := now.Sub(r.youngest); r.young == nil || age >= recentFor/2 {
		r.old = r.young
		if age >= recentFor {
			r.old = nil
		}
		r.young, r.youngest = make(map[uint64]fill, len(r.old)), now
	}
}

// rateShare is the part of a stream's rate that the exporter takes to be its
// own: the streams of a cluster may come from as many relays as it has nodes.
const rateShare = 0.25

// has says whether Loki took a stream lately, and whether it may have room for
// these bytes more.
func (r *recentStreams) has(stream uint64, bytes int, rate streamRate, now time.Time) (known, room bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	f, known := r.young[stream]
	if !known {
		f, known = r.old[stream]
	}
	return known, f.leaked(rateShare*rate.bytesPerSecond, now.UnixNano())+float64(bytes) <= rateShare*rate.burst
}

// took remembers that Loki took bytes of a stream.
func (r *recentStreams) took(stream uint64, bytes int, rate streamRate, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	f, known := r.young[stream]
	if !known {
		f = r.old[stream]
	}
	at := now.UnixNano()
	r.young[stream] = fill{f.leaked(rateShare*rate.bytesPerSecond, at) + float64(bytes), at}
}

// forget forgets a stream that Loki did not take.
func (r *recentStreams) forget(stream uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	delete(r.young, stream)
	delete(r.old, stream)
}
