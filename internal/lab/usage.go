package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ, 100 on every
// architecture Go runs on.
const clockTick = 10 * time.Millisecond

// Usage is what a process has used since it started.
type Usage struct {
	CPU         time.Duration // user and system, of all threads
	DiskBytes   int64         // caused to be written to the block layer
	Resident    int64         // bytes now
	MaxResident int64         // bytes at most so far
}

// UsageOf reads what a process has used from /proc; it works on Linux only.
func UsageOf(pid int) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	if u.CPU, err = cpuTime(stat); err != nil {
		return u, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	for _, want := range []struct {
		file, key string
		unit      int64
		to        *int64
	}{
		{"io", "write_bytes:", 1, &u.DiskBytes},
		{"status", "VmRSS:", 1 << 10, &u.Resident},
		{"status", "VmHWM:", 1 << 10, &u.MaxResident},
	} {
		path := fmt.Sprintf("/proc/%d/%s", pid, want.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return u, err
		}
		n, err := field(text, want.key)
		if err != nil {
			return u, fmt.Errorf("%s: %w", path, err)
		}
		*want.to = n * want.unit
	}
	return u, nil
}

// cpuTime reads utime and stime, the 14th and 15th field. The second, the
// command's name in parentheses, may hold spaces and parentheses.
func cpuTime(stat []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("%q does not look like /proc/PID/stat", stat)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// field finds the number after key at the beginning of a line.
func field(text []byte, key string) (int64, error) {
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, key); found {
			value := strings.Fields(rest)
			if len(value) == 0 {
				break
			}
			return strconv.ParseInt(value[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %s", key)
}

const sampleInterval = 200 * time.Millisecond

// WatchResident samples the resident memory of a process until stop is called,
// which returns the median, in bytes.
func WatchResident(ctx context.Context, pid int) (stop func() int64) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var samples []int64
	go func() {
		defer close(done)
		t := time.NewTicker(sampleInterval)
		defer t.Stop()
		for {
			if u, err := UsageOf(pid); err == nil {
				samples = append(samples, u.Resident)
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return func() int64 {
		cancel()
		<-done
		return median(samples)
	}
}

func median(samples []int64) int64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[len(sorted)/2]
}
