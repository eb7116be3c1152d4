//go:build unix

package spool

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Lock is refused: even for a moment it could keep a collector from starting.
func (readOnlyFS) Lock(string) (io.Closer, error) { return nil, syscall.EROFS }

// holder tells whether a process has path locked, without trying the lock: it
// looks it up among those the kernel shows to this process. pid is what the
// last holder wrote, in its own container's counting.
func holder(path string) (held bool, pid int) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false, 0
	}
	if text, err := readFile(readOnlyFS{}, path, 4096); err == nil {
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	if !ok || err != nil {
		return false, 0
	}
	device := fmt.Sprintf("%02x:%02x", unix.Major(uint64(stat.Dev)), unix.Minor(uint64(stat.Dev)))
	for line := range bytes.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:131073 0 EOF
		fields := strings.Fields(string(line))
		if len(fields) < 6 || fields[1] != "FLOCK" {
			continue
		}
		where, inode, _ := cutLast(fields[5], ":")
		// Some file systems show another device here than in Stat.
		if inode == strconv.FormatUint(stat.Ino, 10) && (where == device || fields[4] == strconv.Itoa(pid)) {
			return true, pid
		}
	}
	return false, 0
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
