package orderapp

import "sync/atomic"

// Tally counts the items of one signal.
type Tally struct {
	Made     atomic.Int64 // handed to the exporter or written to the file
	Accepted atomic.Int64 // the collector said OK, or the line is in the file
}

// Counts are the application's own numbers.
type Counts struct {
	Logs, Metrics, Traces Tally
	Retries               atomic.Int64 // exports that were repeated
	Orders                atomic.Int64
}

// Pair is a Tally at one moment.
type Pair struct {
	Made     int64 `json:"made"`
	Accepted int64 `json:"accepted"`
}

// Snapshot is Counts at one moment, as /counts serves it.
type Snapshot struct {
	Logs    Pair  `json:"logs"`
	Metrics Pair  `json:"metrics"`
	Traces  Pair  `json:"traces"`
	Retries int64 `json:"retries"`
	Orders  int64 `json:"orders"`
	Running bool  `json:"running"` // the load loop is on
}

// Snapshot reads the counters.
func (c *Counts) Snapshot() Snapshot {
	// Accepted first: it must never be seen above Made.
	pair := func(t *Tally) Pair {
		a := t.Accepted.Load()
		return Pair{Made: t.Made.Load(), Accepted: a}
	}
	return Snapshot{
		Logs: pair(&c.Logs), Metrics: pair(&c.Metrics), Traces: pair(&c.Traces),
		Retries: c.Retries.Load(), Orders: c.Orders.Load(),
	}
}
