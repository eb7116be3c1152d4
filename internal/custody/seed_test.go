package custody

import (
	"testing"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
)

var logs = []frame.Signal{frame.Logs}

// elder is a ledger that has a lane up to a number.
func elder(t *testing.T, number uint64) *Ledger {
	t.Helper()
	l := NewLedgerOf(logs, false)
	for n := uint64(1); n <= number; n++ {
		deliver(t, l, key(), ten(n, 1))
	}
	return l
}

// joined is the ledger of a destination that is added beside an elder one.
func joined(t *testing.T, beside *Ledger, fromNow bool) *Ledger {
	t.Helper()
	l := NewLedgerOf(logs, fromNow)
	l.Seed(key().Spool(), []*Ledger{beside}, now)
	if told, known := l.Confirmed(key()); !known || told != 5 {
		t.Fatalf("the edge would hear %d (%v); it was told 5 before", told, known)
	}
	return l
}

// again is the same ledger in the hands of the next relay.
func again(t *testing.T, l *Ledger) *Ledger {
	t.Helper()
	next := NewLedgerOf(l.signals, l.fromNow)
	l.StoreAgain()
	_, _, values := store(l)
	for id, value := range values {
		if err := next.Load(id, value, now); err != nil {
			t.Fatal(err)
		}
	}
	return next
}

func TestAnAddedDestinationBeginsWithWhatTheHubHolds(t *testing.T) {
	for name, carry := range map[string]func(*testing.T, *Ledger) *Ledger{
		"at once":         func(_ *testing.T, l *Ledger) *Ledger { return l },
		"after a restart": again,
	} {
		t.Run(name, func(t *testing.T) {
			l := carry(t, joined(t, elder(t, 5), false))
			wantLost(t, "the first that is held", deliver(t, l, key(), ten(3, 1)), Counts{})
			if told, _ := l.Confirmed(key()); told != 5 {
				t.Fatalf("the edge would hear %d after 5", told)
			}
			l = carry(t, l)
			wantLost(t, "one that is missing below the seed", deliver(t, l, key(), ten(5, 1)), Counts{})
			l = carry(t, l)
			if got := l.Take(key(), ten(8, 1), now); got != Early {
				t.Fatalf("frame 8 after 5: verdict %d; want early", got)
			}
			lost := Counts{frame.EvictedSpace: 20}
			wantLost(t, "a loss since", deliver(t, l, key(), ten(8, 8, lost)), lost)
		})
	}
}

func TestAnAddedDestinationGoesOnBehindTheSeed(t *testing.T) {
	l := joined(t, elder(t, 5), false)
	if got := l.Take(key(), ten(8, 1), now); got != Early {
		t.Fatalf("frame 8 after a seed of 5: verdict %d; want early", got)
	}
	if want := l.Wanted(key()); want != 6 {
		t.Fatalf("wants %d, not 6", want)
	}
	lost := Counts{frame.EvictedSpace: 10}
	wantLost(t, "what is lost for all", deliver(t, l, key(), ten(7, 7, lost)), lost)
	if l.Seeded(frame.Logs) {
		t.Fatal("the lane has begun and waits still")
	}
}

func TestAnAddedDestinationBeginsNow(t *testing.T) {
	for name, carry := range map[string]func(*testing.T, *Ledger) *Ledger{
		"at once":         func(_ *testing.T, l *Ledger) *Ledger { return l },
		"after a restart": again,
	} {
		t.Run(name, func(t *testing.T) {
			l := carry(t, joined(t, elder(t, 5), true))
			wantLost(t, "the first that comes", deliver(t, l, key(), ten(20, 1)), Counts{})
			if got := l.Take(key(), ten(22, 1), now); got != Early {
				t.Fatalf("frame 22 after 20: verdict %d; want early", got)
			}
			lost := Counts{frame.EvictedSpace: 10}
			wantLost(t, "a loss since", deliver(t, l, key(), ten(22, 22, lost)), lost)
		})
	}
}

// A lane that only the elder destination gets frames of does not keep the edge from
// deleting them.
func TestADestinationOfNowFollowsALaneThatItGetsNothingOf(t *testing.T) {
	one := elder(t, 5)
	l := joined(t, one, true)
	deliver(t, one, key(), ten(6, 1))
	if !l.Follow(key(), []*Ledger{one}) {
		t.Fatal("it does not follow")
	}
	store(l)
	if told, _ := l.Confirmed(key()); told != 6 {
		t.Fatalf("the edge would hear %d, not 6", told)
	}
	if l.Follow(key(), []*Ledger{one}) {
		t.Fatal("it follows a lane that it goes on with by itself")
	}
	wantLost(t, "the next", deliver(t, l, key(), ten(7, 1)), Counts{})
}

func TestALaneThatWaitsForHeldFramesIsNotRetired(t *testing.T) {
	l := joined(t, elder(t, 5), false)
	l.Hear(key().Spool(), []HelloLane{{Lane: "logs/1", Floor: 6, Next: 6, Before: 50, Shipped: 5}}, now)
	next := HelloLane{Lane: "logs/2", Floor: 1, Next: 1}
	l.Hear(key().Spool(), []HelloLane{next}, now)
	if got := l.Take(key(), ten(5, 1), now); got != Deliver {
		t.Fatalf("verdict %d on a frame that the hub held", got)
	}
	l.Accept(key(), 5, now)
	l.Hear(key().Spool(), []HelloLane{next}, now)
	if got := l.Take(key(), ten(4, 1), now); got != Duplicate {
		t.Fatalf("verdict %d after the lane retired", got)
	}
}

// A destination whose value is there when a lane begins is not taken for one that
// was added: it has to be given everything from the first frame on.
func TestADestinationThatWasThereIsNotSeeded(t *testing.T) {
	l := NewLedgerOf(logs, false)
	l.Meet(key().Spool(), now)
	l = again(t, l)
	l.Seed(key().Spool(), []*Ledger{elder(t, 5)}, now)
	if told, _ := l.Confirmed(key()); told != 0 {
		t.Fatalf("the edge would hear %d of a destination that has had nothing", told)
	}
	// It begins to read another signal: that is new to it.
	other := Key{key().Origin, key().Epoch, frame.Lane{Signal: frame.Metrics, Seq: 1}}
	one := NewLedger()
	deliver(t, one, other, ten(1, 1))
	l = again(t, l)
	l.signals = []frame.Signal{frame.Logs, frame.Metrics}
	l.Seed(key().Spool(), []*Ledger{one}, now)
	if told, _ := l.Confirmed(other); told != 1 {
		t.Fatalf("the edge would hear %d of a signal that is read since now", told)
	}
}

func TestAnEpochBelongsToOneOrigin(t *testing.T) {
	e, mine := NewEpochs(), key().Spool()
	theirs := Spool{hub.Origin{Cluster: "store-0002", Node: "a"}, mine.Epoch}
	use := func(id Spool, at, now time.Time, want bool) {
		t.Helper()
		if other, conflict := e.Use(id, at, now); conflict != want || conflict && other == id.Origin {
			t.Fatalf("%s at %s: conflict %v with %s", id.Origin, at.Sub(now), conflict, other)
		}
	}
	use(mine, now, now, false)
	use(theirs, now, now, true)
	use(theirs, now.Add(-time.Hour), now, false) // from before it was mine: the spool was adopted
	later := now.Add(ConflictSilence)
	use(theirs, later, later, true)
	later = later.Add(time.Second)
	use(theirs, later, later, false) // I have been silent
	use(mine, later, later, true)
	if !e.Fresh(theirs, later) || e.Fresh(mine, later) {
		t.Fatal("who used it last is not known")
	}
}
