package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul/longhaul/internal/lab"
)

// replayRejected lets the backend refuse for good, corrects that, and sends again
// what was refused, with the command an operator has.
func replayRejected(ctx context.Context, s *scene, d dose) error {
	for range d.times {
		if err := trouble(behaviour{status: http.StatusBadRequest})(ctx, s, dose{1, d.hold}); err != nil {
			return err
		}
		before, err := s.longhaul(ctx, "rejected", "ls")
		if err != nil {
			return err
		}
		if strings.Contains(before, "no rejected frames") {
			return fmt.Errorf("nothing was rejected: the row has shown nothing")
		}
		out, err := s.longhaul(ctx, "rejected", "replay", "--all")
		if err != nil {
			return err
		}
		s.note("longhaul rejected replay: %s", out)
	}
	// What is accepted is told to be recovered once that is stored.
	began := time.Now()
	for {
		lost, _, err := s.relayCounts(ctx)
		if err != nil {
			return err
		}
		if lost == 0 {
			s.note("%.1f s later nothing was named as lost any more", time.Since(began).Seconds())
			return nil
		}
		if time.Since(began) > settleTime {
			return fmt.Errorf("%v after all was sent again, %d items are named as lost", settleTime, lost)
		}
		if err := lab.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// longhaul runs the operator's command against the scene's hub and returns its last
// line.
func (s *scene) longhaul(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "longhaul"), append(args, "--url", natsURL(s.hub))...)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("longhaul %s: %w: %s", strings.Join(args, " "), err, text)
	}
	lines := strings.Split(text, "\n")
	return lines[len(lines)-1], nil
}
