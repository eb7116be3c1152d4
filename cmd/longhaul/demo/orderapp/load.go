package orderapp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxGuests bounds the checkouts under way at once: when the services are
// slow (because the collector is away and the span queue full), guests wait.
const maxGuests = 32

// One in dumpEvery orders logs its whole cart, a line longer than the
// container runtime's limit.
const dumpEvery = 150

var (
	menu     = []string{"soup", "salad", "pasta", "pizza", "curry", "burger", "fries", "cake", "coffee", "tea"}
	channels = []string{"counter", "table", "web", "drive-in"}
)

// load plays the guests: it orders at the storefront at a steady rate with
// some jitter until it is stopped.
type load struct {
	front  *service
	rate   float64
	runID  string
	orders *atomic.Int64
	log    func(msg string, kv ...any)
	dice   *rand.Rand
	seat   chan struct{}
	client *http.Client

	mu      sync.Mutex
	stopped chan struct{}
	halt    bool
	guests  sync.WaitGroup
}

func newLoad(cfg *Config, front *service, counts *Counts) *load {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	return &load{
		front: front, rate: cfg.Rate, runID: cfg.Run, orders: &counts.Orders, log: cfg.Logger.Warn,
		dice: rand.New(rand.NewPCG(cfg.Seed, 1)), //nolint:gosec // not a secret
		seat: make(chan struct{}, maxGuests), stopped: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: 5 * time.Minute},
	}
}

// run makes orders until ctx is done or stop is called, and waits for the
// guests under way.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	defer l.guests.Wait()
	for n := 1; ; n++ {
		wait := time.Duration(float64(time.Second) / l.rate * (0.5 + l.dice.Float64()))
		o := l.order(n)
		select {
		case <-ctx.Done():
			return
		case <-l.stopped:
			return
		case <-time.After(wait):
		}
		select {
		case <-ctx.Done():
			return
		case <-l.stopped:
			return
		case l.seat <- struct{}{}:
		}
		l.mu.Lock()
		if l.halt {
			l.mu.Unlock()
			return
		}
		l.guests.Add(1)
		l.mu.Unlock()
		go func() {
			defer l.guests.Done()
			defer func() { <-l.seat }()
			l.orders.Add(1)
			if err := l.checkout(ctx, o); err != nil && ctx.Err() == nil {
				l.log("checkout failed", "order", o.ID, "error", err)
			}
		}()
	}
}

// stop ends the load and returns when the last guest is served.
func (l *load) stop() {
	l.mu.Lock()
	if !l.halt {
		l.halt = true
		close(l.stopped)
	}
	l.mu.Unlock()
	l.guests.Wait()
}

func (l *load) running() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.halt
}

func (l *load) order(n int) *order {
	o := &order{
		ID:    fmt.Sprintf("%s-%06d", l.runID, n),
		Table: 1 + l.dice.IntN(24), Channel: channels[l.dice.IntN(len(channels))],
		BadCard: l.dice.IntN(40) == 0, SlowCard: l.dice.IntN(60) == 0,
	}
	for range 1 + l.dice.IntN(5) {
		o.Dishes = append(o.Dishes, menu[l.dice.IntN(len(menu))])
		o.Cents += 250 + 50*l.dice.IntN(40)
	}
	if n%dumpEvery == 10 {
		o.Dump = strings.Repeat(strings.Join(o.Dishes, ",")+";", 40<<10/(len(strings.Join(o.Dishes, ","))+1))
	}
	return o
}

func (l *load) checkout(ctx context.Context, o *order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.front.url+"/checkout", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer discard(resp.Body)
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
