package natsreceiver

import (
	"sync/atomic"
	"time"
)

// noticeInterval is the least time between two log records of what one edge can bring
// about as often as it likes. All of it is counted.
const noticeInterval = 10 * time.Minute

// notices are such log records.
type notices struct {
	replays, spools, lanes, hellos notice
}

// notice remembers when something was last said.
type notice struct{ last atomic.Int64 } // Unix nanoseconds

// due says whether it may be said again now, and that it is.
func (n *notice) due() bool {
	now, last := time.Now().UnixNano(), n.last.Load()
	return now-last >= int64(noticeInterval) && n.last.CompareAndSwap(last, now)
}
