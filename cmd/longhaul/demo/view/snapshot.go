// Package view shows the state of a running demo: as a live full-screen view
// with keys (Run), or as plain lines for a pipe (Line). Both draw a Snapshot
// and nothing else, so what a person sees can be recorded and tested.
package view

import "time"

// Signals are the column heads of the three signals, in the order of Items.
var Signals = [3]string{"logs", "metrics", "traces"}

// Items holds a number of items for each of Signals.
type Items [3]int64

// Sum adds the signals up.
func (i Items) Sum() int64 { return i[0] + i[1] + i[2] }

// State is what a process or a link is doing.
type State string

// The states of links, collectors, applications, the relay and backends.
const (
	Up       State = "up"
	Cut      State = "cut"      // the link, by key
	Lost     State = "no hub"   // the link is there, the connection is not
	Starting State = "starting" // a process that does not answer yet
	Killed   State = "killed"   // by key, kill -9
	Stopped  State = "stopped"  // by key
	Queued   State = "queued"   // a backend that is built after another
	Building State = "building" // a backend
	Failed   State = "failed"   // ended or could not be started; Detail says why
)

// Store is one edge cluster.
type Store struct {
	Name        string
	Link        State
	Collector   State
	In          Items // durable in the spool since the demo began
	Unconfirmed Items // in the spool, not yet accepted by the backends
	SpoolBytes  int64
	SpoolLimit  int64
	Oldest      time.Duration // age of the oldest item not yet sent
}

// Backend is Loki, Prometheus or Jaeger.
type Backend struct {
	Name      string
	State     State
	Percent   int    // of the build, 0 to 100
	Detail    string // of the build or the failure
	URL       string
	Delivered int64 // items accepted
	Waiting   int64 // items at the edges and in the hub, still to be accepted
}

// Note is a line of the demo's own story.
type Note struct {
	At   time.Time
	Text string
}

// Snapshot is the whole state at one moment.
type Snapshot struct {
	At       time.Time
	Running  time.Duration // since the pipeline was up
	RunDir   string
	Relay    State
	HubURL   string
	Stores   []Store
	Backends []Backend
	Notes    []Note
}

// pending says that a backend is not there yet and the hub holds its data.
func (b Backend) pending() bool {
	return b.State == Queued || b.State == Building || b.State == Starting
}
