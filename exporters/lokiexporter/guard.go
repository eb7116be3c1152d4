package lokiexporter

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// CardinalityConfig bounds how many values a label may have. Each distinct set
// of label values is a stream, and a label with endless values (a pod's name, a
// request's id) makes endless streams, which is the usual way to bring a Loki
// down.
type CardinalityConfig struct {
	// MaxValues is how many values a label may have within Window, for each
	// tenant. A label that has more is demoted: its value becomes structured
	// metadata under the label's name. 0: no bound. Default 1000.
	MaxValues int `mapstructure:"max_values"`
	// Window is how long a value counts after it was last seen. A demoted label
	// comes back when it has had at most half of its bound for that long.
	// Default 1h.
	Window time.Duration `mapstructure:"window"`
	// Attributes are bounds for the labels of single resource attributes, in
	// place of MaxValues; 0: no bound. Default k8s.cluster.name: 0, because the
	// number of clusters is the fleet's size, and the hub knows their names.
	Attributes map[string]int `mapstructure:"attributes"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// maxLabelValues is the highest bound: it is also how many values are remembered
// for each label of each tenant, twice at most, at about 20 bytes.
const maxLabelValues = 1_000_000

// Validate reports every bad key.
func (c *CardinalityConfig) Validate() error {
	var errs []error
	if c.MaxValues < 0 || c.MaxValues > maxLabelValues {
		errs = append(errs, fmt.Errorf("max_values: must be between 0 (no bound) and %d, is %d", maxLabelValues, c.MaxValues))
	}
	if c.Window < time.Minute {
		errs = append(errs, fmt.Errorf("window: must be at least 1m, is %s", c.Window))
	}
	for attribute, bound := range c.Attributes {
		if bound < 0 || bound > maxLabelValues {
			errs = append(errs, fmt.Errorf("attributes::%s: must be between 0 (no bound) and %d, is %d", attribute, maxLabelValues, bound))
		}
	}
	return errors.Join(errs...)
}

// bounds returns the bound of each label rule.
func (c *CardinalityConfig) bounds(rules []labelRule) []int {
	bounds := make([]int, len(rules))
	for i, rule := range rules {
		if rule.attribute == "" {
			continue // the level and the hour of late entries are bounded by themselves
		}
		bounds[i] = c.MaxValues
		if own, found := c.Attributes[rule.attribute]; found {
			bounds[i] = own
		}
	}
	return bounds
}

// guard counts the values of a tenant's labels and demotes those with too many.
// A value is remembered by a hash of 64 bits; what it remembers is bounded by
// the bounds.
type guard struct {
	bounds []int // by rule; 0: none
	window time.Duration
	now    func() time.Time
	// turned is told what changed: a label was demoted (down) or came back.
	turned func(rule int, down bool, values int)

	mu      sync.Mutex
	labels  []labelValues
	demoted labelSet
	began   time.Time // when the young generation of values did
}

// labelValues are the values of a label in two generations, each half a window
// long, so that they are forgotten without being swept.
type labelValues struct {
	young, old map[uint64]struct{}
	count      int       // of the values in both
	calmSince  time.Time // of a demoted label: since when it has had few values
}

func newGuard(bounds []int, window time.Duration, now func() time.Time, turned func(int, bool, int)) *guard {
	return &guard{bounds: bounds, window: window, now: now, turned: turned, labels: make([]labelValues, len(bounds)), began: now()}
}

// see counts the label values of a resource and returns the labels that are
// demoted. A nil guard demotes none.
func (g *guard) see(values []string) labelSet {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.turn(now)
	for i, value := range values {
		if g.bounds[i] == 0 || value == "" {
			continue
		}
		l := &g.labels[i]
		hash := maphash.String(keySeed, value)
		if _, found := l.young[hash]; found {
			continue
		}
		if len(l.young) > g.bounds[i] {
			continue // more than enough to know
		}
		if l.young == nil {
			l.young = make(map[uint64]struct{})
		}
		l.young[hash] = struct{}{}
		if _, found := l.old[hash]; !found {
			l.count++
		}
		if l.count > g.bounds[i] {
			l.calmSince = time.Time{}
			if !g.demoted.has(i) {
				g.demoted = g.demoted.with(i)
				g.turned(i, true, l.count)
			}
		}
	}
	return g.demoted
}

// turn begins a new generation when it is time, and lets labels come back.
func (g *guard) turn(now time.Time) {
	age := now.Sub(g.began)
	if age < g.window/2 {
		return
	}
	for i := range g.labels {
		l := &g.labels[i]
		g.calm(i, l, now)
		l.old, l.young = l.young, nil
		if age >= g.window {
			l.old = nil
		}
		l.count = len(l.old)
	}
	g.began = now
}

// calm lets a demoted label come back when it has had few values for a window.
func (g *guard) calm(i int, l *labelValues, now time.Time) {
	switch n := l.count; {
	case !g.demoted.has(i):
	case n > g.bounds[i]/2:
		l.calmSince = time.Time{}
	case l.calmSince.IsZero():
		l.calmSince = now
	case now.Sub(l.calmSince) >= g.window:
		g.demoted &^= 1 << i
		l.calmSince = time.Time{}
		g.turned(i, false, n)
	}
}

// close takes the demotions back, for who counts them.
func (g *guard) close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.labels {
		if g.demoted.has(i) {
			g.turned(i, false, 0)
		}
	}
	g.demoted = 0
}
