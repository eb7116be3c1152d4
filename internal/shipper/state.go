package shipper

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"
)

// state is saved beside the spool so that a restart does not publish again what
// the hub already keeps. It is an economy, not a promise: when it is missing or
// wrong, frames are published twice and the relay drops them by number.
type state struct {
	Epoch string               `json:"epoch"`
	Lanes map[string]laneState `json:"lanes"`
}

type laneState struct {
	Shipped uint64 `json:"shipped"`
	Stream  string `json:"stream"`
}

func (sh *Shipper) loadState() state {
	var s state
	body, err := sh.spool.LoadState(stateName)
	if err != nil || json.Unmarshal(body, &s) != nil || s.Epoch != sh.spool.Epoch().String() {
		return state{}
	}
	return s
}

func (sh *Shipper) saveRegularly(ctx context.Context) {
	ticker := time.NewTicker(stateInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			sh.saveState()
		}
	}
}

func (sh *Shipper) saveState() {
	lanes := sh.lanes.list()
	s := state{Epoch: sh.spool.Epoch().String(), Lanes: make(map[string]laneState, len(lanes))}
	changed := false
	for _, l := range lanes {
		now := laneState{Shipped: l.shipped.Load(), Stream: l.streamName()}
		changed = changed || now != l.saved
		s.Lanes[l.name.String()] = now
	}
	if !changed {
		return
	}
	body, err := json.Marshal(s)
	if err == nil {
		err = sh.spool.SaveState(stateName, body)
	}
	if err != nil {
		sh.log.Debug("shipped numbers not saved; a restart would publish some frames twice", zap.Error(err))
		return
	}
	for _, l := range lanes {
		l.saved = s.Lanes[l.name.String()]
	}
}
