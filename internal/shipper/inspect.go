package shipper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/longhaul/longhaul/internal/frame"
)

// Shipped tells up to which number the hub had acknowledged each lane of a
// spool when a shipper last saved its state there, which a running one does
// every few seconds. load reads a state of the spool by name. Without a state,
// or with one of another epoch, there is nothing to tell.
func Shipped(epoch frame.Epoch, load func(name string) ([]byte, error)) (map[frame.Lane]uint64, error) {
	body, err := load(stateName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", stateName, err)
	}
	if s.Epoch != epoch.String() {
		return nil, nil
	}
	shipped := make(map[frame.Lane]uint64, len(s.Lanes))
	for name, l := range s.Lanes {
		if id, err := frame.ParseLane(name); err == nil {
			shipped[id] = l.Shipped
		}
	}
	return shipped, nil
}
