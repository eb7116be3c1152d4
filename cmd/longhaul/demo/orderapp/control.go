package orderapp

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
)

// control serves the counts and ends the work on request.
type control struct {
	load     *load
	services []*service
	counts   *Counts
	ledger   *ledger
	finish   sync.Mutex
}

func (c *control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) { c.answer(w) })
	mux.HandleFunc("POST /finish", func(w http.ResponseWriter, r *http.Request) {
		c.finish.Lock()
		defer c.finish.Unlock()
		c.load.stop()
		var errs []error
		// The client of a span ends after the server: all traffic is over
		// here, so one round sends everything.
		for _, s := range c.services {
			errs = append(errs, s.telemetry.finish(r.Context()))
		}
		errs = append(errs, c.ledger.flush())
		if err := errors.Join(errs...); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c.answer(w)
	})
	return mux
}

func (c *control) answer(w http.ResponseWriter) {
	s := c.counts.Snapshot()
	s.Running = c.load.running()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // a client that went away needs no answer
}
