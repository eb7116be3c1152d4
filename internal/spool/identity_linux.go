package spool

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity is the inode's number and, where the file system keeps it, the time
// it was made: numbers are given out again. The device is left out, because its
// number may change from one start of the machine to the next.
func (f osFile) Identity() string {
	var st unix.Statx_t
	mask := unix.STATX_INO | unix.STATX_BTIME
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, mask, &st); err != nil || st.Mask&unix.STATX_INO == 0 {
		return ""
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return fmt.Sprintf("inode %d", st.Ino)
	}
	return fmt.Sprintf("inode %d made %d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec)
}

// bootID is another after every start of the machine. In a container it is the
// machine's.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
