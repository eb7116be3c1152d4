package view

import (
	"fmt"
	"strings"
)

// Lines prints the state for a pipe or a log: one line for each store, one for
// the backends.
func (s Snapshot) Lines() []string {
	var out []string
	stamp := s.At.Format("15:04:05")
	for _, st := range s.Stores {
		out = append(out, fmt.Sprintf(
			"%s %s link=%s collector=%s in: logs=%d metrics=%d traces=%d unconfirmed=%d spool=%s oldest_unsent=%s",
			stamp, st.Name, dashed(st.Link), dashed(st.Collector), st.In[0], st.In[1], st.In[2],
			st.Unconfirmed.Sum(), strings.ReplaceAll(size(st.SpoolBytes), " ", ""), age(st.Oldest)))
	}
	parts := []string{fmt.Sprintf("%s relay=%s", stamp, dashed(s.Relay))}
	for _, b := range s.Backends {
		state := dashed(b.State)
		if b.State == Building {
			state = fmt.Sprintf("building:%d%%", b.Percent)
		}
		parts = append(parts, fmt.Sprintf("%s=%s delivered=%d waiting=%d", strings.ToLower(b.Name), state, b.Delivered, b.Waiting))
	}
	if s.held() {
		parts = append(parts, "(the hub holds what is waiting)")
	}
	return append(out, strings.Join(parts, " "))
}

// dashed keeps key=value words in one piece.
func dashed(s State) string { return strings.ReplaceAll(string(s), " ", "-") }

// held says that data waits for a backend that is not there yet.
func (s Snapshot) held() bool {
	for _, b := range s.Backends {
		if b.pending() && b.Waiting > 0 {
			return true
		}
	}
	return false
}
