package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// runTest runs a compiled test and returns what it printed. It is built by
// 'make faults', beside the programs.
func runTest(ctx context.Context, w *world, dir, binary string, args ...string) (string, error) {
	path := filepath.Join(w.bin, binary)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: run this with 'make faults', which builds it", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, append(args, "-test.v", "-test.timeout=30m")...)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	out, err := cmd.CombinedOutput()
	if log := os.WriteFile(filepath.Join(dir, binary+".log"), out, 0o644); err == nil {
		err = log
	}
	if err != nil {
		text := string(out)
		return text, fmt.Errorf("%s %s: %w; the end of what it printed:\n%s", binary, strings.Join(args, " "), err, text[max(0, len(text)-3000):])
	}
	return string(out), nil
}

var checksPassed = regexp.MustCompile(`\[rapid\] OK, passed (\d+) tests`)

// cutPower runs the spool's property tests: a spool in memory whose writes are
// recorded, cut at a random one, with what was not synced dropped or reordered.
// The test fails when one acknowledged frame is missing or one item is
// miscounted; there are no items to count here.
func cutPower(ctx context.Context, w *world, dir string, d dose) (a account, notes, problems []string, err error) {
	out, err := runTest(ctx, w, dir, "spool.test", "-test.run=PowerCut", fmt.Sprintf("-rapid.checks=%d", d.times), fmt.Sprintf("-rapid.seed=%d", max(1, w.seed)))
	if err != nil {
		return a, nil, nil, err
	}
	cuts := 0
	passed := checksPassed.FindAllStringSubmatch(out, -1)
	for _, match := range passed {
		n, err := strconv.Atoi(match[1])
		if err != nil {
			return a, nil, nil, err
		}
		cuts += n
	}
	if cuts < d.times {
		return a, nil, nil, fmt.Errorf("the property tests of power cuts report %d checks, %d were asked for: the row has shown nothing", cuts, d.times)
	}
	return a, []string{fmt.Sprintf("%d power cuts in %d properties: every acknowledged frame was there, no item miscounted", cuts, len(passed))}, nil, nil
}
